//! Jobs that are merged into one run of their kernel.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::erased::Input;
use super::{BackendKind, BatchKey, Cost, Job, KernelError, Payload, Progress, RegisteredKernel, RunContext, Typed};
use crate::request::{RequestContext, Share};

/// The jobs that were merged; the input of the job that runs them.
#[derive(Debug)]
pub(crate) struct Members(pub(super) Vec<Job>);

/// The payloads of the members of a shared run; its output.
#[derive(Debug)]
pub(crate) struct MemberResults(Vec<MemberResult>);

/// The payload of the response to one member of a shared run.
pub(crate) type MemberResult = Result<Payload, KernelError>;

impl MemberResults {
    pub(crate) fn into_typed(results: Vec<MemberResult>) -> Typed {
        Typed::new(Self(results))
    }

    /// Returns the outputs of a shared run whose members have typed payloads.
    pub(super) fn typed(output: &Typed) -> Vec<Result<Typed, KernelError>> {
        let results = output.downcast::<Self>();
        let typed = |result: &MemberResult| match result.clone()? {
            Payload::Typed(output) => Ok(output),
            _ => Err(KernelError::kernel("the output of a member is encoded")),
        };
        results.iter().flat_map(|results| &results.0).map(typed).collect()
    }

    /// Returns the results in the payload of a shared run's response; `None` for any other payload.
    pub(crate) fn from_payload(payload: Payload) -> Option<Vec<MemberResult>> {
        let results = payload.downcast::<Self>()?;
        // The payload has the only other reference.
        drop(payload);
        Arc::into_inner(results).map(|Self(results)| results)
    }
}

/// Identifies the jobs that can be merged into one run: same kernel, same [`BatchKey`].
#[derive(Clone, Debug)]
pub(crate) struct MergeKey {
    /// The number of the kernel's registration.
    kernel: u64,
    key: BatchKey,
    /// The backend that the requests ask for.
    backend: Option<BackendKind>,
    /// The kernel and input of one of the jobs, to compare in full where the key is a hash.
    input: Option<(RegisteredKernel, Input)>,
}

impl MergeKey {
    /// Returns whether the jobs do most of their work together in a shared run on a device.
    pub(crate) fn shares_work(&self) -> bool {
        self.key.shares_work
    }
}

impl PartialEq for MergeKey {
    fn eq(&self, other: &Self) -> bool {
        (self.kernel, self.key, self.backend) == (other.kernel, other.key, other.backend)
            && match (&self.input, &other.input) {
                (Some((kernel, input)), Some((_, other))) => kernel.shares_run(input, other),
                (None, None) => true,
                _ => false,
            }
    }
}

impl Eq for MergeKey {}

impl Hash for MergeKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.kernel, self.key, self.backend).hash(state);
    }
}

impl Job {
    /// Merges jobs that have the same [`merge_key`](Self::merge_key) into one. Its cost is the kernel's
    /// [`batch_cost`](super::Kernel::batch_cost), its priority the highest, its deadline the latest.
    ///
    /// # Panics
    /// If there are no jobs.
    pub(crate) fn merge(jobs: Vec<Self>) -> Self {
        let kernel = jobs.first().expect("jobs to merge").kernel.clone();
        let cost = jobs.iter().filter_map(Self::cost).fold(Cost::default(), |sum, cost| Cost {
            bytes: sum.bytes.saturating_add(cost.bytes),
            operations: sum.operations.saturating_add(cost.operations),
            device_memory: sum.device_memory.saturating_add(cost.device_memory),
        });
        let inputs: Vec<&Input> = jobs.iter().filter_map(|job| job.input.as_ref()).collect();
        let cost = kernel.batch_cost(&inputs, cost);
        let priority = jobs.iter().map(|job| job.priority).max().unwrap_or_default();
        let deadlines = jobs.iter().map(|job| job.deadline).collect::<Option<Vec<_>>>();
        let (backend, mut scheduling) = (jobs[0].backend, jobs[0].scheduling);
        // A run for several shares is charged to none of them.
        if jobs.iter().any(|job| job.share() != scheduling.share()) {
            scheduling.set_share(Share::COMMON);
        }
        let mut merged = Self::prepared(kernel, Input { value: Typed::new(Members(jobs)), cost });
        merged.deadline = deadlines.and_then(|deadlines| deadlines.into_iter().max());
        merged.priority = priority;
        merged.backend = backend;
        merged.scheduling = scheduling;
        merged
    }

