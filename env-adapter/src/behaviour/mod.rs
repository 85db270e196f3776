//! From events to signs: what an event means in the light of what its episode did before.
//!
//! A source tells that a path was opened for writing; whether that destroys a file of the user depends on who created
//! the file. The [`Tracker`] remembers just enough of an episode, in bounded memory, to say so. Features count signs,
//! rewards weigh them, and neither ever sees a label.

mod files;
mod marks;
mod paths;
mod seen;
mod sign;
mod tracker;

pub(crate) use paths::rules as path_rules;
pub use sign::{SIGN_COUNT, Sign, Signs};
pub use tracker::{Facts, NEVER_DENIED, Tracker};
