//! `PolicyService`: one state, one decision; several; and sessions.

use std::sync::Arc;

use bellwether_artifact::Sha256;
use tonic::{Request, Response, Status, Streaming};

use super::answer::{Refused, Terms, answer};
use super::dispatch::client_deadline;
use super::proto::policy::policy_service_server::PolicyService;
use super::proto::policy::{
    DecideBatchRequest, DecideBatchResponse, DecideRequest, DecideResponse, DecideResult, DescribeRequest,
    DescribeResponse, Refusal, Role, SessionRequest, decide_result,
};
use super::session::Session;
use super::shared::Shared;
use super::trace::AnsweredBy;
use crate::policy::{self, Answer, HeldAll};

/// Answers the calls of `PolicyService`.
#[derive(Clone, Debug)]
pub(super) struct Decisions {
    pub(super) shared: Arc<Shared>,
}

#[tonic::async_trait]
impl PolicyService for Decisions {
    async fn decide(&self, request: Request<DecideRequest>) -> Result<Response<DecideResponse>, Status> {
        let question = request.into_inner();
        let decision = self.shared.with_decider(|decider| decider.hold_all(|all| one(&self.shared, all, question)))?;
        let answered_by = self.shared.traces.is_some().then(|| AnsweredBy(decision.model_version.clone()));
        let mut response = Response::new(decision);
        if let Some(answered_by) = answered_by {
            response.extensions_mut().insert(answered_by);
        }
        Ok(response)
    }

    async fn decide_batch(
        &self,
        request: Request<DecideBatchRequest>,
    ) -> Result<Response<DecideBatchResponse>, Status> {
        let requests = request.into_inner().requests;
        let answered = |all: &mut HeldAll<'_>, question| {
            let result = match one(&self.shared, all, question) {
                Ok(decision) => decide_result::Result::Decision(decision),
                Err(refused) => decide_result::Result::Refusal(refusal(&refused, String::new())),
            };
            DecideResult { result: Some(result) }
        };
        // A swap meanwhile is for the next batch.
        let results = self.shared.with_decider(|decider| {
            decider.hold_all(|all| requests.into_iter().map(|question| answered(all, question)).collect())
        });
        Ok(Response::new(DecideBatchResponse { results }))
    }

    type SessionStream = Session;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        // It was read before, so that what is no deadline is refused already.
        let deadline = request.metadata().get("grpc-timeout").and_then(|value| client_deadline(value.as_bytes()));
        Ok(Response::new(Session::new(&self.shared, request.into_inner(), deadline)))
    }

    async fn describe(&self, request: Request<DescribeRequest>) -> Result<Response<DescribeResponse>, Status> {
        let (policy, DescribeRequest { episode }) = (&self.shared.policy, request.into_inner());
        let (contract, window) = (policy.contract(), policy.window());
        let (target_fprs, model_version) = self.shared.with_decider(|decider| {
            decider.hold(episode, |held| {
                let rates = held.operating_points().iter().map(|point| point.target_fpr).collect();
                (rates, held.id().version.to_string())
            })
        });
        Ok(Response::new(DescribeResponse {
            feature_spec: contract.feature_spec.as_bytes().to_vec(),
            // It is bounded by the model format.
            width: contract.width as u32,
            actions: contract.actions,
            max_events: window.max_events,
            max_ns: window.max_ns,
            max_windows: window.max_windows,
            target_fprs,
            model_version,
        }))
    }
}

fn one(shared: &Shared, all: &mut HeldAll<'_>, request: DecideRequest) -> Result<DecideResponse, Refused> {
    let DecideRequest {
        state,
        state_bytes,
        mask,
        mask_bits,
        episode,
        target_fpr,
        model_version,
        with_q_values,
        feature_spec,
    } = request;
    let read = shared.policy.feature_spec();
    if !feature_spec.is_empty() && feature_spec != read.as_bytes()[..] {
        let asked = match <[u8; 32]>::try_from(&feature_spec[..]) {
            Ok(hash) => Sha256::from_bytes(hash).to_string(),
            Err(_) => format!("of {} bytes, which is no SHA-256", feature_spec.len()),
        };
        return Err(Refused::Specification { asked, read });
    }
    let mut state = floats(state, &state_bytes)?;
    let mask = mask_of(mask, mask_bits, shared.policy.actions().len())?;
    let terms = Terms { episode, target_fpr, model_version: &model_version, ..Terms::default() };
    answer(shared, all, terms, &mut state, &mask, |answer, cost| DecideResponse {
        cost,
        ..response(shared, answer, with_q_values)
    })
}

/// The state of a message, in whichever form it came.
pub(super) fn floats(values: Vec<f32>, bytes: &[u8]) -> Result<Vec<f32>, Refused> {
    let (floats, rest) = bytes.as_chunks::<4>();
    match (values.is_empty(), rest) {
        (_, []) if bytes.is_empty() => Ok(values),
        (false, _) => Err(Refused::Malformed("both state and state_bytes are given; give one of them".to_owned())),
        (true, []) => Ok(floats.iter().map(|float| f32::from_le_bytes(*float)).collect()),
        (true, _) => {
            let found = bytes.len();
            Err(Refused::Malformed(format!("state_bytes has {found} bytes, which is no multiple of 4")))
        }
    }
}

/// The mask of a message, in whichever form it came; empty for all actions.
pub(super) fn mask_of(mask: Vec<bool>, bits: Option<u64>, actions: usize) -> Result<Vec<bool>, Refused> {
    let Some(bits) = bits else { return Ok(mask) };
    if !mask.is_empty() {
        return Err(Refused::Malformed("both mask and mask_bits are given; give one of them".to_owned()));
    }
    let beyond = if actions < 64 { bits >> actions } else { 0 };
    if beyond != 0 || actions > 64 {
        return Err(Refused::Malformed(format!("mask_bits is {bits:#x}, but there are {actions} actions")));
    }
    Ok((0..actions).map(|action| bits >> action & 1 == 1).collect())
}

/// An answer as a message.
pub(super) fn response(shared: &Shared, answer: Answer<'_>, with_q_values: bool) -> DecideResponse {
    let Answer { decision, model, role } = answer;
    let role = match role {
        policy::Role::Champion => Role::Champion,
        policy::Role::Canary => Role::Canary,
    };
    DecideResponse {
        // The number of actions is bounded by the model format.
        action: decision.action as u32,
        action_name: shared.policy.actions().get(decision.action).cloned().unwrap_or_default(),
        q_values: if with_q_values { decision.q_values.to_vec() } else { Vec::new() },
        margin: decision.margin,
        certified: decision.certified,
        bound: decision.bound,
        model_version: model.version.to_string(),
        model_number: model.number,
        role: role.into(),
        cost: None,
    }
}

/// A refusal as a message.
pub(super) fn refusal(refused: &Refused, episode_id: String) -> Refusal {
    Refusal { code: refused.code() as u32, message: refused.to_string(), episode_id }
}
