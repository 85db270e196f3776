//! The product of a matrix and its transpose in f64, for the norms that certificates rest on.

use super::dispatch::for_each_isa;
use super::{Kernel, chunk};

/// Rows of a panel: what one tile is wide.
const PANEL: usize = 16;

/// Rows of a tile, so that its sums stay in registers.
const TILE: usize = 4;

/// `R R'` for `side` rows of equal length; exactly symmetric. Every sum is one chain in the order of the row, whatever the kernel.
pub(in crate::engine) fn gram(kernel: Kernel, rows: &[f64], side: usize) -> Vec<f64> {
    let length = rows.len().checked_div(side).unwrap_or(0);
    let panels = panels(rows, side, length);
    let panel = |index: usize| &panels[index * length..][..length];
    let mut product = vec![0.0; side * side];
    for right in 0..side.div_ceil(PANEL) {
        let columns = right * PANEL..side.min((right + 1) * PANEL);
        // Every row down to the last column: what lies below the diagonal is written a second time, with the same sums.
        for row in (0..columns.end).step_by(TILE) {
            let sums = tile(kernel, panel(row / PANEL), panel(right), row % PANEL);
            let height = TILE.min(side - row);
            for (index, sums) in sums[..height].iter().enumerate() {
                product[(row + index) * side..][columns.clone()].copy_from_slice(&sums[..columns.len()]);
            }
            for (index, column) in columns.clone().enumerate() {
                let mirrored: [f64; TILE] = std::array::from_fn(|row| sums[row][index]);
                product[column * side + row..][..height].copy_from_slice(&mirrored[..height]);
            }
        }
    }
    product
}

/// The rows in groups of [`PANEL`], each group column after column, filled up with rows of zeros: two panels fit the nearest cache.
fn panels(rows: &[f64], side: usize, length: usize) -> Vec<[f64; PANEL]> {
    let mut panels = vec![[0.0; PANEL]; side.div_ceil(PANEL) * length];
    for (index, group) in rows.chunks(PANEL * length.max(1)).enumerate() {
        for (column, panel) in panels[index * length..][..length].iter_mut().enumerate() {
            for (value, row) in panel.iter_mut().zip(group.chunks_exact(length)) {
                *value = row[column];
            }
        }
    }
    panels
}

for_each_isa! {
    /// Products of [`TILE`] rows of one panel, from `top` on, with all rows of another.
    fn tile(left: &[[f64; PANEL]], right: &[[f64; PANEL]], top: usize) -> [[f64; PANEL]; TILE] {
        let mut sums = [[0.0; PANEL]; TILE];
        let [a, b, c, d] = &mut sums;
        for (left, right) in left.iter().zip(right) {
            let factors: &[f64; TILE] = chunk(left, top);
            for lane in 0..PANEL {
                a[lane] += factors[0] * right[lane];
                b[lane] += factors[1] * right[lane];
                c[lane] += factors[2] * right[lane];
                d[lane] += factors[3] * right[lane];
            }
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::isa::Isa;

    #[test]
    fn every_kernel_gives_the_sums_in_the_order_of_the_rows() {
        for (side, length) in [(0, 0), (1, 1), (3, 7), (16, 5), (17, 33), (40, 64)] {
            let rows: Vec<f64> = (0..side * length).map(|i| ((i * 7919 % 1009) as f64 - 504.0) / 31.0).collect();
            let row = |index: usize| &rows[index * length..(index + 1) * length];
            let chain = |a: usize, b: usize| row(a).iter().zip(row(b)).fold(0.0, |sum, (x, y)| sum + x * y);
            let expected: Vec<f64> = (0..side * side).map(|i| chain(i / side, i % side)).collect();
            for kernel in Isa::ALL.into_iter().filter_map(Kernel::new) {
                assert_eq!(gram(kernel, &rows, side), expected, "{side} {length} {kernel:?}");
            }
        }
    }
}
