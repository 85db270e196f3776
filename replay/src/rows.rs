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

/// Some rows of a larger list, by number, with some of their elements replaced as they are gathered.
///
/// This is how one stored state serves many contexts: the caller writes what depends on play (a cost, a level) over the
/// elements that the recording left open, row by row, without a copy of the state.
///
/// ```
/// use bellwether_replay::{DenseRows, SampledRows, StateRows};
/// let all = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
/// let all = DenseRows::new(2, &all);
/// // Rows 2 and 0; element 1 of both is replaced.
/// let rows = SampledRows::new(&all, &[2, 0]).with_overlay(&[1], &[0.25, 0.75]);
/// let mut out = [0.0; 2];
/// rows.gather(0, &mut out);
/// assert_eq!(out, [4.0, 0.25]);
/// rows.gather(1, &mut out);
/// assert_eq!(out, [0.0, 0.75]);
/// ```
#[derive(Clone, Copy)]
pub struct SampledRows<'a> {
    rows: &'a dyn StateRows,
    indices: &'a [u32],
    elements: &'a [u16],
    values: &'a [f32],
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

impl<'a> SampledRows<'a> {
    /// The rows of `rows` whose numbers are `indices`, in that order; a number may come twice.
    ///
    /// # Panics
    /// If a number is out of range.
    pub fn new(rows: &'a dyn StateRows, indices: &'a [u32]) -> Self {
        let len = rows.len();
        assert!(indices.iter().all(|i| (*i as usize) < len), "a sampled row lies beyond the {len} rows there are");
        SampledRows { rows, indices, elements: &[], values: &[] }
    }

    /// Replaces the elements with these numbers in every row: `values` is row-major, `elements.len()` values for each
    /// sampled row. A later element wins over an equal earlier one.
    ///
    /// # Panics
    /// If an element lies beyond the width, or `values` has another size.
    #[must_use]
    pub fn with_overlay(self, elements: &'a [u16], values: &'a [f32]) -> Self {
        let width = self.width();
        assert!(elements.iter().all(|e| usize::from(*e) < width), "an overlaid element lies beyond the width {width}");
        assert_eq!(values.len(), elements.len() * self.indices.len(), "an overlay needs a value per element and row");
        SampledRows { elements, values, ..self }
    }
}

impl StateRows for SampledRows<'_> {
    fn len(&self) -> usize {
        self.indices.len()
    }
    fn width(&self) -> usize {
        self.rows.width()
    }
    fn gather(&self, row: usize, out: &mut [f32]) {
        self.rows.gather(self.indices[row] as usize, out);
        let overlays = self.elements.len();
        for (element, value) in self.elements.iter().zip(&self.values[row * overlays..(row + 1) * overlays]) {
            out[usize::from(*element)] = *value;
        }
    }
}

impl std::fmt::Debug for SampledRows<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SampledRows")
            .field("indices", &self.indices)
            .field("elements", &self.elements)
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}
