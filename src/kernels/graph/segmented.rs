//! [`SegmentedRows`]: the predecessors of a graph, arranged so that a GPU adds up most contributions from shared memory.

use std::ops::Range;

use rayon::prelude::*;

use super::cancel_check::CancelCheck;
use super::csr::{Adjacency, CsrGraph};
use super::degree::try_map_nodes;
use super::oriented::{split_rows, starts};
use crate::service::{KernelError, RunContext};

/// Nodes of a segment, whose `f64` fill shared memory from compute capability 9.0 on but for what the L1 cache needs while
/// arcs from anywhere are gathered. Below 2^15, so that a column has a bit to spare.
pub(super) const SEGMENT_NODES: u32 = 24_000;
/// The most segments. Few arcs come from the nodes after these.
pub(super) const MAX_SEGMENTS: usize = 12;
/// Fewer arcs of a row from one segment are gathered from anywhere, as a piece takes as long as so many.
const MIN_PIECE: u32 = 3;
/// The most arcs of a piece from a segment and from anywhere, which one lane adds up: what fills whole steps.
const MAX_NEAR_PIECE: u32 = 66;
const MAX_FAR_PIECE: u32 = 15;

/// The lanes of a warp: pieces of a slice.
const LANES: usize = 32;
/// Columns of a lane in a step.
const STEP_COLUMNS: usize = 4;
/// The piece of a lane that has none.
const NO_PIECE: u32 = u32::MAX;

/// Arcs below which this form is not faster: a graph of 4M takes 0.93 of the time of chunks, one of 31M takes 0.66.
pub(super) const MIN_ARCS: u64 = 1 << 21;
/// The least share of the arcs in pieces from segments, in percent, where this form is faster. A Kronecker graph of 2^20
/// nodes and 31M arcs has 92; with 69 there is no difference, as gathers from anywhere take most of the time.
const MIN_NEAR_PERCENT: u64 = 90;

/// The predecessors of all nodes, by segments of the nodes that they come from.
///
/// Nodes have places in the order of descending out-degrees. A segment is [`SEGMENT_NODES`] places in a row, whose
/// contributions fit into shared memory. The arcs of a row are cut into pieces: those from each segment and those that are
/// left, and these again where they are many. A row is the sum of its pieces, which have numbers in the order of rows.
///
/// Zhang et al., *Making Caches Work for Graph Analytics* (2017), adds up by segments. Slices of pieces that are sorted by
/// length are those of Kreutzer et al., *A Unified Sparse Matrix Data Format for Efficient General Sparse Matrix-Vector
/// Multiplication on Modern Processors with Wide SIMD Units* (2014).
///
/// [`CsrGraph::segmented`] makes it and keeps it.
#[derive(Debug, Clone)]
pub(super) struct SegmentedRows {
    /// The place of each node.
    pub(super) places: Vec<u32>,
    /// Where the pieces of each row begin, and at the end their number.
    pub(super) piece_offsets: Vec<u32>,
    /// The pieces from all segments. Columns have 16 bits; they are relative to the segment, and [`SEGMENT_NODES`] where
    /// there is no arc.
    pub(super) near: Slices,
    /// The slices of each segment.
    pub(super) segments: Vec<Range<u32>>,
    /// The pieces of the arcs that are left. Columns have 32 bits; they are places, and the number of nodes where there is no
    /// arc.
    pub(super) far: Slices,
}

/// Pieces side by side, one for each lane of a warp: a slice. Slices are one after the other, and consist of steps, which
/// have [`STEP_COLUMNS`] columns for each lane. In the first step of a slice the number of the piece, or `u32::MAX` for
/// none, takes the room of the first columns. The highest bit of the first column of a slice's last step is set.
#[derive(Debug, Clone)]
pub(super) struct Slices {
    /// The first step of each slice, and at the end the number of steps.
    pub(super) begins: Vec<u32>,
    /// The steps, with the first columns in the low bits.
    pub(super) steps: Vec<u32>,
}

/// A number of 16 or 32 bits.
trait Column: bytemuck::Pod + Send + Sync + std::ops::BitOrAssign {
    /// Columns that have the bits of a piece's number.
    const OF_PIECE: usize;
    /// The highest bit.
    const LAST: Self;
}

impl Column for u16 {
    const OF_PIECE: usize = 2;
    const LAST: Self = 1 << 15;
}

impl Column for u32 {
    const OF_PIECE: usize = 1;
    const LAST: Self = 1 << 31;
}

