//! [`Process`]: a device process that is ready, and what is known of its end.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::operands::SentOperands;
use crate::process::{Caller, Child, Exit};
use crate::text::truncated;

/// Within this a process that has closed its mailboxes has ended, and its last words are read.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest reason for the end of a process, in bytes.
const MAX_REASON: usize = 1024;
/// How often it is looked whether a process has ended.
const CHECK_INTERVAL: Duration = Duration::from_millis(1);

/// A process that is ready.
pub(super) struct Process {
    child: Child,
    callers: Mutex<Vec<Option<Caller>>>,
    /// The worker that was the last to make a call.
    last_worker: AtomicUsize,
    /// Calls in flight.
    running: AtomicUsize,
    /// How many calls were in flight when it ended.
    lost_calls: OnceLock<usize>,
    /// Why it was killed, or what it said before it ended.
    reason: OnceLock<Reason>,
    /// Whether everything that it said has been read, as it has ended.
    is_silent: AtomicBool,
    /// What it last said of its memory; null before it has.
    usage: Mutex<serde_json::Value>,
    pub(super) operands: SentOperands,
}

/// Why a process ended.
#[derive(Clone, Debug)]
enum Reason {
    /// It said so itself: the driver's words.
    Fault(String),
    /// This worker's run did not end, and its process was killed.
    Hung { worker: usize, after: Duration },
    /// Its answers made no sense, and it was killed.
    Corrupt(String),
}

/// What is known of a call whose process ended.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// It was the only one, so it is the cause.
    Guilty { reason: String },
    /// Several were running, and any of them may be the cause.
    Suspect { reason: String },
    /// The process had not begun with it.
    NotStarted,
    /// Another one is the cause.
    Innocent { reason: String },
}

impl Process {
    pub(super) fn new(child: Child, callers: Vec<Caller>) -> Self {
        Self {
            child,
            callers: Mutex::new(callers.into_iter().map(Some).collect()),
            last_worker: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            lost_calls: OnceLock::new(),
            reason: OnceLock::new(),
            is_silent: AtomicBool::new(false),
            usage: Mutex::default(),
            operands: SentOperands::default(),
        }
    }

    /// Takes the mailbox of a worker; `None` if it has been taken.
    pub(super) fn take_caller(&self, worker: usize) -> Option<Caller> {
        self.last_worker.store(worker, Ordering::Relaxed);
        self.callers.lock().get_mut(worker)?.take()
    }

    /// Wakes the partner of the worker that is the most likely to have the next job.
    pub(super) fn wake(&self) {
        let callers = self.callers.lock();
        if let Some(Some(caller)) = callers.get(self.last_worker.load(Ordering::Relaxed)) {
            caller.wake();
        }
    }

    pub(super) fn has_caller(&self, worker: usize) -> bool {
        self.callers.lock().get(worker).is_some_and(Option::is_some)
    }

    /// Gives the mailbox of a worker back.
    pub(super) fn put_caller(&self, worker: usize, caller: Caller) {
        self.callers.lock()[worker] = Some(caller);
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// How the process has ended, or `None` if it has not.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.child.exit()
    }

    /// Has `callback` called when the process has ended. It must not block.
    pub(super) fn on_exit(&self, callback: impl FnOnce() + Send + 'static) {
        self.child.on_exit(move |_| callback());
    }

    /// What the process last said of its memory; null before it has.
    pub(super) fn usage(&self) -> serde_json::Value {
        self.usage.lock().clone()
    }

    pub(super) fn set_usage(&self, usage: serde_json::Value) {
        *self.usage.lock() = usage;
    }

    /// Records that the process has said why it ends.
    pub(super) fn has_faulted(&self, reason: String) {
        // The first reason is the cause.
        let _ = self.reason.set(Reason::Fault(truncated(reason, MAX_REASON)));
    }

    /// Records that everything that the process said has been read, as it has ended.
    pub(super) fn has_fallen_silent(&self) {
        self.is_silent.store(true, Ordering::Release);
    }

    /// Counts a call for as long as the guard lives.
    pub(super) fn begin(&self) -> Running<'_> {
        self.running.fetch_add(1, Ordering::AcqRel);
        Running(self)
    }

    /// Kills the process, as a worker's run does not end.
    pub(super) fn kill_hung(&self, worker: usize, after: Duration) {
        self.kill(Reason::Hung { worker, after });
    }

    /// Kills the process, as it sends nonsense.
    pub(super) fn kill_corrupt(&self, what: String) {
        self.kill(Reason::Corrupt(what));
    }

    fn kill(&self, reason: Reason) {
        // The first reason is the cause.
        let _ = self.reason.set(reason);
        self.child.kill();
    }

    /// Judges a worker's call that this process did not end, as it has ended itself. `was_taken` says whether the process had
    /// begun with it.
    pub(super) fn judge(&self, worker: usize, was_taken: bool) -> Verdict {
        let calls = *self.lost_calls.get_or_init(|| self.running.load(Ordering::Acquire));
        let exit = self.wait_for_exit();
        let reason = self.reason.get_or_init(|| Reason::Fault(exit));
        match reason {
            _ if !was_taken => Verdict::NotStarted,
            Reason::Fault(reason) | Reason::Corrupt(reason) if calls == 1 => Verdict::Guilty { reason: reason.clone() },
            Reason::Fault(reason) | Reason::Corrupt(reason) => Verdict::Suspect { reason: reason.clone() },
            Reason::Hung { worker: hung, after } => {
                let reason = format!("a run did not end within {} s of its cancellation", after.as_secs_f64());
                if *hung == worker { Verdict::Guilty { reason } } else { Verdict::Innocent { reason } }
            }
        }
    }

    /// Waits until the process is seen to have ended and everything that it said was read. Returns how it ended.
    fn wait_for_exit(&self) -> String {
        let start = Instant::now();
        loop {
            match self.child.exit() {
                Some(exit) if self.is_silent.load(Ordering::Acquire) || start.elapsed() > END_TIMEOUT => {
                    return format!("the process ended with {exit}");
                }
                None if start.elapsed() > END_TIMEOUT => self.child.kill(),
                _ => std::thread::sleep(CHECK_INTERVAL),
            }
        }
    }
}

/// A call in flight.
pub(super) struct Running<'a>(&'a Process);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}
