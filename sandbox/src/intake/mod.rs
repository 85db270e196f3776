//! Files that come one after the other: taken from a folder, several at once, and put where their verdict sends them.
//!
//! A file is in exactly one place at any time, and moves by renames alone: whoever kills the loop finds each file in the inbox, in
//! work, or where its verdict sent it. What a loop finds in work when it begins was in work when another ended.

mod crew;
mod folder;

pub use crew::{Count, Counts, Crew, Played, Signals, Told};
pub use folder::{Folder, IntakeError, Place, Taken};
