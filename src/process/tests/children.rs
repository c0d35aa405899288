//! Calls to real child processes, and their ends. The children are this test program, which runs [`child_main`](super) alone.

use std::os::fd::AsFd;
use std::sync::mpsc::channel;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Resource, Signal, getrlimit, kill_process, pidfd_open};

use super::*;

/// Kinds of requests to a child.
const ECHO: u32 = 0;
const ABORT: u32 = 1;
const EXIT: u32 = 2;
const HANG: u32 = 3;
const PANIC: u32 = 4;
/// The response is a list of things that the child has tried, one a line.
const REPORT: u32 = 5;
/// The response has no room: it is sent as a short one of this kind.
const TOO_LARGE: u32 = 6;
/// The child runs until the request is cancelled.
const WAIT_FOR_CANCEL: u32 = 7;
/// The child calls [`reject_sockets`].
const REJECT_SOCKETS: u32 = 9;
/// The child sends what is no packet, and then sleeps.
const BREAK_SOCKET: u32 = 8;

/// The whole life of a child.
pub(super) fn run_child(inherited: Inherited) {
    let Inherited { role, control, callees } = inherited;
    if role == b"parent" {
        let Spawned { child, callers, control: _below } = spawn_child(0);
        control.send(&child.pid().to_ne_bytes(), &[]).unwrap();
        // Until it is killed; its own child is not told of that.
        let _ = control.recv(None);
        drop((child, callers));
        return;
    }
    let threads: Vec<_> = callees.into_iter().map(|callee| std::thread::spawn(move || serve(callee))).collect();
    for thread in threads {
        let _ = thread.join();
    }
    std::process::exit(0);
}

fn serve(mut callee: Callee) {
    while let Ok(Received { kind, head, sections }) = callee.next() {
        match kind {
            ECHO => callee.respond(Message { kind, head: &head, sections: &sections }).unwrap(),
            ABORT => std::process::abort(),
            EXIT => std::process::exit(7),
            HANG => std::thread::sleep(LONG * 10),
            PANIC => panic!("this panic is a part of the test"),
            REPORT => callee.respond(Message { kind, head: report().as_bytes(), sections: &[] }).unwrap(),
            TOO_LARGE => {
                let sections = [Bytes::from(vec![1; 4 << 20])];
                let error = callee.respond(Message { kind: ECHO, head: &[], sections: &sections }).unwrap_err();
                assert!(matches!(error, SendError::OutOfSharedMemory(_)));
                callee.respond(Message { kind, head: error.to_string().as_bytes(), sections: &[] }).unwrap();
            }
            WAIT_FOR_CANCEL => {
                while !callee.cancel_check().is_cancelled() {
                    std::thread::yield_now();
                }
                callee.respond(Message { kind, head: &[], sections: &[] }).unwrap();
            }
            REJECT_SOCKETS => {
                reject_sockets().unwrap();
                callee.respond(Message { kind, head: &[], sections: &[] }).unwrap();
            }
            BREAK_SOCKET => {
                callee.break_socket();
                std::thread::sleep(LONG * 10);
            }
            other => panic!("request {other}"),
        }
    }
}

