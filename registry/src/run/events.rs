//! Files of TensorBoard events: they grow while a run works, hold times, and are never hashed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use bellwether_artifact::{ArtifactError, durable};

use crate::{RegistryError, clock};

/// A new file in the folder `tensorboard/` of a run. What is written reaches the operating system at once, so a reader may
/// follow the run; nothing is forced to disk, for no result hangs on it.
#[derive(Debug)]
pub struct EventFile {
    file: File,
    path: PathBuf,
}

impl EventFile {
    /// Makes the next file of a folder, which is made where it is missing. Names count the starts of the run, since
    /// TensorBoard reads the files of a folder by ascending name.
    pub(super) fn create(folder: &Path) -> Result<EventFile, RegistryError> {
        durable::create_folder(folder)?;
        let entries = fs::read_dir(folder).map_err(|source| ArtifactError::io("read", folder, source))?;
        let taken = entries.filter_map(|entry| number_of(entry.ok()?.file_name().to_str()?)).max().unwrap_or(0);
        let path = folder.join(format!("{STEM}{:06}", taken.saturating_add(1)));
        let opened = OpenOptions::new().append(true).create_new(true).open(&path);
        let file = opened.map_err(|source| ArtifactError::io("create", &path, source))?;
        Ok(EventFile { file, path })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The time that an event carries which is written now: seconds since 1970.
    pub fn unix_seconds(&self) -> f64 {
        clock::unix_ms() as f64 / 1000.0
    }
}

impl Write for EventFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// What TensorBoard knows an event file by.
const STEM: &str = "events.out.tfevents.";

/// The number in the name of an event file.
fn number_of(name: &str) -> Option<u32> {
    name.strip_prefix(STEM)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_start_has_a_file_behind_the_last() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("tensorboard");
        let mut names = Vec::new();
        for text in ["one", "two", "three"] {
            let mut file = EventFile::create(&folder).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(file.path()).unwrap(), text);
            assert!(file.unix_seconds() > 1.7e9);
            names.push(file.path().to_path_buf());
        }
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        fs::remove_file(&names[0]).unwrap();
        assert!(EventFile::create(&folder).unwrap().path() > names[2].as_path(), "a gap is not filled");
    }

    #[test]
    fn other_names_do_not_count() {
        for (name, number) in [
            ("events.out.tfevents.000007", Some(7)),
            ("events.out.tfevents.x", None),
            ("notes.txt", None),
            ("events.out.tfevents.99999999999", None),
        ] {
            assert_eq!(number_of(name), number, "{name}");
        }
    }
}
