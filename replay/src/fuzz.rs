//! Bodies for fuzzing: each takes any bytes and must return. Property tests drive them; a fuzzer can too.
//!
//! Checksums would keep a fuzzer at the door, so each body reads the bytes as they are and with their checksum set right.

use crate::episodes::{self, EpisodeReader, EpisodeWriter, StepRow};
use crate::{ReplayBuffer, SampleSpec};

/// Memory that a buffer may take.
const LIMIT_BYTES: u64 = 1 << 20;

/// A file that claims to hold episodes.
///
/// # Panics
/// When a file is accepted whose rows cannot be written and read again: a bug in reader or writer.
pub fn fuzz_episode_file(data: &[u8]) {
    read_episodes(data);
    let mut sealed = data.to_vec();
    if episodes::reseal(&mut sealed) {
        read_episodes(&sealed);
    }
}

fn read_episodes(data: &[u8]) {
    let Some((rows, reader)) = rows_of(data) else { return };
    let header = reader.header();
    for row in &rows {
        assert_eq!(row.state.len(), header.width, "a row has another width than its file");
        assert!(row.played.is_none_or(|played| row.action_mask.allows(played.action)), "a masked action was played");
    }
    let again = EpisodeWriter::new(Vec::new(), header.clone()).and_then(|mut writer| {
        rows.iter().try_for_each(|row| writer.write(&row.as_step()))?;
        writer.finish()
    });
    let again = again.map(|(bytes, _)| rows_of(&bytes).map(|(rows, _)| rows));
    assert!(matches!(again, Ok(Some(again)) if again == rows), "accepted episodes must survive being written again");
}

/// The rows of a file and its reader; `None` where the file or a row is refused.
fn rows_of(data: &[u8]) -> Option<(Vec<StepRow>, EpisodeReader)> {
    let mut reader = EpisodeReader::from_bytes(data.to_vec(), None).ok()?;
    let (mut rows, mut row) = (Vec::new(), StepRow::default());
    while reader.next(&mut row).ok()? {
        rows.push(row.clone());
    }
    Some((rows, reader))
}

/// A file that claims to be a saved replay buffer.
///
/// # Panics
/// When a buffer is accepted that cannot be used, or that is saved as other bytes: a bug in either.
pub fn fuzz_saved_buffer(data: &[u8]) {
    restore(data);
    if let Some((content, _)) = data.split_last_chunk::<4>() {
        restore(&[content, &crc32c::crc32c(content).to_le_bytes()].concat());
    }
}

fn restore(data: &[u8]) {
    let Ok(mut buffer) = ReplayBuffer::restore(data, LIMIT_BYTES) else { return };
    let mut again = Vec::new();
    assert!(buffer.save(&mut again).is_ok() && data.starts_with(&again), "a restored buffer is saved as other bytes");
    let spec = SampleSpec { n_step: 3, ..SampleSpec::default() };
    let used = buffer.oldest_first().collect::<Vec<_>>().into_iter().all(|row| buffer.transition(row, &spec).is_ok());
    assert!(used, "a restored buffer holds a row that cannot be drawn");
    for stream in buffer.streams().take(100).collect::<Vec<_>>() {
        assert!(buffer.abandon(stream).is_ok(), "a restored buffer holds a stream that cannot be left");
    }
}
