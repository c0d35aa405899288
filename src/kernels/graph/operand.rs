//! Graphs as operands: uploaded once, built into CSR arrays once, and referred to by name.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::csr::{Adjacency, CsrGraph, DerivedForm, Direction};
use super::input::GraphInput;
use super::oriented::OrientedGraph;
#[cfg(feature = "cuda")]
use super::segmented::SegmentedRows;
use crate::service::{
    Buffer, DType, InvalidInput, KernelError, OperandArray, OperandValue, RunContext, Tensor, Tensors, serialize_pairs,
};

/// What clients send as a graph: edges or CSR arrays, as in the input of a graph kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Graph", extend("examples" = [
    { "num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]] },
    { "row_offsets": [0, 2, 4, 6, 8], "column_indices": [1, 3, 0, 2, 1, 3, 0, 2] },
    { "num_nodes": 3, "edges": [[0, 1], [1, 2]], "weights": [1.5, 0.25], "directed": true },
]))]
pub struct GraphDocument {
    /// The number of nodes. Optional with CSR arrays.
    #[serde(default)]
    pub num_nodes: Option<u64>,
    /// The edges, as pairs of nodes; or the graph as CSR arrays, `row_offsets` and `column_indices`.
    #[serde(default, serialize_with = "serialize_pairs", deserialize_with = "super::input::edges")]
    #[schemars(with = "Option<Vec<[u32; 2]>>")]
    pub edges: Option<Vec<[u32; 2]>>,
    /// CSR: where each node's neighbours start in `column_indices`, and at the end its length.
    #[serde(default)]
    pub row_offsets: Option<Buffer<u32>>,
    /// CSR: the neighbours of all nodes, one node after the other.
    #[serde(default)]
    pub column_indices: Option<Buffer<u32>>,
    /// Whether edges lead one way only.
    #[serde(default)]
    pub directed: bool,
    /// The weights of the edges, finite, one for each of `edges` or `column_indices`. Of parallel edges the least is kept.
    #[serde(default)]
    pub weights: Option<Buffer<f32>>,
}

impl GraphDocument {
    /// Returns the fields as those of a kernel's input.
    pub fn graph_input(&self) -> GraphInput<'_> {
        GraphInput {
            operand: None,
            num_nodes: self.num_nodes,
            edges: self.edges.as_deref(),
            row_offsets: self.row_offsets.as_ref(),
            column_indices: self.column_indices.as_ref(),
            directed: self.directed,
            weights: self.weights.as_ref(),
            takes_weights: true,
        }
    }
}

impl OperandValue for CsrGraph {
    const TYPE: &'static str = "graph";

    type Document = GraphDocument;

    fn check(document: &GraphDocument) -> Result<(), InvalidInput> {
        document.graph_input().validate().map(drop)
    }

    fn from_document(document: &GraphDocument, context: &RunContext<'_>) -> Result<Self, KernelError> {
        // Building checks the arrays as well, so that they are read once less than after `check`.
        let input = document.graph_input();
        let graph = input.build_in(context)?;
        input.check_num_nodes(graph.num_nodes())?;
        Ok(graph)
    }

    fn summary(&self) -> serde_json::Value {
        let directed = self.direction() == Direction::Directed;
        let edges = if directed { self.num_arcs() } else { self.num_arcs() / 2 };
        let weighted = self.successors().weights().is_some();
        json!({ "nodes": self.num_nodes(), "edges": edges, "directed": directed, "weighted": weighted })
    }

    /// Counts the predecessors of a directed graph, the oriented form and that by segments before they are made.
    fn bytes(&self) -> u64 {
        let weights = self.successors().weights().map_or(0, size_of_val);
        let successors =
            size_of_val(self.successors().row_offsets()) + size_of_val(self.successors().column_indices()) + weights;
        let (nodes, arcs) = (self.num_nodes() as u64, self.num_arcs() as u64);
        let directions = match self.direction() {
            Direction::Directed => 2,
            Direction::Undirected => 1,
        };
        #[cfg(feature = "cuda")]
        let segmented = SegmentedRows::bytes(nodes, arcs);
        #[cfg(not(feature = "cuda"))]
        let segmented = 0;
        directions * successors as u64 + OrientedGraph::bytes(nodes, arcs, self.direction()) + segmented
    }

    /// Returns the successors as CSR arrays, which [`from_document`](Self::from_document) shares as they are.
    fn to_tensors(&self) -> Tensors {
        let [row_offsets, column_indices] = self.successors().to_buffers();
        let directed = Bytes::copy_from_slice(&[u8::from(self.direction() == Direction::Directed)]);
        let mut tensors = Tensors::new();
        for (name, dtype, shape, data) in [
            ("row_offsets", DType::U32, vec![row_offsets.len()], row_offsets.into_bytes()),
            ("column_indices", DType::U32, vec![column_indices.len()], column_indices.into_bytes()),
            ("directed", DType::Bool, Vec::new(), directed),
        ] {
            let tensor = Tensor::new(dtype, shape, data).expect("the shape is that of the elements");
            tensors.insert(name, tensor).expect("the names are valid and differ");
        }
        if let Some(weights) = self.successors().weights_buffer() {
            let tensor = Tensor::new(DType::F32, vec![weights.len()], weights.clone().into_bytes());
            let tensor = tensor.expect("the shape is that of the elements");
            tensors.insert("weights", tensor).expect("the names are valid and differ");
        }
        tensors
    }

    /// Arrays of forms that are made later come last, in the order in which they are made: a directed graph has predecessors
    /// before it has another form.
    fn arrays(&self) -> Vec<OperandArray<'_>> {
        let mut arrays = adjacency(["row_offsets", "column_indices", "weights"], self.successors());
        if let Some(predecessors) = self.made_predecessors() {
            let names = ["predecessor_row_offsets", "predecessor_column_indices", "predecessor_weights"];
            arrays.extend(adjacency(names, predecessors));
        }
        for form in self.made_forms() {
            match form {
                DerivedForm::Oriented(oriented) => {
                    let names = ["oriented_row_offsets", "oriented_column_indices", "oriented_weights"];
                    arrays.extend(adjacency(names, oriented.arcs()));
                }
                #[cfg(feature = "cuda")]
                DerivedForm::Segmented(segmented) => {
                    let named = segmented.iter().flat_map(|segmented| segmented.arrays());
                    arrays.extend(named.map(|(name, elements)| array(name, DType::U32, elements)));
                }
            }
        }
        arrays
    }
}

/// The arrays of an adjacency; weights, if it has them.
fn adjacency<'a>(names: [&'static str; 3], adjacency: &'a Adjacency) -> Vec<OperandArray<'a>> {
    let [offsets, columns, weights] = names;
    let mut arrays = vec![
        array(offsets, DType::U32, adjacency.row_offsets()),
        array(columns, DType::U32, adjacency.column_indices()),
    ];
    arrays.extend(adjacency.weights().map(|values| array(weights, DType::F32, values)));
    arrays
}

fn array<'a, T: bytemuck::NoUninit>(name: &'static str, dtype: DType, elements: &'a [T]) -> OperandArray<'a> {
    OperandArray { name, dtype, bytes: bytemuck::cast_slice(elements) }
}
