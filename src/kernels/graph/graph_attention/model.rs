//! Sizes and checks of the fields that describe the layer.

use super::{GraphAttentionInput, Variant};
use crate::kernels::graph::neural_network::{MAX_WIDTH, check_matrix, check_slope, check_width};
use crate::service::InvalidInput;

impl GraphAttentionInput {
    /// The width of all heads together.
    pub(super) fn width(&self) -> u64 {
        u64::from(self.num_heads) * u64::from(self.head_dim)
    }

    /// The width of the features, as the values' matrix has it; 0 for an input that is not valid.
    pub(super) fn feature_width(&self) -> usize {
        usize::try_from(self.width()).ok().and_then(|width| self.value_weights.len().checked_div(width)).unwrap_or(0)
    }

    /// The arcs with self-loops as the input claims them, before it is checked.
    pub(super) fn claimed_arcs(&self) -> u64 {
        let (nodes, arcs) = self.graph_input().claimed_size();
        if self.add_self_loops { arcs.saturating_add(nodes) } else { arcs }
    }

    /// Checks the fields that describe the layer.
    pub(super) fn check_model(&self, num_nodes: usize) -> Result<(), InvalidInput> {
        check_width("num_heads", self.num_heads)?;
        check_width("head_dim", self.head_dim)?;
        let width = self.width();
        if width > MAX_WIDTH.into() {
            let reason = format!("{} heads of {}, and {MAX_WIDTH} columns are the most", self.num_heads, self.head_dim);
            return Err(InvalidInput::new("head_dim", reason));
        }
        let width = width as usize;
        let features = self.feature_width();
        check_width("value_weights", u32::try_from(features).unwrap_or(u32::MAX))
            .map_err(|error| InvalidInput::new("value_weights", format!("rows: {}", error.reason)))?;
        check_matrix("value_weights", self.value_weights.len(), features, width)?;
        check_matrix("node_features", self.node_features.len(), num_nodes, features)?;
        let of_head = match self.variant {
            Variant::Gat => 2 * self.head_dim as usize,
            Variant::GatV2 => self.head_dim as usize,
        };
        check_matrix("attention_vectors", self.attention_vectors.len(), self.num_heads as usize, of_head)?;
        match (&self.query_weights, self.variant) {
            (Some(_), Variant::Gat) => {
                return Err(InvalidInput::new("query_weights", "only the variant gatv2 has them"));
            }
            (Some(weights), Variant::GatV2) => check_matrix("query_weights", weights.len(), features, width)?,
            (None, _) => {}
        }
        if let Some(bias) = &self.bias {
            let columns = if self.concat_heads { width } else { self.head_dim as usize };
            check_matrix("bias", bias.len(), 1, columns)?;
        }
        check_slope("negative_slope", self.negative_slope)?;
        if self.return_attention && self.claimed_arcs() > u32::MAX.into() {
            let reason = format!("{} arcs, and the weights of at most {} are returned", self.claimed_arcs(), u32::MAX);
            return Err(InvalidInput::new("return_attention", reason));
        }
        Ok(())
    }
}
