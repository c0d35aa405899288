//! The thread that starts all child processes and sees them end.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use super::child::{Exit, Process};

/// A process to start, and where to send what has come of it.
struct Order {
    command: Command,
    result: Sender<io::Result<Arc<Process>>>,
}

/// How other threads reach the watcher.
struct Watcher {
    orders: Sender<Order>,
    /// Written to after an order is sent.
    wake: Arc<OwnedFd>,
}

/// Starts a process that the watcher watches.
///
/// The watcher starts it, as it never ends: the kernel sends a child its signal for the death of its parent when the
/// *thread* that has started it ends.
pub(super) fn start(command: Command) -> io::Result<Arc<Process>> {
    static WATCHER: Mutex<Option<Watcher>> = Mutex::new(None);
    let gone = || io::Error::other("the thread that watches processes has ended");
    let (result, started) = channel();
    {
        let mut watcher = WATCHER.lock().unwrap_or_else(PoisonError::into_inner);
        let watcher = match &mut *watcher {
            Some(watcher) => watcher,
            none => none.insert(Watcher::start()?),
        };
        watcher.orders.send(Order { command, result }).map_err(|_| gone())?;
        rustix::io::write(&watcher.wake, &1u64.to_ne_bytes())?;
    }
    started.recv().map_err(|_| gone())?
}

impl Watcher {
    fn start() -> io::Result<Self> {
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let (sender, orders) = channel();
        let woken = Arc::clone(&wake);
        let thread = std::thread::Builder::new().name("process-watcher".to_owned());
        thread.spawn(move || watch(&orders, &woken))?;
        Ok(Self { orders: sender, wake })
    }
}

/// Runs as long as this program.
fn watch(orders: &Receiver<Order>, wake: &OwnedFd) {
    let mut processes: Vec<Arc<Process>> = Vec::new();
    loop {
        let descriptors = std::iter::once(wake).chain(processes.iter().map(|process| process.pidfd()));
        let mut polled: Vec<_> = descriptors.map(|descriptor| PollFd::new(descriptor, PollFlags::IN)).collect();
        // It fails if it is interrupted; then nothing is ready.
        let _ = poll(&mut polled, None);
        let ready: Vec<bool> = polled.iter().map(|polled| !polled.revents().is_empty()).collect();

        let mut ended = ready[1..].iter();
        processes.retain(|process| {
            let has_ended = ended.next() == Some(&true);
            if has_ended {
                process.ended(exit_of(process));
            }
            !has_ended
        });
        if ready[0] {
            let _ = rustix::io::read(wake, &mut [0; 8]);
            for Order { command, result } in orders.try_iter() {
                let process = Process::start(command).map(Arc::new);
                processes.extend(process.as_ref().ok().map(Arc::clone));
                let _ = result.send(process);
            }
        }
    }
}

/// How a process has ended, which has; it is no zombie after this.
fn exit_of(process: &Process) -> Exit {
    match waitid(WaitId::PidFd(process.pidfd().as_fd()), WaitIdOptions::EXITED) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, Some(signal)) => Exit::Signal(signal),
            (None, None) => Exit::Unknown,
        },
        _ => Exit::Unknown,
    }
}
