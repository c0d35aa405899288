//! The start of a child process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::net::{SocketType, sockopt};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use super::call::Callee;
use super::child::ChildConfig;
use super::control::{self, Control, Link};
use super::limits::Limits;
use super::mailbox::Mailbox;
use super::segment::Segment;
use crate::copy::CopyThreads;

/// The environment variable by which a process knows that it is a child: the number of its parent.
pub(super) const PARENT_VARIABLE: &str = "TOWER_KERNELS_PARENT_PROCESS";

/// The exit code of a child that cannot be set up: `EX_OSERR`.
const EXIT_CODE: i32 = 71;

/// How long the parent may take to say what the child is.
const SETUP_TIMEOUT: Duration = Duration::from_secs(30);

/// What a child process has from its parent.
#[derive(Debug)]
pub(crate) struct Inherited {
    /// The parent's [`ChildConfig::role`].
    pub(crate) role: Vec<u8>,
    pub(crate) control: Control,
    /// One for each mailbox.
    pub(crate) callees: Vec<Callee>,
}

/// In a child of [`Child::spawn`](super::Child::spawn), sets its limits and returns what it has from its parent; in any
/// other process returns `None`.
///
/// It must be called at the very start of `main`, before a thread is started or a file opened: it closes all descriptors but
/// those of the standard streams. The thread that calls it must live as long as the process, as the kernel remembers the
/// signal for the end of the parent with that thread. A child that cannot be set up says why on its standard error, and exits with code 71.
pub(crate) fn enter() -> Option<Inherited> {
    let parent = std::env::var(PARENT_VARIABLE).ok()?;
    match set_up(&parent) {
        Ok(inherited) => Some(inherited),
        Err(error) => {
            eprintln!("child process {}: {error}", std::process::id());
            std::process::exit(EXIT_CODE);
        }
    }
}

fn set_up(parent: &str) -> io::Result<Inherited> {
    ignore_signals()?;
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // The signal is for deaths from now on.
    if getppid().map(|pid| pid.as_raw_nonzero().to_string()).as_deref() != Some(parent) {
        return Err(io::Error::other("its parent has ended"));
    }
    close_others()?;
    let socket = take_socket()?;
    let (setup, role, mailboxes) = receive_setup(&socket)?;
    setup.limits.apply()?;
    let copy_threads = CopyThreads::start("process", setup.copy_threads).map_err(io::Error::other)?;
    // The parent cannot be ended from here; its own thread ends if the connection does.
    let (link, control) = Link::start(socket, setup.shared_memory, mailboxes, copy_threads, || ())?;
    let callee = |mailbox: &Mailbox| Callee::new(Arc::clone(&link), mailbox.clone(), setup.spin);
    let callees = link.mailboxes.iter().map(callee).collect();
    Ok(Inherited { role, control, callees })
}

/// Ignores the signals that a terminal, a shell or a service manager sends to all processes of a program at once. The parent
/// handles them, and needs this process until the last request has ended; then it ends with the parent.
fn ignore_signals() -> io::Result<()> {
    for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGUSR1, libc::SIGUSR2] {
        // SAFETY: takes no pointers, and installs no code as a handler.
        if unsafe { libc::signal(signal, libc::SIG_IGN) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Ends this process at once: no destructor runs, and no other thread goes on.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes no pointers, and does not return.
    unsafe { libc::_exit(code) }
}

/// Closes the descriptors from 3 on, which the parent had open without `O_CLOEXEC`.
fn close_others() -> io::Result<()> {
    // SAFETY: takes no pointers. As `enter` requires, nothing in this process has opened a descriptor yet.
    match unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Takes the socket to the parent, which is the standard input; that then reads nothing.
fn take_socket() -> io::Result<OwnedFd> {
    let stdin = io::stdin();
    if sockopt::socket_type(&stdin).ok() != Some(SocketType::SEQPACKET) {
        return Err(io::Error::other(format!("{PARENT_VARIABLE} is set, but there is no socket to a parent")));
    }
    let socket = fcntl_dupfd_cloexec(&stdin, 3)?;
    rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?)?;
    Ok(socket)
}

fn receive_setup(socket: &OwnedFd) -> io::Result<(Setup, Vec<u8>, Vec<Mailbox>)> {
    let timeout = SETUP_TIMEOUT.try_into().map_err(io::Error::other)?;
    if poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&timeout))? == 0 {
        return Err(io::Error::new(io::ErrorKind::TimedOut, "no setup from the parent"));
    }
    let packet = control::receive(socket.as_fd()).map_err(io::Error::other)?;
    let Some((control::SETUP, (bytes, descriptors))) = packet else {
        return Err(io::Error::other("no setup from the parent"));
    };
    let (setup, role) = Setup::decode(&bytes).ok_or_else(|| io::Error::other("the setup is too short"))?;
    let [descriptor] = &descriptors[..] else {
        return Err(io::Error::other("the setup has no descriptor of the mailboxes"));
    };
    Ok((setup, role.to_vec(), Mailbox::all(Segment::from_fd(descriptor)?)))
}

/// The part of a [`ChildConfig`] that the child has to know. Both processes are the same program, so its form is free to
/// change.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Setup {
    spin: Duration,
    shared_memory: u64,
    copy_threads: usize,
    limits: Limits,
}

impl Setup {
    pub(super) fn of(config: &ChildConfig) -> Self {
        Self {
            spin: config.spin,
            shared_memory: config.shared_memory,
            copy_threads: config.copy_threads.count(),
            limits: config.limits,
        }
    }

    /// Six numbers, and the role.
    pub(super) fn encode(&self, role: &[u8]) -> Vec<u8> {
        let spin = u64::try_from(self.spin.as_nanos()).unwrap_or(u64::MAX);
        let Limits { open_files, filters_system_calls, local_sockets } = self.limits;
        let copy_threads = self.copy_threads as u64;
        let numbers = [
            spin,
            self.shared_memory,
            copy_threads,
            open_files,
            u64::from(filters_system_calls),
            u64::from(local_sockets),
        ];
        numbers.iter().flat_map(|number| number.to_ne_bytes()).chain(role.iter().copied()).collect()
    }

    fn decode(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (numbers, role) = bytes.split_at_checked(48)?;
        let number = |index: usize| numbers[8 * index..][..8].try_into().map(u64::from_ne_bytes).ok();
        let limits =
            Limits { open_files: number(3)?, filters_system_calls: number(4)? != 0, local_sockets: number(5)? != 0 };
        let (spin, copy_threads) = (Duration::from_nanos(number(0)?), usize::try_from(number(2)?).ok()?);
        Some((Self { spin, shared_memory: number(1)?, copy_threads, limits }, role))
    }
}
