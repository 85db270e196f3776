//! Buffers that start at a cache line.

use std::ops::{Deref, DerefMut};

/// Values per cache line.
pub(super) const LINE: usize = 16;

/// A buffer of `f32` that starts at a cache line and grows only.
#[derive(Default)]
pub(super) struct Aligned {
    data: Vec<f32>,
    offset: usize,
    len: usize,
}

impl Aligned {
    /// A buffer with these values.
    pub(super) fn from_slice(values: &[f32]) -> Aligned {
        let mut buffer = Aligned::default();
        buffer.reserve(values.len());
        buffer.copy_from_slice(values);
        buffer
    }

    /// Makes the buffer at least `len` values long; what it held is lost when it grows.
    pub(super) fn reserve(&mut self, len: usize) {
        if len <= self.len {
            return;
        }
        self.data = vec![0.0; len + LINE];
        // The allocator aligns to 4 bytes at least, so the offset is a number of whole values and less than a line.
        self.offset = self.data.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        self.len = len;
    }
}

impl Deref for Aligned {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        &self.data[self.offset..self.offset + self.len]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.offset..self.offset + self.len]
    }
}

/// The distance between rows of `width` values: whole cache lines, and not a power of two, so that the rows of a tile do
/// not compete for the same lines of the cache.
pub(super) fn stride(width: usize) -> usize {
    let lines = width.div_ceil(LINE);
    LINE * if lines.is_multiple_of(4) { lines + 1 } else { lines }
}
