//! Kernels in device processes, with the CPU as the device: processes that abort, are killed, hang or do not start.

// Kernels that end their process do what no safe code can.
#![allow(unsafe_code)]

mod faults;
mod kernels;
mod operands;
mod processes;
mod results;
mod support;

use libtest_mimic::{Arguments, Failed, Trial};
use tower_kernels::backends::process::run_device_process;

fn main() {
    run_device_process(kernels::registry);
    let tests = [faults::TESTS, operands::TESTS, processes::TESTS, results::TESTS];
    let trials = tests.into_iter().flatten().map(|&(name, run)| test(name, run)).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

pub(crate) type Test = (&'static str, fn());

/// The names and functions of a file's tests.
macro_rules! tests {
    ($($name:ident)*) => {
        pub(crate) const TESTS: &[crate::Test] =
            &[$((concat!(module_path!(), "::", stringify!($name)), $name as fn())),*];
    };
}
pub(crate) use tests;

fn test(name: &str, run: fn()) -> Trial {
    let body = move || {
        std::panic::catch_unwind(run).map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            Failed::from(text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default())
        })
    };
    Trial::test(name.trim_start_matches("isolation::"), body)
}
