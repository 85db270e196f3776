//! Ed25519 keys (RFC 8032): private ones of those who sign releases, public ones of those who trust them.
//!
//! Files are PEM as of RFC 8410, the form that OpenSSL reads and writes, so keys may come from elsewhere.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, DecodePublicKey, EncodePrivateKey, EncodePublicKey, KeypairBytes};
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::durable::{self, DurableFile};
use crate::{ArtifactError, Sha256};

/// By what a key is known: the SHA-256 of the 32 bytes of the public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(transparent))]
pub struct KeyId(Sha256);

/// A key that signs. It is wiped from memory when dropped, and neither printed nor logged.
pub struct PrivateKey(SigningKey);

/// A key that checks what its private key signed.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey(VerifyingKey);

/// The keys whose signatures are believed. Several at a time, so that one can follow another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKeys {
    keys: BTreeMap<KeyId, PublicKey>,
}

/// Why a key is not used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// A file could not be read or written.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// Others than the owner can read the private key.
    #[error("{} has mode {mode:04o}, others can read it: make it private (chmod 600) and think of changing the key", path.display())]
    NotPrivate {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no private key of this kind.
    #[error("{} holds no Ed25519 private key in PEM (PKCS #8): give the file that `keys generate` wrote", path.display())]
    NoPrivateKey {
        /// The file.
        path: PathBuf,
    },
    /// The file holds no public key of this kind, or something beside.
    #[error("{}: {problem}; give Ed25519 public keys in PEM, the .pub files of `keys generate`", path.display())]
    NoPublicKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: &'static str,
    },
    /// A private key lies where public ones are looked for.
    #[error("{} holds a private key: keep it away from those who only verify, and give the .pub file", path.display())]
    PrivateAmongPublic {
        /// The file.
        path: PathBuf,
    },
    /// Nothing would be believed.
    #[error("{} holds no public key: put the .pub files of those who sign there", path.display())]
    NoneTrusted {
        /// The file or folder.
        path: PathBuf,
    },
    /// The system gives no random numbers.
    #[error("the system gives no random numbers for a key: {0}")]
    Random(String),
}

/// Largest key file that is read, in bytes.
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// How the names of files with public keys end, in a folder of them.
const PUBLIC_ENDINGS: [&str; 2] = [".pub", ".pem"];

impl fmt::Display for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(out)
    }
}

