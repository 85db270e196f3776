//! Drawing from a caller's generator, with arithmetic of our own so that the same stream gives the same draws for good.

use rand::Rng;

/// A number in `0..n`, each exactly as likely (Lemire, "Fast random integer generation in an interval", 2019,
/// algorithm 5).
///
/// # Panics
/// If `n` is 0.
pub(crate) fn below(rng: &mut (impl Rng + ?Sized), n: u32) -> u32 {
    assert!(n > 0, "nothing lies below 0");
    let mut product = u64::from(rng.next_u32()) * u64::from(n);
    if (product as u32) < n {
        let threshold = n.wrapping_neg() % n;
        while (product as u32) < threshold {
            product = u64::from(rng.next_u32()) * u64::from(n);
        }
    }
    (product >> 32) as u32
}

/// A number in `[0, 1)`, a multiple of 2^-53.
pub(crate) fn unit(rng: &mut (impl Rng + ?Sized)) -> f64 {
    (rng.next_u64() >> 11) as f64 * (1.0 / (1_u64 << 53) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn below_is_even_and_stays_in_range() {
        for n in [1, 2, 3, 7, 10] {
            let mut rng = ChaCha8Rng::seed_from_u64(u64::from(n));
            let mut counts = vec![0_u32; n as usize];
            for _ in 0..n * 4000 {
                counts[below(&mut rng, n) as usize] += 1;
            }
            // Six standard deviations of a binomial count with mean 4,000.
            assert!(counts.iter().all(|c| c.abs_diff(4000) < 400), "{n}: {counts:?}");
        }
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        assert!((0..1000).all(|_| below(&mut rng, u32::MAX) < u32::MAX));
    }

    #[test]
    fn unit_stays_below_one() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mean = (0..10_000).map(|_| unit(&mut rng)).inspect(|u| assert!((0.0..1.0).contains(u))).sum::<f64>() / 1e4;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }
}
