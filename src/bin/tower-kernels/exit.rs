//! What the program's exit codes mean.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use tower_kernels::error::ErrorKind;

/// Shown below every subcommand's `--help`.
pub(crate) const TABLE: &str = "\
Exit codes:
    0  done
    1  failed: a defect, requests of `bench` that failed, or what no other code says
    2  the command line or the configuration is wrong
    3  the input is wrong: no JSON, a field that does not hold what it should, too large
    4  no kernel has this id
    5  nothing here can run it: a ring kernel, or no code for the backend
    6  the time was up
    7  a device is not there or was lost, or a server cannot be reached
    8  the drain limit passed while requests were being worked on
    9  an address cannot be listened on
  130  Ctrl-C: the run was cancelled, or a drain was cut short (by SIGTERM 143, SIGHUP 129, SIGQUIT 131)";

/// What the program ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Input = 3,
    UnknownKernel = 4,
    Unsupported = 5,
    Deadline = 6,
    Unavailable = 7,
    DrainLimit = 8,
    Address = 9,
    HungUp = 129,
    Interrupted = 130,
    Quit = 131,
    Terminated = 143,
}

impl Exit {
    /// Of a kernel's error.
    pub(crate) fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument | ErrorKind::TooLarge => Self::Input,
            ErrorKind::NotFound => Self::UnknownKernel,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::DeadlineExceeded => Self::Deadline,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::Cancelled => Self::Interrupted,
            _ => Self::Failed,
        }
    }

    /// An error that ends the program with this code.
    pub(crate) fn because(self, message: impl Into<String>) -> Failure {
        Failure { exit: self, message: message.into() }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error that says what the program ends with.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for Failure {}
