//! Writes a report of each fault, for whoever looks into it later. It has no payloads.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime};

use parking_lot::Mutex;
use serde::Serialize;

use super::ProcessConfig;

/// The most runs of a device that are remembered.
const MAX_RUNS: usize = 32;
/// The most reports in a folder: clients can make a kernel fault. The oldest ones are removed.
const MAX_REPORTS: usize = 100;
const PREFIX: &str = "fault-";

/// What a fault is reported with.
pub(super) struct Fault<'a> {
    pub(super) kernel: &'a str,
    pub(super) device: &'a str,
    pub(super) reason: &'a str,
    /// What the device is; `None` for the CPU.
    pub(super) device_info: Option<&'a serde_json::Value>,
}

/// The last runs on a device, where reports are written.
#[derive(Default)]
pub(super) struct LastRuns(Mutex<VecDeque<Run>>);

struct Run {
    at: Instant,
    kernel: Cow<'static, str>,
    pid: u32,
}

impl LastRuns {
    /// Adds a run that begins now in the process `pid`.
    pub(super) fn add(&self, kernel: Cow<'static, str>, pid: u32) {
        let mut runs = self.0.lock();
        if runs.len() == MAX_RUNS {
            runs.pop_front();
        }
        runs.push_back(Run { at: Instant::now(), kernel, pid });
    }

    fn report(&self) -> Vec<ReportedRun> {
        let runs = self.0.lock();
        let report = |run: &Run| ReportedRun {
            kernel: run.kernel.clone(),
            pid: run.pid,
            started_ms_ago: run.at.elapsed().as_secs_f64() * 1e3,
        };
        runs.iter().rev().map(report).collect()
    }
}

#[derive(Serialize)]
struct Report<'a> {
    /// Milliseconds since 1970.
    time_ms: u128,
    kernel: &'a str,
    device: &'a str,
    reason: &'a str,
    /// The version of this crate.
    version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_info: Option<&'a serde_json::Value>,
    /// The last runs on the device, the latest first, in whichever of its processes.
    last_runs: Vec<ReportedRun>,
}

#[derive(Serialize)]
struct ReportedRun {
    kernel: Cow<'static, str>,
    pid: u32,
    started_ms_ago: f64,
}

/// Writes a report of a fault to the folder for them.
pub(super) fn write(config: &ProcessConfig, fault: &Fault<'_>, last_runs: &LastRuns) {
    let Some(folder) = &config.reports else { return };
    if let Err(error) = write_to(folder, fault, last_runs) {
        tracing::error!(%error, folder = %folder.display(), "the report of a fault cannot be written");
    }
}

fn write_to(folder: &Path, fault: &Fault<'_>, last_runs: &LastRuns) -> io::Result<()> {
    let &Fault { kernel, device, reason, device_info } = fault;
    let time_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis();
    let version = env!("CARGO_PKG_VERSION");
    let report = Report { time_ms, kernel, device, reason, version, device_info, last_runs: last_runs.report() };
    let text = serde_json::to_vec_pretty(&report)?;
    fs::write(folder.join(format!("{PREFIX}{time_ms}-{}.json", kernel.replace('/', "."))), text)?;
    remove_oldest(folder)
}

fn remove_oldest(folder: &Path) -> io::Result<()> {
    let mut reports: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(".json")) {
            reports.push(path);
        }
    }
    // Their names begin with the time, which has as many digits until the year 2286.
    reports.sort();
    for path in &reports[..reports.len().saturating_sub(MAX_REPORTS)] {
        match fs::remove_file(path) {
            // Another worker has removed it.
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_reports_are_kept_and_other_files_are_left_alone() {
        let folder = std::env::temp_dir().join(format!("tower-kernels-fault-reports-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        for name in ["fault.json", "fault-1.txt", "other"] {
            fs::write(folder.join(name), "").unwrap();
        }
        for time in 0..MAX_REPORTS {
            fs::write(folder.join(format!("{PREFIX}{time:013}-old.json")), "").unwrap();
        }
        let last_runs = LastRuns::default();
        for run in 0..40 {
            last_runs.add(format!("test/{run}").into(), 7);
        }
        let fault = Fault { kernel: "test/39", device: "CPU", reason: "a test", device_info: None };
        write_to(&folder, &fault, &last_runs).unwrap();
        let mut names: Vec<_> =
            fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        let (reports, others): (Vec<_>, Vec<_>) =
            names.into_iter().partition(|name| name.ends_with(".json") && name.starts_with(PREFIX));
        assert_eq!((reports.len(), others.len()), (MAX_REPORTS, 3));
        assert_eq!(reports[0], "fault-0000000000001-old.json", "the oldest one is removed");
        let report = fs::read(folder.join(&reports[MAX_REPORTS - 1])).unwrap();
        let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
        assert_eq!((&report["kernel"], &report["version"]), (&"test/39".into(), &env!("CARGO_PKG_VERSION").into()));
        let runs = report["last_runs"].as_array().unwrap();
        assert_eq!((runs.len(), &runs[0]["kernel"], &runs[31]["kernel"]), (32, &"test/39".into(), &"test/8".into()));
        fs::remove_dir_all(&folder).unwrap();
    }
}
