//! How much travels at once.

/// Bytes of a message with a piece of a file.
pub(super) const PIECE_BYTES: usize = 256 << 10;
/// Bytes of a message that a server takes: a piece, or an order with all its arguments.
pub(super) const REQUEST_BYTES: usize = 1 << 20;
/// Bytes of a message that a client takes: the outcome of a run that left 20,000 files with long names.
pub(super) const RESPONSE_BYTES: usize = 128 << 20;
/// Records of one message, and their bytes. One record may be longer.
pub(super) const BATCH_RECORDS: usize = 512;
pub(super) const BATCH_BYTES: usize = 256 << 10;
