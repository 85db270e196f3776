//! Bodies for fuzzing: each takes any bytes and must return. Property tests drive them; a fuzzer can too.

use bellwether_artifact::Sha256;

use crate::recorded::checkpoint::Checkpoint;

/// Numbers of each network that the checkpoint should hold, and its networks.
const SHAPE: (usize, usize) = (3, 2);

/// A file that claims to be the checkpoint of a training run, as it is and with its checksum set right.
///
/// # Panics
/// When a checkpoint is accepted that does not survive being written again.
pub fn fuzz_checkpoint(data: &[u8]) {
    read(data);
    read(&[data, Sha256::of(data).as_bytes()].concat());
}

fn read(mut data: &[u8]) {
    let Ok(checkpoint) = Checkpoint::read(&mut data, SHAPE.0, SHAPE.1) else { return };
    let Some(once) = written(&checkpoint) else { panic!("an accepted checkpoint cannot be written") };
    let again = Checkpoint::read(&mut once.as_slice(), SHAPE.0, SHAPE.1).ok();
    // The bytes are compared, because a number may be none.
    assert!(again.as_ref().and_then(written) == Some(once), "an accepted checkpoint must survive being written again");
}

fn written(checkpoint: &Checkpoint) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    checkpoint.write(&mut bytes).ok().map(|()| bytes)
}
