//! Where releases come from, and which one is wanted.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use bellwether_artifact::release::{manifest_path, onnx_path};
use thiserror::Error;

/// Says which release is wanted. It is asked at every look, so an answer should be cheap.
pub trait Source: Send {
    /// What it is, for people: a path, a name.
    fn describe(&self) -> String;

    /// The release that is wanted now; `None` where there is none yet.
    ///
    /// # Errors
    /// Where that cannot be found out. What is served stays, and the source is asked again.
    fn wanted(&mut self) -> Result<Option<Wanted>, SourceError>;

    /// The release that an operator asks for, whatever is wanted; `None` where there is no such one.
    ///
    /// # Errors
    /// Where that cannot be found out, and, as by default, where there is but one release.
    fn find(&mut self, _which: &VersionPolicy) -> Result<Option<Wanted>, SourceError> {
        Err(SourceError::alone(&self.describe()))
    }
}

/// A release folder, and what it is called.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Wanted {
    /// Holds the release.
    pub folder: PathBuf,
    /// Its number, where it has one.
    pub number: Option<u32>,
    /// Where the folder has to lie once all links are followed; `None` where it may lie anywhere.
    pub within: Option<PathBuf>,
}

/// Which release of several is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The one that a name stands on, such as `champion`.
    Name(String),
    /// The one with the highest number.
    Latest,
    /// The one with this number.
    Pinned(u32),
}

impl fmt::Display for VersionPolicy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            VersionPolicy::Name(name) => write!(out, "the name {name:?}"),
            VersionPolicy::Latest => out.write_str("the latest"),
            VersionPolicy::Pinned(number) => write!(out, "number {number}"),
        }
    }
}

/// Why a source has no answer.
#[derive(Debug, Error)]
#[error("{text}")]
pub struct SourceError {
    /// What went wrong and what to do, for people.
    pub text: String,
}

impl SourceError {
    fn alone(source_name: &str) -> Self {
        SourceError { text: format!("{source_name} has no others beside it: serve a registry") }
    }
}

/// A folder that is a release, or a folder of them.
///
/// In a folder of releases, each lies in a folder whose name is its number, leading zeros or none; other names are no
/// releases. Two folders of one number are refused where it is wanted. A name is a folder, or a link to one of the others.
#[derive(Clone, Debug)]
pub struct FolderSource {
    root: PathBuf,
    /// `None` where the root is the release.
    policy: Option<VersionPolicy>,
}

impl FolderSource {
    /// Watches one release folder, whose files may be replaced.
    pub fn release(folder: impl Into<PathBuf>) -> Self {
        FolderSource { root: folder.into(), policy: None }
    }

    /// Watches a folder of releases.
    pub fn releases(root: impl Into<PathBuf>, policy: VersionPolicy) -> Self {
        FolderSource { root: root.into(), policy: Some(policy) }
    }

    fn choose(&self, which: &VersionPolicy) -> Result<Option<Wanted>, SourceError> {
        match which {
            VersionPolicy::Latest => self.latest(),
            VersionPolicy::Pinned(number) => self.pinned(*number),
            VersionPolicy::Name(name) => self.named(name),
        }
    }

    /// The highest number with a manifest and a network.
    fn latest(&self) -> Result<Option<Wanted>, SourceError> {
        let is_complete = |folder: &Path| manifest_path(folder).exists() && onnx_path(folder).exists();
        let complete = self.folders()?.into_iter().filter(|folder| is_complete(folder));
        let mut latest: Vec<(u32, PathBuf)> = Vec::new();
        for (number, folder) in complete.filter_map(|folder| Some((number_of(&folder)?, folder))) {
            let highest = latest.first().map(|(highest, _)| *highest);
            if highest < Some(number) {
                latest.clear();
            }
            if highest <= Some(number) {
                latest.push((number, folder));
            }
        }
        match latest.as_slice() {
            [] => Ok(None),
            [(number, folder)] => Ok(Some(self.child(folder.clone(), Some(*number)))),
            [(number, one), (_, other), ..] => Err(self.doubled(*number, one, other)),
        }
    }

