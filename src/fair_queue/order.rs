//! [`FairQueue`]: orders tasks fairly among shares by run time, and by priority within a share.
//!
//! This is start-time fair queueing, as in the [priority queue](crate::middleware::priority_queue), with run time as the
//! cost: taking a task advances its share's tag by the task's expected run time over the share's weight, which is corrected
//! to the actual run time once the task has run. A share that was idle starts again at the virtual time, so it gets no
//! credit for its idle time.

use std::collections::VecDeque;
use std::time::Duration;

use crate::request::{Priority, Share};

/// The properties of a task that decide when it is taken.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueKey {
    pub(crate) share: Share,
    pub(crate) priority: Priority,
    /// The expected run time.
    pub(crate) expected: Duration,
}

/// The run time that a share was charged for a task that was taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Charge {
    share: Share,
    /// Nanoseconds.
    expected: u64,
}

#[derive(Debug)]
pub(super) struct FairQueue<T> {
    /// The shares with waiting or running tasks, and those whose tag is ahead of virtual time. There are rarely more of them
    /// than tasks, so they are searched linearly.
    flows: Vec<Flow<T>>,
    /// Nanoseconds of run time that a share of weight 1 has received.
    virtual_time: u64,
    len: usize,
}

#[derive(Debug)]
struct Flow<T> {
    key: u32,
    weight: u64,
    tag: u64,
    running: usize,
    /// The waiting tasks by priority, from the lowest on, with their expected nanoseconds.
    waiting: [VecDeque<(T, u64)>; 3],
    /// By priority, how many tasks of higher priorities were taken while a task of this one waited.
    passed_over: [u32; 3],
}

/// How many tasks of higher priorities are taken before a waiting one of a lower priority of the same share.
const MAX_PASSED_OVER: u32 = 16;

/// How many idle shares are remembered because their tag is ahead of virtual time.
const MAX_IDLE_FLOWS: usize = 1024;

impl<T> Flow<T> {
    fn new(share: Share, tag: u64) -> Self {
        let weight = share.weight().get().into();
        Self { key: share.key(), weight, tag, running: 0, waiting: Default::default(), passed_over: [0; 3] }
    }

    fn has_waiting(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.is_empty())
    }

    /// Returns whether it has neither waiting nor running tasks.
    fn is_idle(&self) -> bool {
        self.running == 0 && !self.has_waiting()
    }

    fn pop(&mut self) -> Option<(T, u64)> {
        let has_waiting = |priority: &usize| !self.waiting[*priority].is_empty();
        let highest = (0..3).rev().find(has_waiting)?;
        let overdue = (0..highest).rev().filter(has_waiting).find(|&lower| self.passed_over[lower] >= MAX_PASSED_OVER);
        let priority = overdue.unwrap_or(highest);
        for lower in 0..priority {
            self.passed_over[lower] = if self.waiting[lower].is_empty() { 0 } else { self.passed_over[lower] + 1 };
        }
        self.passed_over[priority] = 0;
        self.waiting[priority].pop_front()
    }
}

