//! The search on the CPU, 64 or 512 sources in a pass, or in deep graphs one source after the other.
//!
//! A level either pushes from its nodes or, where it has a large part of the arcs, pulls into the nodes that some source
//! has not reached, in parallel. Sources whose search has ended are not waited for.

use rayon::prelude::*;

use super::bit_counts::{BitCounts, Words, count, difference, insert, is_any};
use super::{DEEP_LEVELS, DistanceSum, SearchGraph, SumBy, is_deep, single_source};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::service::{Footprint, KernelError, RunContext};

/// Words of 64 sources in a pass of many sources: a cache line, which is read as a whole anyway.
const MANY_WORDS: usize = 8;

/// Nodes of a graph above which passes of many sources would need too much memory.
const MANY_WORDS_NODES: u64 = 1 << 24;

/// A level pulls if its arcs times this are more than all arcs.
const PULL_FACTOR: usize = 8;

/// Nodes that a thread pulls into at a time.
const NODES_PER_RANGE: usize = 1 << 10;

/// Arcs below which waking other threads takes longer than one thread does.
const SEQUENTIAL_ARCS: usize = 1 << 12;

/// Returns whether passes have [`MANY_WORDS`] words for each node instead of one.
fn has_many_words(nodes: u64, sources: u64) -> bool {
    sources > 64 && nodes <= MANY_WORDS_NODES
}

/// Returns the memory of [`search`], without the graph and the sums.
pub(super) fn workspace(nodes: u64, sources: u64, by: SumBy) -> u64 {
    let words = if has_many_words(nodes, sources) { MANY_WORDS as u64 } else { 1 };
    // Three words, and the nodes of three levels.
    let words = Footprint::of_array::<[u64; 3]>(nodes.saturating_mul(words));
    let pass = words.saturating_add(Footprint::of_array::<[u32; 4]>(nodes));
    pass.max(single_source::workspace(nodes, sources, by))
}

/// Returns the sums of the distances from `sources`, for each of them or for each node.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(in crate::kernels::graph) fn search(
    graph: SearchGraph<'_>,
    sources: &[u32],
    by: SumBy,
    context: &RunContext<'_>,
) -> Result<Vec<DistanceSum>, KernelError> {
    context.set_steps(sources.len() as u64);
    let sums = if has_many_words(graph.num_nodes() as u64, sources.len() as u64) {
        Search::<MANY_WORDS>::new(graph, by, context).run(sources)?
    } else {
        Search::<1>::new(graph, by, context).run(sources)?
    };
    match sums {
        Some(sums) => Ok(sums),
        None => single_source::search(graph, sources, by, context),
    }
}

struct Search<'a, const W: usize> {
    graph: SearchGraph<'a>,
    context: &'a RunContext<'a>,
    /// The sources that have reached each node.
    seen: Vec<Words<W>>,
    /// Those that reached each node of the present level at that level.
    present: Vec<Words<W>>,
    /// Those that reach each node at the next level; all zero but for `stale` nodes.
    next: Vec<Words<W>>,
    /// Nodes whose `next` is of an earlier level.
    stale: Vec<u32>,
    /// The sum of each node, unless the sums are those of sources.
    by_node: Option<Vec<DistanceSum>>,
}

/// The nodes of a level.
#[derive(Debug)]
struct Found<const W: usize> {
    nodes: Vec<u32>,
    /// The arcs that lead on from them.
    num_arcs: usize,
    /// The sources that reached any of them.
    live: Words<W>,
    /// How many of them each source reached; empty if the sums are those of nodes.
    counts: BitCounts<W>,
    /// The sum of these counts; 0 if the sums are those of sources.
    pairs: u64,
}

impl<const W: usize> Default for Found<W> {
    fn default() -> Self {
        Self { nodes: Vec::new(), num_arcs: 0, live: [0; W], counts: BitCounts::default(), pairs: 0 }
    }
}

