//! Networks and states for the tests, drawn from a seed.
#![allow(dead_code, reason = "each test file uses a part of it")]

use bellwether_inference::model::{Linear, Mlp};
use proptest::prelude::*;

/// A small generator (SplitMix64): the same numbers everywhere.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// A network of these widths whose activations keep their scale; some weights are zero of either sign.
    pub(crate) fn mlp(&mut self, widths: &[usize]) -> Mlp {
        let layers = widths.windows(2).map(|pair| self.linear(pair[0], pair[1])).collect();
        Mlp::plain(layers)
    }

    /// The same trunk and last layer with a value beside it: a dueling head.
    pub(crate) fn dueling(&mut self, widths: &[usize]) -> Mlp {
        let layers = self.mlp(widths).layers;
        let value = self.linear(widths[widths.len() - 2], 1);
        Mlp::dueling(layers, value)
    }

    fn linear(&mut self, inputs: usize, outputs: usize) -> Linear {
        let scale = (6.0 / inputs as f32).sqrt();
        let mut weight = |spread: f32| match self.bits() % 16 {
            0 => 0.0,
            1 => -0.0,
            _ => (self.unit() * 2.0 - 1.0) * spread,
        };
        let weights = (0..inputs * outputs).map(|_| weight(scale)).collect();
        let bias = (0..outputs).map(|_| weight(0.5)).collect();
        Linear { inputs, outputs, weights, bias }
    }
}

/// One layer with these weights and biases.
pub(crate) fn single(inputs: usize, weights: &[f32], bias: &[f32]) -> Mlp {
    let layer = Linear { inputs, outputs: bias.len(), weights: weights.to_vec(), bias: bias.to_vec() };
    Mlp::plain(vec![layer])
}

/// Up to four layers of odd and even widths, past one, two, four, eight and sixteen lanes, and either head.
pub(crate) fn arbitrary_mlp() -> impl Strategy<Value = Mlp> {
    let width = prop_oneof![4 => 1_usize..40, 1 => 40_usize..300];
    let parts = (proptest::collection::vec(width, 1..4), 1_usize..24, any::<bool>(), any::<u64>());
    parts.prop_map(|(mut widths, actions, dueling, seed)| {
        widths.push(actions);
        if dueling { Draw(seed).dueling(&widths) } else { Draw(seed).mlp(&widths) }
    })
}

/// A state in [0, 1] with many zeros of either sign and some subnormal values.
pub(crate) fn state_for(mlp: &Mlp, seed: u64) -> Vec<f32> {
    let mut draw = Draw(seed);
    (0..mlp.inputs())
        .map(|_| match draw.bits() % 8 {
            0..3 => 0.0,
            3 => -0.0,
            4 => f32::from_bits((draw.bits() % 0x0080_0000) as u32),
            _ => draw.unit(),
        })
        .collect()
}
