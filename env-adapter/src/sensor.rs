//! What every recorder of Linux calls does in the same way, so that the same call is the same event whoever recorded it.

use std::collections::BTreeSet;

/// Bytes of written data whose entropy is measured.
pub const SAMPLE_BYTES: usize = 512;

/// Bytes of arguments that are kept; they are cut after redaction, since half an address is no address to it.
pub const MAX_ARGS_BYTES: usize = 1_024;

/// Planted paths, and prefixes of paths where a whole folder was planted.
#[derive(Clone, Debug, Default)]
pub struct Decoys {
    paths: BTreeSet<String>,
    folders: BTreeSet<String>,
}

impl Decoys {
    /// Paths; one that ends in `/` stands for all below it.
    pub fn new(decoys: impl IntoIterator<Item = String>) -> Self {
        let (folders, paths) = decoys.into_iter().partition(|path| path.ends_with('/'));
        Decoys { paths, folders }
    }

    /// Whether a path was planted.
    pub fn contains(&self, path: &str) -> bool {
        self.paths.contains(path)
            || path.match_indices('/').any(|(slash, _)| self.folders.contains(&path[..=slash]))
            || self.folders.contains(&format!("{path}/"))
    }
}

/// `path` seen from `folder`, without `.`, `..` and double slashes. A relative path stays one where the folder is unknown.
pub fn resolve(folder: Option<&str>, path: &str) -> String {
    let base = if path.starts_with('/') { "" } else { folder.unwrap_or("") };
    let rooted = path.starts_with('/') || base.starts_with('/');
    if !rooted {
        return path.to_owned();
    }
    let mut resolved = String::with_capacity(base.len() + path.len() + 1);
    for part in base.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => resolved.truncate(resolved.rfind('/').unwrap_or(0)),
            part => {
                resolved.push('/');
                resolved.push_str(part);
            }
        }
    }
    if resolved.is_empty() {
        resolved.push('/');
    }
    resolved
}

/// Shannon entropy in bits per byte, 0 to 8; none for no bytes.
pub fn entropy(bytes: &[u8]) -> Option<f32> {
    if bytes.is_empty() {
        return None;
    }
    let mut counts = [0u32; 256];
    for byte in bytes {
        counts[usize::from(*byte)] += 1;
    }
    let total = bytes.len() as f64;
    let sum: f64 = counts
        .iter()
        .filter(|count| **count > 0)
        .map(|count| {
            let share = f64::from(*count) / total;
            -share * libm::log2(share)
        })
        .sum();
    // A single value gives a negative zero, which 0 makes positive.
    Some((sum as f32).clamp(0.0, 8.0) + 0.0)
}

/// The beginning of a text, of at most so many bytes, with no letter cut in two.
pub fn clipped(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

/// Bytes as text; what is no UTF-8 becomes the replacement character.
pub fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_stands_for_all_below_it() {
        let decoys = Decoys::new(["/home/user/a.txt".to_owned(), "/home/user/Documents/".to_owned()]);
        for (path, planted) in [
            ("/home/user/a.txt", true),
            ("/home/user/a.txt.bak", false),
            ("/home/user/Documents/b/c.odt", true),
            ("/home/user/Documents", true),
            ("/home/user/Documents2/x", false),
            ("Documents/b", false),
        ] {
            assert_eq!(decoys.contains(path), planted, "{path}");
        }
    }

    #[test]
    fn paths_are_resolved() {
        for (folder, path, resolved) in [
            (Some("/home/user"), "a/../b//./c", "/home/user/b/c"),
            (Some("/home/user"), "/etc/../../x/", "/x"),
            (Some("/"), "..", "/"),
            (None, "a/b", "a/b"),
            (Some("socket:[1]"), "a", "a"),
            (None, "/a/./b", "/a/b"),
        ] {
            assert_eq!(resolve(folder, path), resolved);
        }
    }
}
