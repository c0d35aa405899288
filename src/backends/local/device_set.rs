//! [`DeviceSet`]: the pools of one machine, and the choice of the pool that runs a job.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::backends::worker_pool::{PoolHandle, PoolLoad, Profile, Requeued, WorkerPool};
use crate::request::RequestContext;
use crate::service::{BackendKind, KernelError, KernelInfo, OperandVersion};

/// The kinds of backends. A job that a backend hands back goes to one that comes after it. The last is the fallback:
/// readiness needs its pool.
pub(super) const KINDS: [BackendKind; 2] = [BackendKind::Cuda, BackendKind::Cpu];

/// The worker pools of one machine: one for each device, and one for the CPU.
///
/// Of several pools of one kind, a job goes to the less loaded of two at random, as with tower's
/// [p2c](https://docs.rs/tower/latest/tower/balance/p2c/). `tower::balance` itself keeps every endpoint ready, and ready
/// means to hold a permit here: each handle, of which a server makes one for each request, would hold a permit on every
/// device. So the devices are compared first, and a permit is reserved on one of them.
#[derive(Debug)]
pub(super) struct DeviceSet {
    pools: Vec<Arc<WorkerPool>>,
    /// Counts the choices between two pools; the source of their randomness.
    choices: AtomicU64,
}

impl DeviceSet {
    pub(super) fn new(pools: Vec<Arc<WorkerPool>>) -> Self {
        Self { pools, choices: AtomicU64::new(0) }
    }

    /// Returns the pools of a kind.
    pub(super) fn of_kind(&self, kind: BackendKind) -> impl Iterator<Item = &Arc<WorkerPool>> {
        self.pools.iter().filter(move |pool| pool.profile().backend == kind)
    }

    /// Returns the open pools of a kind.
    pub(super) fn open(&self, kind: BackendKind) -> impl Iterator<Item = &Arc<WorkerPool>> {
        self.of_kind(kind).filter(|pool| pool.is_open())
    }

    /// Returns the most preferred kind that this machine has, open or closed.
    fn preferred_kind(&self) -> Option<BackendKind> {
        KINDS.into_iter().find(|&kind| self.of_kind(kind).next().is_some())
    }

    /// Returns the number of workers of the preferred kind.
    pub(super) fn workers(&self) -> usize {
        let pools = self.preferred_kind().into_iter().flat_map(|kind| self.of_kind(kind));
        pools.map(|pool| pool.workers()).sum()
    }

    /// Returns the CPU's profile if the CPU is all that this machine has.
    pub(super) fn cpu_only(&self) -> Option<&Profile> {
        let cpu_only = self.pools.iter().all(|pool| pool.profile().backend == BackendKind::Cpu);
        self.pools.first().filter(|_| cpu_only).map(|pool| pool.profile())
    }

    /// Returns the load of all open pools.
    pub(super) fn load(&self) -> PoolLoad {
        let open = self.pools.iter().filter(|pool| pool.is_open());
        open.fold(PoolLoad::default(), |load, pool| load + pool.load())
    }

    /// Returns why a pool of a kind that the kernel has code for is closed, if no pool that could run the kernel is open.
    pub(super) fn closed_for(&self, info: &KernelInfo) -> Option<&KernelError> {
        let supported = || self.pools.iter().filter(|pool| info.supports(pool.profile().backend));
        if supported().any(|pool| pool.is_open()) {
            return None;
        }
        supported().find_map(|pool| pool.state().closed())
    }

    /// Reserves a permit on the less loaded of two open pools of a kind, or on any other if both are full.
    pub(super) fn try_reserve(&self, kind: BackendKind) -> Option<PoolHandle> {
        let count = self.open(kind).count();
        let nth = |at: usize| self.open(kind).nth(at);
        let (first, second) = match count {
            0 => return None,
            1 => return PoolHandle::try_reserve(nth(0)?),
            count => two_of(count, splitmix64(self.choices.fetch_add(1, Ordering::Relaxed))),
        };
        let (first, second) = (nth(first)?, nth(second)?);
        let (better, other) = if second.load() < first.load() { (second, first) } else { (first, second) };
        let rest = self.open(kind).filter(|pool| !Arc::ptr_eq(pool, better) && !Arc::ptr_eq(pool, other));
        [better, other].into_iter().chain(rest).find_map(PoolHandle::try_reserve)
    }

