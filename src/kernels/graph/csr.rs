//! Graphs in compressed sparse row form.

use std::sync::OnceLock;

use rayon::prelude::*;

use super::cancel_check::CancelCheck;
use super::canonical::is_canonical;
use super::oriented::OrientedGraph;
#[cfg(feature = "cuda")]
use super::segmented::SegmentedRows;
use crate::service::{Buffer, InvalidInput, KernelError, RunContext};

/// The most nodes that a [`CsrGraph`] may have.
pub const MAX_NODES: usize = 1 << 28;

/// A graph of up to this many nodes may have any number of edges.
pub const FREE_NODES: usize = 1 << 16;

/// Above [`FREE_NODES`], a graph may have this many nodes for each edge.
///
/// Isolated nodes are legal, and an output has one value per node, so `num_nodes` is limited by the size of the request: 16
/// nodes an edge keep the memory that a request can ask for within a small multiple of the bytes that it sent.
pub const NODES_PER_EDGE: usize = 16;

/// Whether an edge `(u, v)` also leads from `v` to `u`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Edges lead from the first node to the second.
    Directed,
    /// Edges lead both ways. Naming one of the two directions is enough, and naming both changes nothing.
    Undirected,
}

/// One direction of adjacency: the neighbours of node `v` are `columns[offsets[v]..offsets[v + 1]]`, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Adjacency {
    offsets: Buffer<u32>,
    columns: Buffer<u32>,
    /// One for each column, of a graph with weights.
    weights: Option<Buffer<f32>>,
}

impl Adjacency {
    /// Wraps arrays of this form.
    pub(super) fn from_arrays(offsets: Vec<u32>, columns: Vec<u32>) -> Self {
        Self { offsets: offsets.into(), columns: columns.into(), weights: None }
    }

    /// Where each node's neighbours start, `num_nodes + 1` values.
    pub fn row_offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// The neighbours of all nodes, one row after the other.
    pub fn column_indices(&self) -> &[u32] {
        &self.columns
    }

    /// The weights of the edges to all neighbours, in the order of [`column_indices`](Self::column_indices); `None` for a
    /// graph without weights.
    pub fn weights(&self) -> Option<&[f32]> {
        self.weights.as_deref()
    }

    /// Returns the weights as a buffer that shares its memory.
    pub(super) fn weights_buffer(&self) -> Option<&Buffer<f32>> {
        self.weights.as_ref()
    }

    /// Returns the offsets and the columns as buffers that share their memory.
    pub(super) fn to_buffers(&self) -> [Buffer<u32>; 2] {
        [self.offsets.clone(), self.columns.clone()]
    }

    /// The neighbours of `node`, ascending.
    #[inline]
    pub fn row(&self, node: u32) -> &[u32] {
        let node = node as usize;
        &self.columns[self.offsets[node] as usize..self.offsets[node + 1] as usize]
    }

    /// The neighbours of `node`, each with its index among the [columns](Self::column_indices) of all nodes.
    #[inline]
    pub fn indexed_row(&self, node: u32) -> impl Iterator<Item = (usize, u32)> + '_ {
        (self.offsets[node as usize] as usize..).zip(self.row(node).iter().copied())
    }

    /// How many neighbours `node` has.
    #[inline]
    pub fn degree(&self, node: u32) -> usize {
        let node = node as usize;
        (self.offsets[node + 1] - self.offsets[node]) as usize
    }

    fn num_nodes(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The same arcs the other way round. Rows are visited in ascending order, so the new rows come out sorted.
    fn transposed<E>(&self, spend: &mut impl FnMut(usize) -> Result<(), E>) -> Result<Self, E> {
        Ok(match &self.weights {
            Some(weights) => Rows::transposed(&self.offsets, &self.columns, weights, spend)?.into(),
            // Units take no memory.
            None => Rows::transposed(&self.offsets, &self.columns, &vec![(); self.columns.len()], spend)?.into(),
        })
    }
}

/// The weight of an arc: a number, or nothing in a graph without weights.
trait ArcWeight: Copy + Default {
    /// Returns the weight of an arc that is there twice.
    fn of_repeated(self, other: Self) -> Self;

