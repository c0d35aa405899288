//! [`is_canonical`]: whether CSR arrays can be used as they are.

use std::hash::{BuildHasher, RandomState};

use rayon::prelude::*;

use super::csr::Direction;

/// Arcs, and rows, that are checked between two calls of `spend`: a few milliseconds.
const ARCS_PER_STEP: usize = 1 << 22;
const ROWS_PER_STEP: usize = 1 << 20;

/// Returns whether CSR arrays are those of a [`CsrGraph`](super::csr::CsrGraph) as they are: the columns are nodes, neighbours ascend, there are no
/// loops and repeats, and where edges lead both ways, both are listed. The row offsets have been checked.
///
/// For the latter, a search for each arc's reverse would take a cache miss for each. Instead, the arcs that ascend and the
/// reverses of those that descend are compared by [random sums](RandomSums).
pub(super) fn is_canonical<E>(
    row_offsets: &[u32],
    columns: &[u32],
    direction: Direction,
    spend: &mut impl FnMut(usize) -> Result<(), E>,
) -> Result<bool, E> {
    let num_nodes = row_offsets.len() - 1;
    let random = (direction == Direction::Undirected).then(|| RandomSums::new(num_nodes));
    let (mut ascending, mut descending) = (0, 0);
    let mut first = 0;
    while first < num_nodes {
        let ends = &row_offsets[first + 1..=num_nodes.min(first + ROWS_PER_STEP)];
        let arcs_before = row_offsets[first] as usize;
        let rows = ends.partition_point(|&end| end as usize - arcs_before <= ARCS_PER_STEP).max(1);
        spend(ends[rows - 1] as usize - arcs_before)?;
        let sums = (first..first + rows).into_par_iter().with_min_len(256).map(|row| {
            let neighbours = &columns[row_offsets[row] as usize..row_offsets[row + 1] as usize];
            let (lower, higher) = split_row(row as u32, neighbours, num_nodes)?;
            Some(random.as_ref().map_or((0, 0), |random| random.of_row(row as u32, lower, higher)))
        });
        let added = sums.try_reduce(|| (0, 0), |a, b| Some((add(a.0, b.0), add(a.1, b.1))));
        let Some(added) = added else { return Ok(false) };
        (ascending, descending) = (add(ascending, added.0), add(descending, added.1));
        first += rows;
    }
    Ok(ascending % FIELD == descending % FIELD)
}

/// Splits the neighbours of a row into those below it and those above it. `None` if they are not nodes in ascending order,
/// or the row is one of them.
fn split_row(row: u32, neighbours: &[u32], num_nodes: usize) -> Option<(&[u32], &[u32])> {
    // Without an early exit, so that vector instructions compare.
    let is_ascending = neighbours.windows(2).fold(true, |is, pair| is & (pair[0] < pair[1]));
    let are_nodes = neighbours.last().is_none_or(|&last| (last as usize) < num_nodes);
    match neighbours.binary_search(&row) {
        Err(at) if is_ascending && are_nodes => Some(neighbours.split_at(at)),
        _ => None,
    }
}

/// Sums over sets of arcs, which are the same for equal sets, and differ for different sets with a probability of at least
/// 1 - 4 / 2^61.
///
/// The term of an arc is the product of four random numbers of a field: two are chosen by the first node, its low and its
/// high bits, and two by the second node, from other tables. So different arcs have different products, the difference of
/// two different sets is a polynomial of degree 4 in the random numbers, and a random point is a root of one with the
/// probability above (the Schwartz-Zippel lemma). The numbers are drawn for each graph, so that nobody can prepare a graph
/// for them.
struct RandomSums {
    first: NodeValues,
    second: NodeValues,
}

impl RandomSums {
    fn new(num_nodes: usize) -> Self {
        Self { first: NodeValues::new(num_nodes), second: NodeValues::new(num_nodes) }
    }

    /// Returns the sum over the arcs from `row` to the higher neighbours, and the sum over the reverses of those to the lower
    /// ones.
    fn of_row(&self, row: u32, lower: &[u32], higher: &[u32]) -> (u64, u64) {
        let ascending = multiply(reduce(self.first.value(row)), self.second.sum(higher));
        let descending = multiply(reduce(self.second.value(row)), self.first.sum(lower));
        (ascending, descending)
    }
}

/// A value for each node: the product of the random numbers of its low and its high bits.
struct NodeValues {
    low: Vec<u64>,
    high: Vec<u64>,
}

impl NodeValues {
    /// The numbers of the low bits fit into the processor's first cache.
    const LOW_BITS: u32 = 10;

    fn new(num_nodes: usize) -> Self {
        let random = RandomState::new();
        let draw = |index: usize| random.hash_one(index) % FIELD;
        let (low, high) = (num_nodes.min(1 << Self::LOW_BITS), (num_nodes >> Self::LOW_BITS) + 1);
        Self { low: (0..low).map(draw).collect(), high: (low..low + high).map(draw).collect() }
    }