    fn pinned(&self, number: u32) -> Result<Option<Wanted>, SourceError> {
        let mut found = self.folders()?.into_iter().filter(|folder| number_of(folder) == Some(number));
        match (found.next(), found.next()) {
            (Some(one), Some(other)) => Err(self.doubled(number, &one, &other)),
            (one, _) => Ok(one.map(|folder| self.child(folder, Some(number)))),
        }
    }

    /// All that lies in the folder of releases, by name: the system lists it in any order.
    fn folders(&self) -> Result<Vec<PathBuf>, SourceError> {
        let listed = fs::read_dir(&self.root).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        let mut folders: Vec<PathBuf> = listed.map_err(|cause| self.unreadable(&cause))?;
        folders.sort_unstable();
        Ok(folders)
    }

    /// Neither is meant more than the other, and which one is found first is chance.
    fn doubled(&self, number: u32, one: &Path, other: &Path) -> SourceError {
        let name = |folder: &Path| folder.file_name().unwrap_or_default().display().to_string();
        let (root, one, other) = (self.root.display(), name(one), name(other));
        let text = format!("{root} has two releases of number {number}, {one:?} and {other:?}: take one of them out");
        SourceError { text }
    }

    fn named(&self, name: &str) -> Result<Option<Wanted>, SourceError> {
        // A name is one step into the folder of releases, wherever it comes from.
        let mut steps = Path::new(name).components();
        let (Some(Component::Normal(_)), None) = (steps.next(), steps.next()) else { return Ok(None) };
        let folder = self.root.join(name);
        // A link says by itself which release it means, and that changes at once when the link is replaced.
        match fs::canonicalize(&folder) {
            Ok(target) => {
                let number = number_of(&target);
                Ok(Some(self.child(target, number)))
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && self.root.is_dir() => Ok(None),
            Err(cause) => Err(self.unreadable(&cause)),
        }
    }

    fn child(&self, folder: PathBuf, number: Option<u32>) -> Wanted {
        Wanted { folder, number, within: Some(self.root.clone()) }
    }

    fn unreadable(&self, cause: &io::Error) -> SourceError {
        SourceError {
            text: format!("cannot read the folder of releases {}: {cause}; check the path", self.root.display()),
        }
    }
}

impl Source for FolderSource {
    fn describe(&self) -> String {
        let root = self.root.display();
        match &self.policy {
            None => format!("the release {root}"),
            Some(VersionPolicy::Name(name)) => format!("{name} in {root}"),
            Some(VersionPolicy::Latest) => format!("the latest in {root}"),
            Some(VersionPolicy::Pinned(number)) => format!("number {number} in {root}"),
        }
    }

    fn wanted(&mut self) -> Result<Option<Wanted>, SourceError> {
        match &self.policy {
            None => Ok(Some(Wanted { folder: self.root.clone(), number: None, within: None })),
            Some(policy) => self.choose(policy),
        }
    }

    fn find(&mut self, which: &VersionPolicy) -> Result<Option<Wanted>, SourceError> {
        match &self.policy {
            None => Err(SourceError::alone(&self.describe())),
            Some(_) => self.choose(which),
        }
    }
}

/// The number that a folder's name is.
fn number_of(folder: &Path) -> Option<u32> {
    let name = folder.file_name()?.to_str()?;
    // `parse` alone would take a sign.
    name.bytes().all(|digit| digit.is_ascii_digit()).then(|| name.parse().ok())?
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "inputs of a test need not outlive a power cut")]
mod tests {
    use super::*;

    fn releases(root: &Path, names: &[&str]) {
        for name in names {
            fs::create_dir_all(root.join(name)).unwrap();
            fs::write(manifest_path(&root.join(name)), "{}").unwrap();
            fs::write(onnx_path(&root.join(name)), "").unwrap();
        }
    }

