//! A checkpoint of a training run: one file from which the run goes on as if it had never stopped.
//!
//! The file is a line of JSON, then the numbers of every network as little-endian `f32`, then the SHA-256 of all before
//! it. The judges need no place of their own: at the end of a round they are the fold networks.

use std::io::{Read, Write};

use bellwether_artifact::Sha256;
use serde::{Deserialize, Serialize};

use super::TrainingError;
use super::member::MemberState;
use crate::learner::LearnerState;

/// Version of the format.
const VERSION: u32 = 1;
/// Longest first line that is read.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// Bytes of a SHA-256.
const HASH_BYTES: usize = 32;

/// A run between two rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Checkpoint {
    /// Hash of configuration and data: a checkpoint goes on only with the same.
    pub fingerprint: Sha256,
    /// Gradient steps that each network has taken.
    pub updates: u64,
    /// Length of `metrics.jsonl` at this point, in bytes.
    pub metrics_bytes: u64,
    /// The networks, folds first.
    pub members: Vec<MemberState>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    version: u32,
    fingerprint: Sha256,
    updates: u64,
    metrics_bytes: u64,
    parameters: usize,
    members: Vec<MemberHeader>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct MemberHeader {
    updates: u64,
    /// Decimal, because JSON numbers end at 64 bits.
    sampling: String,
    dropout: String,
}

