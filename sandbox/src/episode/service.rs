//! Decisions by a policy service, `bellwether.policy.v1`: a client that the episodes of a program share, and the judge of one of them.
//!
//! A beat asks the service again and again what it decides about. So connections are made, and made anew, before a window has to wait
//! for one, and it is known whether anybody answers.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bellwether_artifact::{ModelVersion, Sha256, Visible};
use bellwether_env_adapter::{ACTION_COUNT, Action, EpisodeId, StateVector, WindowConfig};
use bellwether_inference::serve::proto::policy::policy_service_client::PolicyServiceClient;
use bellwether_inference::serve::proto::policy::{DecideRequest, DecideResponse, DescribeRequest};
use bellwether_inference::serve::{Chain, read_token};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use super::judge::{Away, Judge, JudgeError, Judgement, fits, knows, number_of};
use super::retry::{Clock, Schedule};
use crate::peer::{Address, AddressError, ClientTls};
use crate::stage::Question;

/// A policy service elsewhere.
pub struct PolicyService {
    address: Address,
    caller: Caller,
    known: watch::Receiver<Known>,
    runtime: Runtime,
}

/// Where a policy service is, and how it knows who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyAccess {
    /// Where it is.
    pub address: Address,
    /// Certificates, for an address over TLS.
    pub tls: Option<ClientTls>,
    /// File of the bearer token, where it wants one; readable by its owner alone.
    pub token: Option<PathBuf>,
}

/// What a service decides about.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// How events are cut into windows.
    pub window: WindowConfig,
    /// False-positive rates that may be served.
    pub target_fprs: Vec<f64>,
    /// Version of the champion.
    pub model_version: String,
    feature_spec: Sha256,
}

/// Why no policy service is asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Its address or a file cannot be used.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// It does not answer, or not this client.
    #[error("the policy service at {address} gives no answer ({why}): nothing was run")]
    Away {
        /// Where it was looked for.
        address: String,
        /// Why there is no answer.
        why: String,
    },
    /// It decides about something else.
    #[error("the policy service at {address} is not for this: {cause}")]
    Unfit {
        /// Where it is.
        address: String,
        /// What does not fit.
        cause: JudgeError,
    },
}

/// The judge of one episode that asks a policy service.
#[derive(Clone, Debug)]
pub struct ServiceJudge {
    service: Arc<PolicyService>,
    number: u64,
    target_fpr: f64,
    feature_spec: Sha256,
    limit: Duration,
}

type Client = PolicyServiceClient<Channel>;

/// Asks the service.
#[derive(Clone)]
struct Caller {
    client: Client,
    token: Option<MetadataValue<Ascii>>,
}

/// What the last beat brought.
#[derive(Clone, Debug)]
struct Known {
    described: Arc<Described>,
    answers: bool,
}

/// Why there is no description.
enum Undescribed {
    Status(Status),
    Unfit(JudgeError),
}

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How long a description may take.
const DESCRIBE: Duration = Duration::from_secs(2);
/// Between two beats while the service answers, and while it does not.
const BEAT: Duration = Duration::from_secs(1);
const SEARCH: Duration = Duration::from_millis(100);
/// Bytes of an answer: a few numbers and names.
const ANSWER_BYTES: usize = 64 << 10;

