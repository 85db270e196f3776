//! `bellwether keys`: the keys that sign releases, and those that are trusted.

use std::path::{Path, PathBuf};

use bellwether_artifact::keys::{KeyId, PrivateKey, PublicKey, TrustedKeys};
use clap::Subcommand;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Failure, Output};

/// Makes and shows the keys that sign releases.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make a new Ed25519 key pair: the private key in PEM, readable by its owner alone, and the public key beside it, with
    /// `.pub` appended to the name.
    Generate {
        /// File for the private key; it must not exist.
        #[arg(long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Show the public halves of a private key, of a file of public keys or of a folder of them.
    Show {
        /// The file or folder.
        path: PathBuf,
    },
}

/// A public key, as JSON.
#[derive(Serialize, JsonSchema)]
pub(crate) struct Shown {
    /// SHA-256 of the public key: what a signature names its key by.
    key_id: KeyId,
    /// The public key in PEM.
    public_key: String,
}

/// What `keys generate` reports as JSON.
#[derive(Serialize, JsonSchema)]
#[schemars(title = "KeysGenerate")]
pub(crate) struct Generated {
    /// Where the private key was written.
    private_file: PathBuf,
    /// Where the public key was written.
    public_file: PathBuf,
    #[serde(flatten)]
    key: Shown,
}

impl Arguments {
    pub(crate) fn run(self, output: &Output) -> Result<(), Failure> {
        match self.verb {
            Verb::Generate { out } => {
                let key = PrivateKey::generate()?;
                let public_file = key.write(&out)?;
                let generated = Generated { private_file: out, public_file, key: Shown::of(&key.public()) };
                output.report(&generated, || {
                    let (private, public) = (generated.private_file.display(), generated.public_file.display());
                    format!("key {}\nprivate: {private} (keep it secret)\npublic:  {public}", generated.key.key_id)
                })?;
            }
            Verb::Show { path } => {
                let keys: Vec<Shown> = public_keys(&path)?.iter().map(Shown::of).collect();
                output.report(&keys, || {
                    keys.iter().map(|key| format!("key {}\n{}", key.key_id, key.public_key)).collect::<String>()
                })?;
            }
        }
        Ok(())
    }
}

impl Shown {
    fn of(key: &PublicKey) -> Shown {
        Shown { key_id: key.id(), public_key: key.to_pem() }
    }
}

/// Of a private key its public half, of anything else all keys in it.
fn public_keys(path: &Path) -> Result<Vec<PublicKey>, Failure> {
    use bellwether_artifact::keys::KeyError;
    match TrustedKeys::read(path) {
        Ok(keys) => Ok(keys.ids().filter_map(|id| keys.get(&id).cloned()).collect()),
        Err(KeyError::PrivateAmongPublic { path: found }) if found == path => {
            Ok(vec![PrivateKey::read(path)?.public()])
        }
        Err(error) => Err(error.into()),
    }
}

/// The private key in a file, where one is given. One that cannot be used is wrong usage.
pub(crate) fn private(path: Option<&Path>) -> Result<Option<PrivateKey>, Failure> {
    path.map(PrivateKey::read).transpose().map_err(Failure::usage)
}

/// The trusted keys in a file or folder, where one is given. Those that cannot be used are wrong usage.
pub(crate) fn trusted(path: Option<&Path>) -> Result<Option<TrustedKeys>, Failure> {
    path.map(TrustedKeys::read).transpose().map_err(Failure::usage)
}
