//! The end of a test, for threads that work until it comes.

use std::sync::atomic::{AtomicBool, Ordering};

/// Says that it is over when it goes out of scope: also where a test fails, whose threads would else work for ever.
pub(crate) struct Over<'a>(pub(crate) &'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
