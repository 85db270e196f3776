//! The models of a server as the Open Inference Protocol lists them.

use tonic::Status;

use super::answer::{names, shortened};
use super::infer::{ACTION, ACTION_MASK, Q_VALUES, STATE};
use super::proto::inference::repository_index_response::ModelIndex;
use super::proto::inference::{DataType, ModelConfig, ModelInput, ModelOutput, RepositoryIndexResponse};
use super::shared::{Phase, Shared};
use crate::policy::{ModelId, Status as Served};

/// The models that a policy serves or keeps, each version once: the champion, the canary, the previous champion.
#[derive(Debug)]
pub(super) struct Models {
    served: Served,
}

impl Models {
    pub(super) fn of(shared: &Shared) -> Self {
        Models { served: shared.policy.status() }
    }

    fn all(&self) -> impl Iterator<Item = ModelId> {
        let Served { champion, previous, canary, .. } = &self.served;
        let canary = canary.map(|(canary, _)| canary).filter(|id| id.version != champion.version);
        let is_new =
            move |id: &ModelId| id.version != champion.version && Some(id.version) != canary.map(|id| id.version);
        std::iter::once(*champion).chain(canary).chain(previous.filter(is_new))
    }

    /// Those with this version or number; all where `version` is empty.
    ///
    /// # Errors
    /// `NOT_FOUND` where there is none.
    pub(super) fn named(&self, name: &str, version: &str) -> Result<Vec<ModelId>, Status> {
        let found: Vec<ModelId> = self.all().filter(|id| names(version, *id)).collect();
        if found.is_empty() {
            let version = shortened(version);
            let text =
                format!("model {name} has no version {version}; the index of the repository lists what there is");
            return Err(Status::not_found(text));
        }
        Ok(found)
    }

    /// All of them with what they are kept for, or those that answer.
    pub(super) fn index(&self, shared: &Shared, only_ready: bool) -> RepositoryIndexResponse {
        let serving = shared.phase() == Phase::Serving;
        let listed = |id: ModelId| {
            let canary = self.served.canary.filter(|(canary, _)| canary.version == id.version);
            let (decides, reason) = match canary {
                _ if id.version == self.served.champion.version => (true, String::new()),
                Some((_, share)) => (true, format!("on trial in a share of {share} of the episodes")),
                None => (false, "kept to be rolled back to".to_owned()),
            };
            let reason = if decides && !serving { "the server is leaving".to_owned() } else { reason };
            let state = if decides && serving { "READY" } else { "UNAVAILABLE" };
            ModelIndex {
                name: shared.model_name.clone(),
                version: id.version.to_string(),
                state: state.to_owned(),
                reason,
            }
        };
        let models = self.all().map(listed).filter(|model| !only_ready || model.state == "READY").collect();
        RepositoryIndexResponse { models }
    }
}

/// How every model of a server is served: they all have the same contract.
pub(super) fn config(shared: &Shared) -> ModelConfig {
    // Both are bounded by the model format.
    let (width, actions) = (shared.policy.width() as i64, shared.policy.actions().len() as i64);
    let input = |name: &str, data_type: DataType, width, optional| ModelInput {
        name: name.to_owned(),
        data_type: data_type.into(),
        dims: vec![width],
        optional,
    };
    let output = |name: &str, data_type: DataType, dims: &[i64]| ModelOutput {
        name: name.to_owned(),
        data_type: data_type.into(),
        dims: dims.to_vec(),
    };
    ModelConfig {
        name: shared.model_name.clone(),
        platform: "bellwether".to_owned(),
        max_batch_size: i32::try_from(shared.config.limits.batch).unwrap_or(i32::MAX),
        input: vec![
            input(STATE, DataType::TypeFp32, width, false),
            input(ACTION_MASK, DataType::TypeBool, actions, true),
        ],
        output: vec![output(Q_VALUES, DataType::TypeFp32, &[actions]), output(ACTION, DataType::TypeInt64, &[])],
        backend: "bellwether".to_owned(),
    }
}

/// What whoever would load or unload a model is told.
pub(super) fn changed_elsewhere() -> Status {
    Status::unimplemented(
        "models are not loaded or unloaded here: operators change them with TryOut, Promote and Rollback of \
         bellwether.policy.v1.Admin, on the listener for admin calls",
    )
}
