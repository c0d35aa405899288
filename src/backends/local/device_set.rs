//! The pools of one machine, and which of its devices a job goes to.
//!
//! The choice is tower's [p2c](https://docs.rs/tower/latest/tower/balance/p2c/): of two devices at random, the one that has
//! less to do, by predicted time. `tower::balance` itself keeps every endpoint ready, and here to be ready is to hold a
//! slot: each handle, of which a server makes one a request, would hold one on every device for the one that it uses. So
//! the devices are compared first, and a slot is reserved on one of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use crate::backends::worker_pool::{PoolLoad, Profile, Slot, WorkerPool};
use crate::request::RequestContext;
use crate::service::{BackendKind, KernelError, KernelInfo, Returned};

/// The lanes of the CPU and of each CUDA device.
#[derive(Debug)]
pub(super) struct Fleet {
    cpu: Arc<WorkerPool>,
    devices: Vec<Arc<WorkerPool>>,
    /// Counts choices: each makes another pair of devices of it.
    turn: AtomicU64,
}

/// Where a job goes that a lost device has given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Device,
    Cpu,
}

impl Fleet {
    pub(super) fn new(cpu: Arc<WorkerPool>, devices: Vec<Arc<WorkerPool>>) -> Self {
        Self { cpu, devices, turn: AtomicU64::new(0) }
    }

    pub(super) fn cpu(&self) -> &Arc<WorkerPool> {
        &self.cpu
    }

    /// WorkerPool of all devices, or of the CPU where there never was any.
    pub(super) fn lanes(&self) -> usize {
        let devices: usize = self.devices.iter().map(|lanes| lanes.lanes()).sum();
        if devices > 0 { devices } else { self.cpu.lanes() }
    }

    /// The CPU's, where there never was any device.
    pub(super) fn cpu_alone(&self) -> Option<&Profile> {
        self.devices.is_empty().then(|| self.cpu.profile())
    }

    fn alive(&self) -> impl Iterator<Item = &Arc<WorkerPool>> {
        self.devices.iter().filter(|lanes| lanes.state().closed().is_none())
    }

    /// What all of it has to do.
    pub(super) fn load(&self) -> PoolLoad {
        self.alive().fold(self.cpu.load(), |load, device| load + device.load())
    }

    /// Why no device is left. `None` where one is, and where there never was any.
    pub(super) fn lost(&self) -> Option<(&Arc<WorkerPool>, &KernelError)> {
        if self.alive().next().is_some() {
            return None;
        }
        self.devices.iter().find_map(|lanes| Some((lanes, lanes.state().closed()?)))
    }

    /// A slot on the better of two devices; on any other where both are full.
    fn try_reserve(&self) -> Option<Slot> {
        let devices = &self.devices[..];
        let (first, second) = match devices.len() {
            0 => return None,
            1 => (0, 0),
            count => two_of(count, splitmix(self.turn.fetch_add(1, Ordering::Relaxed))),
        };
        let is_alive = |at: &usize| devices[*at].state().closed().is_none();
        let load = |at: usize| devices[at].load();
        let (better, other) = match (is_alive(&first), is_alive(&second)) {
            (true, true) if load(second) < load(first) => (second, first),
            (false, true) => (second, first),
            _ => (first, second),
        };
        let rest = (0..devices.len()).filter(|at| ![better, other].contains(at));
        let mut in_turn = [better, other].into_iter().chain(rest).filter(is_alive);
        in_turn.find_map(|at| Slot::try_reserve(&devices[at]))
    }

