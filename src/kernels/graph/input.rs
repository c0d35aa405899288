//! [`GraphInput`]: the graph in a kernel's input, as an edge list or as CSR arrays.
//!
//! The input struct of a graph kernel has these fields, so that JSON and tensors have the same form for every kernel. The
//! macro `graph_input!` of `kernels/graph/fields.rs` defines such a struct.
//!
//! | field | type | |
//! |---|---|---|
//! | `graph` | [`Operand<CsrGraph>`](Operand) | a reference to a graph, or an object of the fields below |
//! | `num_nodes` | integer | nodes are numbered from 0; optional with CSR |
//! | `edges` | `u32`, `[m, 2]` | pairs of nodes, read by `input::edges` |
//! | `row_offsets` | `u32`, `[num_nodes + 1]` | where each node's neighbours start |
//! | `column_indices` | `u32`, `[m]` | the neighbours |
//! | `directed` | bool | whether edges lead one way only |
//! | `weights` | `f32`, `[m]` | the weights of the edges, of kernels that take them |
//!
//! A graph that is an operand, or an object, may have weights whatever the kernel. A kernel that takes none ignores those of
//! an operand, which many kernels share, and rejects those that came with its own request.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error};

use super::cancel_check::CancelCheck;
use super::csr::{CsrGraph, Direction};
use super::operand::GraphDocument;
use crate::service::{
    BatchKey, Buffer, Footprint, InvalidInput, KernelError, Operand, OperandVersion, RunContext, optional_pairs,
};

/// The largest graph, in bytes of input, for which requests on the same graph share a run: hashing it takes about 30 µs of
/// the caller's thread. With a larger one the graph is a small part of the work.
const SHARED_GRAPH: usize = 64 << 10;

/// The fields of a kernel's input that describe a graph.
#[derive(Debug, Clone, Copy)]
pub struct GraphInput<'a> {
    /// A stored graph, or one as an object; without the other fields.
    pub operand: Option<&'a Operand<CsrGraph>>,
    /// How many nodes there are. Optional with CSR arrays.
    pub num_nodes: Option<u64>,
    /// The edges, as pairs of nodes.
    pub edges: Option<&'a [[u32; 2]]>,
    /// CSR: where each node's neighbours start in `column_indices`, and at the end its length.
    pub row_offsets: Option<&'a Buffer<u32>>,
    /// CSR: the neighbours of all nodes, one node after the other.
    pub column_indices: Option<&'a Buffer<u32>>,
    /// Whether edges lead one way only.
    pub directed: bool,
    /// The weights of the edges: one for each of `edges` or of `column_indices`.
    pub weights: Option<&'a Buffer<f32>>,
    /// Whether the kernel takes weights. Otherwise those that came with the request are rejected.
    pub takes_weights: bool,
}

/// The forms of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Form<'a> {
    Edges {
        num_nodes: u64,
        edges: &'a [[u32; 2]],
        weights: Option<Weights<'a>>,
    },
    Csr {
        row_offsets: &'a [u32],
        column_indices: &'a [u32],
        weights: Option<Weights<'a>>,
    },
    /// The version stands for the graph.
    Stored {
        version: u64,
    },
}

impl<'a> Form<'a> {
    fn bytes(&self) -> usize {
        let of_weights = self.weights().map_or(0, size_of_val);
        match self {
            Self::Edges { edges, .. } => size_of_val(*edges) + of_weights,
            Self::Csr { row_offsets, column_indices, .. } => {
                size_of_val(*row_offsets) + size_of_val(*column_indices) + of_weights
            }
            Self::Stored { .. } => 0,
        }
    }

    fn weights(&self) -> Option<&'a [f32]> {
        match self {
            Self::Edges { weights, .. } | Self::Csr { weights, .. } => weights.map(|Weights(weights)| weights),
            Self::Stored { .. } => None,
        }
    }
}

/// Weights, which are the same if their bits are.
#[derive(Debug, Clone, Copy)]
struct Weights<'a>(&'a [f32]);

impl Weights<'_> {
    fn bits(&self) -> &[u32] {
        bytemuck::cast_slice(self.0)
    }
}

impl PartialEq for Weights<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.bits() == other.bits()
    }
}

impl Eq for Weights<'_> {}

impl Hash for Weights<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bits().hash(state);
    }
}