    fn into_buffer(weights: Vec<Self>) -> Option<Buffer<f32>>;
}

impl ArcWeight for () {
    fn of_repeated(self, (): ()) {}

    fn into_buffer(_: Vec<()>) -> Option<Buffer<f32>> {
        None
    }
}

impl ArcWeight for f32 {
    fn of_repeated(self, other: f32) -> f32 {
        self.min(other)
    }

    fn into_buffer(weights: Vec<f32>) -> Option<Buffer<f32>> {
        Some(weights.into())
    }
}

/// An arc: the nodes that it leads from and to, and its weight.
type WeightedArc<W> = (u32, u32, W);

/// An adjacency that is being built.
struct Rows<W> {
    offsets: Vec<u32>,
    columns: Vec<u32>,
    weights: Vec<W>,
}

impl<W: ArcWeight> From<Rows<W>> for Adjacency {
    fn from(Rows { offsets, columns, weights }: Rows<W>) -> Self {
        Self { offsets: offsets.into(), columns: columns.into(), weights: W::into_buffer(weights) }
    }
}

impl<W: ArcWeight> Rows<W> {
    /// Sorts arcs into rows by counting, keeping their order within a row. `spend` is called for each arc visited, and
    /// its error ends it.
    fn sorted<I: Iterator<Item = WeightedArc<W>>, E>(
        num_nodes: usize,
        arcs: impl Fn() -> I,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        // Counting one row ahead makes the running sum the rows' starts, and filling turns starts into ends, which
        // are the next rows' starts: no second array is needed.
        let mut offsets = vec![0_u32; num_nodes + 2];
        for (row, ..) in arcs() {
            spend(1)?;
            offsets[row as usize + 2] += 1;
        }
        let mut sum = 0;
        for offset in &mut offsets[2..] {
            sum += *offset;
            *offset = sum;
        }
        let mut columns = vec![0_u32; sum as usize];
        let mut weights = vec![W::default(); sum as usize];
        for (row, column, weight) in arcs() {
            spend(1)?;
            let next = &mut offsets[row as usize + 1];
            columns[*next as usize] = column;
            weights[*next as usize] = weight;
            *next += 1;
        }
        offsets.pop();
        Ok(Self { offsets, columns, weights })
    }

    /// Sorts the reverses of arcs into rows.
    fn transposed<E>(
        offsets: &[u32],
        columns: &[u32],
        weights: &[W],
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        let reverses = || arcs_of(offsets, columns, weights).map(|(row, column, weight)| (column, row, weight));
        Self::sorted(offsets.len() - 1, reverses, spend)
    }

    /// Sorts the reverses of these arcs into rows.
    fn reversed<E>(&self, spend: &mut impl FnMut(usize) -> Result<(), E>) -> Result<Self, E> {
        Self::transposed(&self.offsets, &self.columns, &self.weights, spend)
    }

    /// Drops repeated columns from sorted rows.
    fn without_repeats(mut self) -> Self {
        let mut len = 0;
        let mut start = 0;
        for node in 0..self.offsets.len() - 1 {
            let end = self.offsets[node + 1] as usize;
            let row_start = len;
            for index in start..end {
                let (column, weight) = (self.columns[index], self.weights[index]);
                if len == row_start || self.columns[len - 1] != column {
                    self.columns[len] = column;
                    self.weights[len] = weight;
                    len += 1;
                } else {
                    self.weights[len - 1] = self.weights[len - 1].of_repeated(weight);
                }
            }
            start = end;
            self.offsets[node + 1] = len as u32;
        }
        self.columns.truncate(len);
        self.weights.truncate(len);
        self
    }
}

/// Returns the arcs of CSR arrays, row by row.
fn arcs_of<'a, W: Copy>(
    offsets: &'a [u32],
    columns: &'a [u32],
    weights: &'a [W],
) -> impl Iterator<Item = WeightedArc<W>> + 'a {
    offsets.windows(2).zip(0_u32..).flat_map(move |(ends, row)| {
        let range = ends[0] as usize..ends[1] as usize;
        columns[range.clone()].iter().zip(&weights[range]).map(move |(&column, &weight)| (row, column, weight))
    })
}