impl<const W: usize> Found<W> {
    /// Records the sources that reach a node first, at this distance.
    fn record(&mut self, node: u32, sources: &Words<W>, distance: u64, by_node: Option<&mut DistanceSum>) {
        insert(&mut self.live, sources);
        match by_node {
            Some(sum) => {
                let pairs = count(sources);
                sum.add(pairs, distance);
                self.pairs += pairs;
            }
            None => self.counts.add(sources),
        }
        self.nodes.push(node);
    }
}

impl<'a, const W: usize> Search<'a, W> {
    /// Sources of a pass.
    const SOURCES: usize = 64 * W;

    fn new(graph: SearchGraph<'a>, by: SumBy, context: &'a RunContext<'a>) -> Self {
        let nodes = graph.num_nodes();
        let words = || vec![[0; W]; nodes];
        let by_node = (by == SumBy::Node).then(|| vec![DistanceSum::default(); nodes]);
        Self { graph, context, seen: words(), present: words(), next: words(), stale: Vec::new(), by_node }
    }

    /// Returns the sums, or `None` if the first pass finds that the graph is deep.
    fn run(mut self, sources: &[u32]) -> Result<Option<Vec<DistanceSum>>, KernelError> {
        let mut by_source = vec![DistanceSum::default(); if self.by_node.is_none() { sources.len() } else { 0 }];
        let mut sums = by_source.chunks_mut(Self::SOURCES);
        for (pass, sources) in sources.chunks(Self::SOURCES).enumerate() {
            if !self.pass(sources, sums.next().unwrap_or_default(), pass == 0)? {
                return Ok(None);
            }
            self.context.advance(sources.len() as u64);
        }
        Ok(Some(self.by_node.unwrap_or(by_source)))
    }

    /// Searches from up to [`SOURCES`](Self::SOURCES) sources. Returns whether the search has ended; it does not if it
    /// `may_stop` and the graph is deep.
    fn pass(&mut self, sources: &[u32], sums: &mut [DistanceSum], may_stop: bool) -> Result<bool, KernelError> {
        let mut level = self.start(sources)?;
        let mut counts = vec![0; sums.len()];
        let mut all_pairs = 0;
        for distance in 1.. {
            self.context.check()?;
            let found = if level.num_arcs * PULL_FACTOR > self.graph.num_arcs() {
                self.pull(&level, distance)?
            } else {
                self.push(&level, distance)?
            };
            if found.iter().all(|found| found.nodes.is_empty()) {
                return Ok(true);
            }
            counts.fill(0);
            found.iter().for_each(|found| found.counts.add_to(&mut counts));
            sums.iter_mut().zip(&counts).for_each(|(sum, &count)| sum.add(count, distance));
            let pairs = counts.iter().sum::<u64>() + found.iter().map(|found| found.pairs).sum::<u64>();
            all_pairs += pairs;
            if may_stop && distance % DEEP_LEVELS == 0 && is_deep(distance, pairs, all_pairs) {
                return Ok(false);
            }
            std::mem::swap(&mut self.present, &mut self.next);
            self.stale = std::mem::take(&mut level.nodes);
            level = Found::default();
            for part in found {
                level.nodes.extend(part.nodes);
                level.num_arcs += part.num_arcs;
                insert(&mut level.live, &part.live);
            }
        }
        Ok(true)
    }

    /// Forgets the last pass, and returns the sources as the first level.
    fn start(&mut self, sources: &[u32]) -> Result<Found<W>, KernelError> {
        for words in [&mut self.seen, &mut self.present, &mut self.next] {
            self.context.check()?;
            words.par_chunks_mut(NODES_PER_RANGE).for_each(|words| words.fill([0; W]));
        }
        self.stale.clear();
        let mut level = Found::default();
        for (index, &source) in sources.iter().enumerate() {
            let words = &mut self.present[source as usize];
            if !is_any(words) {
                level.nodes.push(source);
                level.num_arcs += self.graph.next.degree(source);
            }
            words[index / 64] |= 1 << (index % 64);
            self.seen[source as usize] = *words;
            level.live[index / 64] |= 1 << (index % 64);
        }
        Ok(level)
    }