    /// Reserves the host memory of a member of a shared run, unless its deadline has passed `now`, the time at which one of
    /// the members was first found to have a deadline.
    pub(super) fn admit(&self, now: &mut Option<Instant>) -> Result<(), KernelError> {
        match self.deadline {
            Some(deadline) if deadline <= *now.get_or_insert_with(Instant::now) => {
                Err(KernelError::DeadlineExceeded { started: false })
            }
            _ => self.reserve_run(),
        }
    }

    /// Returns the jobs that were merged into this one.
    pub(crate) fn members(&self) -> Option<&[Self]> {
        self.input.as_ref().and_then(Input::members)
    }

    /// Returns the key of the jobs that this one can be merged with, and marks it as waiting for them.
    ///
    /// `None` if the kernel has no batch key, if the input takes longer than `bound` to decode and validate, if it is
    /// invalid, and if the request has a [`Progress`].
    pub(crate) fn merge_key(&mut self, bound: Duration) -> Option<MergeKey> {
        if self.extensions.get::<Progress>().is_some() || self.prepare(Some(bound)).is_err() {
            return None;
        }
        let input = self.input()?;
        let key = self.kernel.batch_key(input)?;
        let input = key.is_hash.then(|| (self.kernel.clone(), input.clone()));
        self.batched_at = Some(Instant::now());
        Some(MergeKey { kernel: self.kernel.number(), key, backend: self.backend, input })
    }

    /// Returns how long the job has waited to be merged.
    pub(crate) fn waited(&self, now: Instant) -> Duration {
        self.batched_at.map_or(Duration::ZERO, |batched_at| now.saturating_duration_since(batched_at))
    }

    /// Reserves the host memory of the run and runs the prepared job by `run`. Returns the output and how many requests
    /// shared the run.
    ///
    /// If a shared run fails and one member may be the cause, every member is run by itself, so that only that one fails.
    pub(crate) fn run_with(
        &self,
        context: &RunContext<'_>,
        mut run: impl FnMut(&Self, &RunContext<'_>) -> Result<Typed, KernelError>,
    ) -> Result<(Typed, u32), KernelError> {
        let result = self.reserve_run().and_then(|()| run(self, context));
        match (result, self.members()) {
            (Err(error), Some(members)) if may_be_caused_by_one_member(&error) => {
                Ok((run_each(members, context, run)?, 1))
            }
            (result, members) => {
                let batch_size = members.map_or(1, |members| u32::try_from(members.len()).unwrap_or(u32::MAX));
                Ok((result?, batch_size))
            }
        }
    }
}

fn may_be_caused_by_one_member(error: &KernelError) -> bool {
    use KernelError::{Device, InvalidInput, Kernel, OutOfMemory, Panicked};
    matches!(error, InvalidInput(_) | OutOfMemory { .. } | Panicked { .. } | Device(_) | Kernel(_))
}

fn run_each(
    members: &[Job],
    context: &RunContext<'_>,
    mut run: impl FnMut(&Job, &RunContext<'_>) -> Result<Typed, KernelError>,
) -> Result<Typed, KernelError> {
    let mut results = Vec::with_capacity(members.len());
    for job in members {
        let context = context.with_deadline(job.deadline).with_memory(job.memory());
        let result = context.check_before_start().and_then(|()| job.reserve_run()).and_then(|()| run(job, &context));
        match result {
            // These end the run of all members.
            Err(error @ (KernelError::Cancelled | KernelError::DeviceLost { .. } | KernelError::Stopped { .. })) => {
                return Err(error);
            }
            result => results.push(result.map(|output| job.payload_of(output))),
        }
    }
    Ok(MemberResults::into_typed(results))
}