impl PrivateKey {
    /// A new key, from the system's random numbers.
    ///
    /// # Errors
    /// [`KeyError::Random`].
    pub fn generate() -> Result<PrivateKey, KeyError> {
        let mut seed = Zeroizing::new([0_u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(|cause| KeyError::Random(cause.to_string()))?;
        Ok(PrivateKey::from_seed(&seed))
    }

    /// The key with this seed, the 32 bytes that RFC 8032 calls the private key.
    pub fn from_seed(seed: &[u8; 32]) -> PrivateKey {
        PrivateKey(SigningKey::from_bytes(seed))
    }

    /// Reads a key from a file that nobody but its owner can read.
    ///
    /// # Errors
    /// [`KeyError::NotPrivate`], [`KeyError::NoPrivateKey`], or [`KeyError::Artifact`] where the file cannot be read.
    pub fn read(path: &Path) -> Result<PrivateKey, KeyError> {
        let failed = |cause| ArtifactError::io("read", path, cause);
        let file = File::open(path).map_err(failed)?;
        // Asked of the open file, so that no other can take its place in between.
        let data = file.metadata().map_err(failed)?;
        check_private(path, &data)?;
        // Room for the whole file, so that no copy of it is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(MAX_KEY_BYTES as usize + 1));
        let read = file.take(MAX_KEY_BYTES + 1).read_to_string(&mut text);
        let no_key = || KeyError::NoPrivateKey { path: path.to_path_buf() };
        match read {
            Ok(bytes) if bytes as u64 > MAX_KEY_BYTES => return Err(no_key()),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(no_key()),
            Err(error) => return Err(failed(error).into()),
        }
        PrivateKey::parse(&text).ok_or_else(no_key)
    }

    /// The key in this text; `None` where it is none.
    pub(crate) fn parse(text: &str) -> Option<PrivateKey> {
        SigningKey::from_pkcs8_pem(text.trim()).map(PrivateKey).ok()
    }

    /// Writes the key to a new file of mode 0600, and the public key beside it, with `.pub` appended to the name. Returns the
    /// path of the latter.
    ///
    /// # Errors
    /// [`ArtifactError::Exists`] where either name is taken, else [`ArtifactError::Io`].
    pub fn write(&self, path: &Path) -> Result<PathBuf, KeyError> {
        let mut public_path = path.as_os_str().to_owned();
        public_path.push(".pub");
        let public_path = PathBuf::from(public_path);
        for taken in [path, &public_path] {
            if taken.symlink_metadata().is_ok() {
                return Err(ArtifactError::Exists { path: taken.to_path_buf() }.into());
            }
        }
        let text = self.to_pem().ok_or_else(|| KeyError::NoPrivateKey { path: PathBuf::from("the key in memory") })?;
        let mut file = DurableFile::create_private(path)?;
        file.write_all(text.as_bytes()).map_err(|cause| ArtifactError::io("write", path, cause))?;
        file.commit_new()?;
        let mut file = DurableFile::create(&public_path)?;
        file.write_all(self.public().to_pem().as_bytes())
            .map_err(|cause| ArtifactError::io("write", &public_path, cause))?;
        file.commit_new()?;
        Ok(public_path)
    }

    /// The key as text; only a failing allocation gives none.
    pub(crate) fn to_pem(&self) -> Option<Zeroizing<String>> {
        // Without the public half, which some readers of the format do not expect.
        let pair = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        pair.to_pkcs8_pem(LineEnding::LF).ok()
    }

    /// Its public key.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key())
    }

    /// The 64 bytes of the signature of a message.
    pub(crate) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.sign(message).to_bytes()
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PrivateKey({})", self.public().id())
    }
}

impl PublicKey {
    /// The key with these 32 bytes; `None` where they are no key, or one that anybody can sign for.
    pub fn from_bytes(bytes: &[u8; 32]) -> Option<PublicKey> {
        VerifyingKey::from_bytes(bytes).ok().filter(|key| !key.is_weak()).map(PublicKey)
    }

    /// Reads all keys of a file, which holds nothing else.
    ///
    /// # Errors
    /// [`KeyError::NoPublicKey`], [`KeyError::PrivateAmongPublic`], or [`KeyError::Artifact`] where the file cannot be read.
    pub fn read_all(path: &Path) -> Result<Vec<PublicKey>, KeyError> {
        let mut bytes = durable::read(path, MAX_KEY_BYTES)?;
        let keys = PublicKey::parse_all(&bytes, path);
        if matches!(keys, Err(KeyError::PrivateAmongPublic { .. })) {
            bytes.zeroize();
        }
        keys
    }

    /// All keys in what was read from `path`.
    pub(crate) fn parse_all(bytes: &[u8], path: &Path) -> Result<Vec<PublicKey>, KeyError> {
        let refuse = |problem| KeyError::NoPublicKey { path: path.to_path_buf(), problem };
        let Ok(text) = std::str::from_utf8(bytes) else {
            return Err(refuse("this is no text"));
        };
        if text.contains("PRIVATE KEY") {
            return Err(KeyError::PrivateAmongPublic { path: path.to_path_buf() });
        }
        let mut keys = Vec::new();
        let mut rest = text.trim();
        while !rest.is_empty() {
            let end = rest.find(Self::END).ok_or_else(|| refuse("a key without its last line, or no key at all"))?;
            let (block, after) = rest.split_at(end + Self::END.len());
            let key = VerifyingKey::from_public_key_pem(block).map_err(|_| refuse("this is no Ed25519 public key"))?;
            if key.is_weak() {
                return Err(refuse("this key is one that anybody can sign for"));
            }
            keys.push(PublicKey(key));
            rest = after.trim();
        }
        Ok(keys)
    }

    const END: &str = "-----END PUBLIC KEY-----";

