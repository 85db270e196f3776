//! Orders: what is to run, without the file itself.

use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bellwether_artifact::Sha256;
use bellwether_env_adapter::{EpisodeId, RewardConfig, WindowConfig};

use super::{WireError, hash, present, stage};
use crate::Limits;
use crate::stage::remote::proto;
use crate::stage::{Order, Specimen};

/// An order whose file is still to come.
#[derive(Clone, Debug)]
pub(in super::super) struct Announced {
    pub(in super::super) episode: EpisodeId,
    pub(in super::super) stage: u8,
    pub(in super::super) bytes: u64,
    pub(in super::super) sha256: Sha256,
    name: String,
    arguments: Vec<CString>,
    marked_home: bool,
    window: WindowConfig,
    reward: RewardConfig,
    limits: Limits,
    seed: u64,
    /// How long a question may stand open, in milliseconds; 0 where that is left to the stage.
    pub(in super::super) answer_within_ms: u64,
}

/// Arguments of a specimen, and their bytes in all.
const MOST_ARGUMENTS: usize = 4_096;
const MOST_ARGUMENT_BYTES: usize = 128 << 10;

/// The first message of an order.
pub(in super::super) fn announce(
    order: &Order,
    (bytes, sha256): (u64, Sha256),
    answer_within_ms: u64,
) -> Result<proto::Order, WireError> {
    let Order { episode, stage, sample, window, reward, limits, seed } = order;
    Ok(proto::Order {
        episode_id: episode.0.clone(),
        stage: u32::from(*stage),
        specimen: Some(proto::Specimen {
            bytes,
            sha256: sha256.as_bytes().to_vec(),
            name: sample.name.clone(),
            arguments: sample.arguments.iter().map(|text| text.as_bytes().to_vec()).collect(),
            marked_home: sample.marked_home,
        }),
        window: Some(proto::Window {
            max_events: window.max_events,
            max_ns: window.max_ns,
            max_windows: window.max_windows,
        }),
        reward_json: serde_json::to_string(reward).map_err(|error| WireError::new("reward_json", error))?,
        limits: Some(proto::Limits {
            tasks: limits.tasks,
            memory_bytes: limits.memory_bytes,
            storage_bytes: limits.storage_bytes,
            descriptors: limits.descriptors,
            time_ms: limits.time_ms,
        }),
        seed: *seed,
        answer_within_ms,
    })
}

/// What the first message of an order asks for.
pub(in super::super) fn order(message: proto::Order) -> Result<Announced, WireError> {
    let proto::Order { episode_id, stage: number, specimen, window, reward_json, limits, seed, answer_within_ms } =
        message;
    let specimen = present("specimen", specimen)?;
    let window = present("window", window)?;
    let limits = present("limits", limits)?;
    if episode_id.is_empty() || episode_id.len() > 128 || !episode_id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(WireError::new("episode_id", "give 1 to 128 visible ASCII characters"));
    }
    let name = specimen.name;
    if matches!(&*name, "" | "." | "..") || name.len() > 255 || name.contains(['/', '\0']) {
        return Err(WireError::new("specimen.name", "give a plain name of at most 255 bytes, without a folder"));
    }
    let length: usize = specimen.arguments.iter().map(Vec::len).sum();
    if specimen.arguments.len() > MOST_ARGUMENTS || length > MOST_ARGUMENT_BYTES {
        let why = format!("give at most {MOST_ARGUMENTS}, of {MOST_ARGUMENT_BYTES} bytes in all");
        return Err(WireError::new("specimen.arguments", why));
    }
    let arguments = specimen.arguments.into_iter().map(CString::new).collect::<Result<_, _>>();
    let window = WindowConfig { max_events: window.max_events, max_ns: window.max_ns, max_windows: window.max_windows };
    window.validate().map_err(|error| WireError::new("window", error))?;
    let reward: RewardConfig =
        serde_json::from_str(&reward_json).map_err(|error| WireError::new("reward_json", error))?;
    reward.validate().map_err(|error| WireError::new("reward_json", error))?;
    let limits = Limits {
        tasks: limits.tasks,
        memory_bytes: limits.memory_bytes,
        storage_bytes: limits.storage_bytes,
        descriptors: limits.descriptors,
        time_ms: limits.time_ms,
    };
    limits.validate().map_err(|error| WireError::new("limits", error))?;
    Ok(Announced {
        episode: EpisodeId(episode_id),
        stage: stage("stage", number)?,
        bytes: specimen.bytes,
        sha256: hash("specimen.sha256", &specimen.sha256)?,
        name,
        arguments: arguments.map_err(|_| WireError::new("specimen.arguments", "one holds a zero byte"))?,
        marked_home: specimen.marked_home,
        window,
        reward,
        limits,
        seed,
        answer_within_ms,
    })
}

impl Announced {
    /// The order, with the file that was announced.
    pub(in super::super) fn with(self, memory: OwnedFd) -> Order {
        let Announced { episode, stage, name, arguments, marked_home, window, reward, limits, seed, .. } = self;
        let sample = Arc::new(Specimen { memory, name, arguments, marked_home });
        Order { episode, stage, sample, window, reward, limits, seed }
    }
}
