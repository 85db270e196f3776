//! Files of secrets: 32 random bytes each, and what is sealed or derived with one (HMAC-SHA256, RFC 2104).
//!
//! A file holds a secret and those that it replaced, the newest last, because what was sealed with an old one must still be
//! checked. Each file is for one purpose, so that no secret does two jobs.

use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::durable::DurableFile;
use crate::{ArtifactError, Sha256};

/// What the secrets of a file are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Sealing the entries of an audit log.
    Audit,
    /// Encrypting what lies in quarantine.
    Vault,
}

/// By what a secret is known. It tells nothing of the secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transparent))]
pub struct SecretId(Sha256);

/// 32 secret bytes. They are wiped from memory when dropped, and neither printed nor logged.
#[derive(Clone)]
pub struct Secret {
    bytes: Zeroizing<[u8; 32]>,
    id: SecretId,
}

/// The secrets of a file, the newest last. There is at least one.
#[derive(Clone, Debug)]
pub struct Secrets {
    purpose: Purpose,
    all: Vec<Secret>,
}

/// Why a secret is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// A file could not be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Others than the owner can read the file.
    #[error("{} has mode {mode:04o}, others can read it: make it private (chmod 600) and replace the secret", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no secrets of this purpose.
    #[error("{}: {problem}; give a file that was made for {}", path.display(), purpose.name())]
    NotOfPurpose {
        /// The file.
        path: PathBuf,
        /// What it should be for.
        purpose: Purpose,
        /// What is wrong.
        problem: String,
    },
    /// No more secrets fit into the file.
    #[error("{} holds {MAX_SECRETS} secrets, and no more are kept: begin a new file", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a secret: {0}")]
    Random(String),
}

/// Most secrets that a file may hold.
pub const MAX_SECRETS: usize = 256;

/// Largest file of secrets that is read, in bytes.
const MAX_FILE_BYTES: u64 = 64 * 1024;

impl Purpose {
    /// The first line of a file of this purpose.
    const fn header(self) -> &'static str {
        match self {
            Purpose::Audit => "bellwether audit secrets v1",
            Purpose::Vault => "bellwether vault secrets v1",
        }
    }

    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Purpose::Audit => "an audit log",
            Purpose::Vault => "a vault",
        }
    }
}

impl SecretId {
    /// The name with these bytes, as a sealed file holds it.
    pub const fn from_bytes(bytes: [u8; 32]) -> SecretId {
        SecretId(Sha256::from_bytes(bytes))
    }

    /// The bytes of the name.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        self.0.as_bytes()
    }
}

impl fmt::Display for SecretId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl Secret {
    /// The secret with these bytes.
    pub fn from_bytes(bytes: Zeroizing<[u8; 32]>) -> Secret {
        let id = SecretId(Sha256::from_bytes(*hmac(&bytes, &[b"bellwether secret id v1\0"])));
        Secret { bytes, id }
    }

    /// A new one, from the system's random numbers.
    ///
    /// # Errors
    /// [`SecretError::Random`].
    pub fn generate() -> Result<Secret, SecretError> {
        let mut bytes = Zeroizing::new([0_u8; 32]);
        random(bytes.as_mut_slice())?;
        Ok(Secret::from_bytes(bytes))
    }

    /// Its name.
    pub fn id(&self) -> SecretId {
        self.id
    }

    /// The HMAC-SHA256 of these parts, one behind the other. The first says what it is for, and ends in a zero byte.
    pub fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        *hmac(&self.bytes, parts)
    }

    /// Whether `tag` is that of these parts, in a time that does not depend on where it differs.
    pub fn verifies(&self, parts: &[&[u8]], tag: &[u8; 32]) -> bool {
        keyed(&self.bytes, parts).verify_slice(tag).is_ok()
    }

    /// Another secret, for what these parts say: [`tag`](Secret::tag) as a key.
    pub fn derive(&self, parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
        hmac(&self.bytes, parts)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Secret({})", self.id)
    }
}

impl Secrets {
    /// A secret that replaced none.
    pub fn new(purpose: Purpose, secret: Secret) -> Secrets {
        Secrets { purpose, all: vec![secret] }
    }