    /// Returns the permit for a job on these operands: the `reserved` one if its device has them, or else that of the pool of
    /// its kind which is expected to start the job first, after what it has to do and to upload.
    pub(super) fn prefer_resident(&self, reserved: PoolHandle, operands: &[&Arc<OperandVersion>]) -> PoolHandle {
        if operands.is_empty() || reserved.pool().missing_bytes(operands) == 0 {
            return reserved;
        }
        let expected = reserved.pool().expected_start(operands);
        let others = self.open(reserved.pool().profile().backend).filter(|pool| !Arc::ptr_eq(pool, reserved.pool()));
        let better = others.map(|pool| (pool.expected_start(operands), pool)).min_by_key(|(time, _)| *time);
        let better = better.filter(|(time, _)| *time < expected);
        better.and_then(|(_, pool)| PoolHandle::try_reserve(pool)).unwrap_or(reserved)
    }

    /// Returns the kind of backend that can run a job which `from` has handed back with this error.
    ///
    /// A job whose kernel has [no code](KernelError::UnsupportedBackend) for its input there goes to another kind. Others are
    /// handed back because the pool has closed, or because their run took longer than it was meant to take
    /// there: such a job may go back.
    ///
    /// A job that had not started goes to another pool of the same kind. One that had started may be what the device was lost
    /// to, so no other device of the kind gets it: it is run again on another kind, if its kernel is
    /// [pure](KernelInfo::pure) and it can still meet its deadline there.
    ///
    /// A job that asks for a kind goes to no other.
    pub(super) fn failover(&self, from: &WorkerPool, requeued: &Requeued, error: &KernelError) -> Option<BackendKind> {
        let kind = from.profile().backend;
        let can_run = |kind| requeued.job.requested_backend().is_none_or(|requested| requested == kind);
        let info = requeued.job.kernel().info();
        let less_preferred = KINDS.into_iter().skip_while(|&other| other != kind).skip(1);
        let mut less_preferred = less_preferred.filter(|&kind| can_run(kind));
        if matches!(error, KernelError::UnsupportedBackend { .. }) {
            return less_preferred.find(|&kind| info.supports(kind));
        }
        if from.is_open() {
            return matches!(error, KernelError::DeadlineExceeded { .. }).then_some(kind);
        }
        if !requeued.started && info.supports(kind) && self.open(kind).next().is_some() {
            return Some(kind);
        }
        if requeued.started && !info.pure {
            return None;
        }
        less_preferred.filter(|&kind| info.supports(kind)).find(|&kind| self.can_meet_deadline(kind, requeued))
    }

    /// Returns whether all workers of a kind together could finish the job before its deadline.
    fn can_meet_deadline(&self, kind: BackendKind, requeued: &Requeued) -> bool {
        let Some(pool) = self.of_kind(kind).next() else { return false };
        let predicted = pool.profile().predict(&requeued.job);
        let (Some(deadline), Some(predicted)) = (requeued.job.deadline(), predicted) else { return true };
        let workers: usize = self.of_kind(kind).map(|pool| pool.workers()).sum();
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        predicted / workers <= deadline.saturating_duration_since(Instant::now())
    }
}

/// Returns two different numbers below `count`, which is at least two.
fn two_of(count: usize, random: u64) -> (usize, usize) {
    let count = count as u64;
    let first = random % count;
    let second = (first + 1 + (random >> 32) % (count - 1)) % count;
    (first as usize, second as usize)
}

/// Sebastiano Vigna's SplitMix64: the n-th number of a pseudo-random sequence.
fn splitmix64(n: u64) -> u64 {
    let mut z = n.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_pair_of_devices_comes_up_as_often_as_any_other() {
        for count in [2_usize, 3, 8] {
            let mut seen = vec![0_u32; count * count];
            let rounds = 10_000 * (count * (count - 1)) as u64;
            for turn in 0..rounds {
                let (first, second) = two_of(count, splitmix64(turn));
                assert_ne!(first, second);
                seen[first * count + second] += 1;
            }
            let pairs = (0..count * count).filter(|at| at / count != at % count);
            assert!(pairs.map(|at| seen[at]).all(|times| (9_000..11_000).contains(&times)), "{count}: {seen:?}");
        }
    }
}
