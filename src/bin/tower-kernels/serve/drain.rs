//! Shutdown: its reasons and the signals that start it.

use std::io;
use std::time::Duration;

use crate::exit::Exit;

/// Why the server shuts down.
#[derive(Debug)]
pub(super) enum Stop {
    Signal(Signal),
    DeviceLost(String),
}

impl Stop {
    /// The exit code, given whether all requests in flight completed.
    pub(super) fn exit(&self, all_completed: bool) -> Exit {
        match self {
            _ if !all_completed => Exit::DrainLimit,
            Self::Signal(_) => Exit::Done,
            Self::DeviceLost(_) => Exit::Unavailable,
        }
    }
}

/// Logs the start of the drain.
pub(super) fn log_start(why: &Stop, notice: Duration) {
    let why = match why {
        Stop::Signal(signal) => signal.name(),
        Stop::DeviceLost(why) => why,
    };
    tracing::info!(why, ?notice, "draining: not ready from now on; the listeners close after the notice");
}

/// A signal that ends the program.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(unix), allow(dead_code, reason = "other systems have fewer signals"))]
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

    /// The exit code if a second signal ends the drain.
    pub(super) fn exit(self) -> Exit {
        match self {
            Self::HangUp => Exit::HungUp,
            Self::Interrupt => Exit::Interrupted,
            Self::Quit => Exit::Quit,
            Self::Terminate => Exit::Terminated,
        }
    }
}

/// Receives signals from its creation on.
#[cfg(unix)]
#[derive(Debug)]
pub(super) struct Signals {
    /// `None` if SIGHUP is ignored, as under `nohup`.
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

/// Whether the program was started with SIGHUP ignored, so that it outlives its terminal. Only Linux reports this.
#[cfg(unix)]
fn ignores_hang_up() -> bool {
    const BIT_OF_SIGHUP: u64 = 1;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored & BIT_OF_SIGHUP != 0)
}

/// Receives Ctrl-C from its creation on.
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
