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
pub(super) const MAX_SEGMENTS: usize = 14;
/// Fewer arcs of a row from one segment are gathered from anywhere, as a piece takes as long as so many.
const MIN_PIECE: u32 = 2;
/// The most arcs of a piece from a segment and from anywhere, which one lane adds up: whole steps. With longer pieces, warps
/// have less equal work; with shorter ones, updates read more sums.
const MAX_NEAR_PIECE: u32 = 128;
const MAX_FAR_PIECE: u32 = 32;
/// Rows whose pieces are sorted by length together. With more, the sums of a row lie farther from those of its neighbours;
/// with fewer, pieces of a slice differ more in length.
const WINDOW_ROWS: u32 = 4096;

/// The lanes of a warp: pieces of a slice.
pub(super) const LANES: usize = 32;
/// Columns of a lane in a step.
const STEP_COLUMNS: usize = 4;
/// Banks of shared memory for numbers of 64 bits, and the lanes that read such numbers at a time.
const BANKS: usize = 16;

/// Arcs below which this form is not faster: a graph of 4M takes 0.93 of the time of chunks, one of 31M takes 0.66.
pub(super) const MIN_ARCS: u64 = 1 << 21;
/// The least share of the arcs in pieces from segments, in percent, where this form is taken: gathers from anywhere take most
/// of the time where it is much lower. A Kronecker graph of 2^20 nodes and 31M arcs has 94.
const MIN_NEAR_PERCENT: u64 = 90;

/// The predecessors of all nodes, by segments of the nodes that they come from.
///
/// Nodes have places in the order of descending out-degrees. A segment is [`SEGMENT_NODES`] places in a row, whose
/// contributions fit into shared memory. The arcs of a row are cut into pieces: those from each segment and those that are
/// left, and these again where they are many. A row is the sum of its pieces. The pieces of some rows side by side are sorted
/// by length, so that those of a slice are about as long; their sums are stored in this order, a slice at a time, and lie
/// close together.
///
/// Zhang et al., *Making Caches Work for Graph Analytics* (2017), adds up by segments. Slices of pieces that are sorted by
/// length in windows are those of Kreutzer et al., *A Unified Sparse Matrix Data Format for Efficient General Sparse
/// Matrix-Vector Multiplication on Modern Processors with Wide SIMD Units* (2014).
///
/// [`CsrGraph::segmented`] makes it and keeps it.
#[derive(Debug, Clone)]
pub(super) struct SegmentedRows {
    /// The place of each node.
    pub(super) places: Vec<u32>,
    /// Where the pieces of each row begin, and at the end their number.
    pub(super) piece_offsets: Vec<u32>,
    /// The number of the sum of each piece: 32 sums for each slice of `near`, and then of `far`.
    pub(super) positions: Vec<u32>,
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
/// have [`STEP_COLUMNS`] columns for each lane. The highest bit of the first column of a slice's last step is set.
#[derive(Debug, Clone)]
pub(super) struct Slices {
    /// The first step of each slice, and at the end the number of steps.
    pub(super) begins: Vec<u32>,
    /// The steps, with the first columns in the low bits.
    pub(super) steps: Vec<u32>,
}

/// A number of 16 or 32 bits.
trait Column: bytemuck::Pod + Send + Sync + std::ops::BitOrAssign {
    /// The highest bit.
    const LAST: Self;
    /// Whether contributions are read from shared memory.
    const IS_NEAR: bool;
}

impl Column for u16 {
    const LAST: Self = 1 << 15;
    const IS_NEAR: bool = true;
}

impl Column for u32 {
    const LAST: Self = 1 << 31;
    const IS_NEAR: bool = false;
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
        let positions = pieces.positions(&by_segment);
        let (near, far) = by_segment.split_at(MAX_SEGMENTS);
        let (near, segments) =
            Slices::pack::<u16>(near, &pieces, |place| place % SEGMENT_NODES, SEGMENT_NODES, context)?;
        let (far, _) = Slices::pack::<u32>(far, &pieces, |place| place, graph.num_nodes() as u32, context)?;
        Ok(Self { places, piece_offsets: pieces.row_offsets, positions, near, segments, far })
    }

