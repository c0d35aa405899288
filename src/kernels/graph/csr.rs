//! Graphs in compressed sparse row form.

use crate::service::InvalidInput;

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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjacency {
    offsets: Vec<u32>,
    columns: Vec<u32>,
}

impl Adjacency {
    /// Where each node's neighbours start, `num_nodes + 1` values.
    pub fn row_offsets(&self) -> &[u32] {
        &self.offsets
    }

    /// The neighbours of all nodes, one row after the other.
    pub fn column_indices(&self) -> &[u32] {
        &self.columns
    }

    /// The neighbours of `node`, ascending.
    #[inline]
    pub fn row(&self, node: u32) -> &[u32] {
        let node = node as usize;
        &self.columns[self.offsets[node] as usize..self.offsets[node + 1] as usize]
    }

    /// How many neighbours `node` has.
    #[inline]
    pub fn degree(&self, node: u32) -> usize {
        let node = node as usize;
        (self.offsets[node + 1] - self.offsets[node]) as usize
    }

    /// Sorts arcs into rows by counting, keeping their order within a row. `spend` is called for each arc visited, and
    /// its error ends it.
    fn by_row<I: Iterator<Item = (u32, u32)>, E>(
        num_nodes: usize,
        arcs: impl Fn() -> I,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        // Counting one row ahead makes the running sum the rows' starts, and filling turns starts into ends, which
        // are the next rows' starts: no second array is needed.
        let mut offsets = vec![0_u32; num_nodes + 2];
        for (row, _) in arcs() {
            spend(1)?;
            offsets[row as usize + 2] += 1;
        }
        let mut sum = 0;
        for offset in &mut offsets[2..] {
            sum += *offset;
            *offset = sum;
        }
        let mut columns = vec![0_u32; sum as usize];
        for (row, column) in arcs() {
            spend(1)?;
            let next = &mut offsets[row as usize + 1];
            columns[*next as usize] = column;
            *next += 1;
        }
        offsets.pop();
        Ok(Self { offsets, columns })
    }

    fn num_nodes(&self) -> usize {
        self.offsets.len() - 1
    }

    fn arcs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..self.num_nodes() as u32).flat_map(move |row| self.row(row).iter().map(move |&column| (row, column)))
    }

    /// The same arcs the other way round. Rows are visited in ascending order, so the new rows come out sorted.
    fn transposed<E>(&self, spend: &mut impl FnMut(usize) -> Result<(), E>) -> Result<Self, E> {
        Self::by_row(self.num_nodes(), || self.arcs().map(|(row, column)| (column, row)), spend)
    }

    /// Drops repeated columns from sorted rows.
    fn without_repeats(mut self) -> Self {
        let mut len = 0;
        let mut start = 0;
        for node in 0..self.num_nodes() {
            let end = self.offsets[node + 1] as usize;
            let row_start = len;
            for index in start..end {
                let column = self.columns[index];
                if len == row_start || self.columns[len - 1] != column {
                    self.columns[len] = column;
                    len += 1;
                }
            }
            start = end;
            self.offsets[node + 1] = len as u32;
        }
        self.columns.truncate(len);
        self
    }
}

/// A simple unweighted graph: no self-loops, no parallel edges, neighbours sorted.
///
/// Self-loops and parallel edges of the input are dropped; no shortest path uses the former, and unweighted shortest
/// paths are counted by the nodes they pass, as networkx counts them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CsrGraph {
    successors: Adjacency,
    /// `None` where edges lead both ways, because there it equals `successors`.
    predecessors: Option<Adjacency>,
}

impl CsrGraph {
    /// Builds a graph from a list of edges, in time and memory linear in nodes and edges.
    ///
    /// # Errors
    /// `num_nodes` over [`MAX_NODES`], or over both [`FREE_NODES`] and [`NODES_PER_EDGE`] times the number of edges,
    /// checked before anything is allocated; an edge with a node that is not below `num_nodes`; more than
    /// `u32::MAX` arcs (an undirected edge is two).
    pub fn from_edges(num_nodes: usize, edges: &[[u32; 2]], direction: Direction) -> Result<Self, InvalidInput> {
        Self::from_edges_while(num_nodes, edges, direction, &mut |_| Ok(()))
    }