impl PolicyService {
    /// Finds a service, which is looked for as often as the schedule says.
    ///
    /// # Errors
    /// [`ServiceError`]: it is not there, or not for a sandbox.
    pub fn find(access: &PolicyAccess, schedule: Schedule, clock: &dyn Clock) -> Result<PolicyService, ServiceError> {
        let PolicyAccess { address, tls, token } = access;
        let token = token.as_ref().map(|path| bearer(path)).transpose()?;
        let (runtime, channel) = address.channel(tls.as_ref(), "policy-client", CONNECT)?;
        let caller = Caller { client: Client::new(channel).max_decoding_message_size(ANSWER_BYTES), token };
        let mut attempt = 1;
        let described = loop {
            match runtime.block_on(caller.describe()) {
                Ok(described) => break described,
                Err(Undescribed::Unfit(cause)) => {
                    return Err(ServiceError::Unfit { address: address.to_string(), cause });
                }
                Err(Undescribed::Status(status)) => {
                    let passing = matches!(
                        status.code(),
                        Code::Unavailable | Code::DeadlineExceeded | Code::ResourceExhausted | Code::Unknown
                    );
                    let Some(pause) = schedule.pause_ms(attempt).filter(|_| passing) else {
                        let why = told(&status);
                        return Err(ServiceError::Away { address: address.to_string(), why });
                    };
                    clock.sleep(Duration::from_millis(pause));
                    attempt += 1;
                }
            }
        };
        let (tell, known) = watch::channel(Known { described: Arc::new(described), answers: true });
        // It ends with the runtime.
        runtime.spawn(beat(caller.clone(), address.to_string(), tell));
        Ok(PolicyService { address: address.clone(), caller, known, runtime })
    }

    /// What it decides about, as it said last.
    pub fn described(&self) -> Arc<Described> {
        Arc::clone(&self.known.borrow().described)
    }

    /// Whether it answered when it was last asked, a second ago at most.
    pub fn answers(&self) -> bool {
        self.known.borrow().answers
    }

    /// A judge of one episode, whose windows are those of `described`. Each window waits for `limit` at most.
    ///
    /// # Errors
    /// [`JudgeError::OperatingPoint`]: the model was not calibrated for the rate.
    pub fn judge(
        self: &Arc<Self>,
        described: &Described,
        episode: &EpisodeId,
        target_fpr: f64,
        limit: Duration,
    ) -> Result<ServiceJudge, JudgeError> {
        knows(&described.target_fprs, target_fpr)?;
        let (number, feature_spec) = (number_of(episode), described.feature_spec);
        Ok(ServiceJudge { service: Arc::clone(self), number, target_fpr, feature_spec, limit })
    }
}

impl Judge for ServiceJudge {
    fn judge(&mut self, question: &Question, state: &mut StateVector) -> Result<Judgement, Away> {
        let ServiceJudge { service, number, target_fpr, feature_spec, limit } = self;
        let bits = question.mask.iter().enumerate().map(|(action, allowed)| u64::from(*allowed) << action).sum();
        let question = DecideRequest {
            state_bytes: state.as_slice().iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into(),
            mask_bits: Some(bits),
            episode: Some(*number),
            target_fpr: Some(*target_fpr),
            with_q_values: true,
            feature_spec: feature_spec.as_bytes().to_vec().into(),
            ..DecideRequest::default()
        };
        let late = || Away::Late { limit_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX) };
        let asking = service.caller.decide(question, *limit);
        let answer = service.runtime.block_on(async { tokio::time::timeout(*limit, asking).await });
        let answer = answer.map_err(|_| late())?.map_err(|status| match status.code() {
            Code::DeadlineExceeded | Code::Cancelled => late(),
            Code::Unavailable | Code::Unknown => Away::Gone,
            _ => Away::Refused(told(&status)),
        })?;
        let (judgement, cost) = judgement(answer)?;
        state.set_cost(cost);
        Ok(judgement)
    }
}

