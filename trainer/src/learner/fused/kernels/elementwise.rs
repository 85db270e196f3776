//! Kernels without a chain across elements, or with a chain of a fixed shape. They are plain Rust, compiled once for
//! each instruction set; Rust neither contracts nor reorders floating-point arithmetic, so the bytes stay the same.
//!
//! Loops run over indices of slices of one length: iterators over several slices are not inlined into functions of
//! another instruction set, and then nothing of them is vectorised.
#![allow(clippy::needless_range_loop, reason = "the loops over indices are the ones that the compiler vectorises")]

use super::Kernels;
use crate::learner::keep;
use bellwether_inference::Isa;

/// The constants of one step of AdamW.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct AdamStep {
    /// What the gradient is multiplied with first.
    pub(in super::super) clip: f32,
    pub(in super::super) beta2: f32,
    pub(in super::super) one_minus_beta1: f32,
    pub(in super::super) one_minus_beta2: f32,
    /// `learning_rate / (1 - beta1^t)`.
    pub(in super::super) step_size: f32,
    /// `1 / sqrt(1 - beta2^t)`.
    pub(in super::super) root_correction: f32,
    pub(in super::super) epsilon: f32,
}

/// How parameters are drawn to 0 in a step.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct Decay {
    /// Weight of the penalty whose slope is added to the gradient.
    pub(in super::super) l2: f32,
    /// What a parameter is multiplied with.
    pub(in super::super) factor: f32,
}

/// Defines a method of [`Kernels`] with one body, compiled for each instruction set.
macro_rules! for_each_isa {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $kind:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        impl Kernels {
            $(#[$doc])*
            #[allow(clippy::too_many_arguments)]
            pub(in super::super) fn $name(self, $($argument: $kind),*) $(-> $result)? {
                #[inline(always)]
                #[allow(clippy::too_many_arguments)]
                fn body($($argument: $kind),*) $(-> $result)? $body

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx2($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }

                #[cfg(target_arch = "x86_64")]
                #[target_feature(enable = "avx512f,avx2,fma")]
                #[allow(clippy::too_many_arguments)]
                fn avx512($($argument: $kind),*) $(-> $result)? {
                    body($($argument),*)
                }

                match self.isa {
                    Isa::Scalar => body($($argument),*),
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: `Kernels::new` checked that the processor has the instruction set.
                    Isa::Avx2 => unsafe { avx2($($argument),*) },
                    #[cfg(target_arch = "x86_64")]
                    // SAFETY: `Kernels::new` checked that the processor has the instruction set.
                    Isa::Avx512 => unsafe { avx512($($argument),*) },
                    #[cfg(not(target_arch = "x86_64"))]
                    _ => unreachable!("`new` refuses an instruction set that the processor lacks"),
                }
            }
        }
    };
}

for_each_isa! {
    /// `max(x, 0)`. What is not a number stays so, and a negative zero becomes a positive one.
    fn relu(values: &mut [f32]) {
        for i in 0..values.len() {
            values[i] = if 0.0 > values[i] { 0.0 } else { values[i] } + 0.0;
        }
    }
}

for_each_isa! {
    /// Drop-out by the bytes of `Noise::keep`: 0 or `x * scale`.
    fn drop_out(values: &mut [f32], keep: &[u8], scale: f32) {
        assert_eq!(values.len(), keep.len());
        for i in 0..values.len() {
            values[i] = if keep[i] == keep::DROPPED { 0.0 } else { values[i] * scale };
        }
    }
}

for_each_isa! {
    /// Back through drop-out and ReLU: `slopes * scale` where the activation is positive, and 0 elsewhere.
    fn gate(slopes: &mut [f32], activations: &[f32], scale: f32) {
        assert_eq!(slopes.len(), activations.len());
        for i in 0..slopes.len() {
            slopes[i] = if activations[i] > 0.0 { slopes[i] * scale } else { 0.0 };
        }
    }
}

