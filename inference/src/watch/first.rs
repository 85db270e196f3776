//! The first model of a policy: what was served before the program started, or what the source wants.

use bellwether_artifact::ModelManifest;

use super::memory::{Memory, Served};
use super::reading::Folder;
use super::reason::Problem;
use super::{Reason, Source, VersionPolicy, Wanted, WatchError, WatchOptions};
use crate::model::Contract;
use crate::release::LoadedRelease;

/// A release of which no more than the manifest was read.
struct Found {
    wanted: Wanted,
    folder: Folder,
    manifest: ModelManifest,
}

/// Loads the first model of a policy, with all the checks that a watcher makes, and gives its number. `contract` says what is to be
/// served, given the manifest that is wanted.
///
/// Where there is a [memory](WatchOptions::memory), what was served last is served again if it is still there, passes the checks and
/// keeps the contract of what is wanted; the watcher then brings what is wanted by its rules. Without one, or where that fails, it is
/// what the source wants, unless that was rolled back.
///
/// # Errors
/// [`WatchError::Source`], [`WatchError::Nothing`], [`WatchError::Refused`], [`WatchError::Memory`]. Nothing is waited for.
pub fn open(
    source: &mut dyn Source,
    contract: impl Fn(&ModelManifest) -> Contract,
    options: &WatchOptions,
) -> Result<(LoadedRelease, Option<u32>), WatchError> {
    let memory = options.memory.as_deref().map(Memory::read).transpose()?.flatten();
    let wanted = find_wanted(source, options);
    if let Some(Memory { served, pinned, .. }) = memory {
        match find_served(source, served, options) {
            Ok(last) => {
                // A running policy keeps its contract, so it is a new start that brings another one, save where a model is pinned.
                let manifest =
                    wanted.as_ref().ok().filter(|_| !pinned).map_or(&last.manifest, |wanted| &wanted.manifest);
                let contract = contract(manifest);
                match last.load(&contract, options) {
                    Ok(loaded) => return Ok(loaded),
                    Err(error) => not_again(served, pinned, &error),
                }
            }
            Err(error) => not_again(served, pinned, &error),
        }
    }
    let wanted = wanted?;
    let version = wanted.manifest.version;
    if memory.is_some_and(|memory| memory.rolled_back.contains(&version)) {
        return Err(refused(Problem::rolled_back().of(version), &wanted.wanted));
    }
    let contract = contract(&wanted.manifest);
    wanted.load(&contract, options)
}

impl Found {
    fn open(wanted: Wanted, options: &WatchOptions) -> Result<Found, WatchError> {
        let read = Folder::open(&wanted).and_then(|folder| Ok((folder.manifest(options.trusted.as_ref())?, folder)));
        match read {
            Ok((manifest, folder)) => Ok(Found { wanted, folder, manifest }),
            Err(problem) => Err(refused(problem, &wanted)),
        }
    }

    fn load(self, contract: &Contract, options: &WatchOptions) -> Result<(LoadedRelease, Option<u32>), WatchError> {
        let Found { wanted, folder, manifest } = self;
        match folder.release(manifest, contract, options) {
            Ok(release) => Ok((release, wanted.number)),
            Err(problem) => Err(refused(problem, &wanted)),
        }
    }
}

fn find_wanted(source: &mut dyn Source, options: &WatchOptions) -> Result<Found, WatchError> {
    let wanted = source.wanted()?.ok_or_else(|| WatchError::Nothing { source_name: source.describe() })?;
    Found::open(wanted, options)
}

/// What was served last, where it still is what it was.
fn find_served(source: &mut dyn Source, served: Served, options: &WatchOptions) -> Result<Found, WatchError> {
    let wanted = match served.number {
        Some(number) => source.find(&VersionPolicy::Pinned(number))?,
        // It is alone there.
        None => source.wanted()?,
    };
    let found = wanted.map(|wanted| Found::open(wanted, options)).transpose()?;
    match found {
        Some(found) if found.manifest.version == served.version => Ok(found),
        Some(Found { wanted, manifest, .. }) => {
            let text = format!("version {} lies there now", manifest.version);
            Err(refused(Problem::new(Reason::Missing, text), &wanted))
        }
        None => Err(WatchError::Nothing { source_name: source.describe() }),
    }
}

/// A restart goes on with what was served, so it is told where it does not.
fn not_again(Served { version, number }: Served, pinned: bool, error: &WatchError) {
    tracing::warn!(%version, number, pinned, %error, "what was served last is not served again");
}

fn refused(problem: Problem, wanted: &Wanted) -> WatchError {
    WatchError::Refused(Box::new(problem.refusal(wanted)))
}
