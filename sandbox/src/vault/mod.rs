//! Quarantine: the sample as it was judged, sealed away, and its file gone from where it lay.
//!
//! A [`Sample`] is opened once and copied into memory that nobody can change; it is judged, detonated and encrypted from there, so
//! what lies in the [`Vault`] is what was judged. The original is removed only while it is that very file with that very
//! content. Until the encrypted copy is on disk nothing is removed, and what cannot be removed is said to be still there.
//! `docs/formats/vault.md` has the format.

mod cipher;
mod error;
mod held;
mod original;
mod sample;
mod store;

pub use error::VaultError;
pub use held::{Case, Held, QuarantineId, Quarantined};
pub use original::Removal;
#[cfg(feature = "serve")]
pub(crate) use sample::memory_file;
pub use sample::{Sample, SampleIdentity, Times};
pub use store::{Listed, Receipt, Restored, Vault};