/// A simple graph: no self-loops, no parallel edges, neighbours sorted. Its edges may have weights.
///
/// Self-loops and parallel edges of the input are dropped; no shortest path uses the former, and unweighted shortest
/// paths are counted by the nodes they pass, as networkx counts them. Of parallel edges, and of the two directions of an
/// undirected edge where both are given, the least weight is kept: that is the edge which a shortest path takes.
#[derive(Debug, Clone)]
pub struct CsrGraph {
    successors: Adjacency,
    predecessors: Predecessors,
    /// The least weight, of a graph with edges that have weights.
    least_weight: Option<f32>,
    total_weight: f64,
    derived_forms: DerivedForms,
}

impl PartialEq for CsrGraph {
    /// All other forms follow from the successors.
    fn eq(&self, other: &Self) -> bool {
        self.successors == other.successors && self.direction() == other.direction()
    }
}

/// Other forms of a graph, each made when a kernel needs it first and kept, in the order in which they were made.
#[derive(Debug, Clone, Default)]
struct DerivedForms([OnceLock<DerivedForm>; 2]);

/// A form that follows from a graph's arcs.
#[derive(Debug, Clone)]
pub(super) enum DerivedForm {
    /// Each edge at one end.
    Oriented(OrientedGraph),
    /// The predecessors by segments, if products are faster with them.
    #[cfg(feature = "cuda")]
    Segmented(Option<SegmentedRows>),
}

impl DerivedForms {
    fn iter(&self) -> impl Iterator<Item = &DerivedForm> {
        self.0.iter().map_while(OnceLock::get)
    }

    /// Keeps a form, unless another request has made the same meanwhile.
    fn keep(&self, mut form: DerivedForm) {
        for place in &self.0 {
            let Err(not_kept) = place.set(form) else { return };
            form = not_kept;
            if place.get().is_some_and(|kept| std::mem::discriminant(kept) == std::mem::discriminant(&form)) {
                return;
            }
        }
    }
}

/// The arcs the other way round.
#[derive(Debug, Clone)]
enum Predecessors {
    /// Edges lead both ways, so that these are the successors.
    Same,
    /// Made when a kernel needs them first, and kept.
    Lazy(OnceLock<Adjacency>),
}

impl CsrGraph {
    fn new(successors: Adjacency, predecessors: Predecessors) -> Self {
        let least_weight = successors.weights().and_then(|weights| weights.iter().copied().reduce(f32::min));
        let total_weight = successors.weights().map_or(0.0, sum);
        Self { successors, predecessors, least_weight, total_weight, derived_forms: DerivedForms::default() }
    }

    /// Builds a graph from a list of edges, in time and memory linear in nodes and edges.
    ///
    /// # Errors
    /// `num_nodes` over [`MAX_NODES`], or over both [`FREE_NODES`] and [`NODES_PER_EDGE`] times the number of edges,
    /// checked before anything is allocated; an edge with a node that is not below `num_nodes`; more than
    /// `u32::MAX` arcs (an undirected edge is two).
    pub fn from_edges(num_nodes: usize, edges: &[[u32; 2]], direction: Direction) -> Result<Self, InvalidInput> {
        Self::from_edges_while(num_nodes, edges, None, direction, &mut |_| Ok(()))
    }

    /// As [`from_edges`](Self::from_edges), with a weight for each edge.
    ///
    /// # Errors
    /// Those of `from_edges`; another number of weights than of edges, or a weight that is not finite.
    pub fn from_weighted_edges(
        num_nodes: usize,
        edges: &[[u32; 2]],
        weights: &[f32],
        direction: Direction,
    ) -> Result<Self, InvalidInput> {
        Self::from_edges_while(num_nodes, edges, Some(weights), direction, &mut |_| Ok(()))
    }

