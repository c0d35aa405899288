//! [`graph_input!`]: the input struct of a graph kernel, with the fields that describe a graph.

/// Defines the input struct of a graph kernel: the fields of [`GraphInput`](super::input::GraphInput), and the kernel's
/// own with their defaults.
///
/// Derived are `Serialize`, `Deserialize` and `JsonSchema`, `Default`, `graph_input`, and constructors from edges, CSR arrays and an
/// operand. A field that a request leaves out has its default. `examples`, before the struct, replaces the examples of the
/// schema, for kernels that need more than a graph.
///
/// ```ignore
/// graph_input! {
///     /// The input of `graph/betweenness-centrality`.
///     pub struct BetweennessInput {
///         /// Whether scores are fractions of the node pairs.
///         pub normalized: bool = true,
///     }
/// }
/// ```
macro_rules! graph_input {
    ($(#[$attribute:meta])* pub struct $($rest:tt)*) => {
        $crate::kernels::graph::fields::graph_input! {
            examples = [
                { "num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]] },
                { "row_offsets": [0, 2, 4, 6, 8], "column_indices": [1, 3, 0, 2, 1, 3, 0, 2] },
            ];
            $(#[$attribute])* pub struct $($rest)*
        }
    };
    (
        examples = $examples:tt;
        $(#[$attribute:meta])*
        pub struct $Input:ident {
            $($(#[$field_attribute:meta])* pub $field:ident: $type:ty = $default:expr,)*
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        #[schemars(extend("examples" = $examples))]
        pub struct $Input {
            /// A graph that is an operand, or one as an object of the following fields up to `directed`.
            pub graph: Option<$crate::service::Operand<$crate::kernels::graph::csr::CsrGraph>>,
            /// The number of nodes. Optional with CSR arrays.
            pub num_nodes: Option<u64>,
            /// The edges, as pairs of nodes; or the graph as CSR arrays, `row_offsets` and `column_indices`.
            #[serde(
                serialize_with = "crate::service::serialize_pairs",
                deserialize_with = "crate::kernels::graph::input::edges"
            )]
            #[schemars(with = "Option<Vec<[u32; 2]>>")]
            pub edges: Option<Vec<[u32; 2]>>,
            /// CSR: where each node's neighbours start in `column_indices`, and at the end its length.
            pub row_offsets: Option<$crate::service::Buffer<u32>>,
            /// CSR: the neighbours of all nodes, one node after the other.
            pub column_indices: Option<$crate::service::Buffer<u32>>,
            /// Whether edges lead one way only.
            pub directed: bool,
            $($(#[$field_attribute])* pub $field: $type,)*
        }

        impl Default for $Input {
            fn default() -> Self {
                Self {
                    graph: None,
                    num_nodes: None,
                    edges: None,
                    row_offsets: None,
                    column_indices: None,
                    directed: false,
                    $($field: $default,)*
                }
            }
        }

        impl $Input {
            /// Creates the input for an undirected graph from an edge list, with the defaults of the other fields.
            pub fn from_edges(num_nodes: u64, edges: Vec<[u32; 2]>) -> Self {
                Self { num_nodes: Some(num_nodes), edges: Some(edges), ..Self::default() }
            }

            /// Creates the input for a stored graph, with the defaults of the other fields.
            pub fn from_operand(graph: $crate::service::Operand<$crate::kernels::graph::csr::CsrGraph>) -> Self {
                Self { graph: Some(graph), ..Self::default() }
            }

            /// Creates the input for an undirected graph from CSR arrays, with the defaults of the other fields.
            pub fn from_csr(
                row_offsets: impl Into<$crate::service::Buffer<u32>>,
                column_indices: impl Into<$crate::service::Buffer<u32>>,
            ) -> Self {
                let (row_offsets, column_indices) = (Some(row_offsets.into()), Some(column_indices.into()));
                Self { row_offsets, column_indices, ..Self::default() }
            }

            /// Returns the fields that describe the graph.
            pub fn graph_input(&self) -> $crate::kernels::graph::input::GraphInput<'_> {
                $crate::kernels::graph::input::GraphInput {
                    operand: self.graph.as_ref(),
                    num_nodes: self.num_nodes,
                    edges: self.edges.as_deref(),
                    row_offsets: self.row_offsets.as_ref(),
                    column_indices: self.column_indices.as_ref(),
                    directed: self.directed,
                    weights: None,
                    takes_weights: false,
                }
            }
        }
    };
}

pub(crate) use graph_input;