for_each_isa! {
    /// `sums += values`, element by element.
    fn add(sums: &mut [f32], values: &[f32]) {
        assert_eq!(sums.len(), values.len());
        for i in 0..sums.len() {
            sums[i] += values[i];
        }
    }
}

for_each_isa! {
    /// The sum of the squares in double precision: 32 interleaved chains, joined as a tree.
    fn sum_of_squares(values: &[f32]) -> f64 {
        const CHAINS: usize = 32;
        let mut sums = [0.0f64; CHAINS];
        let (whole, rest) = values.as_chunks::<CHAINS>();
        for chunk in whole {
            for i in 0..CHAINS {
                let value = f64::from(chunk[i]);
                sums[i] = value.mul_add(value, sums[i]);
            }
        }
        for i in 0..rest.len() {
            let value = f64::from(rest[i]);
            sums[i] = value.mul_add(value, sums[i]);
        }
        let mut half = CHAINS / 2;
        while half > 0 {
            for i in 0..half {
                sums[i] += sums[i + half];
            }
            half /= 2;
        }
        sums[0]
    }
}

for_each_isa! {
    /// Whether all values are finite.
    fn all_finite(values: &[f32]) -> bool {
        // An exponent of all ones marks an infinity or what is not a number; the largest magnitude tells.
        let mut largest = 0u32;
        for i in 0..values.len() {
            largest = largest.max(values[i].to_bits() & 0x7fff_ffff);
        }
        largest < 0x7f80_0000
    }
}

for_each_isa! {
    /// One step of AdamW (Loshchilov and Hutter 2019, algorithm 2, as PyTorch computes it) over neighbouring
    /// parameters. `l2` times the parameter is added to its gradient; `decay` is what the parameter is multiplied with first.
    /// A moment that is too small for a normal number becomes 0: with the gradients of a unit that is never active it would stay
    /// there for ever, and arithmetic on such numbers takes a hundred times as long.
    fn adam(step: AdamStep, decay: Decay, gradient: &[f32], values: &mut [f32], first: &mut [f32], second: &mut [f32]) {
        let count = gradient.len();
        assert!(values.len() == count && first.len() == count && second.len() == count);
        for i in 0..count {
            let g = decay.l2.mul_add(values[i], gradient[i] * step.clip);
            let m = step.one_minus_beta1.mul_add(g - first[i], first[i]);
            let v = (step.one_minus_beta2 * g).mul_add(g, step.beta2 * second[i]);
            let m = if m.abs() < f32::MIN_POSITIVE { 0.0 } else { m };
            let v = if v < f32::MIN_POSITIVE { 0.0 } else { v };
            first[i] = m;
            second[i] = v;
            let root = v.sqrt().mul_add(step.root_correction, step.epsilon);
            values[i] = (-step.step_size).mul_add(m / root, values[i] * decay.factor);
        }
    }
}

for_each_isa! {
    /// `target += tau * (online - target)`.
    fn follow(target: &mut [f32], online: &[f32], tau: f32) {
        assert_eq!(target.len(), online.len());
        for i in 0..target.len() {
            target[i] = tau.mul_add(online[i] - target[i], target[i]);
        }
    }
}

for_each_isa! {
    /// `exp(x - highest)` in place, for values up to `highest`: `2^n * exp(r)` with `|r| <= ln 2 / 2` and a polynomial of degree
    /// 6 (Cephes, `expf`), within 2 units in the last place; below -87, where a normal number cannot hold it, 0.
    fn exponentials(values: &mut [f32], highest: f32) {
        // ln 2 in two parts, the first exact in few bits; adding and taking away 1.5 * 2^23 rounds to a whole number.
        const LN2: [f32; 2] = [0.693_359_4, -2.121_944_4e-4];
        const ROUND: f32 = 12_582_912.0;
        for i in 0..values.len() {
            let x = values[i] - highest;
            let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
            let r = n.mul_add(-LN2[1], n.mul_add(-LN2[0], x));
            let p = 1.987_569_1e-4_f32.mul_add(r, 1.398_2e-3);
            let p = p.mul_add(r, 8.333_452e-3);
            let p = p.mul_add(r, 4.166_579_6e-2);
            let p = p.mul_add(r, 1.666_666_5e-1);
            let p = p.mul_add(r, 0.5);
            let exp = p.mul_add(r * r, r) + 1.0;
            // The exponent of a normal number is moved by whole steps; what is not a number comes through `exp`.
            let power = f32::from_bits((((n as i32).clamp(-126, 0) + 127) << 23) as u32);
            values[i] = if x < -87.0 { 0.0 } else { exp * power };
        }
    }
}

