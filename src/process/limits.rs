//! What a child process takes from itself.

use std::collections::BTreeMap;
use std::io;

use rustix::process::{Resource, Rlimit, setrlimit};
use rustix::thread::set_no_new_privs;
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, apply_filter_all_threads, sock_filter,
};

/// What a child process may not do.
///
/// A filter of system calls stands against what a kernel that has been taken over could do to others: reach a network, start
/// programs, change the system, and touch other processes. What it leaves are files, under the permissions of the process,
/// devices, and threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limits {
    /// How many descriptors the process may have. A CUDA context takes some tens for each device.
    pub(crate) open_files: u64,
    /// Whether system calls are filtered. Without that, only `no_new_privs` is set.
    pub(crate) filters_system_calls: bool,
    /// Whether the process can make Unix sockets until it calls [`reject_sockets`]. The CUDA driver makes one in `cuInit`,
    /// which fails without, and none when it opens devices or runs kernels (seen with an H200).
    pub(crate) local_sockets: bool,
}

impl Default for Limits {
    fn default() -> Self {
        Self { open_files: 1024, filters_system_calls: true, local_sockets: false }
    }
}

impl Limits {
    /// Sets the limits on this process, all threads of it. They can only be tightened afterwards.
    pub(super) fn apply(self) -> io::Result<()> {
        let limit = |value| Rlimit { current: Some(value), maximum: Some(value) };
        // The memory of a process that has faulted holds its requests.
        setrlimit(Resource::Core, limit(0))?;
        // Where the process may have fewer still, it keeps that.
        let files = rustix::process::getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, limit(files.map_or(self.open_files, |files| files.min(self.open_files))))?;
        set_no_new_privs(true)?;
        if self.filters_system_calls {
            apply(filters())?;
            apply(socket_filter(self.local_sockets))?;
        }
        Ok(())
    }
}

/// Ends what [`Limits::local_sockets`] allows. Sockets that the process has, it can use.
pub(crate) fn reject_sockets() -> io::Result<()> {
    apply(socket_filter(false))
}

fn apply(programs: Result<Vec<BpfProgram>, BackendError>) -> io::Result<()> {
    for program in programs.map_err(io::Error::other)? {
        apply_filter_all_threads(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

/// The program that rejects new sockets: all of them, or all that are no Unix sockets. What can then be done with a socket
/// cannot be told by its descriptor, so `connect` and the like are rejected only with all of them.
fn socket_filter(local_sockets: bool) -> Result<Vec<BpfProgram>, BackendError> {
    let mut rejected = BTreeMap::new();
    for call in [libc::SYS_socket, libc::SYS_socketpair] {
        let rules = if local_sockets { when(0, SeccompCmpOp::Ne, libc::AF_UNIX as u64)? } else { Vec::new() };
        rejected.insert(call, rules);
    }
    if !local_sockets {
        rejected.extend([libc::SYS_connect, libc::SYS_bind, libc::SYS_listen].map(|call| (call, Vec::new())));
    }
    Ok(vec![program(rejected, libc::EPERM)?])
}

/// System calls that fail with `EPERM`.
const REJECTED: &[libc::c_long] = &[
    // Sockets are `socket_filter`'s. A ring of the kernel's makes sockets, too, and no filter sees it.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_fork,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_vfork,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_kcmp,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_tkill,
    // File systems and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_quotactl,
    // The kernel and the machine.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_kexec_file_load,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The limits themselves.
    libc::SYS_setrlimit,
];

/// The filters of everything but sockets. What matches none is allowed.
fn filters() -> Result<Vec<BpfProgram>, BackendError> {
    let me = u64::from(std::process::id());
    let mut rejected: BTreeMap<i64, Vec<SeccompRule>> = REJECTED.iter().map(|&call| (call, Vec::new())).collect();
    // A new process: threads have this flag.
    let thread = libc::CLONE_THREAD as u64;
    rejected.insert(libc::SYS_clone, when(0, SeccompCmpOp::MaskedEq(thread), 0)?);
    // Signals, but to itself: `abort` is one.
    for call in [libc::SYS_kill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo] {
        rejected.insert(call, when(0, SeccompCmpOp::Ne, me)?);
    }
    // Reading limits is this call as well, with a null pointer for the new ones.
    let new_limits = SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
    rejected.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![new_limits])?]);
    // To outlive the parent.
    rejected.insert(libc::SYS_prctl, when(0, SeccompCmpOp::Eq, libc::PR_SET_PDEATHSIG as u64)?);
    // Its flags are in memory, where a filter does not see them. C libraries start a thread by `clone` where it is missing.
    let missing = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);

    let mut programs = vec![program(rejected, libc::EPERM)?, program(missing, libc::ENOSYS)?];
    if cfg!(target_arch = "x86_64") {
        programs.push(reject_x32());
    }
    Ok(programs)
}

/// Rules that hold where the lower half of an argument is such.
fn when(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<Vec<SeccompRule>, BackendError> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
    Ok(vec![SeccompRule::new(vec![condition])?])
}

/// A filter that has these calls fail with this error.
fn program(calls: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    SeccompFilter::new(calls, SeccompAction::Allow, SeccompAction::Errno(error as u32), arch)?.try_into()
}

/// Rejects system calls by the numbers of the x32 ABI: with them, kernels that have it take every call under a second number.
fn reject_x32() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let number = std::mem::offset_of!(libc::seccomp_data, nr) as u32;
    let instruction = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    vec![
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, number),
        instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, 0, 1, X32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}