    /// Finds the next level from the nodes of the present one.
    fn push(&mut self, level: &Found<W>, distance: u64) -> Result<Vec<Found<W>>, KernelError> {
        let mut cancel_check = CancelCheck::new(self.context);
        cancel_check.spend(self.stale.len())?;
        self.stale.drain(..).for_each(|node| self.next[node as usize] = [0; W]);
        let mut nodes = Vec::new();
        for &node in &level.nodes {
            let sources = self.present[node as usize];
            let row = self.graph.next.row(node);
            cancel_check.spend(1 + row.len())?;
            for &other in row {
                let reached = difference(&sources, &self.seen[other as usize]);
                if is_any(&reached) {
                    let next = &mut self.next[other as usize];
                    if !is_any(next) {
                        nodes.push(other);
                    }
                    insert(next, &reached);
                }
            }
        }
        let mut found = Found::default();
        cancel_check.spend(nodes.len())?;
        for node in nodes {
            let at = node as usize;
            insert(&mut self.seen[at], &self.next[at]);
            found.record(node, &self.next[at], distance, self.by_node.as_mut().map(|sums| &mut sums[at]));
            found.num_arcs += self.graph.next.degree(node);
        }
        Ok(vec![found])
    }

    /// As [`push`](Self::push), from the side of the nodes that some source has not reached.
    fn pull(&mut self, level: &Found<W>, distance: u64) -> Result<Vec<Found<W>>, KernelError> {
        let Self { graph, context, seen, present, next, stale, by_node } = self;
        // The words of all nodes are written.
        stale.clear();
        let mut sums = by_node.as_mut().map(|sums| sums.chunks_mut(NODES_PER_RANGE));
        let words = seen.chunks_mut(NODES_PER_RANGE).zip(next.chunks_mut(NODES_PER_RANGE));
        let ranges: Vec<_> = words.map(|(seen, next)| (seen, next, sums.as_mut().and_then(Iterator::next))).collect();
        let pull = |(range, (seen, next, mut sums)): (usize, (&mut [_], &mut [_], Option<&mut [DistanceSum]>))| {
            let mut cancel_check = CancelCheck::new(context);
            let mut found = Found::default();
            for (index, (seen, next)) in seen.iter_mut().zip(next).enumerate() {
                let node = (range * NODES_PER_RANGE + index) as u32;
                let wanted = difference(&level.live, seen);
                *next = [0; W];
                if !is_any(&wanted) {
                    continue;
                }
                let (reached, visits) = gather(graph.previous.row(node), present, &wanted);
                cancel_check.spend(1 + visits)?;
                if is_any(&reached) {
                    *next = reached;
                    insert(seen, &reached);
                    found.record(node, &reached, distance, sums.as_mut().map(|sums| &mut sums[index]));
                    found.num_arcs += graph.next.degree(node);
                }
            }
            Ok(found)
        };
        if graph.num_arcs() < SEQUENTIAL_ARCS {
            ranges.into_iter().enumerate().map(pull).collect()
        } else {
            ranges.into_par_iter().enumerate().map(pull).collect()
        }
    }
}

/// Returns those of the wanted sources that reached any node of `row` at the present level, and the number of nodes that
/// were looked at: once all are found, the others are not.
fn gather<const W: usize>(row: &[u32], present: &[Words<W>], wanted: &Words<W>) -> (Words<W>, usize) {
    let mut reached = [0; W];
    for (index, &node) in row.iter().enumerate() {
        insert(&mut reached, &present[node as usize]);
        if !is_any(&difference(wanted, &reached)) {
            return (*wanted, index + 1);
        }
    }
    (std::array::from_fn(|at| reached[at] & wanted[at]), row.len())
}
