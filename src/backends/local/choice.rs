//! The choice of the backend that runs a job, by the predicted time to its response.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::device_set::{DeviceSet, KINDS};
use crate::backends::worker_pool::{PoolHandle, PoolLoad, WorkerPool};
use crate::request::{BackendChoice, ChoiceReason, RequestContext};
use crate::service::{BackendKind, FIRST_RUNS, Job, KernelError};

/// A permit of each of the [`KINDS`] that is open.
pub(super) type Permits = [Option<PoolHandle>; KINDS.len()];

/// One run in so many of a size measures the backend that was not chosen for it, because machines change.
const REMEASURE_INTERVAL: u32 = 1024;

/// A run that measures a backend may take one part in so many of the time to the deadline.
const DEADLINE_PART: u32 = 4;

/// A run that measures the CPU ends when it has taken so many times what the better backend is predicted to take.
const MEASURED_TIMES: u32 = 2;

/// The permit of the pool that runs a job, with why it was chosen if there was a choice.
pub(super) struct Chosen {
    pub(super) permit: PoolHandle,
    pub(super) choice: Option<BackendChoice>,
    /// Ends the run, to be repeated on the other backend, if it takes longer.
    pub(super) limit: Option<Duration>,
}

/// Chooses the backend for a job and releases the permits of the others.
///
/// # Errors
/// The job asks for a backend that cannot run it, or no open pool can run it.
pub(super) fn choose(devices: &DeviceSet, job: &Job, mut permits: Permits) -> Result<Chosen, KernelError> {
    let info = job.kernel().info();
    let requested = job.requested_backend();
    let operands = job.operands();
    // The devices that have the job's operands, before times are compared.
    for (permit, kind) in permits.iter_mut().zip(KINDS) {
        let supported = permit.take().filter(|_| info.supports(kind));
        *permit = supported.map(|permit| devices.prefer_resident(permit, &operands));
    }
    let is_only_one = permits.iter().flatten().count() == 1;
    let times = permits.each_ref().map(|permit| {
        // A time is only there to be compared with another.
        let permit = permit.as_ref().filter(|_| !is_only_one)?;
        predicted_response(permit.pool(), permit.load_of_others(), job)
    });
    let best =
        (0..KINDS.len()).filter(|&at| permits[at].is_some() && job.may_run_on(KINDS[at])).min_by_key(|&at| times[at]);
    let Some(best) = best else { return Err(no_backend(devices, job)) };
    let mut chosen = Chosen { permit: permits[best].take().expect("a permit"), choice: None, limit: None };
    let Some(other) = (0..KINDS.len()).find(|&at| permits[at].is_some()) else { return Ok(chosen) };
    let (Some(time), Some(other_time)) = (times[best], times[other]) else { return Ok(chosen) };
    let mut predicted = [(KINDS[best], time), (KINDS[other], other_time)];
    let mut reason = if requested.is_some() { ChoiceReason::Requested } else { ChoiceReason::Predicted };
    // A run that may not be repeated has no limit. Neither has one on a device, which is lost if a kernel does not stop.
    let is_limited = info.pure && KINDS[other] == BackendKind::Cpu;
    let limit = is_limited.then(|| time.saturating_mul(MEASURED_TIMES));
    if requested.is_none() && should_measure(job, predicted, limit) {
        predicted.swap(0, 1);
        reason = ChoiceReason::Explored;
        chosen.limit = limit;
        chosen.permit = permits[other].take().expect("a permit");
    }
    chosen.choice = Some(BackendChoice { reason, predicted });
    Ok(chosen)
}

/// Tells which kind of backend a job would go to. It does not keep the backends open.
#[derive(Clone, Debug)]
pub(crate) struct Preference(Weak<DeviceSet>);

impl Preference {
    pub(super) fn new(devices: &Arc<DeviceSet>) -> Self {
        Self(Arc::downgrade(devices))
    }

    /// Returns the kind of backend that would give the response first if the job was called now. `None` if the job has not
    /// been decoded or no backend can run it.
    pub(crate) fn backend(&self, job: &Job) -> Option<BackendKind> {
        match job.requested_backend() {
            None => preferred(&*self.0.upgrade()?, job),
            requested => requested,
        }
    }
}

fn preferred(devices: &DeviceSet, job: &Job) -> Option<BackendKind> {
    let info = job.kernel().info();
    let pools = KINDS.into_iter().filter(|&kind| info.supports(kind)).flat_map(|kind| devices.open(kind));
    let times = pools.filter_map(|pool| Some((predicted_response(pool, pool.load(), job)?, pool.profile().backend)));
    times.min_by_key(|&(time, _)| time).map(|(_, kind)| kind)
}

/// Predicts the time from now to the response of a job on this pool: the wait for a worker behind others, the hop to its thread
/// and back, and the run. `None` if the job has not been decoded.
///
/// The upload of an operand that a device lacks is not part of it: it is made once, and requests that follow find the copy.
fn predicted_response(pool: &WorkerPool, others: PoolLoad, job: &Job) -> Option<Duration> {
    let run = pool.profile().predict(job)?;
    if pool.profile().runs_inline(job, run) {
        return Some(run);
    }
    Some(pool.wait(others).saturating_add(pool.profile().inline).saturating_add(run))
}

/// Returns whether the job should run on the second of two backends, although the first is predicted to be faster, so that its
/// time there is known. The run ends at the `limit`.
fn should_measure(job: &Job, predicted: [(BackendKind, Duration); 2], limit: Option<Duration>) -> bool {
    let [(chosen, _), (other, time)] = predicted;
    let Some(cost) = job.cost() else { return false };
    let time = limit.map_or(time, |limit| limit.min(time));
    let times = job.kernel().run_times();
    let (runs, other_runs) = (times.runs(chosen, cost), times.runs(other, cost));
    let is_due = runs > 0 && (other_runs < FIRST_RUNS || runs.is_multiple_of(REMEASURE_INTERVAL));
    let has_time = |deadline: Instant| time <= deadline.saturating_duration_since(Instant::now()) / DEADLINE_PART;
    is_due && job.deadline().is_none_or(has_time) && times.try_explore(time)
}

/// The error of a job that no open pool can run.
fn no_backend(devices: &DeviceSet, job: &Job) -> KernelError {
    let info = job.kernel().info();
    match job.requested_backend() {
        Some(kind) if !info.supports(kind) => {
            KernelError::UnsupportedBackend { id: info.id.clone(), backend: kind.as_str() }
        }
        Some(kind) => match devices.of_kind(kind).find_map(|pool| pool.state().closed()) {
            Some(reason) => reason.clone(),
            None => KernelError::NoBackend { backend: kind.as_str() },
        },
        None => match devices.closed_for(info) {
            Some(reason) => reason.clone(),
            // A machine has a CPU, so the kernel has no code for it.
            None => KernelError::UnsupportedBackend { id: info.id.clone(), backend: BackendKind::Cpu.as_str() },
        },
    }
}