/// What a child has and can do.
fn report() -> String {
    use rustix::net::{AddressFamily, SocketFlags, SocketType};
    let mut descriptors: Vec<_> = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| {
            let path = entry.unwrap().path();
            let target = std::fs::read_link(&path).ok()?.to_string_lossy().into_owned();
            Some(format!("{} {}", path.file_name().unwrap().to_string_lossy(), target.split(':').next().unwrap()))
        })
        .filter(|descriptor| !descriptor.ends_with("/fd"))
        .collect();
    descriptors.sort();
    let mut lines = vec![format!("descriptors: {}", descriptors[0]), format!("count: {}", descriptors.len())];
    let mut tried = |what: &str, error: Option<std::io::Error>| lines.push(format!("{what}: {error:?}"));
    let socket = |family| rustix::net::socket(family, SocketType::STREAM, None).err().map(Into::into);
    tried("unix socket", socket(AddressFamily::UNIX));
    tried("internet socket", socket(AddressFamily::INET));
    let socketpair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None);
    tried("socketpair", socketpair.err().map(Into::into));
    tried("program", std::process::Command::new("/bin/true").status().err());
    let parent = rustix::process::getppid().unwrap();
    tried("kill", kill_process(parent, Signal::TERM).err().map(Into::into));
    tried("open pidfd", pidfd_open(parent, PidfdFlags::empty()).err().map(Into::into));
    tried("unset death signal", rustix::process::set_parent_process_death_signal(None).err().map(Into::into));
    let nofile = getrlimit(Resource::Nofile);
    tried("set limit", rustix::process::setrlimit(Resource::Nofile, nofile).err().map(Into::into));
    tried("ptrace", system_call(libc::SYS_ptrace, 0));
    tried("mount", system_call(libc::SYS_mount, 0));
    tried("unshare", system_call(libc::SYS_unshare, libc::CLONE_NEWUSER.into()));
    tried("fork", system_call(libc::SYS_clone, libc::SIGCHLD.into()));
    tried("io_uring", system_call(libc::SYS_io_uring_setup, 1));
    tried("bpf", system_call(libc::SYS_bpf, 0));
    if cfg!(target_arch = "x86_64") {
        tried("x32 getpid", system_call(0x4000_0000 | libc::SYS_getpid, 0));
    }
    tried("clone3", system_call(libc::SYS_clone3, 0));
    tried("thread", std::thread::Builder::new().spawn(|| ()).err());
    tried("file", std::fs::File::open("/dev/null").err());
    tried("signal to itself", kill_process(rustix::process::getpid(), Signal::CONT).err().map(Into::into));
    lines.push(format!("nofile: {:?}", nofile.maximum));
    lines.push(format!("core: {:?}", getrlimit(Resource::Core).maximum));
    lines.push(
        std::fs::read_to_string("/proc/self/status")
            .unwrap()
            .lines()
            .find(|l| l.starts_with("NoNewPrivs"))
            .unwrap()
            .into(),
    );
    lines.join("\n")
}

/// Makes a system call whose other arguments are zero.
fn system_call(number: i64, argument: i64) -> Option<std::io::Error> {
    // SAFETY: those that are made here read no memory through a null pointer without an error of their own.
    let result = unsafe { libc::syscall(number, argument, 0, 0, 0, 0, 0) };
    (result < 0).then(std::io::Error::last_os_error)
}

fn config(shared_memory: u64) -> ChildConfig {
    ChildConfig {
        args: ["--exact", "process::tests::child_main", "--nocapture", "--quiet"].map(Into::into).into(),
        env: Vec::new(),
        env_remove: Vec::new(),
        role: b"child".to_vec(),
        mailboxes: 2,
        spin: Duration::ZERO,
        shared_memory,
        copy_threads: CopyThreads::start("test", 2).unwrap(),
        limits: Limits::default(),
    }
}

fn spawn_child(shared_memory: u64) -> Spawned {
    Child::spawn(&config(shared_memory)).unwrap()
}

pub(super) fn spawn_with(shared_memory: u64, spin: Duration) -> Spawned {
    Child::spawn(&ChildConfig { spin, ..config(shared_memory) }).unwrap()
}

/// Waits for the end of the child.
fn exit_of(child: &Child) -> Exit {
    let (sender, receiver) = channel();
    child.on_exit(move |exit| sender.send(exit).unwrap());
    let exit = receiver.recv_timeout(LONG).expect("the child does not end");
    assert_eq!(child.exit(), Some(exit));
    exit
}

