//! The random part of an update.

use super::UpdateSpec;
use crate::network::NetworkShape;
use rand::Rng;

/// Draws which elements drop-out keeps in one update of `rows` states, into buffers that are reused; they become
/// [`super::Noise::keep`].
///
/// Each element takes 16 bits of the stream, so a rate is met to within 1 part in 65,536.
pub fn draw_keep(rng: &mut impl Rng, spec: &UpdateSpec, shape: &NetworkShape, rows: usize, keep: &mut Vec<Vec<u8>>) {
    keep.resize_with(shape.layer_count(), Vec::new);
    for (layer, bytes) in keep.iter_mut().enumerate() {
        bytes.clear();
        let rate = spec.dropout_rate(layer);
        if rate <= 0.0 {
            continue;
        }
        let dropped = (f64::from(rate) * 65_536.0).round() as u32;
        let count = rows * shape.widths()[layer];
        bytes.reserve(count);
        while bytes.len() < count {
            let word = rng.next_u64();
            for quarter in 0..4.min(count - bytes.len()) {
                let value = (word >> (16 * quarter)) as u32 & 0xffff;
                bytes.push(u8::from(value >= dropped));
            }
        }
    }
}

/// Draws the factors of the noise of all noisy layers, into a buffer that is reused; nothing is drawn without such layers.
///
/// A factor is `sgn(x) * sqrt(|x|)` of a standard normal `x` (Fortunato et al. 2018, section 3.1), which comes from two uniform
/// numbers by the transform of Box and Muller (1958).
pub fn draw_factors(rng: &mut impl Rng, shape: &NetworkShape, factors: &mut Vec<f32>) {
    factors.clear();
    let count = shape.factor_count();
    // The first lies in (0, 1], so that its logarithm is finite.
    let mut unit = || ((rng.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
    let factor = |normal: f64| normal.abs().sqrt().copysign(normal) as f32;
    while factors.len() < count {
        let (radius, angle) = ((-2.0 * libm::log(unit())).sqrt(), std::f64::consts::TAU * unit());
        factors.push(factor(radius * libm::cos(angle)));
        if factors.len() < count {
            factors.push(factor(radius * libm::sin(angle)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::NetworkConfig;
    use crate::streams::stream;

    #[test]
    fn the_share_that_is_dropped_is_the_rate() {
        let shape = NetworkShape::new(vec![100, 50, 2]).unwrap();
        let spec = UpdateSpec { dropout: vec![0.3, 0.5], ..UpdateSpec::default() };
        let mut keep = Vec::new();
        draw_keep(&mut stream(5, "dropout"), &spec, &shape, 400, &mut keep);
        for (layer, width) in [(0, 100), (1, 50)] {
            assert_eq!(keep[layer].len(), 400 * width);
            let kept = keep[layer].iter().map(|k| f64::from(*k)).sum::<f64>() / keep[layer].len() as f64;
            assert!((kept - 1.0 + f64::from(spec.dropout[layer])).abs() < 0.015, "layer {layer}: {kept}");
        }
    }

    #[test]
    fn factors_are_roots_of_standard_normals() {
        let noisy = NetworkConfig { hidden: vec![200], noisy_layers: 2, ..NetworkConfig::default() };
        let shape = noisy.shape(300, 7).unwrap();
        let (mut rng, mut factors, mut all) = (stream(5, "noise"), Vec::new(), Vec::new());
        for _ in 0..50 {
            draw_factors(&mut rng, &shape, &mut factors);
            assert_eq!(factors.len(), 300 + 200 + 200 + 7);
            all.extend(factors.iter().map(|factor| f64::from(factor * factor.abs())));
        }
        let moment = |power: i32| all.iter().map(|x| x.powi(power)).sum::<f64>() / all.len() as f64;
        // Three standard errors of 35,350 draws.
        assert!(moment(1).abs() < 0.016 && (moment(2) - 1.0).abs() < 0.023 && (moment(4) - 3.0).abs() < 0.16);
        let plain = NetworkConfig::default().shape(4, 2).unwrap();
        draw_factors(&mut rng, &plain, &mut factors);
        assert!(factors.is_empty());
    }

    #[test]
    fn a_layer_without_drop_out_draws_nothing() {
        let shape = NetworkShape::new(vec![3, 4, 2]).unwrap();
        let mut keep = vec![vec![1; 9]];
        draw_keep(&mut stream(5, "dropout"), &UpdateSpec::default(), &shape, 7, &mut keep);
        assert_eq!(keep, [Vec::<u8>::new(), Vec::new()]);
    }
}
