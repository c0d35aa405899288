//! Why and how serving ends.

use std::io;
use std::time::Duration;

use crate::exit::Exit;

/// Why serving ends.
#[derive(Debug)]
pub(super) enum Stop {
    Signal(Signal),
    DeviceLost(String),
}

impl Stop {
    /// What the program ends with, given whether all requests in flight were answered.
    pub(super) fn exit(&self, all_answered: bool) -> Exit {
        match self {
            _ if !all_answered => Exit::DrainLimit,
            Self::Signal(_) => Exit::Done,
            Self::DeviceLost(_) => Exit::Unavailable,
        }
    }
}

pub(super) fn announce(why: &Stop, notice: Duration) {
    let why = match why {
        Stop::Signal(signal) => signal.name(),
        Stop::DeviceLost(why) => why,
    };
    tracing::info!(why, ?notice, "draining: not ready from now on, and connections are refused after the notice");
}

/// A wish that the program ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Signal {
    Interrupt,
    Terminate,
}

impl Signal {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// What the program ends with where it does so at once.
    pub(super) fn exit(self) -> Exit {
        match self {
            Self::Interrupt => Exit::Interrupted,
            Self::Terminate => Exit::Terminated,
        }
    }
}

/// Waits for signals, from when it is made.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// The next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

/// Waits for Ctrl-C, from when it is made.
#[cfg(windows)]
#[derive(Debug)]
pub(super) struct Signals {
    interrupt: tokio::signal::windows::CtrlC,
    terminate: tokio::signal::windows::CtrlShutdown,
}

#[cfg(windows)]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::windows::{ctrl_c, ctrl_shutdown};
        Ok(Self { interrupt: ctrl_c()?, terminate: ctrl_shutdown()? })
    }

    /// The next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}
