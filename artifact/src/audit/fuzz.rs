//! A body for fuzzing: it takes any bytes and must return. Property tests drive it; a fuzzer can too.

use zeroize::Zeroizing;

use super::AuditError;
use super::examine::Examiner;
use super::head::{self, HeadFault};
use crate::ArtifactError;
use crate::secret::{Purpose, Secret, Secrets};

/// A log that anybody may have written, and the same bytes as a head.
///
/// # Panics
/// When bytes that nobody sealed pass for an intact log, or the entries, and what is none, are not all that there is.
pub fn fuzz_audit_log(data: &[u8]) {
    let secrets = Secrets::new(Purpose::Audit, Secret::from_bytes(Zeroizing::new([7; 32])));
    let _ = Secrets::parse(data, Purpose::Audit);
    let head = head::parse(data, &secrets).ok_or(HeadFault::Missing);
    assert!(head.is_err(), "a head was forged");
    let failed = |cause| AuditError::from(ArtifactError::io("read", "fuzz".as_ref(), cause));
    let found = Examiner::new(&secrets, head, &[], |_, _| Ok(())).run(data, failed);
    assert!(matches!(&found, Ok(found) if !found.intact && found.entries == 0), "{found:?}");
}
