//! Exit codes of the program.

use std::error::Error;
use std::fmt;
use std::process::ExitCode;

use tower_kernels::error::ErrorKind;

/// The text below the `--help` of every subcommand.
pub(crate) const TABLE: &str = "\
Exit codes:
    0  done
    1  failed: an internal error, failed requests of `bench`, or any other failure
    2  the command line or the configuration is invalid
    3  the input is invalid: not JSON, an invalid field, or too large
    4  no kernel has this id, or no operand this name
    5  the kernel cannot run here: a ring kernel, or no code for the backend
    6  the deadline was exceeded
    7  a device is missing or was lost, or a server cannot be reached
    8  the drain limit passed with requests still running
    9  cannot listen on an address
   10  the operand was changed: --if-absent or --if-match does not hold, or its public name is taken
   11  the operand does not fit into the server's memory for operands, or on its disk
  130  Ctrl-C: the run was cancelled, or a second signal ended the drain (SIGTERM 143, SIGHUP 129, SIGQUIT 131)";

/// An exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    Usage = 2,
    Input = 3,
    NotFound = 4,
    Unsupported = 5,
    Deadline = 6,
    Unavailable = 7,
    DrainLimit = 8,
    Address = 9,
    Conflict = 10,
    Storage = 11,
    HungUp = 129,
    Interrupted = 130,
    Quit = 131,
    Terminated = 143,
}

impl Exit {
    /// The exit code of an error of this kind.
    pub(crate) fn from_kind(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::InvalidArgument | ErrorKind::TooLarge => Self::Input,
            ErrorKind::NotFound => Self::NotFound,
            ErrorKind::Unsupported => Self::Unsupported,
            ErrorKind::DeadlineExceeded => Self::Deadline,
            ErrorKind::Unavailable => Self::Unavailable,
            ErrorKind::PreconditionFailed | ErrorKind::AlreadyExists => Self::Conflict,
            ErrorKind::InsufficientStorage => Self::Storage,
            ErrorKind::Cancelled => Self::Interrupted,
            _ => Self::Failed,
        }
    }

    /// An error that ends the program with this code.
    pub(crate) fn failure(self, message: impl Into<String>) -> Failure {
        Failure { exit: self, message: message.into() }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error with an exit code.
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