    /// As [`from_edges`](Self::from_edges) or [`from_weighted_edges`](Self::from_weighted_edges), as long as `spend`, which
    /// is called with the number of arcs visited, returns no error.
    pub(super) fn from_edges_while<E: From<InvalidInput>>(
        num_nodes: usize,
        edges: &[[u32; 2]],
        weights: Option<&[f32]>,
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::check_edges(num_nodes, edges)?;
        Self::check_arcs("edges", edges.len(), direction)?;
        match weights {
            Some(weights) => {
                Self::check_weights(weights, edges.len())?;
                let arcs = || edges.iter().zip(weights).map(|(&[from, to], &weight)| (from, to, weight));
                Self::build(num_nodes, arcs, direction, spend)
            }
            None => Self::build(num_nodes, || edges.iter().map(|&[from, to]| (from, to, ())), direction, spend),
        }
    }

    /// Runs the checks of [`from_edges`](Self::from_edges) alone.
    ///
    /// # Errors
    /// As `from_edges`.
    pub fn check_edges(num_nodes: usize, edges: &[[u32; 2]]) -> Result<(), InvalidInput> {
        if num_nodes > MAX_NODES {
            return Err(InvalidInput::new("num_nodes", format!("{num_nodes}, and {MAX_NODES} is the most")));
        }
        let limit = FREE_NODES.max(edges.len().saturating_mul(NODES_PER_EDGE));
        if num_nodes > limit {
            let reason = format!("{num_nodes}, and {limit} is the most for {} edges", edges.len());
            return Err(InvalidInput::new("num_nodes", reason));
        }
        for (edge, ends) in edges.iter().enumerate() {
            for (end, &node) in ends.iter().enumerate() {
                if node as usize >= num_nodes {
                    let reason = format!("node {node}, and num_nodes is {num_nodes}");
                    return Err(InvalidInput::new(format!("edges[{edge}][{end}]"), reason));
                }
            }
        }
        Ok(())
    }

    /// Checks that there is a finite weight for each edge.
    ///
    /// # Errors
    /// The field that is wrong.
    pub fn check_weights(weights: &[f32], num_edges: usize) -> Result<(), InvalidInput> {
        if weights.len() != num_edges {
            let reason = format!("{} values, and there are {num_edges} edges", weights.len());
            return Err(InvalidInput::new("weights", reason));
        }
        match weights.iter().position(|weight| !weight.is_finite()) {
            Some(index) => Err(InvalidInput::new(format!("weights[{index}]"), "a weight is a finite number")),
            None => Ok(()),
        }
    }

    /// Builds a graph from CSR arrays: the neighbours of node `v` are
    /// `column_indices[row_offsets[v]..row_offsets[v + 1]]`, in any order, and there are `row_offsets.len() - 1` nodes.
    ///
    /// # Errors
    /// `row_offsets` that is empty, does not start at 0, falls, or does not end at the length of `column_indices`; a
    /// column index that is not below the number of nodes; too many nodes or arcs.
    pub fn from_csr(row_offsets: &[u32], column_indices: &[u32], direction: Direction) -> Result<Self, InvalidInput> {
        Self::check_csr(row_offsets, column_indices)?;
        Self::check_arcs("column_indices", column_indices.len(), direction)?;
        Self::build_csr(row_offsets, column_indices, None, direction, &mut |_| Ok(()))
    }

    /// Builds a graph from CSR arrays that have been checked.
    fn build_csr<E>(
        row_offsets: &[u32],
        column_indices: &[u32],
        weights: Option<&[f32]>,
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        let num_nodes = row_offsets.len() - 1;
        match weights {
            Some(weights) => Self::build(num_nodes, || arcs_of(row_offsets, column_indices, weights), direction, spend),
            None => {
                let units = vec![(); column_indices.len()];
                Self::build(num_nodes, || arcs_of(row_offsets, column_indices, &units), direction, spend)
            }
        }
    }

