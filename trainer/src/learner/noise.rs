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

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_layer_without_drop_out_draws_nothing() {
        let shape = NetworkShape::new(vec![3, 4, 2]).unwrap();
        let mut keep = vec![vec![1; 9]];
        draw_keep(&mut stream(5, "dropout"), &UpdateSpec::default(), &shape, 7, &mut keep);
        assert_eq!(keep, [Vec::<u8>::new(), Vec::new()]);
    }
}