    fn number(root: &Path, policy: VersionPolicy) -> Option<u32> {
        FolderSource::releases(root, policy).wanted().unwrap().and_then(|wanted| wanted.number)
    }

    #[test]
    fn the_latest_is_the_highest_complete_number() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(number(root.path(), VersionPolicy::Latest), None);
        releases(root.path(), &["000002", "10", "9", "+11", "12x", ".tmp-13", "model"]);
        assert_eq!(number(root.path(), VersionPolicy::Latest), Some(10));
        fs::create_dir(root.path().join("11")).unwrap();
        fs::write(manifest_path(&root.path().join("11")), "{}").unwrap();
        assert_eq!(number(root.path(), VersionPolicy::Latest), Some(10));
        fs::write(onnx_path(&root.path().join("11")), "").unwrap();
        assert_eq!(number(root.path(), VersionPolicy::Latest), Some(11));
    }

    #[test]
    fn a_pinned_number_is_found_with_zeros_or_without() {
        let root = tempfile::tempdir().unwrap();
        releases(root.path(), &["000002", "3"]);
        let check =
            |wanted: u32, found: Option<u32>| assert_eq!(number(root.path(), VersionPolicy::Pinned(wanted)), found);
        check(2, Some(2));
        check(3, Some(3));
        check(4, None);
    }

    #[test]
    fn two_folders_of_one_number_are_refused_where_that_number_is_meant() {
        let root = tempfile::tempdir().unwrap();
        releases(root.path(), &["2", "000002", "1"]);
        let ask = |policy: VersionPolicy| FolderSource::releases(root.path(), policy).wanted();
        for policy in [VersionPolicy::Latest, VersionPolicy::Pinned(2)] {
            let refused = ask(policy).unwrap_err().to_string();
            assert!(refused.contains("\"000002\" and \"2\"") && refused.contains("take one"), "{refused}");
        }
        assert_eq!(number(root.path(), VersionPolicy::Pinned(1)), Some(1));
        // A later one is wanted whatever lies before it, and a copy that is not complete yet counts for nothing.
        releases(root.path(), &["3"]);
        fs::create_dir(root.path().join("03")).unwrap();
        assert_eq!(number(root.path(), VersionPolicy::Latest), Some(3));
    }

    #[test]
    fn a_name_is_what_its_link_points_to() {
        let root = tempfile::tempdir().unwrap();
        releases(root.path(), &["000001", "000002"]);
        let name = || VersionPolicy::Name("champion".to_owned());
        assert_eq!(number(root.path(), name()), None);
        std::os::unix::fs::symlink("000001", root.path().join("champion")).unwrap();
        assert_eq!(number(root.path(), name()), Some(1));
        fs::remove_file(root.path().join("champion")).unwrap();
        std::os::unix::fs::symlink("000002", root.path().join("champion")).unwrap();
        assert_eq!(number(root.path(), name()), Some(2));
        // A link that leads nowhere wants nothing; one that leads to itself cannot be read.
        fs::remove_dir_all(root.path().join("000002")).unwrap();
        assert_eq!(number(root.path(), name()), None);
        fs::remove_file(root.path().join("champion")).unwrap();
        std::os::unix::fs::symlink("champion", root.path().join("champion")).unwrap();
        assert!(FolderSource::releases(root.path(), name()).wanted().is_err());
    }

    #[test]
    fn a_missing_root_is_an_error_with_its_path() {
        let policies = [VersionPolicy::Latest, VersionPolicy::Pinned(1), VersionPolicy::Name("champion".to_owned())];
        for policy in policies {
            let mut source = FolderSource::releases("/does/not/exist", policy);
            assert!(source.wanted().unwrap_err().to_string().contains("/does/not/exist"));
        }
    }
}
