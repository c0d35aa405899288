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
#[cfg_attr(not(unix), allow(dead_code, reason = "there are fewer elsewhere"))]
pub(super) enum Signal {
    HangUp,
    Interrupt,
    Quit,
    Terminate,
}

impl Signal {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::HangUp => "SIGHUP",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Terminate => "SIGTERM",
        }
    }

    /// What the program ends with where it does so at once.
    pub(super) fn exit(self) -> Exit {
        match self {
            Self::HangUp => Exit::HungUp,
            Self::Interrupt => Exit::Interrupted,
            Self::Quit => Exit::Quit,
            Self::Terminate => Exit::Terminated,
        }
    }
}

/// Waits for signals, from when it is made.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Signals {
    /// `None` where it is ignored, as `nohup` has it.
    hang_up: Option<tokio::signal::unix::Signal>,
    interrupt: tokio::signal::unix::Signal,
    quit: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let hang_up = if ignores_hang_up() { None } else { Some(signal(SignalKind::hangup())?) };
        Ok(Self {
            hang_up,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// The next signal. Cancel safe.
    pub(super) async fn next(&mut self) -> Signal {
        let hang_up = async {
            match &mut self.hang_up {
                Some(hang_up) => hang_up.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = hang_up => Signal::HangUp,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.quit.recv() => Signal::Quit,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

/// Whether the program was started with SIGHUP ignored, so that it outlives its terminal. Elsewhere than on Linux nothing
/// tells, and it is not taken to be.
#[cfg(unix)]
fn ignores_hang_up() -> bool {
    const BIT_OF_SIGHUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored & BIT_OF_SIGHUP != 0)
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