    /// Runs the checks of [`from_csr`](Self::from_csr) alone.
    ///
    /// # Errors
    /// As `from_csr`.
    pub fn check_csr(row_offsets: &[u32], column_indices: &[u32]) -> Result<(), InvalidInput> {
        Self::check_row_offsets(row_offsets, column_indices.len())?;
        Self::check_columns(row_offsets.len() - 1, column_indices)
    }

    fn check_row_offsets(row_offsets: &[u32], num_columns: usize) -> Result<(), InvalidInput> {
        let (Some(&first), Some(&last)) = (row_offsets.first(), row_offsets.last()) else {
            return Err(InvalidInput::new("row_offsets", "empty, and num_nodes + 1 values are needed"));
        };
        let num_nodes = row_offsets.len() - 1;
        if num_nodes > MAX_NODES {
            return Err(InvalidInput::new("row_offsets", format!("{num_nodes} nodes, and {MAX_NODES} is the most")));
        }
        if first != 0 {
            return Err(InvalidInput::new("row_offsets[0]", format!("{first}, and 0 is where rows start")));
        }
        if let Some(row) = first_descent(row_offsets) {
            let reason = format!("{}, less than the {} before it", row_offsets[row + 1], row_offsets[row]);
            return Err(InvalidInput::new(format!("row_offsets[{}]", row + 1), reason));
        }
        if last as usize != num_columns {
            let reason = format!("{last}, and column_indices has {num_columns} values");
            return Err(InvalidInput::new(format!("row_offsets[{num_nodes}]"), reason));
        }
        Ok(())
    }

    fn check_columns(num_nodes: usize, column_indices: &[u32]) -> Result<(), InvalidInput> {
        match first_not_below(num_nodes, column_indices) {
            Some(index) => {
                let reason = format!("node {}, and row_offsets describes {num_nodes} nodes", column_indices[index]);
                Err(InvalidInput::new(format!("column_indices[{index}]"), reason))
            }
            None => Ok(()),
        }
    }

    /// As [`from_csr`](Self::from_csr), with weights if there are any, as long as `spend`, which is called with the number
    /// of arcs visited, returns no error. Arrays that are in the form of the graph already are shared and not copied, but
    /// for those of an undirected graph with weights, whose two directions are compared by sorting them.
    pub(super) fn from_buffers_while<E: From<InvalidInput>>(
        row_offsets: &Buffer<u32>,
        column_indices: &Buffer<u32>,
        weights: Option<&Buffer<f32>>,
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::check_row_offsets(row_offsets, column_indices.len())?;
        Self::check_arcs("column_indices", column_indices.len(), direction)?;
        if let Some(weights) = weights {
            Self::check_weights(weights, column_indices.len())?;
        }
        let is_to_be_sorted = direction == Direction::Undirected && weights.is_some();
        if is_to_be_sorted || !is_canonical(row_offsets, column_indices, direction, spend)? {
            Self::check_columns(row_offsets.len() - 1, column_indices)?;
            return Self::build_csr(row_offsets, column_indices, weights.map(|weights| &**weights), direction, spend);
        }
        let successors =
            Adjacency { offsets: row_offsets.clone(), columns: column_indices.clone(), weights: weights.cloned() };
        let predecessors = match direction {
            Direction::Directed => Predecessors::Lazy(OnceLock::new()),
            Direction::Undirected => Predecessors::Same,
        };
        Ok(Self::new(successors, predecessors))
    }

    fn check_arcs(field: &str, num_edges: usize, direction: Direction) -> Result<(), InvalidInput> {
        let arcs = match direction {
            Direction::Directed => Some(num_edges),
            Direction::Undirected => num_edges.checked_mul(2),
        };
        match arcs {
            Some(arcs) if arcs <= u32::MAX as usize => Ok(()),
            _ => Err(InvalidInput::new(field, format!("{num_edges} edges are more than 32-bit offsets can count"))),
        }
    }

