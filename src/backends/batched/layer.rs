use std::time::Duration;

use tower_layer::Layer;
use tower_service::Service;

use super::{Batched, Batches};
use crate::backends::worker_pool::Profile;
use crate::backends::{Local, Preference};
use crate::layers::BatchLayer;
use crate::middleware::batch::{BatchPolicy, BatchSnapshot};
use crate::service::{BackendKind, CODEC_INLINE, Job, KernelError, KernelResponse, MergeKey};

/// Merges requests into shared runs of a backend. See the [module](super).
///
/// It is the [`BatchLayer`] with limits that suit kernels. Clones share the queue.
#[derive(Clone, Debug)]
pub struct BatchedLayer {
    batch: BatchLayer<Job, SameRun>,
}

/// The default maximum of requests in a run.
const MAX_REQUESTS: usize = 256;
/// The default maximum weight of a run, in bytes moved: what a processor moves in 2 ms.
const MAX_WEIGHT: u64 = 16 << 20;
/// The weight of an arithmetic operation: the bytes that a processor moves in the same time.
const BYTES_PER_OPERATION: u64 = 4;
/// The default maximum of requests that wait.
const CAPACITY: usize = 16_384;
/// How much heavier a run may be whose requests share their work: about 0.1 s of a device.
const SHARED_WORK_FACTOR: u64 = 8192;
/// Runs in flight on each device of requests that share their work: one runs, and one is copied to or from the device.
const SHARED_WORK_RUNS: usize = 2;

impl BatchedLayer {
    /// Creates a layer for a backend with this many workers. Up to twice as many runs of one kernel are in flight, so that a
    /// worker that ends a run finds the next one, and requests that arrive meanwhile share the runs after those.
    pub fn for_workers(workers: usize) -> Self {
        let batch = BatchLayer::new(MAX_REQUESTS)
            .with_policy(SameRun { gain: Gain::All })
            .max_weight(MAX_WEIGHT)
            .max_in_flight(max_in_flight(workers))
            .capacity(CAPACITY);
        Self { batch }
    }

    /// Creates a layer for this machine. Requests that would gain nothing bypass it: those that the CPU runs inline, and, if
    /// there are CUDA devices, those that run sooner on the CPU.
    pub fn over(local: &Local) -> Self {
        Self::for_workers(local.workers()).fitted(local)
    }

    /// Returns this layer, with the same queue and counts, for this machine.
    pub(crate) fn fitted(&self, local: &Local) -> Self {
        let gain = match local.cpu_only() {
            Some(cpu) => Gain::OnWorkers(cpu.clone()),
            None => Gain::OnDevices { count: local.num_devices(), preference: local.preference() },
        };
        Self { batch: self.batch.fitted(max_in_flight(local.workers()), SameRun { gain }) }
    }

    /// Sets the maximum of requests in a run. Default: 256.
    #[must_use]
    pub fn max_requests(self, requests: usize) -> Self {
        Self { batch: self.batch.max_requests(requests) }
    }

    /// Sets the maximum weight of a run in bytes moved; an arithmetic operation counts as 4 bytes. Default: 16 MiB, which take
    /// a processor 2 ms.
    #[must_use]
    pub fn max_bytes(self, bytes: u64) -> Self {
        Self { batch: self.batch.max_weight(bytes) }
    }

    /// Sets the maximum of runs of one kernel that are in flight.
    #[must_use]
    pub fn in_flight(self, runs: usize) -> Self {
        Self { batch: self.batch.max_in_flight(runs) }
    }

    /// Sets how long a run waits for more requests while a worker is free. Default: not at all.
    #[must_use]
    pub fn max_delay(self, delay: Duration) -> Self {
        Self { batch: self.batch.max_delay(delay) }
    }

    /// Sets the maximum of requests that wait. Default: 16 384.
    #[must_use]
    pub fn capacity(self, requests: usize) -> Self {
        Self { batch: self.batch.capacity(requests) }
    }

    /// Returns the counts of waiting requests and of runs.
    pub fn snapshot(&self) -> BatchSnapshot {
        self.batch.snapshot()
    }
}

impl<B> Layer<B> for BatchedLayer
where
    B: Service<Job, Response = KernelResponse>,
    B::Error: From<KernelError>,
{
    type Service = Batched<B>;

    fn layer(&self, backend: B) -> Batched<B> {
        self.batch.layer(Batches::new(backend))
    }
}

