use std::time::Duration;

use tower_layer::Layer;
use tower_service::Service;

use super::{Batched, Batches};
use crate::backends::Local;
use crate::backends::worker_pool::Profile;
use crate::layers::BatchLayer;
use crate::middleware::batch::{BatchPolicy, BatchSnapshot};
use crate::service::{BackendKind, Job, KernelError, KernelResponse, SharedRun};

/// Has requests share runs of a backend. See the [module](super).
///
/// It is the [`BatchLayer`] with limits that suit kernels. Clones share the places to wait.
#[derive(Clone, Debug)]
pub struct BatchedLayer {
    batch: BatchLayer<Job, SameRun>,
}

/// Requests that share a run, at most.
const REQUESTS: usize = 256;
/// What they may weigh together: 2 ms of a processor, in bytes moved.
const WEIGHT: u64 = 16 << 20;
/// What an operation weighs, in bytes moved: a processor moves as many in the time.
const BYTES_PER_OPERATION: u64 = 4;
/// Requests that can wait at one time.
const CAPACITY: usize = 16_384;
/// What takes longer to be read and checked than this runs alone: as much as a backend does inside the call.
const INLINE: Duration = Duration::from_micros(20);

impl BatchedLayer {
    /// For a backend with so many lanes: twice as many runs of one kernel are under way at one time, so that a lane finds
    /// the next when it has ended one, and what comes meanwhile shares those after them.
    pub fn for_lanes(lanes: usize) -> Self {
        let batch = BatchLayer::new(REQUESTS)
            .with_policy(SameRun { inline: INLINE, gain: Gain::Anywhere })
            .max_weight(WEIGHT)
            .max_in_flight(runs(lanes))
            .capacity(CAPACITY);
        Self { batch }
    }

    /// For this machine. What has nothing to gain passes by: what the CPU runs inside the call, and, where there are CUDA
    /// devices, kernels without code for them.
    pub fn over(local: &Local) -> Self {
        Self::for_lanes(local.lanes()).fitted(local)
    }

    /// The same, with its places and counts, for this machine.
    pub(crate) fn fitted(&self, local: &Local) -> Self {
        let gain = match local.cpu_alone() {
            Some(cpu) => Gain::OnLanes(cpu.clone()),
            None => Gain::OnDevices,
        };
        Self { batch: self.batch.fitted(runs(local.lanes()), SameRun { inline: INLINE, gain }) }
    }

    /// With at most so many requests a run. Default: 256.
    #[must_use]
    pub fn max_requests(self, requests: usize) -> Self {
        Self { batch: self.batch.max_requests(requests) }
    }

    /// With runs that move at most so many bytes, or do the work of it. Default: 16 MiB, which take a processor 2 ms.
    #[must_use]
    pub fn max_bytes(self, bytes: u64) -> Self {
        Self { batch: self.batch.max_weight(bytes) }
    }

    /// With so many runs of one kernel under way at one time.
    #[must_use]
    pub fn in_flight(self, runs: usize) -> Self {
        Self { batch: self.batch.max_in_flight(runs) }
    }

    /// With runs that wait for more requests though there is a lane for them, for up to so long. Default: they do not.
    #[must_use]
    pub fn max_delay(self, delay: Duration) -> Self {
        Self { batch: self.batch.max_delay(delay) }
    }

    /// With so many requests that can wait at one time. Default: 16 384.
    #[must_use]
    pub fn capacity(self, requests: usize) -> Self {
        Self { batch: self.batch.capacity(requests) }
    }

    /// What waits and what has been sent.
    pub fn stats(&self) -> BatchSnapshot {
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

/// Runs of one kernel under way at one time.
fn runs(lanes: usize) -> usize {
    lanes.saturating_mul(2)
}

/// Which jobs may share a run: those of one kernel that it [says so](crate::service::Kernel::batch_key) of, where they gain
/// by it. They weigh what their kernel says that they cost.
#[derive(Clone, Debug)]
pub struct SameRun {
    inline: Duration,
    gain: Gain,
}

/// Which jobs gain by a shared run.
#[derive(Clone, Debug)]
enum Gain {
    Anywhere,
    /// Those that CUDA devices run. What the CPU runs beside them must not wait for as few places as those have lanes.
    OnDevices,
    /// Those that the CPU does not run inside the call: on a lane they share the way there and back.
    OnLanes(Profile),
}

impl SameRun {
    fn may_gain(&self, job: &mut Job) -> bool {
        match &self.gain {
            Gain::Anywhere => true,
            Gain::OnDevices => job.kernel().info().backends.contains(&BackendKind::Cuda),
            Gain::OnLanes(cpu) => {
                let is_read = job.prepare(Some(self.inline), None).is_ok();
                is_read && job.cost().is_some_and(|cost| cpu.time(cost) > cpu.inline)
            }
        }
    }
}

impl BatchPolicy<Job> for SameRun {
    type Key = Key;

    fn key(&self, job: &mut Job) -> Option<Key> {
        if !self.may_gain(job) {
            return None;
        }
        job.shared_run(self.inline).map(Key)
    }

    fn weight(&self, job: &Job) -> u64 {
        job.cost().map_or(0, |cost| cost.bytes.max(cost.operations.saturating_mul(BYTES_PER_OPERATION)))
    }
}

/// What jobs that may share a run have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key(SharedRun);