    fn build<W: ArcWeight, I: Iterator<Item = WeightedArc<W>>, E>(
        num_nodes: usize,
        edges: impl Fn() -> I,
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        let edges = || edges().filter(|(from, to, _)| from != to);
        match direction {
            Direction::Directed => {
                let predecessors = Rows::sorted(num_nodes, edges, spend)?.reversed(spend)?.without_repeats();
                let successors = predecessors.reversed(spend)?.into();
                Ok(Self::new(successors, Predecessors::Lazy(Adjacency::from(predecessors).into())))
            }
            Direction::Undirected => {
                let arcs = || edges().flat_map(|(from, to, weight)| [(from, to, weight), (to, from, weight)]);
                let successors = Rows::sorted(num_nodes, arcs, spend)?.reversed(spend)?.without_repeats();
                Ok(Self::new(successors.into(), Predecessors::Same))
            }
        }
    }

    /// How many nodes the graph has.
    pub fn num_nodes(&self) -> usize {
        self.successors.num_nodes()
    }

    /// How many arcs the graph has after repeats and loops were dropped; an undirected edge is two.
    pub fn num_arcs(&self) -> usize {
        self.successors.columns.len()
    }

    /// Whether edges lead one way only.
    pub fn direction(&self) -> Direction {
        match self.predecessors {
            Predecessors::Lazy(_) => Direction::Directed,
            Predecessors::Same => Direction::Undirected,
        }
    }

    /// The least weight of an edge; `None` without weights or without edges.
    pub fn least_weight(&self) -> Option<f32> {
        self.least_weight
    }

    /// The sum of the weights of all arcs; 0 without weights. An edge that leads both ways is two arcs.
    pub fn total_weight(&self) -> f64 {
        self.total_weight
    }

    /// The nodes that edges lead to.
    pub fn successors(&self) -> &Adjacency {
        &self.successors
    }

    /// The nodes that edges come from; the same as [`successors`](Self::successors) where edges lead both ways. They are
    /// made at the first call.
    pub fn predecessors(&self) -> &Adjacency {
        match &self.predecessors {
            Predecessors::Same => &self.successors,
            Predecessors::Lazy(predecessors) => predecessors.get_or_init(|| {
                let mut spend = |_| Ok::<(), std::convert::Infallible>(());
                match self.successors.transposed(&mut spend) {
                    Ok(predecessors) => predecessors,
                    Err(never) => match never {},
                }
            }),
        }
    }

    /// Makes the predecessors, unless they are there, and checks the context on the way.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub fn make_predecessors(&self, context: &RunContext<'_>) -> Result<(), KernelError> {
        let Predecessors::Lazy(predecessors) = &self.predecessors else { return Ok(()) };
        if predecessors.get().is_none() {
            let mut cancel_check = CancelCheck::new(context);
            let transposed = self.successors.transposed(&mut |arcs| cancel_check.spend(arcs))?;
            // Another request may have made them meanwhile, which are the same.
            let _ = predecessors.set(transposed);
        }
        Ok(())
    }

    /// Returns the predecessors if they were made and are not the successors.
    pub(super) fn made_predecessors(&self) -> Option<&Adjacency> {
        match &self.predecessors {
            Predecessors::Same => None,
            Predecessors::Lazy(predecessors) => predecessors.get(),
        }
    }

    /// Returns the oriented form of the graph, which is made at the first call and kept.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub fn oriented(&self, context: &RunContext<'_>) -> Result<&OrientedGraph, KernelError> {
        self.derived_form(
            |form| match form {
                DerivedForm::Oriented(oriented) => Some(oriented),
                #[cfg(feature = "cuda")]
                DerivedForm::Segmented(_) => None,
            },
            || Ok(DerivedForm::Oriented(OrientedGraph::new(self, context)?)),
        )
    }

    /// Returns the predecessors by segments, which are made at the first call and kept; `None` if products are not faster
    /// with them.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    #[cfg(feature = "cuda")]
    pub(super) fn segmented(&self, context: &RunContext<'_>) -> Result<Option<&SegmentedRows>, KernelError> {
        let segmented = self.derived_form(
            |form| match form {
                DerivedForm::Segmented(segmented) => Some(segmented),
                DerivedForm::Oriented(_) => None,
            },
            || Ok(DerivedForm::Segmented(SegmentedRows::new(self, context)?)),
        )?;
        Ok(segmented.as_ref())
    }

    fn derived_form<T>(
        &self,
        get: impl Fn(&DerivedForm) -> Option<&T>,
        make: impl FnOnce() -> Result<DerivedForm, KernelError>,
    ) -> Result<&T, KernelError> {
        if let Some(form) = self.made_forms().find_map(&get) {
            return Ok(form);
        }
        self.derived_forms.keep(make()?);
        Ok(self.made_forms().find_map(&get).expect("there is room for a form of each kind"))
    }

    /// Returns the forms that were made, in the order in which they were made.
    pub(super) fn made_forms(&self) -> impl Iterator<Item = &DerivedForm> {
        self.derived_forms.iter()
    }
}