for_each_isa! {
    /// The largest of the values; what is not a number wins.
    fn highest(values: &[f32]) -> f32 {
        const CHAINS: usize = 16;
        let (mut highest, mut odd) = ([f32::NEG_INFINITY; CHAINS], [0.0f32; CHAINS]);
        let (whole, rest) = values.as_chunks::<CHAINS>();
        for chunk in whole {
            for i in 0..CHAINS {
                highest[i] = if chunk[i] > highest[i] { chunk[i] } else { highest[i] };
                // 0 unless the value is infinite or no number.
                odd[i] += chunk[i] * 0.0;
            }
        }
        for i in 0..rest.len() {
            highest[i] = if rest[i] > highest[i] { rest[i] } else { highest[i] };
            odd[i] += rest[i] * 0.0;
        }
        let mut half = CHAINS / 2;
        while half > 0 {
            for i in 0..half {
                highest[i] = if highest[i + half] > highest[i] { highest[i + half] } else { highest[i] };
                odd[i] += odd[i + half];
            }
            half /= 2;
        }
        if odd[0].is_nan() && values.iter().any(|value| value.is_nan()) { f32::NAN } else { highest[0] }
    }
}

for_each_isa! {
    /// `values /= by`, element by element.
    fn divide(values: &mut [f32], by: f32) {
        for i in 0..values.len() {
            values[i] /= by;
        }
    }
}

for_each_isa! {
    /// The natural logarithms of positive normal numbers, to the last bit those of `libm::log`; of other values, anything.
    fn logarithms(values: &[f32], out: &mut [f64]) {
        assert_eq!(values.len(), out.len());
        // 2^k * (1 + f) with 1 + f between the root of 1/2 and that of 2; then `log(1 + f)` by s = f / (2 + f) (FreeBSD, `e_log.c`).
        const LN2: [f64; 2] = [6.931_471_803_691_238e-1, 1.908_214_929_270_587_7e-10];
        const ROOT: u64 = 0x3fe6_a09e << 32;
        const ONE: u64 = 0x3ff0_0000 << 32;
        for i in 0..values.len() {
            let moved = f64::from(values[i]).to_bits().wrapping_add(ONE - ROOT);
            let k = ((moved >> 52) as i32 - 1023) as f64;
            let f = f64::from_bits((moved & ((1 << 52) - 1)).wrapping_add(ROOT)) - 1.0;
            let half_square = 0.5 * f * f;
            let s = f / (2.0 + f);
            let z = s * s;
            let w = z * z;
            let even = w * (3.999_999_999_940_942e-1 + w * (2.222_219_843_214_978_4e-1 + w * 1.531_383_769_920_937_3e-1));
            let odd = w * (2.857_142_874_366_239e-1 + w * (1.818_357_216_161_805e-1 + w * 1.479_819_860_511_658_6e-1));
            let r = z * (6.666_666_666_666_735e-1 + odd) + even;
            out[i] = s * (half_square + r) + k * LN2[1] - half_square + f + k * LN2[0];
        }
    }
}

