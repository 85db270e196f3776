//! The weights of a network in one aligned piece of memory.

use crate::model::{Linear, Mlp};

/// Values in a [`Lane`].
pub(super) const LANES: usize = 16;

/// Sixteen neighbouring outputs: one cache line, one AVX-512 register, two AVX2 registers.
#[derive(Clone, Copy, Debug, PartialEq)]
#[repr(C, align(64))]
pub(super) struct Lane(pub [f32; LANES]);

impl Lane {
    pub(super) const ZERO: Lane = Lane([0.0; LANES]);
}

/// All layers after each other: first the bias of a layer, then one row of outputs for each input. Rows are padded with
/// zeros to whole lanes. The value of a dueling head is one more output of the last layer, behind the advantages.
#[derive(Debug)]
pub(super) struct Slab {
    lanes: Vec<Lane>,
    layers: Vec<Extent>,
    dueling: bool,
}

/// Where a layer lies.
#[derive(Clone, Copy, Debug)]
struct Extent {
    offset: usize,
    inputs: usize,
    outputs: usize,
}

impl Extent {
    fn row(self) -> usize {
        self.outputs.div_ceil(LANES)
    }
}

/// One layer of a slab. `weights.len() == inputs * bias.len()`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Layer<'a> {
    /// The biases, padded.
    pub bias: &'a [Lane],
    /// The rows, input after input, each as long as `bias`.
    pub weights: &'a [Lane],
    /// Number of outputs without the padding.
    pub outputs: usize,
}

impl Slab {
    /// Copies a network that [`Mlp::check`] accepted.
    pub(super) fn new(mlp: &Mlp) -> Self {
        let mut slab = Slab { lanes: Vec::new(), layers: Vec::new(), dueling: mlp.value().is_some() };
        let last = mlp.layers.len() - 1;
        let more = |index: usize| usize::from(index == last && mlp.value().is_some());
        let lanes =
            |(index, layer): (usize, &Linear)| (layer.inputs + 1) * (layer.outputs + more(index)).div_ceil(LANES);
        slab.lanes.reserve_exact(mlp.layers.iter().enumerate().map(lanes).sum());
        for (index, layer) in mlp.layers.iter().enumerate() {
            let value = mlp.value().filter(|_| index == last);
            let (offset, inputs, outputs) = (slab.lanes.len(), layer.inputs, layer.outputs + more(index));
            let extent = Extent { offset, inputs, outputs };
            slab.layers.push(extent);
            slab.lanes.resize(offset + (inputs + 1) * extent.row(), Lane::ZERO);
            let rows = slab.lanes[offset..].chunks_exact_mut(extent.row());
            let from = std::iter::once(layer.bias.as_slice()).chain(layer.weights.chunks_exact(layer.outputs));
            // One number of the value for each row: its bias, then its weights.
            let mut values = value.into_iter().flat_map(|value| value.bias.iter().chain(&value.weights));
            for (row, from) in rows.zip(from) {
                for (output, &number) in from.iter().chain(values.next()).enumerate() {
                    row[output / LANES].0[output % LANES] = number;
                }
            }
        }
        slab
    }

    /// Whether the last layer gives advantages and a value instead of q-values.
    pub(super) fn is_dueling(&self) -> bool {
        self.dueling
    }

    pub(super) fn layers(&self) -> usize {
        self.layers.len()
    }

    pub(super) fn layer(&self, index: usize) -> Layer<'_> {
        let extent = self.layers[index];
        let row = extent.row();
        let (bias, rest) = self.lanes[extent.offset..].split_at(row);
        Layer { bias, weights: &rest[..extent.inputs * row], outputs: extent.outputs }
    }

    /// Number of inputs of a layer.
    pub(super) fn inputs_of(&self, index: usize) -> usize {
        self.layers[index].inputs
    }

    pub(super) fn inputs(&self) -> usize {
        self.layers.first().map_or(0, |layer| layer.inputs)
    }

    /// Number of q-values.
    pub(super) fn actions(&self) -> usize {
        self.layers.last().map_or(0, |layer| layer.outputs - usize::from(self.dueling))
    }

    /// Lanes of the widest row.
    pub(super) fn widest_lanes(&self) -> usize {
        self.layers.iter().map(|layer| layer.row()).max().unwrap_or(0)
    }

    /// Entries that a list of active inputs needs: the branch-free writer touches one past the last that it keeps, and
    /// that is still an input.
    pub(super) fn widest_input(&self) -> usize {
        self.layers.iter().map(|layer| layer.inputs).max().unwrap_or(0)
    }
}
