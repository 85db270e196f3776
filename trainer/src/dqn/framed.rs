//! The beginning of a checkpoint: what it is, and a JSON header behind its length and its sum.

use super::DqnError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{Read, Write};

/// What a file is.
pub(crate) struct Format {
    pub(crate) magic: &'static [u8; 8],
    pub(crate) version: u32,
}

/// Largest header that is read: an episode under way takes some bytes for each of its steps.
const MAX_HEADER: u32 = 1 << 28;

pub(crate) fn unusable(reason: impl Into<String>) -> DqnError {
    DqnError::Checkpoint(reason.into())
}

impl Format {
    pub(crate) fn write(&self, writer: &mut impl Write, header: &impl Serialize) -> Result<(), DqnError> {
        let header = serde_json::to_vec(header).map_err(|error| unusable(error.to_string()))?;
        let length = u32::try_from(header.len()).ok().filter(|length| *length <= MAX_HEADER);
        let length = length.ok_or_else(|| unusable("an episode under way is too long to be saved"))?;
        writer.write_all(self.magic)?;
        writer.write_all(&self.version.to_le_bytes())?;
        writer.write_all(&length.to_le_bytes())?;
        writer.write_all(&crc32c::crc32c(&header).to_le_bytes())?;
        writer.write_all(&header)?;
        Ok(())
    }

    pub(crate) fn read<T: DeserializeOwned>(&self, reader: &mut impl Read) -> Result<T, DqnError> {
        let mut start = [0; 8 + 4 + 4 + 4];
        reader.read_exact(&mut start)?;
        let number = |at: usize| u32::from_le_bytes([start[at], start[at + 1], start[at + 2], start[at + 3]]);
        if &start[..8] != self.magic {
            return Err(unusable(format!("it does not begin with {}", String::from_utf8_lossy(self.magic))));
        }
        if number(8) != self.version {
            let (found, known) = (number(8), self.version);
            return Err(unusable(format!("it has version {found}, and only version {known} is known")));
        }
        if number(12) > MAX_HEADER {
            return Err(unusable("its header claims to be larger than any can be"));
        }
        // What the length claims is allocated only as the data for it arrives.
        let mut header = Vec::new();
        reader.take(u64::from(number(12))).read_to_end(&mut header)?;
        if header.len() != number(12) as usize || crc32c::crc32c(&header) != number(16) {
            return Err(unusable("its header is damaged or cut short; restore an older checkpoint"));
        }
        serde_json::from_slice(&header).map_err(|error| unusable(error.to_string()))
    }
}
