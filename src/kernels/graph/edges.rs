//! Reads edge lists, with an error that says what an edge is: other tools write them in other forms.

use serde::de::{Deserialize, Deserializer, Error};

use crate::service::optional_sequence;

/// For a field of edges that may be left out: pairs of nodes, as JSON or as a tensor of shape `[m, 2]`.
///
/// # Errors
/// Edges that are no pairs: an edge index of shape `[2, m]`, as PyTorch Geometric has it, and triples with a weight.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<[u32; 2]>>, D::Error> {
    let edges = optional_sequence::<D, Edge>(deserializer)?;
    // In place: they are of one size.
    Ok(edges.map(|edges| edges.into_iter().map(|Edge(edge)| edge).collect()))
}

struct Edge([u32; 2]);

impl<'de> Deserialize<'de> for Edge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The cause last: serde_json takes the line and column from the end of the text.
        <[u32; 2]>::deserialize(deserializer).map(Self).map_err(|error| {
            D::Error::custom(format_args!(
                "an edge is a pair of nodes, [from, to], without a weight; as a tensor, edges have the shape [m, 2], so \
                 an edge index of shape [2, m] is to be transposed: {error}"
            ))
        })
    }
}
