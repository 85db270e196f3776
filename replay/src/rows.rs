//! Rows of states, gathered from wherever they are kept.

/// A list of states that a learner gathers into its own layout.
pub trait StateRows: Sync {
    /// Number of rows.
    fn len(&self) -> usize;
    /// Whether there is no row.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Elements per row.
    fn width(&self) -> usize;
    /// Writes row `row` into `out`, `width()` values.
    ///
    /// # Panics
    /// If `row` is out of range or `out` has another length.
    fn gather(&self, row: usize, out: &mut [f32]);
}

/// Rows that lie one after the other in memory.
#[derive(Clone, Copy, Debug)]
pub struct DenseRows<'a> {
    width: usize,
    data: &'a [f32],
}

impl<'a> DenseRows<'a> {
    /// # Panics
    /// If `data` is not a whole number of rows.
    pub fn new(width: usize, data: &'a [f32]) -> Self {
        assert!(width > 0 && data.len().is_multiple_of(width), "{} values are no rows of {width}", data.len());
        DenseRows { width, data }
    }
}

impl StateRows for DenseRows<'_> {
    fn len(&self) -> usize {
        self.data.len() / self.width
    }
    fn width(&self) -> usize {
        self.width
    }
    fn gather(&self, row: usize, out: &mut [f32]) {
        out.copy_from_slice(&self.data[row * self.width..(row + 1) * self.width]);
    }
}
