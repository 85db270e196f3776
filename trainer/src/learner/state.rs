//! A learner's state as bytes.

use super::LearnerState;
use crate::network::NetworkShape;
use std::io::{self, Read, Write};

/// Why saved state is not read back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// The bytes are no state of a learner, or damaged.
    #[error("the saved state of the learner cannot be used: {0}")]
    Damaged(&'static str),
    /// The state is that of a network with another number of parameters.
    #[error(
        "the saved state has {found} parameters where the network has {expected}; give the network it was saved from"
    )]
    Parameters {
        /// Parameters of the network.
        expected: u64,
        /// Parameters in the state.
        found: u64,
    },
    /// The reader failed, or ended too early.
    #[error("the saved state of the learner cannot be read")]
    Io(#[from] io::Error),
}

const MAGIC: &[u8; 8] = b"BWLEARNR";
const VERSION: u32 = 1;
/// Values that are converted at a time.
const BLOCK: usize = 4096;

impl LearnerState {
    /// Writes the state: `BWLEARNR`, version, number of parameters, updates, then online and target parameters, first and
    /// second moments as `f32`, and the CRC-32C of all that. Everything is little-endian.
    ///
    /// # Errors
    /// What the writer says.
    pub fn write(&self, mut writer: impl Write) -> io::Result<()> {
        let mut sum = 0;
        let mut put = |bytes: &[u8]| {
            sum = crc32c::crc32c_append(sum, bytes);
            writer.write_all(bytes)
        };
        put(MAGIC)?;
        put(&VERSION.to_le_bytes())?;
        put(&(self.online.len() as u64).to_le_bytes())?;
        put(&self.updates.to_le_bytes())?;
        let mut bytes = Vec::with_capacity(4 * BLOCK);
        for values in [&self.online, &self.target, &self.first_moment, &self.second_moment] {
            for block in values.chunks(BLOCK) {
                bytes.clear();
                bytes.extend(block.iter().flat_map(|value| value.to_le_bytes()));
                put(&bytes)?;
            }
        }
        writer.write_all(&sum.to_le_bytes())
    }

    /// Reads what [`write`](Self::write) wrote, and nothing after it, for a network of this shape.
    ///
    /// # Errors
    /// [`StateError`] if it is damaged, cut short, or of another network.
    pub fn read(mut reader: impl Read, shape: &NetworkShape) -> Result<LearnerState, StateError> {
        let mut sum = 0;
        let mut take = |bytes: &mut [u8]| -> Result<(), StateError> {
            reader.read_exact(bytes)?;
            sum = crc32c::crc32c_append(sum, bytes);
            Ok(())
        };
        let mut header = [0; 8 + 4 + 8 + 8];
        take(&mut header)?;
        if &header[..8] != MAGIC {
            return Err(StateError::Damaged("it does not begin with BWLEARNR"));
        }
        if header[8..12] != VERSION.to_le_bytes() {
            return Err(StateError::Damaged("its version is not 1, the only one known"));
        }
        let number =
            |at: usize| header[at..at + 8].iter().rev().fold(0u64, |number, byte| number << 8 | u64::from(*byte));
        let (found, expected) = (number(12), shape.parameter_count() as u64);
        if found != expected {
            return Err(StateError::Parameters { expected, found });
        }
        let mut state = LearnerState {
            online: Vec::new(),
            target: Vec::new(),
            first_moment: Vec::new(),
            second_moment: Vec::new(),
            updates: number(20),
        };
        let mut bytes = [0; 4 * BLOCK];
        for values in [&mut state.online, &mut state.target, &mut state.first_moment, &mut state.second_moment] {
            let mut missing = shape.parameter_count();
            while missing > 0 {
                let block = &mut bytes[..4 * missing.min(BLOCK)];
                take(block)?;
                values.extend(block.as_chunks::<4>().0.iter().map(|value| f32::from_le_bytes(*value)));
                missing -= missing.min(BLOCK);
            }
        }
        let mut written = [0; 4];
        reader.read_exact(&mut written)?;
        if u32::from_le_bytes(written) != sum {
            return Err(StateError::Damaged("its checksum does not match; restore an older checkpoint"));
        }
        Ok(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn state(count: usize, updates: u64) -> LearnerState {
        let values = |from: usize| (from..from + count).map(|i| (i as f32).sin()).collect();
        LearnerState {
            online: values(0),
            target: values(1),
            first_moment: values(2),
            second_moment: values(3),
            updates,
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_state_comes_back_and_damage_is_seen(
            widths in prop::collection::vec(1..40usize, 2..4), updates: u64, at: prop::sample::Index, cut: bool,
        ) {
            let shape = NetworkShape::new(widths).unwrap();
            let state = state(shape.parameter_count(), updates);
            let mut bytes = Vec::new();
            state.write(&mut bytes).unwrap();
            bytes.push(7);
            let mut reader = bytes.as_slice();
            prop_assert_eq!(LearnerState::read(&mut reader, &shape).unwrap(), state);
            prop_assert_eq!(reader, &[7]);
            bytes.pop();
            let at = at.index(bytes.len());
            if cut {
                bytes.truncate(at);
            } else {
                bytes[at] ^= 0x10;
            }
            prop_assert!(LearnerState::read(bytes.as_slice(), &shape).is_err());
        }
    }

    #[test]
    fn another_network_is_refused_before_anything_is_read() {
        let mut bytes = Vec::new();
        state(6, 1).write(&mut bytes).unwrap();
        let error = LearnerState::read(bytes.as_slice(), &NetworkShape::new(vec![3, 2]).unwrap()).unwrap_err();
        assert!(matches!(error, StateError::Parameters { expected: 8, found: 6 }), "{error}");
    }
}
