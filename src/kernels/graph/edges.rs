//! Reads edge lists, with an error that says what an edge is: other tools write them in other forms.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// For a field of edges that may be left out: pairs of nodes, as JSON or as a tensor of shape `[m, 2]`.
///
/// # Errors
/// Edges that are no pairs: an edge index of shape `[2, m]`, as PyTorch Geometric has it, and triples with a weight.
pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<[u32; 2]>>, D::Error> {
    Ok(Option::<Edges>::deserialize(deserializer)?.map(|Edges(edges)| edges))
}

struct Edges(Vec<[u32; 2]>);

struct Edge([u32; 2]);

impl<'de> Deserialize<'de> for Edges {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Edges;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of edges, each a pair of nodes [from, to]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Edges, A::Error> {
                // Grown as edges arrive, whatever number is claimed.
                let mut edges = Vec::new();
                while let Some(Edge(edge)) = seq.next_element()? {
                    edges.push(edge);
                }
                Ok(Edges(edges))
            }
        }

        deserializer.deserialize_seq(Pairs)
    }
}

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