impl Caller {
    fn request<T>(&self, message: T, limit: Duration) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(limit);
        if let Some(token) = &self.token {
            request.metadata_mut().insert("authorization", token.clone());
        }
        request
    }

    async fn decide(&self, question: DecideRequest, limit: Duration) -> Result<DecideResponse, Status> {
        self.client.clone().decide(self.request(question, limit)).await.map(tonic::Response::into_inner)
    }

    async fn describe(&self) -> Result<Described, Undescribed> {
        let mut client = self.client.clone();
        let asking = client.describe(self.request(DescribeRequest::default(), DESCRIBE));
        let late = || Undescribed::Status(Status::deadline_exceeded("no answer in time"));
        let answer = tokio::time::timeout(DESCRIBE + CONNECT, asking).await.map_err(|_| late())?;
        let told = answer.map_err(Undescribed::Status)?.into_inner();
        let window = WindowConfig { max_events: told.max_events, max_ns: told.max_ns, max_windows: told.max_windows };
        let unfit = |_| Undescribed::Unfit(JudgeError::States);
        window.validate().map_err(|_| Undescribed::Unfit(JudgeError::States))?;
        let feature_spec = Sha256::from_bytes(<[u8; 32]>::try_from(&told.feature_spec[..]).map_err(unfit)?);
        let width = usize::try_from(told.width).unwrap_or(usize::MAX);
        fits(&told.actions, width, feature_spec, window.clone()).map_err(Undescribed::Unfit)?;
        let version: ModelVersion = told.model_version.parse().map_err(|_| Undescribed::Unfit(JudgeError::States))?;
        let model_version = version.to_string();
        Ok(Described { window, target_fprs: told.target_fprs, model_version, feature_spec })
    }
}

/// Asks again and again, until nobody wants to know.
async fn beat(caller: Caller, address: String, tell: watch::Sender<Known>) {
    loop {
        let answered = tell.borrow().answers;
        tokio::time::sleep(if answered { BEAT } else { SEARCH }).await;
        let described = caller.describe().await;
        if tell.is_closed() {
            return;
        }
        match &described {
            Ok(described) if !answered => {
                tracing::info!(address, model_version = described.model_version, "the policy service answers again");
            }
            Err(Undescribed::Status(status)) if answered => {
                tracing::warn!(address, why = told(status), "the policy service does not answer");
            }
            Err(Undescribed::Unfit(cause)) if answered => {
                tracing::warn!(address, %cause, "the policy service decides about something else now");
            }
            _ => {}
        }
        tell.send_modify(|known| match described {
            Ok(described) => *known = Known { described: Arc::new(described), answers: true },
            Err(_) => known.answers = false,
        });
    }
}

/// What a service decided, and at which cost of a false positive; it says nothing that a report could not hold.
fn judgement(answer: DecideResponse) -> Result<(Judgement, f32), Away> {
    let wrong = |what: &str| Away::Refused(format!("the policy service sent {what}"));
    let DecideResponse { action, action_name, q_values, margin, model_version, cost, .. } = answer;
    let action = usize::try_from(action).ok().and_then(Action::from_index);
    let action = action.filter(|action| action.name() == action_name).ok_or_else(|| wrong("no action of a sandbox"))?;
    let q_values = <[f32; ACTION_COUNT]>::try_from(q_values).map_err(|_| wrong("no value for each action"))?;
    if !q_values.iter().chain(&margin).all(|value| value.is_finite()) {
        return Err(wrong("values that are no numbers"));
    }
    let version: ModelVersion = model_version.parse().map_err(|_| wrong("no version of a model"))?;
    let cost = cost.filter(|cost| (0.0..1.0).contains(cost)).ok_or_else(|| wrong("no cost of a false positive"))?;
    Ok((Judgement { action, q_values, margin, model_version: version.to_string() }, cost))
}

fn bearer(path: &std::path::Path) -> Result<MetadataValue<Ascii>, AddressError> {
    let value = MetadataValue::try_from([b"Bearer ", &read_token(path)?[..]].concat());
    let refused = |why: String| AddressError::File { path: path.to_owned(), why };
    let mut value = value.map_err(|error| refused(error.to_string()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// What a service or the way to it says, in a length that a report can repeat.
fn told(status: &Status) -> String {
    let text = match std::error::Error::source(status) {
        Some(cause) => format!("{}: {}", status.message(), Chain(cause)),
        None => status.message().to_owned(),
    };
    Visible::new(&text).to_string().chars().take(256).collect()
}

impl std::fmt::Debug for PolicyService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PolicyService")
            .field("address", &self.address)
            .field("known", &self.known)
            .finish_non_exhaustive()
    }
}