impl<T> FairQueue<T> {
    pub(super) fn new() -> Self {
        Self { flows: Vec::new(), virtual_time: 0, len: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, task: T, key: QueueKey) {
        let virtual_time = self.virtual_time;
        let flow = self.flow(key.share);
        if !flow.has_waiting() {
            flow.tag = flow.tag.max(virtual_time);
        }
        flow.waiting[key.priority as usize].push_back((task, nanos(key.expected)));
        self.len += 1;
    }

    /// Takes the next task. Its share is charged the expected run time until [`complete`](Self::complete) corrects it.
    pub(super) fn pop(&mut self) -> Option<(T, Charge)> {
        let waiting = self.flows.iter_mut().filter(|flow| flow.has_waiting());
        let flow = waiting.min_by_key(|flow| flow.tag)?;
        let (task, expected) = flow.pop()?;
        self.len -= 1;
        self.virtual_time = self.virtual_time.max(flow.tag);
        flow.tag = flow.tag.saturating_add(expected / flow.weight);
        flow.running += 1;
        let weight = u16::try_from(flow.weight).ok().and_then(std::num::NonZeroU16::new);
        let share = Share::new(flow.key, weight.unwrap_or(std::num::NonZeroU16::MIN));
        Some((task, Charge { share, expected }))
    }

    /// Starts a task of the share that was not taken from this queue. It is charged when it [completes](Self::complete).
    pub(super) fn charge(&mut self, share: Share) -> Charge {
        self.flow(share).running += 1;
        Charge { share, expected: 0 }
    }

    /// Corrects the charge for a task to the time that it has run.
    pub(super) fn complete(&mut self, charge: Charge, ran: Duration) {
        let flow = self.flow(charge.share);
        flow.running = flow.running.saturating_sub(1);
        let charged = charge.expected / flow.weight;
        flow.tag = flow.tag.saturating_add(nanos(ran) / flow.weight).saturating_sub(charged);
        let virtual_time = self.virtual_time;
        if self.len == 0 && self.flows.iter().all(Flow::is_idle) {
            self.flows.clear();
            self.virtual_time = 0;
        } else {
            self.flows.retain(|flow| !flow.is_idle() || flow.tag > virtual_time);
        }
    }

    fn flow(&mut self, share: Share) -> &mut Flow<T> {
        let known = self.flows.iter().position(|flow| flow.key == share.key());
        let at = known.unwrap_or_else(|| {
            if self.flows.iter().filter(|flow| flow.is_idle()).count() >= MAX_IDLE_FLOWS {
                let idle = self.flows.iter().enumerate().filter(|(_, flow)| flow.is_idle());
                let least = idle.min_by_key(|(_, flow)| flow.tag).map(|(at, _)| at);
                least.map(|at| self.flows.swap_remove(at));
            }
            self.flows.push(Flow::new(share, self.virtual_time));
            self.flows.len() - 1
        });
        let flow = &mut self.flows[at];
        flow.weight = share.weight().get().into();
        flow
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::num::NonZeroU16;

    const MILLI: Duration = Duration::from_millis(1);

    fn share(key: u32, weight: u16) -> Share {
        Share::new(key, NonZeroU16::new(weight).unwrap())
    }

    fn entry(share: Share, expected: Duration) -> QueueKey {
        QueueKey { share, expected, ..QueueKey::default() }
    }

    /// Runs tasks, which are the time that they take and their share, on so many workers until `until`.
    fn run(queue: &mut FairQueue<(Duration, u32)>, workers: usize, until: Duration) -> Vec<Duration> {
        let mut given = vec![Duration::ZERO; 5];
        let mut running: Vec<(Duration, Charge, Duration)> = Vec::new();
        let mut now = Duration::ZERO;
        loop {
            while running.len() < workers
                && let Some(((takes, share), charge)) = queue.pop()
            {
                given[share as usize] += takes;
                running.push((now + takes, charge, takes));
            }
            let next = running.iter().map(|(end, ..)| *end).min();
            let Some(next) = next.filter(|next| *next <= until) else { return given };
            now = next;
            let at = running.iter().position(|(end, ..)| *end == now).unwrap();
            let (_, charge, took) = running.swap_remove(at);
            queue.complete(charge, took);
        }
    }

    #[test]
    fn shares_that_wait_are_given_time_by_their_weights_whatever_their_tasks_take_and_say() {
        let mut queue = FairQueue::new();
        // The first says that its tasks take next to nothing.
        for (key, weight, takes, says) in
            [(1, 1, MILLI * 50, MILLI / 1000), (2, 1, MILLI, MILLI), (3, 2, MILLI * 7, MILLI * 700)]
        {
            for _ in 0..10_000 {
                queue.push((takes, key), entry(share(key, weight), says));
            }
        }
        let given = run(&mut queue, 3, MILLI * 4000);
        for (key, expected) in [(1, 3000), (2, 3000), (3, 6000)] {
            let off = given[key].as_secs_f64() / (MILLI * expected).as_secs_f64() - 1.0;
            assert!(off.abs() < 0.1, "share {key} was given {:?} of {expected} ms", given[key]);
        }
    }

    #[test]
    fn one_who_comes_back_is_next_and_owed_nothing_for_the_time_before() {
        let mut queue = FairQueue::new();
        (0..100).for_each(|n| queue.push(n, entry(share(1, 1), MILLI)));
        for _ in 0..50 {
            let (_, charge) = queue.pop().unwrap();
            queue.complete(charge, MILLI);
        }
        (100..104).for_each(|n| queue.push(n, entry(share(2, 1), MILLI)));
        let order: Vec<_> = std::iter::from_fn(|| queue.pop().map(|(task, _)| task)).take(8).collect();
        let late = order.iter().filter(|&&task| task >= 100).count();
        assert_eq!(late, 4, "{order:?}");
        assert!(order[..2].contains(&100), "{order:?}");
    }

    #[test]
    fn within_a_share_the_higher_priority_is_next_and_the_lower_has_every_seventeenth_turn() {
        let mut queue = FairQueue::new();
        for priority in [Priority::Low, Priority::High] {
            (0..40).for_each(|_| queue.push(priority, QueueKey { priority, ..QueueKey::default() }));
        }
        let order: Vec<_> = std::iter::from_fn(|| queue.pop().map(|(priority, _)| priority)).collect();
        assert!(order[..16].iter().all(|&priority| priority == Priority::High));
        assert_eq!((order[16], order[17], order.len()), (Priority::Low, Priority::High, 80));
        // Another share's low priority does not wait for this one's high.
        let mut queue = FairQueue::new();
        (0..40).for_each(|_| queue.push(1, QueueKey { priority: Priority::High, ..entry(share(1, 1), MILLI) }));
        (0..40).for_each(|_| queue.push(2, QueueKey { priority: Priority::Low, ..entry(share(2, 1), MILLI) }));
        let first = std::iter::from_fn(|| queue.pop()).take(20).filter(|(share, _)| *share == 2).count();
        assert_eq!(first, 10);
    }

    #[test]
    fn shares_with_nothing_to_do_are_forgotten() {
        let mut queue = FairQueue::new();
        queue.push(0, entry(share(1, 1), MILLI));
        for key in 2..10_000 {
            queue.push(key, entry(share(key, 1), MILLI));
            let (_, charge) = queue.pop().unwrap();
            queue.complete(charge, MILLI * 5);
        }
        assert!(queue.flows.len() <= MAX_IDLE_FLOWS + 2, "{} are known", queue.flows.len());
        while let Some((_, charge)) = queue.pop() {
            queue.complete(charge, MILLI);
        }
        assert!(queue.flows.is_empty());
    }
}
