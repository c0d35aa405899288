//! Code given as source: compiled once, and kept on disk for the next process.

use std::process::Command;

use tower_kernels::cuda::{Launch, Module};

use crate::probe::Bench;

crate::tests! {
    a_second_process_does_not_compile
    source_that_includes_files_is_compiled_each_time
}

/// The argument that makes this executable a process that runs code given as source.
pub(crate) const CHILD: &str = "--run-source";

static PLAIN: Module = {
    // SAFETY: it writes the one value that it is passed.
    unsafe { Module::from_source("test/plain", "extern \"C\" __global__ void seven(double* out) { *out = 7.0; }") }
};

static INCLUDES: Module = {
    const SOURCE: &str = "#include <cuda_fp16.h>\nextern \"C\" __global__ void seven(double* out) { *out = 7.0; }";
    // SAFETY: as above.
    unsafe { Module::from_source("test/includes", SOURCE) }
};

pub(crate) fn run_source(name: &str) {
    let filter = tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_ansi(false);
    filter.with_writer(std::io::stdout).init();
    let module = if name == "plain" { &PLAIN } else { &INCLUDES };
    let bench = Bench::new(1).with("test/seven", move |lane| {
        let out = lane.zeroed::<f64>(1)?;
        lane.launch(module, "seven", Launch::new(1, 1), &[&out])?;
        lane.download(&out)
    });
    println!("answer: {:?}", bench.run("test/seven"));
}

/// What such a process says with this folder as its cache.
fn process(name: &str, cache: &std::path::Path) -> String {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let output = command.args([CHILD, name]).env("TOWER_KERNELS_CACHE", cache).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn a_second_process_does_not_compile() {
    let cache = std::env::temp_dir().join(format!("tower-kernels-compiled-{}", std::process::id()));
    let runs = [(); 2].map(|()| process("plain", &cache));
    let compiled = runs.each_ref().map(|run| run.contains("compiled by NVRTC"));
    assert_eq!(compiled, [true, false], "{runs:?}");
    let file = std::fs::read_dir(&cache).unwrap().next().unwrap().unwrap().path();
    std::fs::write(&file, "damaged").unwrap();
    let again = process("plain", &cache);
    assert!(again.contains("compiled by NVRTC"), "{again}");
    let off = process("plain", std::path::Path::new(""));
    assert!(off.contains("compiled by NVRTC"), "{off}");
    for run in runs.iter().chain([&again, &off]) {
        assert!(run.contains("answer: Ok([7.0])"), "{run}");
    }
    std::fs::remove_dir_all(&cache).unwrap();
}

fn source_that_includes_files_is_compiled_each_time() {
    let cache = std::env::temp_dir().join(format!("tower-kernels-includes-{}", std::process::id()));
    // Where NVRTC finds no such header it compiles in vain, which is compiling too.
    for _ in 0..2 {
        let run = process("includes", &cache);
        assert!(run.contains("compiled by NVRTC") || run.contains("nvrtcCompileProgram"), "{run}");
    }
    assert!(!cache.exists(), "nothing was kept");
}