impl SegmentedRows {
    /// Arranges the predecessors of a graph; `None` if that would not make products faster.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(super) fn new(graph: &CsrGraph, context: &RunContext<'_>) -> Result<Option<Self>, KernelError> {
        graph.make_predecessors(context)?;
        let arcs = graph.num_arcs() as u64;
        if arcs < MIN_ARCS {
            return Ok(None);
        }
        let places = places(graph, context)?;
        let sizes = row_sizes(graph, &places, context)?;
        let near_arcs: u64 = sizes.iter().map(|size| u64::from(size.near_arcs)).sum();
        if near_arcs * 100 < arcs * MIN_NEAR_PERCENT {
            return Ok(None);
        }
        let rows = Self::arrange(graph, places, &sizes, context)?;
        let bytes: u64 = rows.arrays().iter().map(|(_, array)| size_of_val(*array) as u64).sum();
        Ok((bytes <= Self::bytes(graph.num_nodes() as u64, arcs)).then_some(rows))
    }

    fn arrange(
        graph: &CsrGraph,
        places: Vec<u32>,
        sizes: &[RowSize],
        context: &RunContext<'_>,
    ) -> Result<Self, KernelError> {
        let lengths: Vec<u32> = sizes.iter().map(|size| size.pieces).collect();
        let pieces = Pieces::cut(graph.predecessors(), &places, starts(&lengths, context)?, context)?;
        let by_segment = pieces.by_segment();
        let (near, far) = by_segment.split_at(MAX_SEGMENTS);
        let (near, segments) =
            Slices::pack::<u16>(near, &pieces, |place| place % SEGMENT_NODES, SEGMENT_NODES, context)?;
        let (far, _) = Slices::pack::<u32>(far, &pieces, |place| place, graph.num_nodes() as u32, context)?;
        Ok(Self { places, piece_offsets: pieces.row_offsets, near, segments, far })
    }

    /// Returns the bytes of this form of a graph of this size, at most: larger ones are not kept.
    pub(super) fn bytes(nodes: u64, arcs: u64) -> u64 {
        if arcs < MIN_ARCS { 0 } else { arcs.saturating_add(nodes.saturating_mul(2)).saturating_mul(4) }
    }

    /// Returns the arrays for devices, with their names.
    pub(super) fn arrays(&self) -> [(&'static str, &[u32]); 4] {
        let Self { places, piece_offsets, near, far, .. } = self;
        [
            ("segmented_places", places),
            ("segmented_piece_offsets", piece_offsets),
            ("segmented_near_steps", &near.steps),
            ("segmented_far_steps", &far.steps),
        ]
    }
}

/// Returns the place of each node: nodes with more successors come first, and the lower number among equals.
fn places(graph: &CsrGraph, context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    let mut order: Vec<u32> = (0..graph.num_nodes() as u32).collect();
    context.check()?;
    order.par_sort_unstable_by_key(|&node| (std::cmp::Reverse(graph.successors().degree(node)), node));
    context.check()?;
    let mut places = vec![0; order.len()];
    for (place, &node) in (0..).zip(&order) {
        places[node as usize] = place;
    }
    Ok(places)
}

/// The arcs of a row from each segment, and last those from anywhere.
type RowCounts = [u32; MAX_SEGMENTS + 1];

/// What a row is cut into.
#[derive(Clone, Copy, Default)]
struct RowSize {
    pieces: u32,
    /// Arcs of pieces from segments.
    near_arcs: u32,
}

fn row_sizes(graph: &CsrGraph, places: &[u32], context: &RunContext<'_>) -> Result<Vec<RowSize>, KernelError> {
    try_map_nodes(graph.num_nodes(), context, |node, cancel_check| {
        let counts = count_row(graph.predecessors().row(node), places, cancel_check)?;
        Ok(RowSize { pieces: num_pieces(&counts), near_arcs: counts[..MAX_SEGMENTS].iter().sum() })
    })
}

fn segment_of(place: u32) -> usize {
    ((place / SEGMENT_NODES) as usize).min(MAX_SEGMENTS)
}

fn count_row(row: &[u32], places: &[u32], cancel_check: &mut CancelCheck<'_>) -> Result<RowCounts, KernelError> {
    let mut counts = [0; MAX_SEGMENTS + 1];
    cancel_check.spend(row.len())?;
    for &node in row {
        counts[segment_of(places[node as usize])] += 1;
    }
    let [near @ .., far] = &mut counts;
    for count in near.iter_mut().filter(|count| **count < MIN_PIECE) {
        *far += std::mem::take(count);
    }
    Ok(counts)
}

