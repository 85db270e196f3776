//! The matrix product in register tiles: `C[m, n] = start[m, n] + sum_k A[m, k] * B[k, n]`.
//!
//! Each element of `C` is one chain of fused multiply-adds over `k` in index order. Lanes run over `n` and tiles over
//! `m` and `n`, so neither the tile nor the number of lanes changes a byte.

use super::vector::Lanes;

/// What the chains start from.
#[derive(Clone, Copy)]
pub(super) enum Start {
    /// From 0.
    Zero,
    /// From the value of their column.
    Row(*const f32),
    /// From what `C` holds: the chain goes on.
    Continue,
}

/// One product, by address.
#[derive(Clone, Copy)]
pub(super) struct Product {
    pub(super) m: usize,
    pub(super) n: usize,
    pub(super) k: usize,
    pub(super) start: Start,
    pub(super) a: *const f32,
    /// Distance between neighbours in `m`.
    pub(super) a_row: usize,
    /// Distance between neighbours in `k`.
    pub(super) a_step: usize,
    pub(super) b: *const f32,
    pub(super) b_row: usize,
    pub(super) c: *mut f32,
    pub(super) c_row: usize,
}

/// Computes a whole product.
///
/// # Safety
/// The instruction set of `V` must be there; all elements of `A`, `B`, `C` and the start row must be in bounds, and `C`
/// must overlap none of the others.
#[inline(always)]
pub(super) unsafe fn product<V: Lanes>(p: &Product) {
    let mut row = 0;
    while row < p.m {
        // SAFETY: each arm covers as many rows as remain at least; the rest is the caller's promise.
        unsafe {
            row += match p.m - row {
                8.. if V::TILE_ROWS == 8 => band::<V, 8, 2>(p, row),
                6.. if V::TILE_ROWS == 6 => band::<V, 6, 2>(p, row),
                4.. => band::<V, 4, 2>(p, row),
                2.. => band::<V, 2, 4>(p, row),
                _ => band::<V, 1, 8>(p, row),
            };
        }
    }
}

/// Computes `MR` rows of the product in tiles of `NV` vectors and returns `MR`.
///
/// # Safety
/// As for [`product`]; `row + MR` rows must exist.
#[inline(always)]
unsafe fn band<V: Lanes, const MR: usize, const NV: usize>(p: &Product, row: usize) -> usize {
    let mut column = 0;
    while column + NV * V::COUNT <= p.n {
        // SAFETY: `NV` whole vectors remain in the row.
        unsafe { tile::<V, MR, NV, true>(p, row, column, V::COUNT) };
        column += NV * V::COUNT;
    }
    while column + V::COUNT <= p.n {
        // SAFETY: one whole vector remains in the row.
        unsafe { tile::<V, MR, 1, true>(p, row, column, V::COUNT) };
        column += V::COUNT;
    }
    if column < p.n {
        // SAFETY: the tile touches the remaining columns only.
        unsafe { tile::<V, MR, 1, false>(p, row, column, p.n - column) };
    }
    MR
}

/// Computes one register tile. `WHOLE` tiles use all lanes, others the first `lanes` of one vector.
///
/// # Safety
/// As for [`product`]; the tile must lie within `C`.
#[inline(always)]
unsafe fn tile<V: Lanes, const MR: usize, const NV: usize, const WHOLE: bool>(
    p: &Product,
    row: usize,
    column: usize,
    lanes: usize,
) {
    // SAFETY: all addresses lie within the operands, by the promise of the caller and the loops' bounds.
    unsafe {
        let read = |from: *const f32| if WHOLE { V::load(from) } else { V::load_first(from, lanes) };
        let c = p.c.wrapping_add(row * p.c_row + column);
        let mut sums = [[V::splat(0.0); NV]; MR];
        match p.start {
            Start::Zero => {}
            Start::Row(from) => {
                for j in 0..NV {
                    let value = read(from.wrapping_add(column + j * V::COUNT));
                    for sum in &mut sums {
                        sum[j] = value;
                    }
                }
            }
            Start::Continue => {
                for (i, sum) in sums.iter_mut().enumerate() {
                    for (j, lane) in sum.iter_mut().enumerate() {
                        *lane = read(c.wrapping_add(i * p.c_row + j * V::COUNT));
                    }
                }
            }
        }
        let mut a = [p.a; MR];
        for (i, left) in a.iter_mut().enumerate() {
            *left = p.a.add((row + i) * p.a_row);
        }
        let mut b = p.b.add(column);
        for _ in 0..p.k {
            let mut right = [V::splat(0.0); NV];
            for (j, lane) in right.iter_mut().enumerate() {
                *lane = read(b.wrapping_add(j * V::COUNT));
            }
            for (i, sum) in sums.iter_mut().enumerate() {
                let left = V::splat_from(a[i]);
                for (j, lane) in sum.iter_mut().enumerate() {
                    *lane = left.multiply_add(right[j], *lane);
                }
                // The last step may go past the end; such an address is never read.
                a[i] = a[i].wrapping_add(p.a_step);
            }
            b = b.wrapping_add(p.b_row);
        }
        for (i, sum) in sums.iter().enumerate() {
            for (j, lane) in sum.iter().enumerate() {
                let to = c.wrapping_add(i * p.c_row + j * V::COUNT);
                if WHOLE {
                    lane.store(to);
                } else {
                    lane.store_first(to, lanes);
                }
            }
        }
    }
}

/// Vectors of sums that [`multiply_adds`] keeps in registers: more than any processor's latency of a multiply-add times those that it
/// starts at once, and fewer than the registers of AVX2.
const CHAINS: usize = 12;

/// Runs `rounds` rounds of multiply-adds that wait for nothing but registers; gives the sum of the chains and the number of
/// floating-point operations.
///
/// # Safety
/// The instruction set of `V` must be there.
#[inline(always)]
pub(super) unsafe fn multiply_adds<V: Lanes>(rounds: u64) -> (f32, u64) {
    let mut lanes = [0.0; 16];
    // SAFETY: the caller promises the instruction set, and no vector has more lanes than the array.
    unsafe {
        let (by, plus) = (V::splat(0.5), V::splat(1.0));
        let mut sums = [V::splat(0.0); CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = sum.multiply_add(by, plus);
            }
        }
        let sum = sums.into_iter().fold(V::splat(0.0), |all, sum| sum.multiply_add(plus, all));
        sum.store(lanes.as_mut_ptr());
    }
    (lanes.iter().sum(), rounds * (2 * CHAINS * V::COUNT) as u64)
}