    /// Where a job may go that `from` has given back, if there is such a place.
    ///
    /// What waited goes to another device. What ran may be what the device was lost to, so no other device is given it: it
    /// is run again on the CPU alone, if it is [pure](KernelInfo::pure). Nothing goes to the CPU that would not be done there
    /// before its deadline, even with all processors for itself.
    pub(super) fn way(&self, from: &Arc<WorkerPool>, returned: &Returned) -> Option<Way> {
        let is_device = from.profile().backend == BackendKind::Cuda;
        if !is_device || from.state().closed().is_none() {
            return None;
        }
        let info = returned.job.kernel().info();
        if !returned.started && has(info, BackendKind::Cuda) && self.alive().next().is_some() {
            return Some(Way::Device);
        }
        let may = has(info, BackendKind::Cpu) && (!returned.started || info.pure);
        (may && self.in_time_on_cpu(returned)).then_some(Way::Cpu)
    }

    fn in_time_on_cpu(&self, returned: &Returned) -> bool {
        let (Some(deadline), Some(cost)) = (returned.job.deadline(), returned.job.cost()) else { return true };
        let processors = u32::try_from(self.cpu.lanes()).unwrap_or(u32::MAX).max(1);
        self.cpu.profile().time(cost) / processors <= deadline.saturating_duration_since(Instant::now())
    }
}

/// Whether the kernel has code for it.
pub(super) fn has(info: &KernelInfo, backend: BackendKind) -> bool {
    info.backends.contains(&backend)
}

/// Two different numbers below `count`, which is two at least.
fn two_of(count: usize, random: u64) -> (usize, usize) {
    let count = count as u64;
    let first = random % count;
    let second = (first + 1 + (random >> 32) % (count - 1)) % count;
    (first as usize, second as usize)
}

/// Sebastiano Vigna's SplitMix64: the n-th number of a sequence that looks random.
fn splitmix(turn: u64) -> u64 {
    let mut z = turn.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A handle's slot on one of the devices. While all are full, its places in the lines before all of them.
#[derive(Debug, Default)]
pub(super) struct Berth {
    slot: Option<Slot>,
    waiting: Vec<Slot>,
}

impl Berth {
    /// Reserves a slot on a device, once however often it is asked. `false` where there is no device, or none is left.
    pub(super) fn poll_reserve(&mut self, fleet: &Fleet, cx: &mut Context<'_>) -> Poll<bool> {
        if self.slot.as_ref().is_some_and(|slot| slot.lanes().state().closed().is_some()) {
            self.slot = None;
        }
        if self.slot.is_none() && self.waiting.is_empty() {
            self.slot = fleet.try_reserve();
            if self.slot.is_none() {
                self.waiting.extend(fleet.alive().map(|lanes| Slot::new(Arc::clone(lanes))));
            }
        }
        if self.slot.is_some() {
            return Poll::Ready(true);
        }
        // A device that is lost meanwhile wakes who waits for it; it never comes back.
        let mut best: Option<usize> = None;
        let mut at = 0;
        while let Some(slot) = self.waiting.get_mut(at) {
            match slot.poll_reserve(cx) {
                Poll::Ready(Err(_)) => {
                    self.waiting.swap_remove(at);
                    continue;
                }
                Poll::Ready(Ok(())) => {
                    let load = |at: usize| self.waiting[at].lanes().load();
                    best = Some(best.filter(|&best| load(best) <= load(at)).unwrap_or(at));
                }
                Poll::Pending => {}
            }
            at += 1;
        }
        match best {
            Some(best) => {
                self.slot = Some(self.waiting.swap_remove(best));
                self.waiting.clear();
                Poll::Ready(true)
            }
            None if self.waiting.is_empty() => Poll::Ready(false),
            None => Poll::Pending,
        }
    }

    /// The slot reserved, if there is one.
    pub(super) fn take(&mut self) -> Option<Slot> {
        self.waiting.clear();
        self.slot.take()
    }
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
                let (first, second) = two_of(count, splitmix(turn));
                assert_ne!(first, second);
                seen[first * count + second] += 1;
            }
            let pairs = (0..count * count).filter(|at| at / count != at % count);
            assert!(pairs.map(|at| seen[at]).all(|times| (9_000..11_000).contains(&times)), "{count}: {seen:?}");
        }
    }
}
