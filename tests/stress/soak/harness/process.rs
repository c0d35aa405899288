//! What the process holds of the host.

use std::time::Duration;

/// As the kernel counts it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Process {
    /// Bytes of memory.
    pub(crate) resident: u64,
    pub(crate) threads: u64,
}

impl Process {
    pub(crate) fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).expect("Linux")
        };
        Self { resident: number("VmRSS:") << 10, threads: number("Threads:") }
    }
}

/// The most that was held early and late in a run.
pub(super) struct Sizes {
    pub(super) first: Process,
    pub(super) last: Process,
}

/// Looks for `time`: the first and the last quarter of it count, a minute at most.
pub(super) async fn watch(time: Duration) -> Sizes {
    let part = (time / 4).min(Duration::from_secs(60));
    let step = part / 20;
    let first = most(part, step).await;
    tokio::time::sleep(time.saturating_sub(2 * part)).await;
    Sizes { first, last: most(part, step).await }
}

async fn most(time: Duration, step: Duration) -> Process {
    let (end, mut most) = (tokio::time::Instant::now() + time, Process::default());
    while tokio::time::Instant::now() < end {
        let now = Process::now();
        most = Process { resident: most.resident.max(now.resident), threads: most.threads.max(now.threads) };
        tokio::time::sleep(step).await;
    }
    most
}

impl Sizes {
    /// A run that leaks grows by all that it leaks; one that does not varies with what is under way at a time.
    pub(super) fn grown(&self) -> Option<String> {
        let (first, last) = (self.first.resident, self.last.resident);
        let most = first + first / 5 + (64 << 20);
        (last > most).then(|| format!("{first} bytes were resident at first and {last} at last"))
    }
}