    /// As [`from_edges`](Self::from_edges), as long as `spend`, which is called with the number of arcs visited, returns no error.
    pub(super) fn from_edges_while<E: From<InvalidInput>>(
        num_nodes: usize,
        edges: &[[u32; 2]],
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::check_edges(num_nodes, edges)?;
        Self::check_arcs("edges", edges.len(), direction)?;
        Self::build(num_nodes, || edges.iter().map(|&[from, to]| (from, to)), direction, spend)
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

    /// Builds a graph from CSR arrays: the neighbours of node `v` are
    /// `column_indices[row_offsets[v]..row_offsets[v + 1]]`, in any order, and there are `row_offsets.len() - 1` nodes.
    ///
    /// # Errors
    /// `row_offsets` that is empty, does not start at 0, falls, or does not end at the length of `column_indices`; a
    /// column index that is not below the number of nodes; too many nodes or arcs.
    pub fn from_csr(row_offsets: &[u32], column_indices: &[u32], direction: Direction) -> Result<Self, InvalidInput> {
        Self::from_csr_while(row_offsets, column_indices, direction, &mut |_| Ok(()))
    }

    /// As [`from_csr`](Self::from_csr), as long as `spend`, which is called with the number of arcs visited, returns no error.
    pub(super) fn from_csr_while<E: From<InvalidInput>>(
        row_offsets: &[u32],
        column_indices: &[u32],
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::check_csr(row_offsets, column_indices)?;
        Self::check_arcs("column_indices", column_indices.len(), direction)?;
        let arcs = || {
            row_offsets.windows(2).zip(0_u32..).flat_map(|(row, from)| {
                column_indices[row[0] as usize..row[1] as usize].iter().map(move |&to| (from, to))
            })
        };
        Self::build(row_offsets.len() - 1, arcs, direction, spend)
    }

    /// Runs the checks of [`from_csr`](Self::from_csr) alone.
    ///
    /// # Errors
    /// As `from_csr`.
    pub fn check_csr(row_offsets: &[u32], column_indices: &[u32]) -> Result<(), InvalidInput> {
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
        for (row, pair) in row_offsets.windows(2).enumerate() {
            if pair[1] < pair[0] {
                let reason = format!("{}, less than the {} before it", pair[1], pair[0]);
                return Err(InvalidInput::new(format!("row_offsets[{}]", row + 1), reason));
            }
        }
        if last as usize != column_indices.len() {
            let reason = format!("{last}, and column_indices has {} values", column_indices.len());
            return Err(InvalidInput::new(format!("row_offsets[{num_nodes}]"), reason));
        }
        match column_indices.iter().position(|&node| node as usize >= num_nodes) {
            Some(index) => {
                let reason = format!("node {}, and row_offsets describes {num_nodes} nodes", column_indices[index]);
                Err(InvalidInput::new(format!("column_indices[{index}]"), reason))
            }
            None => Ok(()),
        }
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

    fn build<I: Iterator<Item = (u32, u32)>, E>(
        num_nodes: usize,
        edges: impl Fn() -> I,
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        let edges = || edges().filter(|(from, to)| from != to);
        match direction {
            Direction::Directed => {
                let predecessors = Adjacency::by_row(num_nodes, edges, spend)?.transposed(spend)?.without_repeats();
                let successors = predecessors.transposed(spend)?;
                Ok(Self { successors, predecessors: Some(predecessors) })
            }
            Direction::Undirected => {
                let arcs = || edges().flat_map(|(from, to)| [(from, to), (to, from)]);
                let successors = Adjacency::by_row(num_nodes, arcs, spend)?.transposed(spend)?.without_repeats();
                Ok(Self { successors, predecessors: None })
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
            Some(_) => Direction::Directed,
            None => Direction::Undirected,
        }
    }

    /// The nodes that edges lead to.
    pub fn successors(&self) -> &Adjacency {
        &self.successors
    }

    /// The nodes that edges come from; the same as [`successors`](Self::successors) where edges lead both ways.
    pub fn predecessors(&self) -> &Adjacency {
        self.predecessors.as_ref().unwrap_or(&self.successors)
    }
}
