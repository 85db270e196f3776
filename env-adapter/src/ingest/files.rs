//! Files and folders of recordings.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use flate2::bufread::MultiGzDecoder;

use super::IngestError;

/// Files below a folder, `depth` folders deep, in no order. Links are not followed.
pub(crate) fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), IngestError> {
    let failed = |source| IngestError::io(folder, source);
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.file_type().map_err(failed)?;
        if kind.is_dir() && depth > 0 {
            list(&entry.path(), depth - 1, files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The content of a file, unpacked where it begins like gzip.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead>, IngestError> {
    let failed = |source| IngestError::io(path, source);
    let file = File::open(path).map_err(failed)?;
    unpacked(BufReader::with_capacity(1 << 16, file)).map_err(failed)
}

/// The stream itself, or what it unpacks to where it begins like gzip.
fn unpacked<'a>(mut from: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    Ok(match from.fill_buf()?.starts_with(&[0x1f, 0x8b]) {
        true => Box::new(BufReader::new(MultiGzDecoder::new(from))),
        false => Box::new(from),
    })
}