    /// Reads a file that nobody but its owner can read.
    ///
    /// # Errors
    /// [`SecretError::NotPrivate`], [`SecretError::NotOfPurpose`], or [`SecretError::Artifact`] where it cannot be read.
    pub fn read(path: &Path, purpose: Purpose) -> Result<Secrets, SecretError> {
        let failed = |cause| ArtifactError::io("read", path, cause);
        let file = File::open(path).map_err(failed)?;
        // Asked of the open file, so that no other can take its place in between.
        check_private(path, &file.metadata().map_err(failed)?)?;
        // Room for the whole file, so that no copy of it is left behind by growing.
        let mut text = Zeroizing::new(Vec::with_capacity(MAX_FILE_BYTES as usize + 1));
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > MAX_FILE_BYTES {
            let bytes = text.len() as u64;
            return Err(ArtifactError::TooLarge { path: path.to_path_buf(), bytes, limit: MAX_FILE_BYTES }.into());
        }
        Secrets::parse(&text, purpose).map_err(|problem| SecretError::NotOfPurpose {
            path: path.to_path_buf(),
            purpose,
            problem,
        })
    }

    /// The secrets in the bytes of a file; the error says what is wrong and never what was read.
    ///
    /// # Errors
    /// Which line is not as it should be.
    pub fn parse(text: &[u8], purpose: Purpose) -> Result<Secrets, String> {
        let body = text.strip_suffix(b"\n").ok_or("the last line has no end")?;
        let mut lines = body.split(|byte| *byte == b'\n');
        if lines.next() != Some(purpose.header().as_bytes()) {
            return Err(format!("the first line is not {:?}", purpose.header()));
        }
        let mut all: Vec<Secret> = Vec::new();
        for (index, line) in lines.enumerate() {
            let bytes = parse_hex(line).ok_or_else(|| format!("line {} is no secret", index + 2))?;
            let secret = Secret::from_bytes(bytes);
            if all.iter().any(|known| known.id == secret.id) {
                return Err(format!("line {} repeats a secret", index + 2));
            }
            all.push(secret);
        }
        match all.len() {
            0 => Err("there is no secret in it".to_owned()),
            1..=MAX_SECRETS => Ok(Secrets { purpose, all }),
            _ => Err(format!("there are more than {MAX_SECRETS} secrets in it")),
        }
    }

    /// Makes a file of mode 0600 with one new secret.
    ///
    /// # Errors
    /// [`ArtifactError::Exists`] where the name is taken, else [`ArtifactError::Io`] or [`SecretError::Random`].
    pub fn generate(path: &Path, purpose: Purpose) -> Result<Secrets, SecretError> {
        let secrets = Secrets::new(purpose, Secret::generate()?);
        secrets.file(path)?.commit_new()?;
        Ok(secrets)
    }

    /// Puts a new secret behind those of the file, and returns all of them. The old ones stay, for what they have sealed.
    ///
    /// # Errors
    /// As [`read`](Secrets::read) and [`generate`](Secrets::generate); [`SecretError::Full`].
    pub fn rotate(path: &Path, purpose: Purpose) -> Result<Secrets, SecretError> {
        let mut secrets = Secrets::read(path, purpose)?;
        if secrets.all.len() == MAX_SECRETS {
            return Err(SecretError::Full { path: path.to_path_buf() });
        }
        secrets.all.push(Secret::generate()?);
        secrets.file(path)?.commit()?;
        Ok(secrets)
    }

    /// What they are for.
    pub fn purpose(&self) -> Purpose {
        self.purpose
    }

    /// The one that seals from now on.
    pub fn newest(&self) -> &Secret {
        // No constructor makes an empty list.
        &self.all[self.all.len() - 1]
    }

    /// The secret of this name.
    pub fn get(&self, id: &SecretId) -> Option<&Secret> {
        self.all.iter().find(|secret| secret.id == *id)
    }

    /// All names, the oldest first.
    pub fn ids(&self) -> impl Iterator<Item = SecretId> {
        self.all.iter().map(Secret::id)
    }

