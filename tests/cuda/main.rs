//! The CUDA backend on a real device. Without one, every test that needs it is reported as ignored.

// A module given as source is a promise about device code, which is what most of these tests are about.
#![allow(unsafe_code)]

mod batch;
mod catalogue;
mod compiled;
mod contract;
mod device_algorithms;
#[cfg(all(feature = "isolation", target_os = "linux"))]
#[path = "../support/device_faults.rs"]
mod device_faults;
mod domain;
mod faults;
mod goldens;
#[cfg(all(feature = "isolation", target_os = "linux"))]
mod isolation;
mod launch_context;
mod loading;
mod memory;
mod operands;
mod priority;
mod probe;
mod registry;
mod stopping;
#[path = "../support/mod.rs"]
mod support;
mod telemetry;
mod without;

use std::sync::{PoisonError, RwLock};

use libtest_mimic::{Arguments, Failed, Trial};
use tower_kernels::cuda;

fn main() {
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    tower_kernels::backends::process::run_device_process(isolation::registry);
    if std::env::args().nth(1).as_deref() == Some(faults::CHILD) {
        faults::lose_the_device();
        return;
    }
    if std::env::args().nth(1).as_deref() == Some(compiled::CHILD) {
        compiled::run_source(&std::env::args().nth(2).unwrap_or_default());
        return;
    }
    if let (Some("--domain"), Some(what)) = (std::env::args().nth(1).as_deref(), std::env::args().nth(2)) {
        domain::child(&what);
        return;
    }
    let args = Arguments::from_args();
    let devices = cuda::devices();
    if let Err(why) = &devices {
        eprintln!("skipped: no CUDA device ({why})");
    }
    let there = devices.is_ok();
    let mut trials = vec![test(!there, "without::says_why", without::says_why)];
    trials.extend(
        [
            batch::TESTS,
            catalogue::TESTS,
            compiled::TESTS,
            contract::TESTS,
            device_algorithms::TESTS,
            goldens::TESTS,
            launch_context::TESTS,
            loading::TESTS,
            priority::TESTS,
            registry::TESTS,
            memory::TESTS,
            operands::TESTS,
            stopping::TESTS,
            telemetry::TESTS,
            faults::TESTS,
            domain::TESTS,
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            isolation::TESTS,
        ]
        .into_iter()
        .flatten()
        .map(|&(name, run)| test(there, name, run)),
    );
    let two = domain::TWO.iter().chain(operands::TWO);
    trials.extend(two.map(|&(name, run)| test(domain::devices() > 1, name, run)));
    libtest_mimic::run(&args, trials).exit();
}

/// Tests that hold a time to a bound, which work of other tests on the device would move, and those that lose the device:
/// while one process's faults and ends, the driver has been seen to delay those of others by 20 s and more.
const ALONE: &[&str] = &[
    "domain::",
    "faults::",
    "isolation::",
    "operands::a_kernel_that_writes_to_a_copy_faults",
    "operands::requests_go_where_the_operand_is_until_that_device_is_lost",
    "priority::high_priority_overtakes_low_priority_that_waits_for_room",
    "telemetry::a_kernel_that_streams_memory_comes_near_the_roof",
];

/// Locked for writing by a test that needs the device for itself, and for reading by all others.
static DEVICE: RwLock<()> = RwLock::new(());

pub(crate) type Test = (&'static str, fn());

/// The names and functions of a file's tests.
macro_rules! tests {
    ($($name:ident)*) => {
        pub(crate) const TESTS: &[crate::Test] =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name as fn())),*];
    };
}
pub(crate) use tests;

fn test(applies: bool, name: &str, run: fn()) -> Trial {
    let name = name.trim_start_matches("cuda::");
    let alone = ALONE.iter().any(|alone| name.starts_with(alone));
    let body = move || {
        // The lock guards no data, so that a test which failed while it held the lock does not matter.
        let _alone = alone.then(|| DEVICE.write().unwrap_or_else(PoisonError::into_inner));
        let _shared = (!alone).then(|| DEVICE.read().unwrap_or_else(PoisonError::into_inner));
        std::panic::catch_unwind(run).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Failed::from(text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default())
        })
    };
    Trial::test(name, body).with_ignored_flag(!applies)
}
