//! Device processes: this program again, with the kernels and the log of the server that starts it.

use std::convert::Infallible;
use std::error::Error;
use std::ffi::OsString;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::Signal;
use tower_kernels::backends::cuda::CudaDevices;
use tower_kernels::backends::process::{ProcessConfig, ProcessStatus, run_device_process};
use tower_kernels::service::KernelRegistry;

use super::backends::Backends;
use super::log::Logger;
use super::pipeline;
use crate::config::{Config, Domain, Log};
use crate::exit::{Exit, Failure};

/// The first argument of a device process, by which it is known in a list of processes.
const NAME: &str = "device-process";

/// What a device process has to know of the settings: its second argument, as JSON.
#[derive(Serialize, Deserialize)]
struct Settings {
    domains: Vec<Domain>,
    log: Log,
}

/// The configuration of the device processes.
///
/// # Errors
/// If there is no directory for the reports.
pub(super) fn config(config: &Config) -> Result<ProcessConfig, Failure> {
    let processes = config.isolation.processes();
    if let Some(reports) = processes.reports.as_ref().filter(|reports| !reports.is_dir()) {
        return Err(Exit::Usage.failure(format!("isolation.reports: {} is not a directory", reports.display())));
    }
    let settings = Settings { domains: config.domains.clone(), log: config.log.clone() };
    let settings = serde_json::to_string(&settings)
        .map_err(|error| Exit::Failed.failure(format!("the settings of device processes: {error}")))?;
    let secret = &config.auth.jwt.secret_env;
    Ok(ProcessConfig {
        args: vec![NAME.into(), settings.into()],
        env_remove: if secret.is_empty() { Vec::new() } else { vec![secret.into()] },
        ..processes
    })
}

/// Runs a device process, if that is what this process was started for, and ends it. Returns at once in any other.
pub(crate) fn run() {
    run_device_process(|| {
        registry().unwrap_or_else(|error| {
            crate::output::print_error(&format!("device process {}: {error}", std::process::id()));
            std::process::exit(Exit::Failed as i32)
        })
    });
}

/// Starts the log, and returns the kernels that the server has.
fn registry() -> Result<KernelRegistry, Box<dyn Error + Send + Sync>> {
    let settings = std::env::args_os().nth(2).map(OsString::into_string);
    let Some(Ok(settings)) = settings else { return Err("it has no settings".into()) };
    let Settings { domains, log } = serde_json::from_str(&settings)?;
    // It writes lines for as long as the process lives, which is ended from outside.
    std::mem::forget(Logger::init(&log)?);
    let registry = KernelRegistry::new();
    pipeline::register_kernels(&registry, &domains)?;
    Ok(registry)
}

/// Has each device process replaced by its standby at each signal.
pub(super) async fn replace_at(mut signal: Signal, backends: &Backends) -> Infallible {
    while signal.recv().await.is_some() {
        replace(backends);
    }
    std::future::pending().await
}

fn replace(Backends { cpu, cuda }: &Backends) {
    let mut is_isolated = false;
    if cpu.processes().is_some() {
        is_isolated = true;
        log_replacement("CPU", cpu.replace_process(), cpu.processes());
    }
    for device in cuda.iter().flat_map(CudaDevices::backends).filter(|device| device.processes().is_some()) {
        is_isolated = true;
        let name = format!("CUDA {}", device.device().ordinal);
        log_replacement(&name, device.replace_process(), device.processes());
    }
    if !is_isolated {
        tracing::warn!("SIGUSR2: there are no device processes to replace, as isolation.backends selects none");
    }
}

fn log_replacement(device: &str, is_replaced: bool, after: Option<ProcessStatus>) {
    let pid = after.and_then(|processes| processes.pid);
    if is_replaced {
        tracing::info!(
            device,
            pid,
            "SIGUSR2: the standby runs all further jobs; the process before it ends with its jobs"
        );
    } else {
        tracing::warn!(device, pid, "SIGUSR2: no standby is ready, so the device process is not replaced");
    }
}
