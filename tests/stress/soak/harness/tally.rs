//! How requests ended, by kernel and outcome, and how long they took.

use std::collections::BTreeMap;
use std::time::Duration;

use tower_kernels::middleware::metrics::EndedCalls;

/// How requests ended.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    kernels: BTreeMap<&'static str, OfKernel>,
    /// What is no way to end, the first few in words.
    pub(crate) wrong: Vec<String>,
    further_wrong: u64,
    pub(crate) checked: u64,
    /// Of inputs and outputs of what ended well.
    pub(crate) bytes: u64,
}

#[derive(Debug, Default)]
struct OfKernel {
    outcomes: BTreeMap<&'static str, u64>,
    /// Of those that ended well.
    times: Times,
}

/// So many complaints are kept in words.
const WORDS: usize = 20;

impl Tally {
    pub(super) fn count(&mut self, kernel: &'static str, outcome: &'static str, time: Duration) {
        let of_kernel = self.kernels.entry(kernel).or_default();
        *of_kernel.outcomes.entry(outcome).or_default() += 1;
        if outcome == "ok" {
            of_kernel.times.add(time);
        }
    }

    pub(super) fn wrong(&mut self, text: String) {
        if self.wrong.len() < WORDS { self.wrong.push(text) } else { self.further_wrong += 1 }
    }

    pub(super) fn add(&mut self, other: &Self) {
        for (kernel, theirs) in &other.kernels {
            let ours = self.kernels.entry(kernel).or_default();
            for (outcome, count) in &theirs.outcomes {
                *ours.outcomes.entry(outcome).or_default() += count;
            }
            ours.times.merge(&theirs.times);
        }
        other.wrong.iter().for_each(|text| self.wrong(text.clone()));
        self.further_wrong += other.further_wrong;
        self.checked += other.checked;
        self.bytes += other.bytes;
    }

    pub(crate) fn requests(&self) -> u64 {
        self.kernels.values().flat_map(|of_kernel| of_kernel.outcomes.values()).sum()
    }

    pub(crate) fn of(&self, kernel: &str, outcome: &str) -> u64 {
        self.kernels.get(kernel).and_then(|of_kernel| of_kernel.outcomes.get(outcome)).copied().unwrap_or(0)
    }

    /// What the metrics count otherwise.
    pub(super) fn against(&self, ended: &[EndedCalls]) -> Vec<String> {
        let mut theirs = BTreeMap::<(&str, &str), u64>::new();
        for calls in ended.iter().filter(|calls| calls.count > 0) {
            *theirs.entry((&calls.operation, calls.outcome)).or_default() += calls.count;
        }
        let mut wrong = Vec::new();
        if self.further_wrong > 0 {
            wrong.push(format!("{} more of the complaints above", self.further_wrong));
        }
        for (kernel, of_kernel) in &self.kernels {
            for (outcome, &ours) in &of_kernel.outcomes {
                let theirs = theirs.remove(&(kernel, outcome)).unwrap_or(0);
                if theirs != ours {
                    wrong.push(format!("{kernel}: {ours} ended as {outcome}, and the metrics count {theirs}"));
                }
            }
        }
        let more = |((kernel, outcome), count)| {
            format!("{kernel}: the metrics count {count} that ended as {outcome}, and none did")
        };
        wrong.extend(theirs.into_iter().map(more));
        wrong
    }

    pub(super) fn print(&self, time: Duration) {
        println!("{:<32}{:>10}{:>10}{:>10}   outcomes", "kernel", "requests", "p50 µs", "p99 µs");
        let mut sums = BTreeMap::<&str, u64>::new();
        for (kernel, OfKernel { outcomes, times }) in &self.kernels {
            let all: u64 = outcomes.values().sum();
            let list: Vec<_> = outcomes.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
            outcomes.iter().for_each(|(outcome, count)| *sums.entry(outcome).or_default() += count);
            println!("{kernel:<32}{all:>10}{:>10}{:>10}   {}", times.at(0.5), times.at(0.99), list.join(", "));
        }
        let list: Vec<_> = sums.iter().map(|(outcome, count)| format!("{outcome} {count}")).collect();
        println!("{:<32}{:>10}{:>20}   {}", "all", self.requests(), "", list.join(", "));
        let rate = self.requests() as f64 / time.as_secs_f64();
        let moved = self.bytes as f64 / 1e9;
        println!("{rate:.0} requests/s, {} answers compared with the CPU's, {moved:.1} GB in and out", self.checked);
    }
}

/// Counts of times in buckets that are 1/32 wider than the one before, so that a long run takes no more memory than a
/// short one.
#[derive(Debug)]
pub(crate) struct Times(Vec<u64>);

impl Default for Times {
    fn default() -> Self {
        Self(vec![0; 33 * 32])
    }
}

impl Times {
    pub(crate) fn add(&mut self, time: Duration) {
        let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        self.0[bucket(micros)] += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(ours, theirs)| *ours += theirs);
    }

    /// Microseconds.
    pub(crate) fn at(&self, share: f64) -> u64 {
        let all: u64 = self.0.iter().sum();
        let mut left = (all as f64 * share) as u64;
        for (index, &count) in self.0.iter().enumerate() {
            if left < count {
                return start(index);
            }
            left -= count;
        }
        0
    }
}

/// Five bits after the leading one.
fn bucket(micros: u32) -> usize {
    if micros < 32 {
        return micros as usize;
    }
    let shift = micros.ilog2() - 5;
    ((shift as usize + 1) << 5) + (micros >> shift) as usize - 32
}

fn start(bucket: usize) -> u64 {
    if bucket < 32 { bucket as u64 } else { (32 + (bucket as u64 & 31)) << ((bucket >> 5) - 1) }
}