    /// Its name.
    pub fn id(&self) -> KeyId {
        KeyId(Sha256::of(self.0.as_bytes()))
    }

    /// The key as text, ending in a line feed.
    pub fn to_pem(&self) -> String {
        // Only a longer key or a failing allocation could be refused.
        self.0.to_public_key_pem(LineEnding::LF).unwrap_or_default()
    }

    /// Whether this key's owner signed the message. Signatures that could be turned into others count as none.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        self.0.verify_strict(message, &ed25519_dalek::Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PublicKey({})", self.id())
    }
}

impl TrustedKeys {
    /// Trusts these keys.
    pub fn new(keys: impl IntoIterator<Item = PublicKey>) -> TrustedKeys {
        TrustedKeys { keys: keys.into_iter().map(|key| (key.id(), key)).collect() }
    }

    /// Reads a file of public keys, or all files of a folder whose names end in `.pub` or `.pem`.
    ///
    /// # Errors
    /// As [`PublicKey::read_all`] for each of them, and [`KeyError::NoneTrusted`] where there is none.
    pub fn read(path: &Path) -> Result<TrustedKeys, KeyError> {
        let mut keys = Vec::new();
        for file in files(path)? {
            keys.extend(PublicKey::read_all(&file)?);
        }
        if keys.is_empty() {
            return Err(KeyError::NoneTrusted { path: path.to_path_buf() });
        }
        Ok(TrustedKeys::new(keys))
    }

    /// The key of this name.
    pub fn get(&self, id: &KeyId) -> Option<&PublicKey> {
        self.keys.get(id)
    }

    /// The names of all keys, sorted.
    pub fn ids(&self) -> impl Iterator<Item = KeyId> {
        self.keys.keys().copied()
    }
}

/// The files of a trust store, sorted.
fn files(path: &Path) -> Result<Vec<PathBuf>, ArtifactError> {
    let failed = |cause| ArtifactError::io("read", path, cause);
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let named = entry.file_name().to_str().is_some_and(|name| PUBLIC_ENDINGS.iter().any(|end| name.ends_with(end)));
        if named {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(unix)]
fn check_private(path: &Path, data: &fs::Metadata) -> Result<(), KeyError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = data.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(KeyError::NotPrivate { path: path.to_path_buf(), mode }) }
}

/// Elsewhere files have no such permissions.
#[cfg(not(unix))]
fn check_private(_: &Path, _: &fs::Metadata) -> Result<(), KeyError> {
    Ok(())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]
mod tests {
    use super::*;

    /// RFC 8410, section 10.
    const PRIVATE: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\n\
        MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    fn private_file(folder: &Path, text: &[u8], mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.join(format!("key-{mode:o}"));
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    #[test]
    fn published_keys_are_read_and_written_as_published() {
        let root = tempfile::tempdir().unwrap();
        let key = PrivateKey::read(&private_file(root.path(), PRIVATE.as_bytes(), 0o600)).unwrap();
        assert_eq!(key.public().to_pem(), PUBLIC);
        let path = root.path().join("again");
        let public = key.write(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), PRIVATE);
        assert_eq!(fs::read_to_string(&public).unwrap(), PUBLIC);
        assert_eq!(PublicKey::read_all(&public).unwrap(), [key.public()]);
        assert_eq!(public, root.path().join("again.pub"));
    }

