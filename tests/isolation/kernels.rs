//! Kernels that end their process in each of several ways, and some that do not.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_kernels::service::{
    BatchKey, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, RunContext,
};

/// The kernels of this program, in the server and in device processes.
pub(crate) fn registry() -> KernelRegistry {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    for (id, pure) in [("test/act", true), ("test/impure", false)] {
        registry.register(Acts { id, pure }).unwrap();
    }
    registry.register(Shares).unwrap();
    registry
}

/// What a run does.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Act {
    /// Answers after this many milliseconds, or when it is cancelled.
    Sleep(u64),
    /// The same, but is deaf to its cancellation.
    SleepDeaf(u64),
    Abort,
    Exit(i32),
    WriteToNull,
    Trap,
    OverflowStack,
    Panic,
    Fail,
    /// Creates a file when it starts, and removes it when it ends.
    Mark(PathBuf),
    /// Fails unless it cannot open a socket, start a program or see another descriptor than it has to.
    TryToEscape,
}

/// Long enough that its estimate says so.
const OPERATIONS: u64 = 10_000_000;

struct Acts {
    id: &'static str,
    pure: bool,
}

impl Kernel for Acts {
    type Input = Act;
    /// The process that ran it.
    type Output = u32;

    fn info(&self) -> KernelInfo {
        let info = KernelInfo::new(self.id, "1", "A test.");
        if self.pure { info.pure() } else { info }
    }

    fn validate(&self, _: &Act) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Act) -> Cost {
        Cost { operations: OPERATIONS, ..Cost::default() }
    }

    fn run_cpu(&self, act: &Act, context: &RunContext<'_>) -> Result<u32, KernelError> {
        act.run(context)?;
        Ok(std::process::id())
    }
}

impl Act {
    fn run(&self, context: &RunContext<'_>) -> Result<(), KernelError> {
        match self {
            Self::Sleep(millis) => sleep(*millis, || context.check()),
            Self::SleepDeaf(millis) => sleep(*millis, || Ok(())),
            Self::Abort => std::process::abort(),
            Self::Exit(code) => std::process::exit(*code),
            // SAFETY: none: that is the test.
            Self::WriteToNull => unsafe {
                std::ptr::null_mut::<u8>().with_addr(8).write_volatile(1);
                Ok(())
            },
            // SAFETY: ends the process.
            #[cfg(target_arch = "x86_64")]
            Self::Trap => unsafe { std::arch::asm!("ud2", options(noreturn)) },
            #[cfg(not(target_arch = "x86_64"))]
            Self::Trap => std::process::abort(),
            Self::OverflowStack => {
                overflow(1);
                Ok(())
            }
            Self::Panic => panic!("on purpose"),
            Self::Fail => Err(KernelError::kernel("failed on purpose")),
            Self::Mark(path) => {
                std::fs::write(path, b"").unwrap();
                let result = sleep(60_000, || context.check());
                std::fs::remove_file(path).unwrap();
                result
            }
            Self::TryToEscape => try_to_escape(),
        }
    }
}

fn sleep(millis: u64, check: impl Fn() -> Result<(), KernelError>) -> Result<(), KernelError> {
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(millis) {
        check()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[allow(unconditional_recursion, reason = "that is the test")]
#[inline(never)]
fn overflow(depth: u64) -> u64 {
    let room = std::hint::black_box([depth; 512]);
    overflow(room[7] + 1) + room[9]
}

fn try_to_escape() -> Result<(), KernelError> {
    let denied = |what: &str, kind: std::io::ErrorKind| match kind {
        std::io::ErrorKind::PermissionDenied => Ok(()),
        other => Err(KernelError::kernel(format!("{what}: {other}"))),
    };
    let allowed = |what: &str| Err(KernelError::kernel(format!("{what} is allowed")));
    match std::net::TcpListener::bind("127.0.0.1:0") {
        Ok(_) => allowed("a socket")?,
        Err(error) => denied("a socket", error.kind())?,
    }
    match std::process::Command::new("/bin/true").spawn() {
        Ok(_) => allowed("a program")?,
        Err(error) => denied("a program", error.kind())?,
    }
    let descriptors = std::fs::read_dir("/proc/self/fd").map_err(KernelError::kernel)?;
    for descriptor in descriptors.flatten() {
        let target = std::fs::read_link(descriptor.path()).unwrap_or_default();
        let target = target.to_string_lossy();
        // The listening sockets of other tests, and files.
        if target.contains("listener-of-the-parent") {
            return allowed("a descriptor of the parent");
        }
    }
    Ok(())
}

/// Adds one to each number; several inputs share a run. A negative number aborts the process.
struct Shares;

impl Kernel for Shares {
    type Input = i64;
    type Output = i64;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/shares", "1", "A test.").pure()
    }

    fn validate(&self, _: &i64) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &i64) -> Cost {
        Cost { operations: OPERATIONS / 100, ..Cost::default() }
    }

    fn batch_key(&self, _: &i64) -> Option<BatchKey> {
        Some(BatchKey::exact(0))
    }

    fn run_cpu(&self, input: &i64, _: &RunContext<'_>) -> Result<i64, KernelError> {
        std::thread::sleep(Duration::from_millis(2));
        if *input < 0 {
            std::process::abort();
        }
        Ok(input + 1)
    }
}
