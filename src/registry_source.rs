//! A registry of models as what a watcher watches.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bellwether_inference::watch::{Source, SourceError, VersionPolicy, Wanted};
use bellwether_registry::clock::unix_ms;
use bellwether_registry::{ModelRegistry, RegistryError};

/// Wants what a name of a registry stands on, its latest model, or one number.
#[derive(Debug)]
pub(crate) struct RegistrySource {
    registry: ModelRegistry,
    policy: VersionPolicy,
    /// The last answer, and what the file or folder that it came from looked like then.
    known: Option<(Stamp, Option<u32>)>,
}

/// What the system says about a file or folder: device, inode, length, and when content and entry changed.
type Stamp = (u64, u64, u64, (i64, i64), (i64, i64));

impl RegistrySource {
    /// Watches this registry, which may not be there yet.
    pub(crate) fn new(registry: ModelRegistry, policy: VersionPolicy) -> Self {
        RegistrySource { registry, policy, known: None }
    }

    fn release(&self, number: u32) -> Wanted {
        let within = Some(self.registry.versions());
        Wanted { folder: self.registry.folder(number), number: Some(number), within }
    }

    /// Looks again only where something changed since the last look.
    fn number(&mut self) -> Result<Option<u32>, RegistryError> {
        let read = |stamp: Option<Stamp>, known: &mut Option<(Stamp, Option<u32>)>, ask: &dyn Fn() -> _| match (
            stamp, &*known,
        ) {
            (Some(stamp), Some((before, number))) if stamp == *before => Ok(*number),
            (stamp, _) => {
                let number = ask()?;
                // Looked at before it was read, so what changed in between is seen at the next look, and kept only where another change
                // would get another time.
                *known = stamp.filter(is_old).map(|stamp| (stamp, number));
                Ok(number)
            }
        };
        let Self { registry, policy, known } = self;
        match policy {
            VersionPolicy::Pinned(number) => Ok(Some(*number)),
            VersionPolicy::Name(name) => read(stamp(&registry.history_path()), known, &|| registry.standing(name)),
            VersionPolicy::Latest => read(stamp(&registry.versions()), known, &|| registry.latest()),
        }
    }
}

impl Source for RegistrySource {
    fn describe(&self) -> String {
        let versions = self.registry.versions();
        let registry = versions.parent().unwrap_or(&versions).display();
        match &self.policy {
            VersionPolicy::Name(name) => format!("{name} of the registry {registry}"),
            VersionPolicy::Latest => format!("the latest of the registry {registry}"),
            VersionPolicy::Pinned(number) => format!("number {number} of the registry {registry}"),
        }
    }

    fn wanted(&mut self) -> Result<Option<Wanted>, SourceError> {
        let number = self.number().map_err(unanswered)?;
        Ok(number.map(|number| self.release(number)))
    }

    fn find(&mut self, which: &VersionPolicy) -> Result<Option<Wanted>, SourceError> {
        let number = match which {
            VersionPolicy::Pinned(number) => Some(*number).filter(|number| self.registry.folder(*number).is_dir()),
            VersionPolicy::Name(name) => self.registry.standing(name).map_err(unanswered)?,
            VersionPolicy::Latest => self.registry.latest().map_err(unanswered)?,
        };
        Ok(number.map(|number| self.release(number)))
    }
}

fn unanswered(error: RegistryError) -> SourceError {
    SourceError { text: error.to_string() }
}

/// Whether the last change is longer ago than the coarsest tick of a file system's clock.
fn is_old((.., changed): &Stamp) -> bool {
    u64::try_from(changed.0).is_ok_and(|changed| changed.saturating_add(3) <= unix_ms() / 1_000)
}

fn stamp(path: &Path) -> Option<Stamp> {
    let data = fs::metadata(path).ok()?;
    let (modified, changed) = ((data.mtime(), data.mtime_nsec()), (data.ctime(), data.ctime_nsec()));
    Some((data.dev(), data.ino(), data.size(), modified, changed))
}

#[cfg(test)]
mod tests {
    use bellwether_artifact::release::{self, Companions};
    use bellwether_registry::{Check, GateReport};

    use super::*;

    /// Publishes the model that ships with the source under this name, as the next number.
    fn publish(registry: &ModelRegistry, root: &Path, name: &str) -> GateReport {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/quickstart");
        let mut release = release::read(&shipped).unwrap();
        release.manifest.name = name.to_owned();
        let manifest = release.manifest.sealed().unwrap();
        let folder = root.join(name);
        release::publish(&folder, &manifest, &release.onnx, Companions::default()).unwrap();
        registry.publish(&folder).unwrap();
        let check = Check { name: "any".to_owned(), passed: true, value: None, limit: None, detail: String::new() };
        GateReport::of(&manifest, vec![check])
    }

    #[test]
    fn what_is_wanted_follows_the_registry() {
        let root = tempfile::tempdir().unwrap();
        let registry = ModelRegistry::open(root.path().join("registry")).unwrap();
        let policies = [VersionPolicy::Name("champion".to_owned()), VersionPolicy::Latest, VersionPolicy::Pinned(1)];
        let mut sources = policies.map(|policy| RegistrySource::new(registry.clone(), policy));
        let mut wanted = || sources.each_mut().map(|source| source.wanted().unwrap().and_then(|wanted| wanted.number));
        assert_eq!(wanted(), [None, None, Some(1)]);
        let first = publish(&registry, root.path(), "first");
        assert_eq!(wanted(), [None, Some(1), Some(1)]);
        registry.promote(1, "champion", &first, &[]).unwrap();
        assert_eq!(wanted(), [Some(1), Some(1), Some(1)]);
        let second = publish(&registry, root.path(), "second");
        assert_eq!(wanted(), [Some(1), Some(2), Some(1)]);
        registry.promote(2, "champion", &second, &[]).unwrap();
        assert_eq!(wanted(), [Some(2), Some(2), Some(1)]);
        // An operator may ask for any of them, whatever is wanted.
        let mut source = RegistrySource::new(registry.clone(), VersionPolicy::Pinned(2));
        let mut find = |which| source.find(&which).unwrap().and_then(|wanted| wanted.number);
        assert_eq!(find(VersionPolicy::Pinned(1)), Some(1));
        assert_eq!(find(VersionPolicy::Pinned(3)), None);
        assert_eq!(find(VersionPolicy::Latest), Some(2));
        assert_eq!(find(VersionPolicy::Name("champion".to_owned())), Some(2));
        assert_eq!(find(VersionPolicy::Name("../champion".to_owned())), None);
        registry.rollback("champion").unwrap();
        assert_eq!(wanted(), [Some(1), Some(2), Some(1)]);
        let described = sources.map(|source| source.describe());
        assert!(described.iter().all(|text| text.contains("registry")), "{described:?}");
    }
}