/// Returns the sum of weights, in an order that does not depend on the number of threads.
fn sum(weights: &[f32]) -> f64 {
    let of_chunk = |weights: &[f32]| weights.iter().copied().map(f64::from).sum();
    let sums: Vec<f64> = weights.par_chunks(LARGE / 16).map(of_chunk).collect();
    sums.into_iter().sum()
}

/// Values of an array that one thread checks in about 50 µs, which is worth waking others for.
const LARGE: usize = 1 << 20;

/// Returns the index of the first value that is larger than the next.
fn first_descent(values: &[u32]) -> Option<usize> {
    let ascends = |pair: &[u32]| pair[0] <= pair[1];
    let all_ascend = if values.len() < LARGE {
        values.windows(2).all(ascends)
    } else {
        values.par_windows(2).with_min_len(LARGE / 4).all(ascends)
    };
    if all_ascend { None } else { values.windows(2).position(|pair| !ascends(pair)) }
}

/// Returns the index of the first node that is not below `num_nodes`.
fn first_not_below(num_nodes: usize, nodes: &[u32]) -> Option<usize> {
    // The maximum, unlike the first that is too high, is found by vector instructions.
    let are_below = |nodes: &[u32]| nodes.iter().max().is_none_or(|&highest| (highest as usize) < num_nodes);
    let all_below = if nodes.len() < LARGE { are_below(nodes) } else { nodes.par_chunks(LARGE / 4).all(are_below) };
    if all_below { None } else { nodes.iter().position(|&node| node as usize >= num_nodes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_arrays_are_the_graph_that_sorting_makes() {
        let random = crate::random::SplitMix64::new(7);
        for direction in [Direction::Directed, Direction::Undirected] {
            for nodes in [1_u32, 2, 50, 3000] {
                let node = || random.up_to(u64::from(nodes) - 1) as u32;
                let edges: Vec<[u32; 2]> = (0..4 * nodes).map(|_| [node(), node()]).collect();
                let graph = CsrGraph::from_edges(nodes as usize, &edges, direction).unwrap();
                let arrays = graph.successors();
                let ok = &mut |_| Ok::<(), InvalidInput>(());
                let shared =
                    CsrGraph::from_buffers_while(&arrays.offsets, &arrays.columns, None, direction, ok).unwrap();
                let columns = [&shared, &graph].map(|graph| graph.successors().column_indices().as_ptr());
                // Small buffers are copied.
                assert!(columns[0] == columns[1] || nodes < 3000);
                assert_eq!(shared, graph);
                assert_eq!(shared.made_predecessors(), None);
                assert_eq!(shared.predecessors(), graph.predecessors());
                if direction == Direction::Undirected && graph.num_arcs() > 0 {
                    // Without one arc, sorting puts it back.
                    let mut columns = arrays.columns.to_vec();
                    let mut offsets = arrays.offsets.to_vec();
                    let row = (0..nodes).find(|&row| arrays.degree(row) > 0).unwrap() as usize;
                    columns.remove(offsets[row] as usize);
                    offsets[row + 1..].iter_mut().for_each(|offset| *offset -= 1);
                    let (offsets, columns) = (offsets.into(), columns.into());
                    assert_eq!(CsrGraph::from_buffers_while(&offsets, &columns, None, direction, ok).unwrap(), graph);
                }
            }
        }
    }
}
