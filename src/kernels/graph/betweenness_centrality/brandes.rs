//! Betweenness centrality of unweighted graphs.
//!
//! Brandes, *A faster algorithm for betweenness centrality* (2001): from each source, count the shortest paths to every
//! node level by level, then walk the levels back and add up how much of them passes through each node. Here eight
//! sources go together (as in Then et al., *The more the merrier*, 2014): a node holds one path count for each of
//! eight lanes, so that a neighbour list read once serves eight traversals and adding up a neighbour is one vector
//! addition. A level either pushes from its nodes or, when its edges outnumber those of the nodes not yet reached, pulls
//! into these (Beamer, Asanović and Patterson, *Direction-optimizing breadth-first search*, 2012).

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::pivots::Pivots;
use super::traversal::Traversal;
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::CsrGraph;
use crate::service::{KernelError, RunContext};

/// Sources that a wide traversal serves.
const WIDE: usize = 8;

/// Below this many arcs to visit, distributing work costs more than doing it.
const SEQUENTIAL_ARCS: usize = 1 << 17;

/// Where a visit serves fewer lanes than this on average, one source at a time is faster.
const LANES_WORTH_IT: f64 = 2.0;

/// Parts of the work per thread on average; a thread takes the next part when it has finished one.
const PARTS_PER_THREAD: usize = 4;

/// Memory limit of all traversals that run at the same time; further threads stay idle.
const WORKSPACE_BYTES: usize = 8 << 30;

/// Two rows, the sets and the order of visits for each node of a traversal.
const WORKSPACE_BYTES_PER_NODE: usize = 3 * WIDE * size_of::<f64>();

/// The same for a traversal of one source, which a thread has as well once it is faster.
const NARROW_BYTES_PER_NODE: usize = 5 * size_of::<f64>();

/// The memory that [`pair_dependencies`] takes without helpers in a graph of this many nodes: the workspace of a thread and
/// the sums of each part of the work.
pub(super) fn workspace(num_nodes: u64) -> u64 {
    let threads = most_threads(usize::try_from(num_nodes).unwrap_or(usize::MAX));
    let sums = ((threads * PARTS_PER_THREAD + 1) * size_of::<f64>()) as u64;
    num_nodes.saturating_mul(WORKSPACE_BYTES_PER_NODE as u64 + NARROW_BYTES_PER_NODE as u64 + sums)
}

/// The threads whose workspaces fit into [`WORKSPACE_BYTES`] together, of those that rayon's pool has.
fn most_threads(num_nodes: usize) -> usize {
    let affordable = WORKSPACE_BYTES / WORKSPACE_BYTES_PER_NODE.saturating_mul(num_nodes.max(1));
    rayon::current_num_threads().min(affordable.max(1))
}