#[test]
fn a_child_responds_until_it_is_killed() {
    let Spawned { child, mut callers, control } = spawn_child(64 << 20);
    assert_eq!(child.exit(), None);
    for (caller, len) in callers.iter_mut().zip([100, 3 << 20]) {
        let sections = [random_bytes(1, len), Bytes::new(), random_bytes(2, 65)];
        for kind in [ECHO, ECHO] {
            let response = call(caller, kind, b"some head", &sections).unwrap();
            assert_eq!(response.head, b"some head");
            assert!(response.sections == sections);
        }
    }
    child.kill();
    assert_eq!(exit_of(&child), Exit::Signal(9));
    assert_eq!(call(&mut callers[0], ECHO, &[], &[]).unwrap_err(), CallError::Died);
    assert_eq!(control.recv(None).unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    // It is no zombie.
    let pid = Pid::from_raw(child.pid() as i32).unwrap();
    assert!(pidfd_open(pid, PidfdFlags::empty()).is_err());
}

#[test]
fn a_child_that_ends_in_a_call_ends_that_call_and_all_others() {
    for (kind, exit, name) in [
        (ABORT, Exit::Signal(6), "signal 6 (SIGABRT)"),
        (EXIT, Exit::Code(7), "exit code 7"),
        (HANG, Exit::Signal(9), "signal 9 (SIGKILL)"),
    ] {
        let Spawned { child, callers, control: _control } = spawn_child(0);
        let [mut first, mut second] = <[Caller; 2]>::try_from(callers).unwrap();
        std::thread::scope(|scope| {
            let other = scope.spawn(move || call(&mut second, HANG, &[], &[]).unwrap_err());
            let mut poll = || {
                if kind == HANG {
                    child.kill();
                }
                Waiting::Continue
            };
            let error = first.call(Message { kind, head: &[], sections: &[] }, &mut poll).unwrap_err();
            assert_eq!(error, CallError::Died);
            assert_eq!(other.join().unwrap(), CallError::Died);
        });
        assert_eq!(exit_of(&child), exit);
        assert_eq!(exit.to_string(), name);
    }
}

#[test]
fn a_killed_child_is_noticed_at_once() {
    // The least of some, as the machine may be busy. Without a wake-up a call would end after up to 10 ms, too; that it does
    // not poll at all is what `no_wake_up_is_lost` shows.
    let least = (0..5).map(|_| kill_in_call()).min().unwrap();
    assert!(least < Duration::from_millis(50), "{least:?}");
}

/// The time from the kill to the end of the call.
pub(super) fn kill_in_call() -> Duration {
    let Spawned { child, mut callers, control: _control } = spawn_child(0);
    call(&mut callers[0], ECHO, &[], &[]).unwrap();
    let mut killed = None;
    let mut poll = || {
        if killed.is_none() {
            killed = Some(Instant::now());
            child.kill();
        }
        Waiting::Continue
    };
    let error = callers[0].call(Message { kind: HANG, head: &[], sections: &[] }, &mut poll).unwrap_err();
    assert_eq!(error, CallError::Died);
    killed.unwrap().elapsed()
}

#[test]
fn what_was_received_outlives_the_child() {
    let Spawned { child, mut callers, control } = spawn_child(64 << 20);
    let sections = [random_bytes(1, 3 << 20), random_bytes(2, 1000)];
    let response = call(&mut callers[0], ECHO, b"", &sections).unwrap();
    child.kill();
    assert_eq!(exit_of(&child), Exit::Signal(9));
    drop((child, callers, control));
    assert!(response.sections == sections);
}

#[test]
fn a_caller_gives_up_a_child_that_hangs() {
    let Spawned { child, mut callers, control: _control } = spawn_child(0);
    let mut cancelled = 0;
    let mut poll = || {
        cancelled += 1;
        if cancelled < 4 { Waiting::Cancel } else { Waiting::GiveUp }
    };
    let hang = Message { kind: HANG, head: &[], sections: &[] };
    assert_eq!(callers[0].call(hang, &mut poll).unwrap_err(), CallError::GaveUp);
    // The other mailbox works on, and cancelling one call does not cancel the other.
    let wait = Message { kind: WAIT_FOR_CANCEL, head: &[], sections: &[] };
    assert_eq!(callers[1].call(wait, &mut || Waiting::Cancel).unwrap().kind, WAIT_FOR_CANCEL);
    drop(child);
}

#[test]
fn a_thread_that_panics_in_a_call_ends_the_child() {
    let Spawned { child, mut callers, control: _control } = spawn_child(0);
    let error = CallError::Corrupt("the called thread ended without a response".to_owned());
    assert_eq!(call(&mut callers[0], PANIC, &[], &[]).unwrap_err(), error);
    assert_eq!(exit_of(&child), Exit::Signal(9));
}

#[test]
fn a_child_that_sends_what_is_no_packet_is_killed() {
    let Spawned { child, mut callers, control: _control } = spawn_child(0);
    let error = CallError::Corrupt("control packet of kind 99 with 0 descriptors".to_owned());
    assert_eq!(call(&mut callers[0], BREAK_SOCKET, &[], &[]).unwrap_err(), error);
    assert_eq!(call(&mut callers[1], ECHO, &[], &[]).unwrap_err(), error);
    assert_eq!(exit_of(&child), Exit::Signal(9));
}

#[test]
fn a_response_without_room_is_an_error_of_that_response() {
    let Spawned { child: _child, mut callers, control: _control } = spawn_child(1 << 20);
    for _ in 0..2 {
        let response = call(&mut callers[0], TOO_LARGE, &[], &[]).unwrap();
        assert_eq!(response.kind, TOO_LARGE);
        assert!(response.head.starts_with(b"4210688 bytes of shared memory needed"));
    }
    let error = call(&mut callers[0], ECHO, &[], &[Bytes::from(vec![1; 2 << 20])]).unwrap_err();
    assert!(matches!(error, CallError::OutOfSharedMemory(OutOfSharedMemory { budget: 1_048_576, .. })));
    call(&mut callers[0], ECHO, &[], &[]).unwrap();
}

#[test]
fn a_child_has_its_limits() {
    // One that is inherited, unless the child closes it.
    let _leaked = rustix::io::dup(std::fs::File::open("/dev/zero").unwrap().as_fd()).unwrap();
    let Spawned { child: _child, mut callers, control: _control } =
        Child::spawn(&ChildConfig { limits: Limits { open_files: 100, ..Limits::default() }, ..config(0) }).unwrap();
    let report = String::from_utf8(call(&mut callers[0], REPORT, &[], &[]).unwrap().head).unwrap();
    let mut lines = report.lines();
    assert_eq!(lines.next(), Some("descriptors: 0 /dev/null"));
    // The standard streams and the socket; the mailboxes are mapped.
    assert_eq!(lines.next(), Some("count: 4"));
    for line in lines {
        let (what, result) = line.split_once(':').unwrap();
        match what {
            "thread" | "file" | "signal to itself" => assert_eq!(result.trim(), "None", "{line}"),
            "clone3" => assert!(result.contains("code: 38,"), "{line}"),
            "nofile" => assert_eq!(result.trim(), "Some(100)"),
            "core" => assert_eq!(result.trim(), "Some(0)"),
            "NoNewPrivs" => assert_eq!(result.trim(), "1"),
            _ => assert!(result.contains("code: 1,"), "{line}"),
        }
    }
}

#[test]
fn a_child_can_make_local_sockets_until_it_rejects_them() {
    let limits = Limits { local_sockets: true, ..Limits::default() };
    let Spawned { child: _child, callers, control: _control } =
        Child::spawn(&ChildConfig { limits, ..config(0) }).unwrap();
    let [mut first, mut second] = <[Caller; 2]>::try_from(callers).unwrap();
    let mut socket_lines = || {
        let report = String::from_utf8(call(&mut first, REPORT, &[], &[]).unwrap().head).unwrap();
        let lines = report.lines().filter(|line| line.contains("socket")).map(|line| line.contains("code: 1,"));
        lines.collect::<Vec<_>>()
    };
    // A Unix one, an internet one, and a pair.
    assert_eq!(socket_lines(), [false, true, false]);
    // All threads reject them after one has called for that.
    call(&mut second, REJECT_SOCKETS, &[], &[]).unwrap();
    assert_eq!(socket_lines(), [true, true, true]);
}

#[test]
fn a_child_ends_with_its_parent() {
    let limits = Limits { filters_system_calls: false, ..Limits::default() };
    let Spawned { child: parent, callers: _callers, control } =
        Child::spawn(&ChildConfig { role: b"parent".to_vec(), limits, ..config(0) }).unwrap();
    let pid = i32::from_ne_bytes(control.recv(Some(LONG)).unwrap().0.try_into().unwrap());
    let grandchild = pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap();
    parent.kill();
    let timeout = LONG.try_into().unwrap();
    let ready = poll(&mut [PollFd::new(&grandchild, PollFlags::IN)], Some(&timeout)).unwrap();
    assert_eq!(ready, 1, "the child of a process that was killed still runs");
}

#[test]
fn a_child_that_is_none_says_so() {
    // Started by hand, with the variable alone.
    let output = std::process::Command::new("/proc/self/exe")
        .args(["--exact", "process::tests::child_main", "--nocapture"])
        .env("TOWER_KERNELS_PARENT_PROCESS", std::process::id().to_string())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(71));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.contains("TOWER_KERNELS_PARENT_PROCESS is set, but there is no socket to a parent"), "{stderr}");
}

#[test]
fn impossible_settings() {
    let long_role = ChildConfig { role: vec![0; 4097], ..config(0) };
    for config in [ChildConfig { mailboxes: 0, ..config(0) }, long_role] {
        assert_eq!(Child::spawn(&config).unwrap_err().kind(), std::io::ErrorKind::InvalidInput);
    }
}