/// Returns the pieces that so many arcs from each segment are cut into.
fn num_pieces(counts: &RowCounts) -> u32 {
    (0..).zip(counts).map(|(segment, count)| count.div_ceil(max_piece(segment))).sum()
}

fn max_piece(segment: usize) -> u32 {
    if segment < MAX_SEGMENTS { MAX_NEAR_PIECE } else { MAX_FAR_PIECE }
}

/// What the rows are cut into.
struct Pieces {
    /// Where the pieces of each row begin.
    row_offsets: Vec<u32>,
    pieces: Vec<Piece>,
    /// The places of each piece, one piece after the other.
    columns: Vec<u32>,
}

/// Some arcs of a row.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Piece {
    /// The segment that they come from; [`MAX_SEGMENTS`] if that is anywhere.
    segment: u16,
    length: u16,
}

impl Pieces {
    fn cut(
        predecessors: &Adjacency,
        places: &[u32],
        row_offsets: Vec<u32>,
        context: &RunContext<'_>,
    ) -> Result<Self, KernelError> {
        let mut pieces = vec![Piece::default(); row_offsets[row_offsets.len() - 1] as usize];
        let mut columns = vec![0; predecessors.column_indices().len()];
        let of_rows = split_rows(&mut pieces, &row_offsets).into_par_iter();
        of_rows.zip(split_rows(&mut columns, predecessors.row_offsets())).try_for_each(|(pieces, columns)| {
            let (first, count, mut pieces) = pieces;
            let (_, _, mut columns) = columns;
            let mut cancel_check = CancelCheck::new(context);
            for node in first..first + count {
                let row = predecessors.row(node);
                let counts = count_row(row, places, &mut cancel_check)?;
                let (row_columns, rest) = std::mem::take(&mut columns).split_at_mut(row.len());
                columns = rest;
                sort_by_segment(row, places, &counts, row_columns);
                let (row_pieces, rest) = std::mem::take(&mut pieces).split_at_mut(num_pieces(&counts) as usize);
                pieces = rest;
                for (piece, cut) in row_pieces.iter_mut().zip(cut_row(&counts)) {
                    *piece = cut;
                }
            }
            Ok::<_, KernelError>(())
        })?;
        Ok(Self { row_offsets, pieces, columns })
    }

    /// Returns the pieces of each segment, and last those from anywhere, by descending length.
    fn by_segment(&self) -> Vec<Vec<u32>> {
        let mut of_segments = vec![Vec::new(); MAX_SEGMENTS + 1];
        for (index, piece) in (0..).zip(&self.pieces) {
            of_segments[usize::from(piece.segment)].push(index);
        }
        let length = |index: u32| self.pieces[index as usize].length;
        let by_length = |indices: &mut Vec<u32>| {
            indices.par_sort_unstable_by_key(|&index| (std::cmp::Reverse(length(index)), index));
        };
        of_segments.iter_mut().for_each(by_length);
        of_segments
    }

    /// Returns the places of a piece. `offsets` are [`column_offsets`](Self::column_offsets).
    fn places(&self, piece: u32, offsets: &[u32]) -> &[u32] {
        let begin = offsets[piece as usize] as usize;
        &self.columns[begin..begin + usize::from(self.pieces[piece as usize].length)]
    }

    /// Returns where the columns of each piece begin.
    fn column_offsets(&self) -> Vec<u32> {
        let mut end = 0;
        let begins = self.pieces.iter().map(|piece| {
            let begin = end;
            end += u32::from(piece.length);
            begin
        });
        begins.collect()
    }
}

/// Copies the places of a row's nodes, those of each segment together.
fn sort_by_segment(row: &[u32], places: &[u32], counts: &RowCounts, columns: &mut [u32]) {
    let mut next = [0; MAX_SEGMENTS + 1];
    for segment in 1..next.len() {
        next[segment] = next[segment - 1] + counts[segment - 1] as usize;
    }
    for &node in row {
        let place = places[node as usize];
        let segment = segment_of(place);
        let next = &mut next[if counts[segment] > 0 { segment } else { MAX_SEGMENTS }];
        columns[*next] = place;
        *next += 1;
    }
}

/// Returns the pieces of a row: as few as there can be, of about the same length.
fn cut_row(counts: &RowCounts) -> impl Iterator<Item = Piece> + '_ {
    counts.iter().enumerate().flat_map(|(segment, &count)| {
        let pieces = count.div_ceil(max_piece(segment));
        let length = move |piece| count / pieces + u32::from(piece < count % pieces);
        (0..pieces).map(move |piece| Piece { segment: segment as u16, length: length(piece) as u16 })
    })
}