impl Checkpoint {
    /// Writes the checkpoint.
    ///
    /// # Errors
    /// If the networks differ in size, or `to` refuses.
    pub fn write(&self, to: &mut dyn Write) -> std::io::Result<()> {
        let parameters = self.members.first().map_or(0, |member| member.learner.online.len());
        let header = Header {
            version: VERSION,
            fingerprint: self.fingerprint,
            updates: self.updates,
            metrics_bytes: self.metrics_bytes,
            parameters,
            members: self
                .members
                .iter()
                .map(|member| MemberHeader {
                    updates: member.learner.updates,
                    sampling: member.sampling.to_string(),
                    dropout: member.dropout.to_string(),
                })
                .collect(),
        };
        let mut bytes = serde_json::to_vec(&header)?;
        bytes.push(b'\n');
        for member in &self.members {
            for part in parts(&member.learner) {
                if part.len() != parameters {
                    return Err(std::io::Error::other("the networks of a checkpoint differ in size"));
                }
                bytes.extend(part.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
        let hash = Sha256::of(&bytes);
        to.write_all(&bytes)?;
        to.write_all(hash.as_bytes())
    }

    /// Reads a checkpoint of networks with `parameters` numbers each.
    ///
    /// # Errors
    /// [`TrainingError::Checkpoint`] on anything but a whole checkpoint of that size.
    pub fn read(from: &mut dyn Read, parameters: usize, members: usize) -> Result<Checkpoint, TrainingError> {
        let damaged = |reason: String| TrainingError::Checkpoint(reason);
        let numbers = members * PARTS * parameters * size_of::<f32>();
        let mut bytes = Vec::new();
        let most = (MAX_HEADER_BYTES + numbers + HASH_BYTES) as u64;
        from.take(most + 1).read_to_end(&mut bytes).map_err(|error| damaged(error.to_string()))?;
        let Some((content, hash)) = bytes.split_last_chunk::<HASH_BYTES>() else {
            return Err(damaged("it is empty".to_owned()));
        };
        if Sha256::of(content).as_bytes() != hash {
            return Err(damaged("its checksum does not match: it is truncated or altered".to_owned()));
        }
        let end =
            content.iter().position(|byte| *byte == b'\n').ok_or_else(|| damaged("it has no header".to_owned()))?;
        let header: Header = serde_json::from_slice(&content[..end]).map_err(|error| damaged(error.to_string()))?;
        if (header.version, header.parameters, header.members.len()) != (VERSION, parameters, members)
            || content.len() - end - 1 != numbers
        {
            return Err(damaged("it belongs to another configuration or another version of the program".to_owned()));
        }
        let mut values = content[end + 1..].chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let mut part = || values.by_ref().take(parameters).collect::<Vec<f32>>();
        let position =
            |text: &str| text.parse::<u128>().map_err(|_| damaged(format!("`{text}` is no position of a stream")));
        let members = header
            .members
            .iter()
            .map(|member| {
                let learner = LearnerState {
                    online: part(),
                    target: part(),
                    first_moment: part(),
                    second_moment: part(),
                    updates: member.updates,
                };
                let (sampling, dropout) = (position(&member.sampling)?, position(&member.dropout)?);
                Ok(MemberState { learner, sampling, dropout })
            })
            .collect::<Result<_, TrainingError>>()?;
        Ok(Checkpoint {
            fingerprint: header.fingerprint,
            updates: header.updates,
            metrics_bytes: header.metrics_bytes,
            members,
        })
    }
}

/// Vectors of a learner's state.
const PARTS: usize = 4;

fn parts(state: &LearnerState) -> [&[f32]; PARTS] {
    [&state.online, &state.target, &state.first_moment, &state.second_moment]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzz::fuzz_checkpoint;
    use proptest::prelude::*;

    fn checkpoint(members: usize, parameters: usize, salt: f32) -> Checkpoint {
        let vector = |part: usize| (0..parameters).map(|i| salt + (i * 7 + part) as f32 / 3.0).collect::<Vec<_>>();
        let member = |k: usize| MemberState {
            learner: LearnerState {
                online: vector(k),
                target: vector(k + 1),
                first_moment: vector(k + 2),
                second_moment: vector(k + 3),
                updates: k as u64 * 11,
            },
            sampling: u128::from(u64::MAX) + k as u128,
            dropout: k as u128,
        };
        Checkpoint {
            fingerprint: Sha256::of(b"run"),
            updates: 500,
            metrics_bytes: 12345,
            members: (0..members).map(member).collect(),
        }
    }

    fn bytes_of(checkpoint: &Checkpoint) -> Vec<u8> {
        let mut bytes = Vec::new();
        checkpoint.write(&mut bytes).unwrap();
        bytes
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn what_is_written_is_read(members in 1_usize..4, parameters in 0_usize..40, salt in -1e3_f32..1e3) {
            let whole = checkpoint(members, parameters, salt);
            let read = Checkpoint::read(&mut bytes_of(&whole).as_slice(), parameters, members).unwrap();
            prop_assert_eq!(read, whole);
        }

        /// With a checksum that matches, what was changed may still be a checkpoint.
        #[test]
        fn a_forged_checkpoint_is_refused_or_whole(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4), other: Vec<u8>,
        ) {
            let mut bytes = bytes_of(&checkpoint(2, 3, 0.5));
            bytes.truncate(bytes.len() - HASH_BYTES);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            fuzz_checkpoint(&bytes);
            fuzz_checkpoint(&other);
        }

        #[test]
        fn a_changed_byte_or_a_cut_is_noticed(at in 0.0_f64..1.0, flip in 1_u8..=255) {
            let bytes = bytes_of(&checkpoint(2, 9, 0.5));
            let at = (bytes.len() as f64 * at) as usize;
            let mut changed = bytes.clone();
            changed[at] ^= flip;
            prop_assert!(Checkpoint::read(&mut changed.as_slice(), 9, 2).is_err());
            prop_assert!(Checkpoint::read(&mut &bytes[..at], 9, 2).is_err());
        }
    }

    #[test]
    fn a_checkpoint_of_another_network_is_refused() {
        let bytes = bytes_of(&checkpoint(2, 9, 0.5));
        assert!(Checkpoint::read(&mut bytes.as_slice(), 8, 2).is_err());
        assert!(Checkpoint::read(&mut bytes.as_slice(), 9, 3).is_err());
    }
}
