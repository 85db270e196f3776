//! Kernels without a chain across elements, or with a chain of a fixed shape. They are plain Rust, compiled once for
//! each instruction set; Rust neither contracts nor reorders floating-point arithmetic, so the bytes stay the same.

use super::{Isa, Kernels};
use crate::learner::keep;

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
        for value in values {
            *value = if 0.0 > *value { 0.0 } else { *value } + 0.0;
        }
    }
}

for_each_isa! {
    /// Drop-out by the bytes of `Noise::keep`: 0, `x * scale` or `x`.
    fn drop_out(values: &mut [f32], keep: &[u8], scale: f32) {
        assert_eq!(values.len(), keep.len());
        for (value, kept) in values.iter_mut().zip(keep) {
            *value = match *kept {
                keep::DROPPED => 0.0,
                keep::EXEMPT => *value,
                _ => *value * scale,
            };
        }
    }
}

for_each_isa! {
    /// Back through drop-out and ReLU: `slopes * scale` where the activation is positive, and 0 elsewhere.
    fn gate(slopes: &mut [f32], activations: &[f32], scale: f32) {
        assert_eq!(slopes.len(), activations.len());
        for (slope, activation) in slopes.iter_mut().zip(activations) {
            *slope = if *activation > 0.0 { *slope * scale } else { 0.0 };
        }
    }
}

for_each_isa! {
    /// `to[j * to_stride + i] = from[i * from_stride + j]` for `i < rows`, `j < columns`.
    fn transpose(from: &[f32], from_stride: usize, rows: usize, columns: usize, to: &mut [f32], to_stride: usize) {
        const SIDE: usize = 8;
        let mut i = 0;
        while i + SIDE <= rows {
            let mut j = 0;
            while j + SIDE <= columns {
                let mut block = [[0.0f32; SIDE]; SIDE];
                for (r, line) in block.iter_mut().enumerate() {
                    let start = (i + r) * from_stride + j;
                    line.copy_from_slice(&from[start..start + SIDE]);
                }
                let mut turned = [[0.0f32; SIDE]; SIDE];
                for (r, line) in block.iter().enumerate() {
                    for (c, value) in line.iter().enumerate() {
                        turned[c][r] = *value;
                    }
                }
                for (c, line) in turned.iter().enumerate() {
                    let start = (j + c) * to_stride + i;
                    to[start..start + SIDE].copy_from_slice(line);
                }
                j += SIDE;
            }
            for r in i..i + SIDE {
                for c in j..columns {
                    to[c * to_stride + r] = from[r * from_stride + c];
                }
            }
            i += SIDE;
        }
        for r in i..rows {
            for c in 0..columns {
                to[c * to_stride + r] = from[r * from_stride + c];
            }
        }
    }
}

for_each_isa! {
    /// `sums += values`, element by element.
    fn add(sums: &mut [f32], values: &[f32]) {
        assert_eq!(sums.len(), values.len());
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum += *value;
        }
    }
}

for_each_isa! {
    /// The sum of the squares in double precision: eight interleaved chains, joined as a tree.
    fn sum_of_squares(values: &[f32]) -> f64 {
        let mut sums = [0.0f64; 8];
        let (eights, rest) = values.as_chunks::<8>();
        for eight in eights {
            for (sum, value) in sums.iter_mut().zip(eight) {
                let value = f64::from(*value);
                *sum = value.mul_add(value, *sum);
            }
        }
        for (sum, value) in sums.iter_mut().zip(rest) {
            let value = f64::from(*value);
            *sum = value.mul_add(value, *sum);
        }
        ((sums[0] + sums[4]) + (sums[2] + sums[6])) + ((sums[1] + sums[5]) + (sums[3] + sums[7]))
    }
}

for_each_isa! {
    /// Whether all values are finite.
    fn all_finite(values: &[f32]) -> bool {
        // An exponent of all ones marks an infinity or what is not a number; the largest magnitude tells.
        let largest = values.iter().fold(0u32, |largest, value| largest.max(value.to_bits() & 0x7fff_ffff));
        largest < 0x7f80_0000
    }
}

for_each_isa! {
    /// One step of AdamW (Loshchilov and Hutter 2019, algorithm 2, as PyTorch computes it) over neighbouring
    /// parameters; `decay` is what each is multiplied with first.
    fn adam(step: AdamStep, decay: f32, gradient: &[f32], values: &mut [f32], first: &mut [f32], second: &mut [f32]) {
        let count = gradient.len();
        assert!(values.len() == count && first.len() == count && second.len() == count);
        let lanes = gradient.iter().zip(values.iter_mut()).zip(first.iter_mut().zip(second.iter_mut()));
        for ((gradient, value), (first, second)) in lanes {
            let g = *gradient * step.clip;
            let m = step.one_minus_beta1.mul_add(g - *first, *first);
            let v = (step.one_minus_beta2 * g).mul_add(g, step.beta2 * *second);
            *first = m;
            *second = v;
            let root = v.sqrt().mul_add(step.root_correction, step.epsilon);
            *value = (-step.step_size).mul_add(m / root, *value * decay);
        }
    }
}

for_each_isa! {
    /// `target += tau * (online - target)`.
    fn follow(target: &mut [f32], online: &[f32], tau: f32) {
        assert_eq!(target.len(), online.len());
        for (target, online) in target.iter_mut().zip(online) {
            *target = tau.mul_add(*online - *target, *target);
        }
    }
}