for_each_isa! {
    /// Shares each category's probability between the two categories beside `reward + discount * category`, `step` being discount
    /// and reward; what lies beyond the `ends`, the first and the last category, counts as these (Bellemare et al. 2017, algorithm 1).
    /// `out` is added to.
    fn project(
        categories: &[f32],
        probabilities: &[f32],
        ends: (f32, f32),
        step: (f32, f32),
        out: &mut [f32],
    ) {
        const PART: usize = 16;
        let count = categories.len();
        assert!(count >= 2 && probabilities.len() == count && out.len() == count);
        let ((minimum, maximum), (discount, reward)) = (ends, step);
        let (last, gap) = ((count - 1) as f32, (maximum - minimum) / (count - 1) as f32);
        let mut places = [0.0f32; PART];
        for start in (0..count).step_by(PART) {
            let part = PART.min(count - start);
            for i in 0..part {
                let value = discount.mul_add(categories[start + i], reward);
                let value = if value < minimum { minimum } else { value };
                let value = if value > maximum { maximum } else { value };
                let place = (value - minimum) / gap;
                let place = if place < 0.0 { 0.0 } else { place };
                places[i] = if place > last { last } else { place };
            }
            for i in 0..part {
                let below = (places[i] as usize).min(count - 2);
                let (share, probability) = (places[i] - below as f32, probabilities[start + i]);
                out[below] += probability * (1.0 - share);
                out[below + 1] += probability * share;
            }
        }
    }
}

for_each_isa! {
    /// The error of one quantile's regression on samples of the target, and its slope by the quantile:
    /// `mean_j |share - [T_j < q]| H(T_j - q) / threshold`, where `H` is Huber's error (Dabney et al. 2018, equation 10).
    fn quantile_error(quantile: f32, share: f32, threshold: f32, targets: &[f32]) -> (f64, f32) {
        const CHAINS: usize = 16;
        let (mut errors, mut slopes) = ([0.0f32; CHAINS], [0.0f32; CHAINS]);
        let one = |target: f32| {
            let difference = target - quantile;
            let size = difference.abs();
            let weight = if difference < 0.0 { 1.0 - share } else { share };
            let near = if size > threshold { threshold } else { size };
            let error = near * (size - 0.5 * near);
            let slope = if difference > threshold { threshold } else { difference };
            let slope = if slope < -threshold { -threshold } else { slope };
            (weight * error, -weight * slope)
        };
        let (whole, rest) = targets.as_chunks::<CHAINS>();
        for chunk in whole {
            for i in 0..CHAINS {
                let (error, slope) = one(chunk[i]);
                errors[i] += error;
                slopes[i] += slope;
            }
        }
        for i in 0..rest.len() {
            let (error, slope) = one(rest[i]);
            errors[i] += error;
            slopes[i] += slope;
        }
        let mut half = CHAINS / 2;
        while half > 0 {
            for i in 0..half {
                errors[i] += errors[i + half];
                slopes[i] += slopes[i + half];
            }
            half /= 2;
        }
        let scale = threshold * targets.len() as f32;
        (f64::from(errors[0] / scale), slopes[0] / scale)
    }
}

for_each_isa! {
    /// Parameters of a noisy layer with their noise: `values = means + sigma * left * right`, `left` being the factor of the
    /// row and `right` those of its columns.
    fn add_noise(values: &mut [f32], means: &[f32], sigma: &[f32], left: f32, right: &[f32]) {
        let count = right.len();
        assert!(values.len() == count && means.len() == count && sigma.len() == count);
        for i in 0..count {
            values[i] = sigma[i].mul_add(left * right[i], means[i]);
        }
    }
}

for_each_isa! {
    /// The slopes by the sizes of noise: `slopes = gradient * left * right`, as in [`Kernels::add_noise`].
    fn noise_slopes(slopes: &mut [f32], gradient: &[f32], left: f32, right: &[f32]) {
        let count = right.len();
        assert!(slopes.len() == count && gradient.len() == count);
        for i in 0..count {
            slopes[i] = gradient[i] * (left * right[i]);
        }
    }
}
