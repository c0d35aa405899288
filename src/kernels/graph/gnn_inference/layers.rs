//! The layers of a network, as the input describes them.

use super::{Aggregation, GnnInferenceInput, MAX_LAYERS};
use crate::kernels::graph::neural_network::rows::RowEpilogue;
use crate::kernels::graph::neural_network::{check_matrix, check_width};
use crate::service::InvalidInput;

/// The shape of a layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerShape {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    /// Whether rows are multiplied by the weights before they are aggregated, and not after.
    pub(super) transforms_first: bool,
}

impl LayerShape {
    fn new(inputs: u32, outputs: u32, aggregation: Aggregation) -> Self {
        // The maximum is not linear.
        let transforms_first = outputs < inputs && aggregation != Aggregation::Max;
        Self { inputs: inputs as usize, outputs: outputs as usize, transforms_first }
    }

    /// The width of the rows that are aggregated.
    pub(super) fn aggregated_width(&self) -> usize {
        if self.transforms_first { self.outputs } else { self.inputs }
    }
}

/// A layer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layer<'a> {
    pub(super) shape: LayerShape,
    /// Where its weights and its bias begin among those of all layers.
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only the device takes slices of the whole arrays"))]
    pub(super) first_weight: usize,
    #[cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "only the device takes slices of the whole arrays"))]
    pub(super) first_bias: usize,
    pub(super) weights: &'a [f32],
    pub(super) epilogue: RowEpilogue<'a>,
}

impl GnnInferenceInput {
    /// The shapes of the layers as the input claims them, before it is checked.
    pub(super) fn claimed_layers(&self) -> impl Iterator<Item = LayerShape> {
        self.layer_sizes.windows(2).map(|sizes| LayerShape::new(sizes[0], sizes[1], self.aggregation))
    }

    /// Checks the fields that describe the network.
    pub(super) fn check_layers(&self, num_nodes: usize) -> Result<(), InvalidInput> {
        let sizes = &self.layer_sizes;
        if !(2..=MAX_LAYERS + 1).contains(&sizes.len()) {
            let reason = format!("{} sizes, and 2 to {} are needed", sizes.len(), MAX_LAYERS + 1);
            return Err(InvalidInput::new("layer_sizes", reason));
        }
        for (index, &size) in sizes.iter().enumerate() {
            check_width(&format!("layer_sizes[{index}]"), size)?;
        }
        check_matrix("node_features", self.node_features.len(), num_nodes, sizes[0] as usize)?;
        let weights: usize = sizes.windows(2).map(|sizes| sizes[0] as usize * sizes[1] as usize).sum();
        let biases: usize = sizes[1..].iter().map(|&size| size as usize).sum();
        let check = |field, len: usize, expected: usize| {
            if len == expected {
                return Ok(());
            }
            Err(InvalidInput::new(field, format!("{len} numbers, and layer_sizes describes {expected}")))
        };
        check("layer_weights", self.layer_weights.len(), weights)?;
        self.layer_biases.as_ref().map_or(Ok(()), |given| check("layer_biases", given.len(), biases))
    }

    /// Returns the layers of a valid input.
    pub(super) fn layers(&self) -> Vec<Layer<'_>> {
        let last = self.layer_sizes.len() - 2;
        let (mut first_weight, mut first_bias) = (0, 0);
        let mut layers = Vec::with_capacity(last + 1);
        for (index, shape) in self.claimed_layers().enumerate() {
            let count = shape.inputs * shape.outputs;
            let bias = self.layer_biases.as_ref().map(|biases| &biases[first_bias..first_bias + shape.outputs]);
            let activation = if index == last { self.output_activation } else { self.activation };
            layers.push(Layer {
                shape,
                first_weight,
                first_bias,
                weights: &self.layer_weights[first_weight..first_weight + count],
                epilogue: RowEpilogue { bias, normalize: self.layer_norm && index < last, activation },
            });
            first_weight += count;
            first_bias += shape.outputs;
        }
        layers
    }
}