/// Sums of pair dependencies over all `pivots`, one for each node; [`Pivots::rescale`] makes scores of them.
///
/// Large graphs are split over as many threads as rayon's pool has, the calling one included. They are separate threads:
/// minutes of work on the pool would block every other kernel. The sums have the same bits each time, as the parts are
/// added in order.
///
/// The context is checked before each traversal and about every 2^15 neighbours.
///
/// # Errors
/// Those of [`RunContext::check`], or [`InvalidInput`](crate::service::InvalidInput) where there are more shortest paths between two nodes
/// than an `f64` can count.
pub fn pair_dependencies(graph: &CsrGraph, pivots: &Pivots, context: &RunContext<'_>) -> Result<Vec<f64>, KernelError> {
    let num_nodes = graph.num_nodes();
    let batches = pivots.len().div_ceil(WIDE);
    let arcs = batches.saturating_mul(graph.num_arcs() + num_nodes);
    let threads = if arcs < SEQUENTIAL_ARCS { 1 } else { most_threads(num_nodes) };
    let parts = if threads == 1 { 1 } else { (threads * PARTS_PER_THREAD).min(batches) };

    let work = Work { graph, pivots, context, parts, next: AtomicUsize::new(0), failed: AtomicBool::new(false) };
    let mut helpers = Helpers::up_to(threads - 1);
    let own = ((WORKSPACE_BYTES_PER_NODE + NARROW_BYTES_PER_NODE) * num_nodes) as u64;
    helpers.retain_while(|| context.try_reserve(own));
    context.set_steps(pivots.len() as u64);
    let done = std::thread::scope(|scope| {
        let helpers: Vec<_> = (0..helpers.count)
            // Without the thread the work only takes longer.
            .map_while(|_| std::thread::Builder::new().spawn_scoped(scope, || work.take_parts()).ok())
            .collect();
        let mut done = work.take_parts()?;
        for helper in helpers {
            match helper.join() {
                Ok(parts) => done.extend(parts?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok::<_, KernelError>(done)
    });
    let mut done = done?;
    done.sort_unstable_by_key(|(part, _)| *part);
    let mut sums = vec![0.0; num_nodes];
    for (_, part) in done {
        sums.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    Ok(sums)
}

/// The state that the threads of one call share.
struct Work<'a> {
    graph: &'a CsrGraph,
    pivots: &'a Pivots,
    context: &'a RunContext<'a>,
    /// Every `parts`-th batch of sources is of the same part.
    parts: usize,
    next: AtomicUsize,
    failed: AtomicBool,
}

impl Work<'_> {
    /// Computes parts that no thread has begun, until there are none.
    fn take_parts(&self) -> Result<Vec<(usize, Vec<f64>)>, KernelError> {
        let mut wide = None;
        let mut narrow = None;
        let mut done = Vec::new();
        loop {
            let part = self.next.fetch_add(1, Ordering::Relaxed);
            if part >= self.parts || self.failed.load(Ordering::Relaxed) {
                return Ok(done);
            }
            match self.part(part, &mut wide, &mut narrow) {
                Ok(sums) => done.push((part, sums)),
                Err(error) => {
                    self.failed.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    }

    fn part<'g>(
        &'g self,
        part: usize,
        wide: &mut Option<Traversal<'g, WIDE>>,
        narrow: &mut Option<Traversal<'g, 1>>,
    ) -> Result<Vec<f64>, KernelError> {
        let batches = self.pivots.len().div_ceil(WIDE);
        let mut sums = vec![0.0; self.graph.num_nodes()];
        let mut cancel_check = CancelCheck::new(self.context);
        let mut together = true;
        for batch in (part..batches).step_by(self.parts) {
            let sources = batch * WIDE..self.pivots.len().min((batch + 1) * WIDE);
            let count = sources.len() as u64;
            if together {
                let wide = wide.get_or_insert_with(|| Traversal::new(self.graph));
                together = wide.run(self.pivots, sources, &mut sums, &mut cancel_check)? >= LANES_WORTH_IT;
            } else {
                let narrow = narrow.get_or_insert_with(|| Traversal::new(self.graph));
                for source in sources {
                    narrow.run(self.pivots, source..source + 1, &mut sums, &mut cancel_check)?;
                }
            }
            self.context.advance(count);
        }
        Ok(sums)
    }
}

/// Helper threads of all calls in the process.
static HELPING: AtomicUsize = AtomicUsize::new(0);

/// Permits to start helper threads, released on `Drop`.
struct Helpers {
    count: usize,
}

impl Helpers {
    /// At most this many, of which all calls together have one for each thread of rayon's pool.
    fn up_to(wanted: usize) -> Self {
        let most = rayon::current_num_threads();
        let share = |helping: usize| wanted.min(most.saturating_sub(helping));
        let taken =
            HELPING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |helping| Some(helping + share(helping)));
        let (Ok(before) | Err(before)) = taken;
        Self { count: share(before) }
    }

    /// Releases the permits of threads for which there is no memory.
    fn retain_while(&mut self, mut has_memory: impl FnMut() -> bool) {
        let retained = (0..self.count).take_while(|_| has_memory()).count();
        HELPING.fetch_sub(self.count - retained, Ordering::Relaxed);
        self.count = retained;
    }
}

impl Drop for Helpers {
    fn drop(&mut self) {
        HELPING.fetch_sub(self.count, Ordering::Relaxed);
    }
}
