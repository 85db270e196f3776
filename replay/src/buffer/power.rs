//! Powers of many shares at a time, with the bits of [`libm::powf`], whose operations these are.

// Of FreeBSD's e_powf.c, from which libm has them:
//
// Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved. Developed at SunPro, a Sun Microsystems, Inc. business.
// Permission to use, copy, modify, and distribute this software is freely granted, provided that this notice is preserved.

/// Shares that are raised together: as many as two registers of every x86-64 processor hold.
const LANES: usize = 8;

const DP_HIGH: f32 = f32::from_bits(0x3f15_c000);
const CP: f32 = f32::from_bits(0x3f76_384f);
const CP_HIGH: f32 = f32::from_bits(0x3f76_4000);
const CP_LOW: f32 = f32::from_bits(0xb8f6_23c6);
const DP_LOW: f32 = f32::from_bits(0x35d1_cfdc);
const LN2: f32 = f32::from_bits(0x3f31_7218);
const LN2_HIGH: f32 = f32::from_bits(0x3f31_7200);
const LN2_LOW: f32 = f32::from_bits(0x35bf_be8c);
const L: [u32; 6] = [0x3f19_999a, 0x3edb_6db7, 0x3eaa_aaab, 0x3e8b_a305, 0x3e6c_3255, 0x3e53_f142];
const P: [u32; 5] = [0x3e2a_aaab, 0xbb36_0b61, 0x388a_b355, 0xb5dd_ea0e, 0x3331_bb4c];

/// Raises each share, 0 to 1, to a power from 0 to 1, in place.
pub(super) fn raise(shares: &mut [f32], power: f32) {
    // A power of 0, 1 or a half is a case of its own there.
    let plain = power > 0.0 && power < 1.0 && power != 0.5;
    let (many, few) = shares.as_chunks_mut::<LANES>();
    for shares in many {
        if plain && shares.iter().all(|share| (f32::MIN_POSITIVE..=1.0).contains(share)) {
            shares.iter_mut().for_each(|share| *share = power_of_share(*share, power));
        } else {
            shares.iter_mut().for_each(|share| *share = libm::powf(*share, power));
        }
    }
    few.iter_mut().for_each(|share| *share = libm::powf(*share, power));
}

/// [`libm::powf`] for a share that is neither 0 nor subnormal and a power between 0 and 1 that is no half: its operations in its
/// order and by its names, with choices in the place of its branches, so that a compiler can do several at a time.
#[inline(always)]
fn power_of_share(share: f32, power: f32) -> f32 {
    let high = |value: f32| f32::from_bits(value.to_bits() & 0xffff_f000);
    let [l1, l2, l3, l4, l5, l6] = L.map(f32::from_bits);
    let [p1, p2, p3, p4, p5] = P.map(f32::from_bits);

    // The logarithm to base 2, t1 + t2.
    let mantissa = share.to_bits() & 0x007f_ffff;
    let (above, beyond) = (mantissa > 0x001c_c471, mantissa >= 0x005d_b3d7);
    let middle = above & !beyond;
    let exponent = (share.to_bits() >> 23) as i32 - 0x7f + i32::from(beyond);
    let ix = (mantissa | 0x3f80_0000) - if beyond { 0x0080_0000 } else { 0 };
    let ax = f32::from_bits(ix);
    let (bp, dp_high, dp_low) = if middle { (1.5, DP_HIGH, DP_LOW) } else { (1.0, 0.0, 0.0) };
    let u = ax - bp;
    let v = 1.0 / (ax + bp);
    let s = u * v;
    let s_h = high(s);
    let t_h = ((ix >> 1) & 0xffff_f000 | 0x2000_0000) + 0x0040_0000 + if middle { 0x0020_0000 } else { 0 };
    let t_h = f32::from_bits(t_h);
    let t_l = ax - (t_h - bp);
    let s_l = v * ((u - s_h * t_h) - s_h * t_l);
    let s2 = s * s;
    let r = s2 * s2 * (l1 + s2 * (l2 + s2 * (l3 + s2 * (l4 + s2 * (l5 + s2 * l6)))));
    let r = r + s_l * (s_h + s);
    let s2 = s_h * s_h;
    let t_h = high(3.0 + s2 + r);
    let t_l = r - ((t_h - 3.0) - s2);
    let u = s_h * t_h;
    let v = s_l * t_h + t_l * s;
    let p_h = high(u + v);
    let p_l = v - (p_h - u);
    let z_h = CP_HIGH * p_h;
    let z_l = CP_LOW * p_h + p_l * CP + dp_low;
    let t = exponent as f32;
    let t1 = high(((z_h + z_l) + dp_high) + t);
    let t2 = z_l - (((t1 - t) - dp_high) - z_h);

    // That times the power, p_h + p_l, and its nearest whole number -n; halves go away from 0.
    let y1 = high(power);
    let p_l = (power - y1) * t1 + power * t2;
    let p_h = y1 * t1;
    let z = p_l + p_h;
    let (half_more, whole) = (0.5 - z, 8_388_608.0);
    let nearest = (half_more + whole) - whole;
    let n = nearest - if nearest > half_more { 1.0 } else { 0.0 };
    let n = if z < -0.5 { n } else { 0.0 };
    let p_h = p_h + n;

    // Two to the power of what is left, and then of -n.
    let t = f32::from_bits((p_l + p_h).to_bits() & 0xffff_8000);
    let u = t * LN2_HIGH;
    let v = (p_l - (t - p_h)) * LN2 + t * LN2_LOW;
    let z = u + v;
    let w = v - (z - u);
    let t = z * z;
    let t1 = z - t * (p1 + t * (p2 + t * (p3 + t * (p4 + t * p5))));
    let r = (z * t1) / (t1 - 2.0) - (w + z * w);
    let z = 1.0 - (r - z);
    let n = (n + whole).to_bits() & 0x007f_ffff;
    f32::from_bits(z.to_bits().wrapping_sub(n << 23))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every binade of shares with mantissas spread over it, those at the borders of its choices included, and powers of all sizes.
    #[test]
    fn every_power_has_the_bits_of_libm() {
        let borders = [0, 1, 0x1c_c470, 0x1c_c471, 0x1c_c472, 0x5d_b3d6, 0x5d_b3d7, 0x5d_b3d8, 0x7f_ffff];
        let spread = (0..512_u32).map(|i| i.wrapping_mul(0x9e37_79b9) & 0x7f_ffff);
        let mantissas: Vec<u32> = borders.into_iter().chain(spread).collect();
        let zeros = [0.0, f32::from_bits(1), f32::MIN_POSITIVE / 2.0, 1.0];
        let mut shares: Vec<f32> =
            (1..127_u32).flat_map(|e| mantissas.iter().map(move |m| f32::from_bits(e << 23 | m))).collect();
        shares.extend(zeros);
        let powers = (0..40_u32).map(|i| 1.0 - (i as f32 + 0.37) / 40.0);
        for power in powers.chain([0.0, 1e-30, 1e-6, 0.4, 0.5, 0.499_999_97, 0.500_000_06, 0.6, 0.999_999_94, 1.0]) {
            let mut raised = shares.clone();
            raise(&mut raised, power);
            for (share, raised) in shares.iter().zip(&raised) {
                let expected = libm::powf(*share, power);
                assert_eq!(raised.to_bits(), expected.to_bits(), "{share}^{power}: {raised}, not {expected}");
            }
        }
    }
}