/// The default maximum of runs of one kernel in flight.
fn max_in_flight(workers: usize) -> usize {
    workers.saturating_mul(2)
}

/// Joins the jobs of one kernel that have the same [batch key](crate::service::Kernel::batch_key) and gain from a shared run.
/// Their weight is their kernel's cost estimate.
#[derive(Clone, Debug)]
pub struct SameRun {
    gain: Gain,
}

/// The jobs that gain from a shared run.
#[derive(Clone, Debug)]
enum Gain {
    /// All of them.
    All,
    /// Those that CUDA devices run. Jobs of the CPU are not limited to the few runs that devices have in flight.
    OnDevices { count: usize, preference: Preference },
    /// Those that the CPU does not run inline: on a worker they share the hops between threads.
    OnWorkers(Profile),
}

impl SameRun {
    fn gains(&self, job: &mut Job) -> bool {
        match &self.gain {
            Gain::All => true,
            Gain::OnDevices { preference, .. } => {
                job.kernel().info().supports(BackendKind::Cuda)
                    && job.prepare(Some(CODEC_INLINE)).is_ok()
                    && preference.backend(job) == Some(BackendKind::Cuda)
            }
            Gain::OnWorkers(cpu) => {
                let is_prepared = job.prepare(Some(CODEC_INLINE)).is_ok();
                is_prepared && cpu.predict(job).is_some_and(|time| time > cpu.inline)
            }
        }
    }
}

impl BatchPolicy<Job> for SameRun {
    type Key = BatchedKey;

    fn key(&self, job: &mut Job) -> Option<BatchedKey> {
        if !self.gains(job) {
            return None;
        }
        job.merge_key(CODEC_INLINE).map(BatchedKey)
    }

    fn weight(&self, key: &BatchedKey, job: &Job) -> u64 {
        let weight = job.cost().map_or(0, |cost| cost.bytes.max(cost.operations.saturating_mul(BYTES_PER_OPERATION)));
        match self.gain {
            Gain::OnDevices { .. } if key.0.shares_work() => weight / SHARED_WORK_FACTOR,
            _ => weight,
        }
    }

    fn max_in_flight(&self, key: &BatchedKey) -> usize {
        match self.gain {
            Gain::OnDevices { count, .. } if key.0.shares_work() => count.max(1) * SHARED_WORK_RUNS,
            _ => usize::MAX,
        }
    }
}

/// Identifies the jobs that may share a run.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BatchedKey(MergeKey);

#[cfg(all(test, feature = "kernels"))]
mod tests {
    use super::*;
    use crate::kernels::graph::betweenness_centrality::BetweennessInput;
    use crate::kernels::graph::csr::{CsrGraph, Direction};
    use crate::service::{KernelRegistry, KernelRequest, Payload};

    #[test]
    fn heavy_requests_on_a_stored_graph_share_runs_of_devices() {
        let registry = KernelRegistry::new();
        crate::kernels::register_all(&registry).unwrap();
        let path: Vec<[u32; 2]> = (1..10_000).map(|node| [node - 1, node]).collect();
        let graph = CsrGraph::from_edges(10_000, &path, Direction::Undirected).unwrap();
        let graph = registry.operands().put("path", graph).unwrap();
        let kernel = registry.get("graph/betweenness-centrality").unwrap();
        let job = |first: u32| {
            let sources: Vec<u32> = (first..first + 100).collect();
            let input = BetweennessInput::from_operand(graph.clone());
            let input = BetweennessInput { sources: Some(sources.into()), ..input };
            let mut request = KernelRequest::new("graph/betweenness-centrality", Payload::typed(input));
            request.set_backend(BackendKind::Cuda);
            Job::new(kernel.clone(), request).unwrap()
        };
        let policy = |gain| SameRun { gain };
        let (mut first, mut other) = (job(0), job(7));
        let preference = Local::detect().preference();
        let devices = policy(Gain::OnDevices { count: 3, preference });
        let key = devices.key(&mut first).expect("a key");
        assert_eq!(devices.key(&mut other).as_ref(), Some(&key), "different sources");
        assert!(devices.weight(&key, &first) <= MAX_WEIGHT / 256);
        assert_eq!(devices.max_in_flight(&key), 6);
        // The CPU would run them one after the other.
        let other_backends = policy(Gain::All);
        assert!(other_backends.weight(&key, &first) > MAX_WEIGHT);
        assert_eq!(other_backends.max_in_flight(&key), usize::MAX);
    }
}