impl<'a> GraphInput<'a> {
    /// Which way edges lead.
    pub fn direction(&self) -> Direction {
        let directed = match self.operand.and_then(Operand::document) {
            Some(document) => document.directed,
            None => self.directed,
        };
        match self.stored() {
            Some((graph, _)) => graph.direction(),
            None if directed => Direction::Directed,
            None => Direction::Undirected,
        }
    }

    /// Returns the stored graph that the input refers to.
    fn stored(&self) -> Option<(&'a Arc<CsrGraph>, &'a OperandVersion)> {
        self.operand.and_then(|operand| operand.value().zip(operand.version().map(Arc::as_ref)))
    }

    /// Returns the fields that describe the graph: those of the object, if there is one.
    fn fields(&self) -> GraphInput<'a> {
        let fields = self.operand.and_then(Operand::document).map_or(*self, GraphDocument::graph_input);
        GraphInput { takes_weights: self.takes_weights, ..fields }
    }

    fn form(&self) -> Result<Form<'a>, InvalidInput> {
        if self.operand.is_some() {
            let others = [
                ("num_nodes", self.num_nodes.is_some()),
                ("edges", self.edges.is_some()),
                ("row_offsets", self.row_offsets.is_some()),
                ("column_indices", self.column_indices.is_some()),
                ("directed", self.directed),
                ("weights", self.weights.is_some()),
            ];
            if let Some((field, _)) = others.into_iter().find(|(_, is_given)| *is_given) {
                return Err(InvalidInput::new(field, "there is a graph already; give one of the two"));
            }
        }
        if let Some((_, version)) = self.stored() {
            return Ok(Form::Stored { version: version.id() });
        }
        match self.operand.and_then(Operand::document) {
            Some(_) => self.fields().form_of_fields().map_err(|error| error.within("graph")),
            None => self.form_of_fields(),
        }
    }

    fn form_of_fields(&self) -> Result<Form<'a>, InvalidInput> {
        let missing = |field| Err(InvalidInput::new(field, "missing"));
        if self.weights.is_some() && !self.takes_weights {
            return Err(InvalidInput::new("weights", "the kernel does not take weights of edges"));
        }
        let weights = self.weights.map(|weights| Weights(weights));
        match (self.edges, self.row_offsets, self.column_indices) {
            (Some(_), Some(_), _) => {
                Err(InvalidInput::new("row_offsets", "there are edges already; give one of the two"))
            }
            (Some(_), _, Some(_)) => {
                Err(InvalidInput::new("column_indices", "there are edges already; give one of the two"))
            }
            (Some(edges), None, None) => match self.num_nodes {
                Some(num_nodes) => Ok(Form::Edges { num_nodes, edges, weights }),
                None => missing("num_nodes"),
            },
            (None, Some(row_offsets), Some(column_indices)) => Ok(Form::Csr { row_offsets, column_indices, weights }),
            (None, Some(_), None) => missing("column_indices"),
            (None, None, Some(_)) => missing("row_offsets"),
            (None, None, None) => missing("edges"),
        }
    }

    /// Nodes and arcs as the input claims them, before it is checked, for estimates of the cost. An edge that leads both
    /// ways is two arcs.
    pub fn claimed_size(&self) -> (u64, u64) {
        if let Some((graph, _)) = self.stored() {
            return (graph.num_nodes() as u64, graph.num_arcs() as u64);
        }
        let fields = self.fields();
        let (nodes, edges) = fields.claimed_fields();
        let arcs = if fields.directed { edges } else { edges.saturating_mul(2) };
        (nodes, arcs)
    }

    fn claimed_fields(&self) -> (u64, u64) {
        let edges = self.edges.map(<[_]>::len).or(self.column_indices.map(|columns| columns.len()));
        let nodes = self.row_offsets.map(|rows| rows.len().saturating_sub(1) as u64);
        (self.num_nodes.or(nodes).unwrap_or(0), edges.unwrap_or(0) as u64)
    }

    /// Returns whether the graph is a stored one, which was checked and built when it was stored.
    pub fn is_stored(&self) -> bool {
        self.stored().is_some()
    }

    /// Estimates the bytes that [`load_in`](Self::load_in) moves: none for a stored graph.
    pub fn load_bytes(&self) -> u64 {
        let (nodes, arcs) = self.claimed_size();
        let edges = if self.direction() == Direction::Directed { arcs } else { arcs / 2 };
        let bytes_per_edge = if self.has_weights() { 12 } else { 8 };
        if self.is_stored() { 0 } else { edges.saturating_mul(bytes_per_edge).saturating_add(nodes.saturating_mul(12)) }
    }

    /// Returns the peak host memory of [`load_in`](Self::load_in): none for a stored graph.
    pub fn load_memory(&self) -> u64 {
        let (nodes, arcs) = self.claimed_size();
        // While the graph is built there are its arcs as they came, sorted by one end, and by the other.
        let copies = if self.is_stored() { 0 } else { 3 };
        let weights = if self.has_weights() { arcs } else { 0 };
        Footprint::of_array::<u32>(arcs.saturating_add(nodes).saturating_add(weights)).saturating_mul(copies)
    }

    /// Checks that no weight is negative.
    ///
    /// # Errors
    /// The weight, or the stored graph that has it.
    pub fn check_not_negative(&self) -> Result<(), InvalidInput> {
        if let Some((graph, _)) = self.stored() {
            return match graph.least_weight() {
                Some(least) if least < 0.0 => {
                    Err(InvalidInput::new("graph", format!("it has a weight of {least}, and none may be negative")))
                }
                _ => Ok(()),
            };
        }
        let weights = self.fields().weights.map_or(&[][..], |weights| weights);
        let Some(index) = weights.iter().position(|&weight| weight < 0.0) else { return Ok(()) };
        let error =
            InvalidInput::new(format!("weights[{index}]"), format!("{}, and none may be negative", weights[index]));
        Err(if self.operand.is_some() { error.within("graph") } else { error })
    }

    /// Returns whether the graph has weights.
    pub fn has_weights(&self) -> bool {
        match self.stored() {
            Some((graph, _)) => graph.successors().weights().is_some(),
            None => self.fields().weights.is_some(),
        }
    }

    /// Returns the host memory of the predecessors that a run makes. Those of an undirected graph are its successors.
    pub(super) fn predecessors_memory(&self) -> u64 {
        let (nodes, arcs) = self.claimed_size();
        match self.direction() {
            Direction::Directed => Footprint::of_array::<u32>(arcs.saturating_add(nodes)),
            Direction::Undirected => 0,
        }
    }

    /// Returns the peak host memory of arranging a stored graph by segments, for products on CUDA.
    pub(super) fn segmented_memory(&self) -> u64 {
        #[cfg(feature = "cuda")]
        if self.is_stored() {
            let (nodes, arcs) = self.claimed_size();
            // The arcs by piece, what is known of each row and piece, and the slices that are made of them.
            return super::segmented::SegmentedRows::bytes(nodes, arcs).saturating_mul(3);
        }
        0
    }

    /// Checks the graph; returns the number of its nodes, at least 1.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn validate(&self) -> Result<usize, InvalidInput> {
        let form = self.form()?;
        match self.stored() {
            Some((graph, _)) => Ok(graph.num_nodes()),
            None if self.operand.is_some() => {
                self.fields().validate_fields(form).map_err(|error| error.within("graph"))
            }
            None => self.validate_fields(form),
        }
    }

    /// As [`validate`](Self::validate), and rejects directed graphs.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn validate_undirected(&self) -> Result<usize, InvalidInput> {
        if self.direction() == Direction::Directed {
            let field = match self.operand {
                Some(_) if self.is_stored() => "graph",
                Some(_) => "graph.directed",
                None => "directed",
            };
            return Err(InvalidInput::new(field, "a directed graph, and an undirected one is needed"));
        }
        self.validate()
    }

    fn validate_fields(&self, form: Form<'_>) -> Result<usize, InvalidInput> {
        let num_nodes = match form {
            Form::Stored { .. } => unreachable!("a stored graph has no fields"),
            Form::Edges { num_nodes, edges, .. } => {
                CsrGraph::check_edges(to_usize(num_nodes), edges)?;
                to_usize(num_nodes)
            }
            Form::Csr { row_offsets, column_indices, .. } => {
                CsrGraph::check_csr(row_offsets, column_indices)?;
                row_offsets.len() - 1
            }
        };
        if let Some(weights) = form.weights() {
            let (_, num_edges) = self.claimed_fields();
            CsrGraph::check_weights(weights, to_usize(num_edges))?;
        }
        self.check_num_nodes(num_nodes)?;
        Ok(num_nodes)
    }

    /// Checks that the graph, which has `described` nodes, has any, and as many as the field `num_nodes` says.
    pub(super) fn check_num_nodes(&self, described: usize) -> Result<(), InvalidInput> {
        match self.num_nodes {
            Some(claimed) if claimed != described as u64 => {
                let reason = format!("{claimed}, and row_offsets describes {described} nodes");
                Err(InvalidInput::new("num_nodes", reason))
            }
            _ if described == 0 => {
                let field = if self.row_offsets.is_some() { "row_offsets" } else { "num_nodes" };
                Err(InvalidInput::new(field, "no nodes"))
            }
            _ => Ok(()),
        }
    }

    /// Builds the graph.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn build(&self) -> Result<CsrGraph, InvalidInput> {
        self.build_while(&mut |_| Ok(()))
    }

    /// Returns the stored graph, or builds the graph, and checks the context now and then.
    ///
    /// # Errors
    /// The first field that is wrong, or those of [`RunContext::check`].
    pub fn load_in(&self, context: &RunContext<'_>) -> Result<Arc<CsrGraph>, KernelError> {
        match self.stored() {
            Some((graph, _)) => Ok(Arc::clone(graph)),
            None => self.build_in(context).map(Arc::new),
        }
    }

    /// Returns the graph as [`load_in`](Self::load_in) does, with its predecessors [made](CsrGraph::make_predecessors).
    ///
    /// # Errors
    /// Those of [`load_in`](Self::load_in).
    pub(super) fn load_with_predecessors(&self, context: &RunContext<'_>) -> Result<Arc<CsrGraph>, KernelError> {
        let graph = self.load_in(context)?;
        graph.make_predecessors(context)?;
        Ok(graph)
    }

    /// Builds the graph, and checks the context now and then. A stored graph is copied.
    ///
    /// # Errors
    /// The first field that is wrong, or those of [`RunContext::check`].
    pub fn build_in(&self, context: &RunContext<'_>) -> Result<CsrGraph, KernelError> {
        let mut cancel_check = CancelCheck::new(context);
        self.build_while(&mut |arcs| cancel_check.spend(arcs))
    }

    /// Builds the graph as long as `spend`, which is called with the number of arcs visited, returns no error.
    pub(super) fn build_while<E: From<InvalidInput>>(
        &self,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<CsrGraph, E> {
        match self.form()? {
            Form::Stored { .. } => Ok(self.stored().map(|(graph, _)| CsrGraph::clone(graph)).expect("a stored graph")),
            Form::Edges { num_nodes, edges, weights } => {
                let weights = weights.map(|Weights(weights)| weights);
                CsrGraph::from_edges_while(to_usize(num_nodes), edges, weights, self.direction(), spend)
            }
            Form::Csr { .. } => {
                let fields = self.fields();
                let (row_offsets, columns) = fields.row_offsets.zip(fields.column_indices).expect("both are given");
                CsrGraph::from_buffers_while(row_offsets, columns, fields.weights, self.direction(), spend)
            }
        }
    }

    /// The version that the graph is, for [`Kernel::operands`](crate::service::Kernel::operands); none if it came with the
    /// request.
    pub fn operands(&self) -> Vec<Arc<OperandVersion>> {
        self.operand.and_then(Operand::version).cloned().into_iter().collect()
    }

    /// The batch key of requests on the same graph; `None` for a large one that came with the request.
    pub fn batch_key(&self) -> Option<BatchKey> {
        if let Some((_, version)) = self.stored() {
            return Some(BatchKey::exact(version.id()).sharing_work());
        }
        let form = self.form().ok().filter(|form| form.bytes() <= SHARED_GRAPH)?;
        Some(BatchKey::hash((form, self.fields().directed)))
    }

    /// Whether two inputs have the same graph, in the same form.
    pub fn is_same(&self, other: &GraphInput<'_>) -> bool {
        self.direction() == other.direction()
            && self.form().is_ok_and(|form| other.form().is_ok_and(|other| form == other))
    }
}

/// A count as `usize`; one that no memory could hold stays one, and is rejected as too large.
pub(super) fn to_usize(count: u64) -> usize {
    usize::try_from(count).unwrap_or(usize::MAX)
}

/// Reads an optional field of edges: pairs of nodes, as JSON or as a tensor of shape `[m, 2]`.
///
/// # Errors
/// Edges that are no pairs: an edge index of shape `[2, m]`, as PyTorch Geometric has it, and triples with a weight.
pub(super) fn edges<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<[u32; 2]>>, D::Error> {
    optional_pairs::<D, Edge>(deserializer)
}

struct Edge([u32; 2]);

impl From<Edge> for [u32; 2] {
    fn from(Edge(edge): Edge) -> Self {
        edge
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