    /// Returns the bytes of this form of a graph of this size, at most: larger ones are not kept.
    pub(super) fn bytes(nodes: u64, arcs: u64) -> u64 {
        if arcs < MIN_ARCS { 0 } else { arcs.saturating_add(nodes.saturating_mul(2)).saturating_mul(4) }
    }

    /// Returns the arrays for devices, with their names.
    pub(super) fn arrays(&self) -> [(&'static str, &[u32]); 5] {
        let Self { places, piece_offsets, positions, near, far, .. } = self;
        [
            ("segmented_places", places),
            ("segmented_piece_offsets", piece_offsets),
            ("segmented_positions", positions),
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
    row: u32,
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
                for (piece, cut) in row_pieces.iter_mut().zip(cut_row(node, &counts)) {
                    *piece = cut;
                }
            }
            Ok::<_, KernelError>(())
        })?;
        Ok(Self { row_offsets, pieces, columns })
    }

    /// Returns the pieces of each segment, and last those from anywhere, by windows of rows and then by length: descending in
    /// one window and ascending in the next, so that lengths do not jump between them.
    fn by_segment(&self) -> Vec<Vec<u32>> {
        let mut of_segments = vec![Vec::new(); MAX_SEGMENTS + 1];
        for (index, piece) in (0..).zip(&self.pieces) {
            of_segments[usize::from(piece.segment)].push(index);
        }
        let key = |index: u32| {
            let Piece { row, length, .. } = self.pieces[index as usize];
            let window = row / WINDOW_ROWS;
            (window, if window.is_multiple_of(2) { u16::MAX - length } else { length }, index)
        };
        let by_length = |indices: &mut Vec<u32>| indices.par_sort_unstable_by_key(|&index| key(index));
        of_segments.iter_mut().for_each(by_length);
        of_segments
    }

    /// Returns the number of the sum of each piece. The pieces of each segment begin a slice.
    fn positions(&self, by_segment: &[Vec<u32>]) -> Vec<u32> {
        let mut positions = vec![0; self.pieces.len()];
        let mut begin = 0;
        for pieces in by_segment {
            for (position, &piece) in (begin..).zip(pieces) {
                positions[piece as usize] = position;
            }
            begin += pieces.len().next_multiple_of(LANES) as u32;
        }
        positions
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
fn cut_row(row: u32, counts: &RowCounts) -> impl Iterator<Item = Piece> + '_ {
    counts.iter().enumerate().flat_map(move |(segment, &count)| {
        let pieces = count.div_ceil(max_piece(segment));
        let length = move |piece| count / pieces + u32::from(piece < count % pieces);
        (0..pieces).map(move |piece| Piece { row, segment: segment as u16, length: length(piece) as u16 })
    })
}

/// Orders the columns of each lane so that lanes that read shared memory together read different banks, where they can.
fn spread_over_banks<C: Copy + Into<u32>>(lanes: &mut [Vec<C>; LANES]) {
    for together in lanes.chunks_mut(BANKS) {
        let longest = together.iter().map(Vec::len).max().unwrap_or(0);
        for position in 0..longest {
            let mut taken = [false; BANKS];
            // Another lane is the first to choose each time.
            for turn in 0..BANKS {
                let lane = &mut together[(position + turn) % BANKS];
                let Some(left) = lane.get_mut(position..).filter(|left| !left.is_empty()) else { continue };
                let bank = |column: C| column.into() as usize % BANKS;
                let free = left.iter().position(|&column| !taken[bank(column)]);
                left.swap(0, free.unwrap_or(0));
                taken[bank(left[0])] = true;
            }
        }
    }
}

impl Slices {
    /// The number of slices.
    pub(super) fn len(&self) -> u32 {
        self.begins.len() as u32 - 1
    }

    /// Returns the first step of a slice, and its number. That after the last begins at the end.
    pub(super) fn begin(&self, slice: u32) -> [u32; 2] {
        [self.begins[slice as usize], slice]
    }