    #[test]
    fn published_signatures() {
        // RFC 8032, section 7.1, tests 1 to 3: seed, public key, message, signature.
        let bytes = |text: &str| -> Vec<u8> {
            (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
        };
        let cases = [
            (
                "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                "",
                "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
            ),
            (
                "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
                "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                "72",
                "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
            ),
            (
                "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
                "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
                "af82",
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        ];
        for (seed, public, message, signature) in cases {
            let key = PrivateKey::from_seed(&bytes(seed).try_into().unwrap());
            assert_eq!(PublicKey::from_bytes(&bytes(public).try_into().unwrap()), Some(key.public()));
            let signed = key.sign(&bytes(message));
            assert_eq!(signed.to_vec(), bytes(signature));
            assert!(key.public().verifies(&bytes(message), &signed));
        }
    }

    #[test]
    fn a_new_key_is_private_another_each_time_and_never_written_over() {
        use std::os::unix::fs::PermissionsExt;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("key");
        let key = PrivateKey::generate().unwrap();
        assert_ne!(key.public(), PrivateKey::generate().unwrap().public());
        key.write(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(PrivateKey::read(&path).unwrap().public(), key.public());
        let taken = |error| matches!(error, KeyError::Artifact(ArtifactError::Exists { .. }));
        assert!(taken(PrivateKey::generate().unwrap().write(&path).unwrap_err()));
        fs::remove_file(&path).unwrap();
        // The public key of another would be left beside it.
        assert!(taken(key.write(&path).unwrap_err()));
        assert!(!path.exists());
    }

    #[test]
    fn a_private_key_that_others_can_read_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644, 0o610] {
            let error = PrivateKey::read(&private_file(root.path(), PRIVATE.as_bytes(), mode)).unwrap_err();
            assert!(matches!(error, KeyError::NotPrivate { mode: found, .. } if found == mode), "{error}");
        }
        for mode in [0o600, 0o400] {
            assert!(PrivateKey::read(&private_file(root.path(), PRIVATE.as_bytes(), mode)).is_ok());
        }
    }

    #[test]
    fn what_is_no_private_key_is_refused_without_being_quoted() {
        let root = tempfile::tempdir().unwrap();
        let half = &PRIVATE[..60];
        for text in
            ["", "secret", PUBLIC, half, &"x".repeat(100_000)].map(str::as_bytes).into_iter().chain([&b"\xff"[..]])
        {
            let path = private_file(root.path(), text, 0o600);
            let error = PrivateKey::read(&path).unwrap_err();
            assert!(matches!(error, KeyError::NoPrivateKey { .. }), "{error}");
            assert!(!error.to_string().contains("secret"));
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn debug_shows_the_name_of_a_private_key_alone() {
        let seed = [7_u8; 32];
        let key = PrivateKey::from_seed(&seed);
        assert_eq!(format!("{key:?}"), format!("PrivateKey({})", key.public().id()));
    }

    #[test]
    fn a_trust_store_is_a_file_or_a_folder_of_keys() {
        let root = tempfile::tempdir().unwrap();
        let keys = [1, 2, 3].map(|seed| PrivateKey::from_seed(&[seed; 32]).public());
        let file = root.path().join("both.pub");
        fs::write(&file, format!("{}\n{}", keys[0].to_pem(), keys[1].to_pem())).unwrap();
        assert_eq!(TrustedKeys::read(&file).unwrap(), TrustedKeys::new(keys[..2].to_vec()));
        fs::write(root.path().join("third.pem"), keys[2].to_pem()).unwrap();
        fs::write(root.path().join("README"), "no key").unwrap();
        let all = TrustedKeys::read(root.path()).unwrap();
        assert_eq!(all.ids().count(), 3);
        assert!(keys.iter().all(|key| all.get(&key.id()) == Some(key)));
    }

    #[test]
    fn a_trust_store_with_anything_else_is_refused() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(TrustedKeys::read(root.path()), Err(KeyError::NoneTrusted { .. })));
        let file = root.path().join("key.pub");
        // A point of order 1, for which every message has a signature that anybody can make.
        let weak = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";
        let wrong = [&PUBLIC[..70], "no key", weak, &format!("{PUBLIC}more"), &PUBLIC.replace("MCow", "MCox")]
            .map(str::to_owned);
        for text in wrong {
            fs::write(&file, &text).unwrap();
            assert!(matches!(TrustedKeys::read(root.path()), Err(KeyError::NoPublicKey { .. })), "{text}");
        }
        fs::write(&file, PRIVATE).unwrap();
        assert!(matches!(TrustedKeys::read(root.path()), Err(KeyError::PrivateAmongPublic { .. })));
        fs::write(&file, "").unwrap();
        assert!(matches!(TrustedKeys::read(&file), Err(KeyError::NoneTrusted { .. })));
        assert!(matches!(TrustedKeys::read(&root.path().join("absent")), Err(KeyError::Artifact(_))));
    }
}
