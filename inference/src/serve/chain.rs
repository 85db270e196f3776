//! Errors with their causes, on one line.

use std::error::Error;
use std::fmt;

/// An error and its causes, the outermost first, as `a: b: c`: what a log should say of it.
///
/// ```
/// use bellwether_inference::serve::Chain;
///
/// let error = std::io::Error::other("the disk is full");
/// assert_eq!(Chain(&error).to_string(), "the disk is full");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(pub &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(out, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("outer")]
    struct Outer(#[source] Inner);

    #[derive(Debug, Error)]
    #[error("inner")]
    struct Inner(#[source] io::Error);

    #[test]
    fn every_cause_is_told_once() {
        let error = Outer(Inner(io::Error::other("innermost")));
        assert_eq!(Chain(&error).to_string(), "outer: inner: innermost");
    }
}
