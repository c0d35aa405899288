//! Graphs as operands: uploaded once, built into CSR arrays once, and referred to by name.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

use super::csr::{Adjacency, CsrGraph, Direction};
use super::input::GraphInput;
use super::oriented::OrientedGraph;
use crate::service::{
    Buffer, DType, InvalidInput, KernelError, OperandArray, OperandValue, RunContext, Tensor, Tensors,
};

/// What clients send as a graph: edges or CSR arrays, as in the input of a graph kernel.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Graph", extend("examples" = [
    { "num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]] },
    { "row_offsets": [0, 2, 4, 6, 8], "column_indices": [1, 3, 0, 2, 1, 3, 0, 2] },
]))]
pub struct GraphDocument {
    /// The number of nodes. Optional with CSR arrays.
    #[serde(default)]
    pub num_nodes: Option<u64>,
    /// The edges, as pairs of nodes; or the graph as CSR arrays, `row_offsets` and `column_indices`.
    #[serde(default, deserialize_with = "super::input::edges")]
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
        json!({ "nodes": self.num_nodes(), "edges": edges, "directed": directed })
    }

    /// Counts the predecessors of a directed graph and the oriented form before they are made.
    fn bytes(&self) -> u64 {
        let successors = size_of_val(self.successors().row_offsets()) + size_of_val(self.successors().column_indices());
        let (nodes, arcs) = (self.num_nodes() as u64, self.num_arcs() as u64);
        let directions = match self.direction() {
            Direction::Directed => 2,
            Direction::Undirected => 1,
        };
        directions * successors as u64 + OrientedGraph::bytes(nodes, arcs, self.direction())
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
        tensors
    }

    /// Arrays of forms that are made later come last, in the order in which they are made: a directed graph has predecessors
    /// before it has an oriented form.
    fn arrays(&self) -> Vec<OperandArray<'_>> {
        let mut arrays = adjacency(["row_offsets", "column_indices"], self.successors());
        if let Some(predecessors) = self.made_predecessors() {
            arrays.extend(adjacency(["predecessor_row_offsets", "predecessor_column_indices"], predecessors));
        }
        if let Some(oriented) = self.made_oriented() {
            arrays.extend(adjacency(["oriented_row_offsets", "oriented_column_indices"], oriented.arcs()));
        }
        arrays
    }
}

fn adjacency<'a>([offsets, columns]: [&'static str; 2], adjacency: &'a Adjacency) -> Vec<OperandArray<'a>> {
    let array =
        |name, elements: &'a [u32]| OperandArray { name, dtype: DType::U32, bytes: bytemuck::cast_slice(elements) };
    vec![array(offsets, adjacency.row_offsets()), array(columns, adjacency.column_indices())]
}