    /// Packs the pieces of each segment, in their order. `column` returns that of a place, and `absent` is the column where
    /// there is no arc. Returns the slices of each segment too.
    fn pack<C: Column + Into<u32> + TryFrom<u32>>(
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
                let longest = slice.iter().map(|&piece| pieces.pieces[piece as usize].length).max();
                let of_slice = u32::from(longest.expect("chunks are not empty")).div_ceil(STEP_COLUMNS as u32);
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
            || (CancelCheck::new(context), std::array::from_fn(|_| Vec::new())),
            |(cancel_check, lanes), (slice, columns)| {
                cancel_check.spend(columns.len())?;
                for (lane, of_lane) in lanes.iter_mut().enumerate() {
                    let places = slice.get(lane).map_or(&[][..], |&piece| pieces.places(piece, &offsets));
                    of_lane.clear();
                    of_lane.extend(places.iter().map(|&place| narrow(column(place))));
                }
                if C::IS_NEAR {
                    spread_over_banks(lanes);
                }
                columns.fill(narrow(absent));
                let last_step = columns.len() / (LANES * STEP_COLUMNS) - 1;
                for (lane, of_lane) in lanes.iter().enumerate() {
                    let index =
                        |number: usize| (number / STEP_COLUMNS * LANES + lane) * STEP_COLUMNS + number % STEP_COLUMNS;
                    for (number, &column) in of_lane.iter().enumerate() {
                        columns[index(number)] = column;
                    }
                    columns[index(last_step * STEP_COLUMNS)] |= C::LAST;
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

    /// Adds up the pieces of some slices as a GPU does. `sums` are those of all slices.
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
                let mut sum = 0;
                let steps = slices.begins[slice] as usize..slices.begins[slice + 1] as usize;
                for step in steps.clone() {
                    let of_step = &columns[(step * LANES + lane) * STEP_COLUMNS..][..STEP_COLUMNS];
                    sum += of_step.iter().map(|&column| value(column.into() & mask)).sum::<u64>();
                    assert_eq!(of_step[0].into() >= C::LAST.into(), step + 1 == steps.end);
                }
                sums[slice * LANES + lane] = sum;
            }
        }
    }

    #[test]
    fn lanes_read_different_banks_where_they_can() {
        let random = SplitMix64::new(4);
        let mut lanes: [Vec<u32>; LANES] =
            std::array::from_fn(|lane| (0..20 + lane % 3).map(|_| random.up_to(24_000) as u32).collect());
        // The reads that wait for another lane of the same half to read the bank.
        let waits = |lanes: &[Vec<u32>; LANES]| -> usize {
            let mut waits = 0;
            for (half, position) in lanes.chunks(BANKS).flat_map(|half| (0..22).map(move |position| (half, position))) {
                let mut reads = [0; BANKS];
                for column in half.iter().filter_map(|lane| lane.get(position)) {
                    reads[*column as usize % BANKS] += 1;
                }
                waits += reads.iter().max().unwrap() - 1;
            }
            waits
        };
        let sorted = |lanes: &[Vec<u32>; LANES]| {
            let mut lanes = lanes.clone();
            lanes.iter_mut().for_each(|lane| lane.sort_unstable());
            lanes
        };
        let (before, unordered) = (waits(&lanes), sorted(&lanes));
        spread_over_banks(&mut lanes);
        assert_eq!(sorted(&lanes), unordered);
        assert!(waits(&lanes) * 2 < before, "{} of {before} waits", waits(&lanes));
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
            let slices = [&rows.near, &rows.far].map(|slices| slices.len());
            let mut sums = vec![u64::MAX; (slices[0] + slices[1]) as usize * LANES];
            let (near_sums, far_sums) = sums.split_at_mut(slices[0] as usize * LANES);
            assert_eq!(rows.segments.len(), MAX_SEGMENTS);
            for (segment, slices) in (0..).zip(&rows.segments) {
                let value =
                    |column: u32| if column == SEGMENT_NODES { 0 } else { value(segment * SEGMENT_NODES + column) };
                sum_slices::<u16>(&rows.near, slices.clone(), value, near_sums);
            }
            sum_slices::<u32>(&rows.far, 0..slices[1], value, far_sums);
            for node in 0..nodes {
                let pieces = rows.piece_offsets[node as usize] as usize..rows.piece_offsets[node as usize + 1] as usize;
                let row = graph.predecessors().row(node);
                let expected: u64 = row.iter().map(|&node| u64::from(node) + 1).sum();
                let positions = &rows.positions[pieces.clone()];
                assert_eq!(positions.iter().map(|&position| sums[position as usize]).sum::<u64>(), expected, "{node}");
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
