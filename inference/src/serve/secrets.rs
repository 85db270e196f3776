//! Credentials, read once at the start.

use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use subtle::ConstantTimeEq as _;

use super::{AuthConfig, ServeError};

/// Tokens of the two planes.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// What callers bear; `None` where nobody is asked.
    pub(super) data: Option<Token>,
    /// What callers of the admin listener bear.
    pub(super) admin: Option<Token>,
}

/// A token. It is never shown.
pub(super) struct Token(Vec<u8>);

impl Secrets {
    /// Reads the files that the configuration names.
    pub(super) fn read(auth: &AuthConfig) -> Result<Self, ServeError> {
        let read = |path: &Option<_>| path.as_deref().map(Token::read).transpose();
        Ok(Secrets { data: read(&auth.token_file)?, admin: read(&auth.admin_token_file)? })
    }
}

impl Token {
    fn read(path: &Path) -> Result<Self, ServeError> {
        read_token(path).map(Token)
    }

    /// Whether a caller with this `authorization` bears the token. The time does not tell how much of it is right.
    pub(super) fn is_borne_by(&self, authorization: Option<&http::HeaderValue>) -> bool {
        let Some((scheme, token)) = authorization.and_then(|value| value.as_bytes().split_at_checked(7)) else {
            return false;
        };
        scheme.eq_ignore_ascii_case(b"bearer ") && bool::from(self.0.ct_eq(token))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Token(..)")
    }
}

/// Reads a bearer token from a file that nobody but its owner may read.
///
/// # Errors
/// [`ServeError::File`]: as [`read_private`], or there is no token in it.
pub fn read_token(path: &Path) -> Result<Vec<u8>, ServeError> {
    /// Fewer bytes can be guessed; more are no token.
    const BYTES: std::ops::RangeInclusive<usize> = 16..=4_096;
    let text = read_private(path)?;
    let token = text.trim_ascii();
    if !BYTES.contains(&token.len()) || !token.iter().all(u8::is_ascii_graphic) {
        let reason = "it holds no token; give one line of 16 to 4096 visible ASCII characters".to_owned();
        return Err(ServeError::File { path: path.to_owned(), reason });
    }
    Ok(token.to_vec())
}

/// Reads a file that nobody but its owner may read, at most 64 KiB of it.
///
/// # Errors
/// [`ServeError::File`]: it cannot be read, others may read it, or it is longer.
pub fn read_private(path: &Path) -> Result<Vec<u8>, ServeError> {
    const MOST: u64 = 64 << 10;
    let refused = |reason: String| ServeError::File { path: path.to_owned(), reason };
    let unread = |error| refused(format!("it cannot be read: {error}; give a file that this user owns"));
    let file = File::open(path).map_err(unread)?;
    // Of the open file, so that it cannot be another one by the time it is read.
    let metadata = file.metadata().map_err(unread)?;
    if !metadata.is_file() {
        return Err(refused("it is no regular file; give one".to_owned()));
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(refused(format!("mode {:o} lets others at it; chmod 600", metadata.mode() & 0o777)));
    }
    let mut bytes = Vec::new();
    file.take(MOST + 1).read_to_end(&mut bytes).map_err(unread)?;
    if bytes.len() as u64 > MOST {
        return Err(refused(format!("it has more than {MOST} bytes; give the file of one key or token")));
    }
    Ok(bytes)
}
