//! Child processes, as their parent sees them.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::call::Caller;
use super::control::{self, Control, Link};
use super::enter::{PARENT_VARIABLE, Setup};
use super::limits::Limits;
use super::mailbox::Mailbox;
use super::segment::Segment;
use super::watcher;
use crate::copy::CopyThreads;
use crate::sync::Mutex;

/// The longest [`ChildConfig::role`], in bytes.
const MAX_ROLE: usize = 4096;

/// How to start a child process.
#[derive(Clone, Debug)]
pub(crate) struct ChildConfig {
    /// Arguments of the program, without its name.
    pub(crate) args: Vec<OsString>,
    /// Environment variables, in addition to those of this process.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// Environment variables of this process that the child does not get.
    pub(crate) env_remove: Vec<OsString>,
    /// What the child finds as [`Inherited::role`](super::Inherited::role): at most 4 KiB.
    pub(crate) role: Vec<u8>,
    /// How many calls there can be at a time: at least one.
    pub(crate) mailboxes: usize,
    /// How long either side of a call spins before it sleeps.
    pub(crate) spin: Duration,
    /// What requests that do not fit into mailboxes may take of memory together, in bytes; and as much again for responses.
    pub(crate) shared_memory: u64,
    /// They help to copy large messages. The child has as many of its own.
    pub(crate) copy_threads: CopyThreads,
    pub(crate) limits: Limits,
}

/// A process that has been started, and the ways to it.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Child,
    /// One for each mailbox; the child has the [`Callee`](super::Callee) of the same index.
    pub(crate) callers: Vec<Caller>,
    pub(crate) control: Control,
}

/// A child process: this program again. Dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Child {
    process: Arc<Process>,
}

impl Child {
    /// Starts this program again.
    ///
    /// The child has the standard output and error of this process and a socket to it, and no other descriptors. It ends
    /// when this process does. It must call [`enter`](super::enter) first, which sets up what it gets here; if it does not
    /// get that far, its [`exit`](Self::exit) tells.
    pub(crate) fn spawn(config: &ChildConfig) -> io::Result<Spawned> {
        let invalid = |message: &str| io::Error::new(io::ErrorKind::InvalidInput, message);
        if config.role.len() > MAX_ROLE {
            return Err(invalid("role: 4096 bytes are the most"));
        }
        let len = Mailbox::segment_len(config.mailboxes).ok_or_else(|| invalid("mailboxes: at least one"))?;
        let (segment, descriptor) = Segment::create(len)?;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;

        let process = watcher::start(command(config, theirs))?;
        let killed = Arc::clone(&process);
        let setup = Setup::of(config).encode(&config.role);
        control::send(ours.as_fd(), control::SETUP, &setup, &[descriptor.as_fd()]).inspect_err(|_| process.kill())?;
        let mailboxes = Mailbox::all(segment);
        let (link, control) =
            Link::start(ours, config.shared_memory, mailboxes, config.copy_threads.clone(), move || killed.kill())
                .inspect_err(|_| process.kill())?;
        let closed = Arc::clone(&link);
        process.on_exit(Box::new(move |_| closed.close()));

        let caller = |mailbox: &Mailbox| Caller::new(Arc::clone(&link), mailbox.clone(), config.spin);
        let callers = link.mailboxes.iter().map(caller).collect();
        Ok(Spawned { child: Self { process }, callers, control })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Kills the process (`SIGKILL`). It may have ended already.
    pub(crate) fn kill(&self) {
        self.process.kill();
    }

    /// How the process has ended, or `None` if it has not.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.process.exit()
    }

    /// Has `callback` called when the process has ended, after calls to it have been ended; at once if that is so already.
    ///
    /// One thread calls the callbacks of all processes: a callback must not block.
    pub(crate) fn on_exit(&self, callback: impl FnOnce(Exit) + Send + 'static) {
        self.process.on_exit(Box::new(callback));
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn command(config: &ChildConfig, socket: OwnedFd) -> Command {
    // The file of this program may have been replaced since it was started; this is what runs.
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = std::env::args_os().next() {
        command.arg0(name);
    }
    // As its standard input: so nothing has to be done between `fork` and `exec`, and the standard library needs no `fork`,
    // which in a process with much memory takes long.
    command.args(&config.args).stdin(Stdio::from(socket));
    command.envs(config.env.iter().map(|(name, value)| (name, value)));
    for name in &config.env_remove {
        command.env_remove(name);
    }
    command.env(PARENT_VARIABLE, std::process::id().to_string());
    command
}

/// How a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
    /// Somebody else has waited for it.
    Unknown,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => match signal_name(signal) {
                Some(name) => write!(f, "signal {signal} ({name})"),
                None => write!(f, "signal {signal}"),
            },
            Self::Unknown => f.write_str("unknown exit"),
        }
    }
}

/// The names of signals that end processes.
fn signal_name(signal: i32) -> Option<&'static str> {
    Some(match Signal::from_named_raw(signal)? {
        Signal::ABORT => "SIGABRT",
        Signal::ALARM => "SIGALRM",
        Signal::BUS => "SIGBUS",
        Signal::FPE => "SIGFPE",
        Signal::HUP => "SIGHUP",
        Signal::ILL => "SIGILL",
        Signal::INT => "SIGINT",
        Signal::KILL => "SIGKILL",
        Signal::PIPE => "SIGPIPE",
        Signal::QUIT => "SIGQUIT",
        Signal::SEGV => "SIGSEGV",
        Signal::SYS => "SIGSYS",
        Signal::TERM => "SIGTERM",
        Signal::TRAP => "SIGTRAP",
        Signal::XCPU => "SIGXCPU",
        _ => return None,
    })
}

/// What to do when a process has ended.
pub(super) type ExitCallback = Box<dyn FnOnce(Exit) + Send>;

/// A process that the watcher watches.
pub(super) struct Process {
    pid: Pid,
    pidfd: OwnedFd,
    state: Mutex<ProcessState>,
}

enum ProcessState {
    Running(Vec<ExitCallback>),
    Ended(Exit),
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Process").field("pid", &self.pid).field("exit", &self.exit()).finish_non_exhaustive()
    }
}

impl Process {
    /// Starts the process. The calling thread has to be one that lives as long as this program: the child gets its signal
    /// when the thread that has started it ends.
    pub(super) fn start(mut command: Command) -> io::Result<Self> {
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        // Nobody has waited for it yet, so the number is still its own.
        let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, pidfd, state: Mutex::new(ProcessState::Running(Vec::new())) })
    }

    /// Readable when the process has ended.
    pub(super) fn pidfd(&self) -> &OwnedFd {
        &self.pidfd
    }

    fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    fn exit(&self) -> Option<Exit> {
        match &*self.state.lock() {
            ProcessState::Running(_) => None,
            ProcessState::Ended(exit) => Some(*exit),
        }
    }

    fn on_exit(&self, callback: ExitCallback) {
        let exit = match &mut *self.state.lock() {
            ProcessState::Running(callbacks) => return callbacks.push(callback),
            ProcessState::Ended(exit) => *exit,
        };
        callback(exit);
    }

    /// Says how the process has ended, and calls the callbacks.
    pub(super) fn ended(&self, exit: Exit) {
        let state = std::mem::replace(&mut *self.state.lock(), ProcessState::Ended(exit));
        if let ProcessState::Running(callbacks) = state {
            for callback in callbacks {
                // A panic of one must not end the thread that watches all processes. It has been printed.
                let _ = crate::panics::catch_panic(|| callback(exit));
            }
        }
    }
}