    fn value(&self, node: u32) -> u128 {
        let (low, high) = (node % (1 << Self::LOW_BITS), node >> Self::LOW_BITS);
        u128::from(self.low[low as usize]) * u128::from(self.high[high as usize])
    }

    /// Returns the sum of the values of nodes.
    fn sum(&self, nodes: &[u32]) -> u64 {
        // A value is below 2^122, so that 32 can be added before the sum is reduced.
        nodes.chunks(32).fold(0, |sum, nodes| add(sum, reduce(nodes.iter().map(|&node| self.value(node)).sum())))
    }
}

/// The prime 2^61 - 1. The field is the integers modulo it; numbers below 2^63 stand for the one that they are congruent to.
const FIELD: u64 = (1 << 61) - 1;

fn reduce(number: u128) -> u64 {
    // As 2^61 is congruent to 1, the parts of 61 bits can be added.
    let [low, middle, high] = [0, 61, 122].map(|shift| (number >> shift) as u64 & FIELD);
    low + middle + high
}

fn multiply(a: u64, b: u64) -> u64 {
    reduce(u128::from(a) * u128::from(b))
}

fn add(a: u64, b: u64) -> u64 {
    let sum = a + b;
    (sum & FIELD) + (sum >> 61)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(offsets: &[u32], columns: &[u32], direction: Direction) -> bool {
        is_canonical(offsets, columns, direction, &mut |_| Ok::<(), ()>(())).unwrap()
    }

    #[test]
    fn arrays_are_shared_only_where_they_are_what_sorting_would_make() {
        use Direction::{Directed, Undirected};
        // A path 0 - 1 - 2, both ways.
        assert!(canonical(&[0, 1, 3, 4], &[1, 0, 2, 1], Undirected));
        for (offsets, columns, why) in [
            (&[0, 1, 3, 4][..], &[1, 2, 0, 1][..], "not ascending"),
            (&[0, 2, 3], &[1, 1, 0], "a repeat"),
            (&[0, 2, 3], &[0, 1, 0], "a loop"),
            (&[0, 1, 2], &[1, 2], "no node"),
        ] {
            assert!(!canonical(offsets, columns, Directed) && !canonical(offsets, columns, Undirected), "{why}");
        }
        for (offsets, columns, why) in [
            (&[0, 1, 2, 3][..], &[1, 2, 0][..], "a cycle one way"),
            (&[0, 1, 1, 1], &[1], "one way only"),
            (&[0, 1, 2, 2], &[2, 0], "the reverse of another arc"),
        ] {
            assert!(canonical(offsets, columns, Directed) && !canonical(offsets, columns, Undirected), "{why}");
        }
        assert!(canonical(&[0, 0], &[], Undirected) && canonical(&[0], &[], Directed));
    }

    #[test]
    fn sums_of_different_arcs_differ_and_those_of_the_same_agree_in_any_order() {
        let random = RandomSums::new(1 << 20);
        let nodes: Vec<u32> = (1..2000).map(|node| node * 500).collect();
        let (ascending, _) = random.of_row(7, &[], &nodes);
        let reverses = nodes.iter().rev().map(|&node| random.of_row(node, &[7], &[]).1);
        assert_eq!(ascending % FIELD, reverses.fold(0, add) % FIELD);
        // The same bits in another combination.
        let (a, b, c, d) = (5, 6 << 10, 7, 8 << 10);
        let sum = |arcs: [(u32, u32); 2]| {
            arcs.map(|(low, high)| random.of_row(low, &[], &[high]).0).into_iter().fold(0, add) % FIELD
        };
        assert_ne!(sum([(a, b | c), (a, d)]), sum([(a, d | c), (a, b)]));
        assert_ne!(sum([(a, b), (c, d)]), sum([(a, d), (c, b)]));
    }

    #[test]
    fn steps_cover_all_rows_and_an_error_ends_the_check() {
        let nodes = ROWS_PER_STEP + 3;
        let mut offsets = vec![0; nodes + 1];
        // Two nodes in the last step.
        (offsets[nodes - 1], offsets[nodes]) = (1, 2);
        let (last, before) = (nodes as u32 - 1, nodes as u32 - 2);
        assert!(canonical(&offsets, &[last, before], Direction::Undirected));
        assert!(!canonical(&offsets, &[last, last], Direction::Undirected), "a loop");
        let mut steps = Vec::new();
        let mut spend = |arcs| {
            steps.push(arcs);
            if steps.len() > 1 { Err("cancelled") } else { Ok(()) }
        };
        assert_eq!(is_canonical(&offsets, &[last, before], Direction::Directed, &mut spend), Err("cancelled"));
        assert_eq!(steps, [0, 2]);
    }
}
