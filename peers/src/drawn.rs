//! Models and states drawn from a seed, for comparisons without recordings.

use bellwether_artifact::Sha256;
use bellwether_inference::model::{Contract, Head, Linear, Mlp, ModelError, encode};

use crate::StateRecord;

/// A small generator (`SplitMix64`, Steele, Lea and Flood 2014): the same numbers on every machine.
struct Draw(u64);

impl Draw {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to 1.
    fn unit(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1_u64 << 24) as f32
    }

    fn linear(&mut self, inputs: usize, outputs: usize) -> Linear {
        // The uniform spread that keeps the scale of rectified activations (He et al. 2015, equation 10).
        let spread = (6.0 / inputs as f32).sqrt();
        let weights = (0..inputs * outputs).map(|_| (self.unit() * 2.0 - 1.0) * spread).collect();
        let bias = (0..outputs).map(|_| (self.unit() * 2.0 - 1.0) * 0.1).collect();
        Linear { inputs, outputs, weights, bias }
    }
}

/// The bytes of a model file with these widths, from the state to the actions, drawn weights, and a dueling head where asked for.
///
/// # Errors
/// Fewer than two widths, or some that the format does not permit.
pub fn model(widths: &[usize], dueling: bool, seed: u64) -> Result<Vec<u8>, ModelError> {
    let mut draw = Draw(seed);
    let mut mlp = Mlp::plain(widths.windows(2).map(|pair| draw.linear(pair[0], pair[1])).collect());
    if let Some(last) = mlp.layers.last().filter(|_| dueling) {
        mlp.head = Head::Dueling(draw.linear(last.inputs, 1));
    }
    let contract = Contract {
        width: mlp.inputs(),
        feature_spec: Sha256::of(b"drawn"),
        action_set: 0,
        actions: (0..mlp.outputs()).map(|action| format!("action_{action}")).collect(),
    };
    encode(&mlp, &contract)
}

/// `count` states of `width` values in [0, 1], about half of them zero, with masks of `actions` entries that allow one or
/// more.
pub fn states(count: usize, width: usize, actions: usize, seed: u64) -> impl Iterator<Item = StateRecord> {
    let mut draw = Draw(seed);
    (0..count).map(move |_| {
        let state = (0..width).map(|_| if draw.bits() & 1 == 0 { 0.0 } else { draw.unit() }).collect();
        let mut mask: Vec<bool> = (0..actions).map(|_| draw.bits() & 3 != 0).collect();
        let always = (draw.bits() % actions.max(1) as u64) as usize;
        if let Some(entry) = mask.get_mut(always) {
            *entry = true;
        }
        StateRecord { state, mask }
    })
}