impl Slices {
    /// Packs the pieces of each segment, which are in the order of descending lengths. `column` returns that of a place, and
    /// `absent` is the column where there is no arc. Returns the slices of each segment too.
    fn pack<C: Column + TryFrom<u32>>(
        segments: &[Vec<u32>],
        pieces: &Pieces,
        column: impl Fn(u32) -> u32 + Sync,
        absent: u32,
        context: &RunContext<'_>,
    ) -> Result<(Self, Vec<Range<u32>>), KernelError> {
        let narrow = |column: u32| C::try_from(column).ok().expect("a place in a segment has few enough bits");
        let (mut begins, mut ranges) = (vec![0], Vec::with_capacity(segments.len()));
        let (mut slices, mut steps) = (Vec::new(), 0);
        for segment in segments {
            for slice in segment.chunks(LANES) {
                let columns = C::OF_PIECE + usize::from(pieces.pieces[slice[0] as usize].length);
                let of_slice = columns.div_ceil(STEP_COLUMNS) as u32;
                slices.push((slice, of_slice));
                steps += of_slice;
                begins.push(steps);
            }
            ranges.push((slices.len() - segment.len().div_ceil(LANES)) as u32..slices.len() as u32);
        }
        let mut words = vec![0_u32; steps as usize * LANES * STEP_COLUMNS * size_of::<C>() / size_of::<u32>()];
        let mut rest: &mut [C] = bytemuck::cast_slice_mut(&mut words);
        let mut tasks = Vec::with_capacity(slices.len());
        for (slice, steps) in slices {
            let (columns, after) = rest.split_at_mut(steps as usize * LANES * STEP_COLUMNS);
            tasks.push((slice, columns));
            rest = after;
        }
        let offsets = pieces.column_offsets();
        tasks.into_par_iter().with_min_len(64).try_for_each_init(
            || CancelCheck::new(context),
            |cancel_check, (slice, columns)| {
                cancel_check.spend(columns.len())?;
                columns.fill(narrow(absent));
                let last_step = columns.len() / (LANES * STEP_COLUMNS) - 1;
                for lane in 0..LANES {
                    let index =
                        |number: usize| (number / STEP_COLUMNS * LANES + lane) * STEP_COLUMNS + number % STEP_COLUMNS;
                    let piece = slice.get(lane).copied();
                    let number = [piece.unwrap_or(NO_PIECE)];
                    columns[index(0)..][..C::OF_PIECE].copy_from_slice(bytemuck::cast_slice(&number));
                    let places = piece.map_or(&[][..], |piece| pieces.places(piece, &offsets));
                    for (number, &place) in (C::OF_PIECE..).zip(places) {
                        columns[index(number)] = narrow(column(place));
                    }
                    columns[index(C::OF_PIECE.max(last_step * STEP_COLUMNS))] |= C::LAST;
                }
                Ok::<_, KernelError>(())
            },
        )?;
        Ok((Self { begins, steps: words }, ranges))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::graph::csr::Direction;
    use crate::random::SplitMix64;

    /// Arcs from nodes of which some have many successors, to nodes of which some have many predecessors.
    fn skewed(nodes: u32, arcs: usize, direction: Direction) -> CsrGraph {
        let random = SplitMix64::new(9);
        let node = || {
            let share = random.up_to(u64::from(u32::MAX)) as f64 / f64::from(u32::MAX);
            ((f64::from(nodes - 1) * share.powi(8)) as u32).wrapping_mul(0x9e37_79b1) % nodes
        };
        let edges: Vec<[u32; 2]> = (0..arcs).map(|_| [node(), node()]).collect();
        CsrGraph::from_edges(nodes as usize, &edges, direction).unwrap()
    }

    /// Adds up the pieces of some slices as a GPU does.
    fn sum_slices<C: Column + Into<u32>>(
        slices: &Slices,
        of: Range<u32>,
        value: impl Fn(u32) -> u64,
        sums: &mut [u64],
    ) {
        let columns: &[C] = bytemuck::cast_slice(&slices.steps);
        let mask = C::LAST.into() - 1;
        for slice in of.start as usize..of.end as usize {
            for lane in 0..LANES {
                let mut piece = None;
                let mut sum = 0;
                for step in slices.begins[slice] as usize..slices.begins[slice + 1] as usize {
                    let of_step = &columns[(step * LANES + lane) * STEP_COLUMNS..][..STEP_COLUMNS];
                    let first = if piece.is_none() { C::OF_PIECE } else { 0 };
                    let number = piece.get_or_insert_with(|| {
                        bytemuck::pod_read_unaligned(bytemuck::cast_slice(&of_step[..C::OF_PIECE]))
                    });
                    sum += of_step[first..].iter().map(|&column| value(column.into() & mask)).sum::<u64>();
                    if of_step[first].into() >= C::LAST.into() {
                        match *number {
                            NO_PIECE => assert_eq!(sum, 0),
                            number => sums[number as usize] = sum,
                        }
                        (piece, sum) = (None, 0);
                    }
                }
                assert!(piece.is_none(), "a slice ends with its last step");
            }
        }
    }

    #[test]
    fn pieces_add_up_to_the_sums_of_rows() {
        let context = RunContext::detached();
        for (nodes, arcs, direction) in [
            (300_000, 400_000, Direction::Directed),
            (60_000, 200_000, Direction::Undirected),
            (1, 0, Direction::Directed),
        ] {
            let graph = skewed(nodes, arcs, direction);
            graph.make_predecessors(&context).unwrap();
            let places = places(&graph, &context).unwrap();
            let sizes = row_sizes(&graph, &places, &context).unwrap();
            let rows = SegmentedRows::arrange(&graph, places, &sizes, &context).unwrap();
            let mut nodes_by_place = vec![u32::MAX; nodes as usize];
            for (node, &place) in (0..).zip(&rows.places) {
                nodes_by_place[place as usize] = node;
            }
            let degree = |&node: &u32| graph.successors().degree(node);
            assert!(nodes_by_place.is_sorted_by_key(|node| std::cmp::Reverse(degree(node))));

            let value = |place: u32| nodes_by_place.get(place as usize).map_or(0, |&node| u64::from(node) + 1);
            let mut sums = vec![u64::MAX; rows.piece_offsets[nodes as usize] as usize];
            assert_eq!(rows.segments.len(), MAX_SEGMENTS);
            for (segment, slices) in (0..).zip(&rows.segments) {
                let value =
                    |column: u32| if column == SEGMENT_NODES { 0 } else { value(segment * SEGMENT_NODES + column) };
                sum_slices::<u16>(&rows.near, slices.clone(), value, &mut sums);
            }
            let far_slices = rows.far.begins.len() as u32 - 1;
            sum_slices::<u32>(&rows.far, 0..far_slices, value, &mut sums);
            for node in 0..nodes {
                let pieces = rows.piece_offsets[node as usize] as usize..rows.piece_offsets[node as usize + 1] as usize;
                let row = graph.predecessors().row(node);
                let expected: u64 = row.iter().map(|&node| u64::from(node) + 1).sum();
                assert_eq!(sums[pieces.clone()].iter().sum::<u64>(), expected, "{node}");
                // A piece is at most so long, and they are as few as that allows.
                let most = row.len() / MAX_FAR_PIECE as usize + (MAX_SEGMENTS + 1).min(row.len());
                assert!(pieces.len() <= most, "{node}: {} pieces of {} arcs", pieces.len(), row.len());
            }
        }
    }

    #[test]
    fn only_graphs_with_most_arcs_from_few_nodes_are_arranged() {
        let context = RunContext::detached();
        let graph = skewed(300_000, 400_000, Direction::Directed);
        assert!(graph.segmented(&context).unwrap().is_none(), "too few arcs");
        // As many as are enough, 20 to a node: from the same 20 nodes, or from any.
        let arcs = |source: fn(u32) -> u32| -> CsrGraph {
            let edges: Vec<[u32; 2]> = (0..2_200_000).map(|arc| [source(arc), arc / 20 + 200]).collect();
            CsrGraph::from_edges(400_000, &edges, Direction::Directed).unwrap()
        };
        let few = arcs(|arc| arc % 20 * 7);
        assert!(few.num_arcs() as u64 >= MIN_ARCS);
        let rows = few.segmented(&context).unwrap().expect("all arcs are in pieces from a segment");
        assert_eq!(rows.far.begins, [0]);
        assert!(few.made_forms().count() == 1 && few.segmented(&context).unwrap().is_some());
        let any = arcs(|arc| arc.wrapping_mul(0x9e37_79b1) % 400_000);
        assert!(any.num_arcs() as u64 >= MIN_ARCS);
        assert!(any.segmented(&context).unwrap().is_none(), "few arcs of a row are from one segment");
    }
}
