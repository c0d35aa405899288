//! [`Adjacency`]: the neighbours of all nodes in one direction.

use super::rows::{ArcWeight, Rows};
use crate::service::Buffer;

/// One direction of adjacency: the neighbours of node `v` are `columns[offsets[v]..offsets[v + 1]]`, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Adjacency {
    pub(super) offsets: Buffer<u32>,
    pub(super) columns: Buffer<u32>,
    /// One for each column, of a graph with weights.
    pub(super) weights: Option<Buffer<f32>>,
}

impl Adjacency {
    /// Wraps arrays of this form.
    pub(in crate::kernels::graph) fn from_arrays(offsets: Vec<u32>, columns: Vec<u32>) -> Self {
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
    pub(in crate::kernels::graph) fn weights_buffer(&self) -> Option<&Buffer<f32>> {
        self.weights.as_ref()
    }

    /// Returns the offsets and the columns as buffers that share their memory.
    pub(in crate::kernels::graph) fn to_buffers(&self) -> [Buffer<u32>; 2] {
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

    pub(super) fn num_nodes(&self) -> usize {
        self.offsets.len() - 1
    }

    /// The same arcs the other way round. Rows are visited in ascending order, so the new rows come out sorted.
    pub(super) fn transposed<E>(&self, spend: &mut impl FnMut(usize) -> Result<(), E>) -> Result<Self, E> {
        Ok(match &self.weights {
            Some(weights) => Rows::transposed(&self.offsets, &self.columns, weights, spend)?.into(),
            // Units take no memory.
            None => Rows::transposed(&self.offsets, &self.columns, &vec![(); self.columns.len()], spend)?.into(),
        })
    }
}

impl<W: ArcWeight> From<Rows<W>> for Adjacency {
    fn from(Rows { offsets, columns, weights }: Rows<W>) -> Self {
        Self { offsets: offsets.into(), columns: columns.into(), weights: W::into_buffer(weights) }
    }
}