    fn file(&self, path: &Path) -> Result<DurableFile, SecretError> {
        let mut text = Zeroizing::new(String::with_capacity(64 + 65 * self.all.len()));
        text.push_str(self.purpose.header());
        for secret in &self.all {
            text.push('\n');
            for nibble in secret.bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]) {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        text.push('\n');
        let mut file = DurableFile::create_private(path)?;
        file.write_all(text.as_bytes()).map_err(|cause| ArtifactError::io("write", path, cause))?;
        Ok(file)
    }
}

/// Fills `bytes` from the system's random numbers.
///
/// # Errors
/// [`SecretError::Random`].
pub fn random(bytes: &mut [u8]) -> Result<(), SecretError> {
    getrandom::fill(bytes).map_err(|cause| SecretError::Random(cause.to_string()))
}

fn keyed(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<sha2::Sha256> {
    let mut mac = <Hmac<sha2::Sha256> as KeyInit>::new(&(*key_block(key)).into());
    parts.iter().for_each(|part| mac.update(part));
    mac
}

/// The key as HMAC lays it out: filled up with zeros to the block of SHA-256.
fn key_block(key: &[u8; 32]) -> Zeroizing<[u8; 64]> {
    let mut block = Zeroizing::new([0_u8; 64]);
    block[..32].copy_from_slice(key);
    block
}

fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(keyed(key, parts).finalize().into_bytes().into())
}

fn parse_hex(line: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let digits: &[u8; 64] = line.try_into().ok()?;
    let nibble = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = Zeroizing::new([0_u8; 32]);
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

#[cfg(unix)]
fn check_private(path: &Path, data: &fs::Metadata) -> Result<(), SecretError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = data.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(SecretError::NotPrivate { path: path.to_path_buf(), mode }) }
}

/// Elsewhere files have no such permissions.
#[cfg(not(unix))]
fn check_private(_: &Path, _: &fs::Metadata) -> Result<(), SecretError> {
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn published_vectors() {
        // RFC 4231, test case 1 (key of 20 bytes, filled up with zeros as HMAC does) and its message.
        let mut key = Zeroizing::new([0_u8; 32]);
        key[..20].fill(0x0b);
        let secret = Secret::from_bytes(key);
        let expected: Sha256 = "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7".parse().unwrap();
        assert_eq!(secret.tag(&[b"Hi ", b"There"]), *expected.as_bytes());
        assert!(secret.verifies(&[b"Hi There"], expected.as_bytes()));
        assert!(!secret.verifies(&[b"Hi There!"], expected.as_bytes()));
    }

    #[test]
    fn files_are_private_and_for_one_purpose() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("audit.key");
        let first = Secrets::generate(&path, Purpose::Audit).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        assert!(matches!(
            Secrets::generate(&path, Purpose::Audit),
            Err(SecretError::Artifact(ArtifactError::Exists { .. }))
        ));
        assert!(matches!(Secrets::read(&path, Purpose::Vault), Err(SecretError::NotOfPurpose { .. })));
        let rotated = Secrets::rotate(&path, Purpose::Audit).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let read = Secrets::read(&path, Purpose::Audit).unwrap();
        assert_eq!(read.ids().collect::<Vec<_>>(), rotated.ids().collect::<Vec<_>>());
        assert_eq!(read.ids().next(), Some(first.newest().id()));
        assert_ne!(read.newest().id(), first.newest().id());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Secrets::read(&path, Purpose::Audit), Err(SecretError::NotPrivate { mode: 0o640, .. })));
    }

    #[test]
    fn errors_and_debug_tell_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let digits = "ab".repeat(31);
        fs::write(&path, format!("bellwether audit secrets v1\n{digits}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = Secrets::read(&path, Purpose::Audit).unwrap_err();
        assert!(error.to_string().contains("line 2") && !format!("{error:?}{error}").contains("abab"), "{error}");
        let secret = Secret::from_bytes(Zeroizing::new([0xab; 32]));
        assert!(!format!("{secret:?}").contains("abab"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200) {
            let _ = Secrets::parse(&bytes, Purpose::Audit);
            let mut text = format!("{}\n{}\n", Purpose::Vault.header(), "0f".repeat(32)).into_bytes();
            prop_assert_eq!(Secrets::parse(&text, Purpose::Vault).unwrap().ids().count(), 1);
            text.truncate(cut.min(text.len() - 1));
            prop_assert!(Secrets::parse(&text, Purpose::Vault).is_err());
        }
    }
}
