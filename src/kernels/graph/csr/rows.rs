//! [`Rows`]: arcs as they are sorted into rows.

use crate::service::Buffer;

/// The weight of an arc: a number, or nothing in a graph without weights.
pub(super) trait ArcWeight: Copy + Default {
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
pub(super) type WeightedArc<W> = (u32, u32, W);

/// An adjacency that is being built.
pub(super) struct Rows<W> {
    pub(super) offsets: Vec<u32>,
    pub(super) columns: Vec<u32>,
    pub(super) weights: Vec<W>,
}

impl<W: ArcWeight> Rows<W> {
    /// Sorts arcs into rows by counting, keeping their order within a row. `spend` is called for each arc visited, and
    /// its error ends it.
    pub(super) fn sorted<I: Iterator<Item = WeightedArc<W>>, E>(
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
    pub(super) fn transposed<E>(
        offsets: &[u32],
        columns: &[u32],
        weights: &[W],
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        let reverses = || arcs_of(offsets, columns, weights).map(|(row, column, weight)| (column, row, weight));
        Self::sorted(offsets.len() - 1, reverses, spend)
    }

    /// Sorts the reverses of these arcs into rows.
    pub(super) fn reversed<E>(&self, spend: &mut impl FnMut(usize) -> Result<(), E>) -> Result<Self, E> {
        Self::transposed(&self.offsets, &self.columns, &self.weights, spend)
    }

    /// Drops repeated columns from sorted rows.
    pub(super) fn without_repeats(mut self) -> Self {
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
pub(super) fn arcs_of<'a, W: Copy>(
    offsets: &'a [u32],
    columns: &'a [u32],
    weights: &'a [W],
) -> impl Iterator<Item = WeightedArc<W>> + 'a {
    offsets.windows(2).zip(0_u32..).flat_map(move |(ends, row)| {
        let range = ends[0] as usize..ends[1] as usize;
        columns[range.clone()].iter().zip(&weights[range]).map(move |(&column, &weight)| (row, column, weight))
    })
}
