//! The subcommand `serve`: REST and gRPC over one pipeline, until a signal.

mod auth;
mod backends;
#[cfg(target_os = "linux")]
mod device_processes;
mod docs;
mod drain;
#[cfg(feature = "fault-kernel")]
mod fault;
mod log;
mod memory;
#[cfg(target_os = "linux")]
mod open_files;
mod pipeline;
mod servers;
mod settings;
mod startup_message;
mod tls;

use std::path::PathBuf;

#[cfg(target_os = "linux")]
use tokio::signal::unix::{SignalKind, signal};
use tower_kernels::grpc::{HealthService, StreamShutdown};

use self::auth::Authentication;
#[cfg(target_os = "linux")]
pub(crate) use self::device_processes::run as run_device_process;
use self::drain::{Signals, Stop};
use self::log::Logger;
use self::servers::Servers;
use crate::Outcome;
use crate::config::{Effective, Overrides};
use crate::exit::Exit;

/// The text below the options.
pub(crate) const HELP: &str = "\
Times are written as 500ms, 30s or 1m 30s. Each flag has an environment variable and a key in the file: --drain-limit is
TOWER_KERNELS_DRAIN_LIMIT, and limit in section [drain]. Flags override variables, which override the file. An empty
variable counts as not set. Addresses are 127.0.0.1:8080, localhost:8080, :8080 (all interfaces), unix:/path, or off.
auth.api_keys, tenants.named and rate_limit.tenants can only be set in the file; --print-config shows its format.
SIGUSR2 has the processes of isolation.backends replaced by their standbys, without losing a request.

Examples:
  tower-kernels serve --rest-listen 127.0.0.1:8000 --grpc-listen off
  tower-kernels serve --config tower-kernels.toml --print-config";

/// Arguments of `serve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// TOML file with settings [env: TOWER_KERNELS_CONFIG].
    // The variable is read with the others, as an empty one counts as not set.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the effective configuration with the source of each value, and exit.
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    overrides: Overrides,
}

pub(crate) fn main(args: &Args) -> Outcome {
    let effective = Effective::read(args.config.as_deref(), &args.overrides)?;
    pipeline::check(&effective.config).map_err(|invalid| effective.reject(invalid))?;
    if args.print_config {
        crate::output::print(effective.to_string())?;
        return Ok(Exit::Done.into());
    }
    // Dropped last, which writes the remaining lines.
    let logger = Logger::init(&effective.config.log)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let exit = runtime.block_on(serve(effective, &logger));
    // Work that was cut off may block a thread.
    runtime.shutdown_background();
    Ok(exit?.into())
}

async fn serve(effective: Effective, logger: &Logger) -> Result<Exit, Box<dyn std::error::Error + Send + Sync>> {
    settings::log(&effective);
    let config = &effective.config;
    #[cfg(target_os = "linux")]
    open_files::raise_limit(config);
    // Before anything is served, so that no signal is missed.
    let mut signals = Signals::new()?;
    #[cfg(target_os = "linux")]
    let replace_signal = signal(SignalKind::user_defined2())?;
    let backends = backends::open(config)?;
    let local = backends.local();
    let registry = pipeline::registry(config)?;
    let auth = Authentication::new(&config.auth, config.tls.has_client_ca());
    let auth = auth.map_err(|invalid| effective.reject(invalid))?;
    let layer = pipeline::layer(config, &registry, auth.is_some()).map_err(|invalid| effective.reject(invalid))?;
    tracing::info!("layers, outermost first:\n{layer}");
    let pipeline = layer.over(local.clone());
    let health = HealthService::of(&pipeline);
    let memory = memory::open(&config.memory);
    let tls = tls::open(&config.tls).map_err(|invalid| effective.reject(invalid))?;
    let mut servers = Servers::new(config, auth, tls, memory);
    servers.add_metrics(logger.metrics());
    let rest = servers.rest(config, &pipeline).await;
    let rest = rest.map_err(|failure| effective.blame("rest.listen", &failure))?;
    let streams = StreamShutdown::new();
    let grpc = servers.grpc(config, &pipeline, health.clone(), &streams).await;
    grpc.map_err(|failure| effective.blame("grpc.listen", &failure))?;
    startup_message::print(config, &servers, &registry, &local)?;
    // In the background: the server is alive meanwhile, and ready afterwards.
    let operands = registry.operands().clone();
    tokio::task::spawn_blocking(move || operands.load());

    #[cfg(target_os = "linux")]
    let replacing = device_processes::replace_at(replace_signal, &backends);
    // Other systems have no device processes.
    #[cfg(not(target_os = "linux"))]
    let replacing = std::future::pending::<std::convert::Infallible>();
    let why = tokio::select! {
        signal = signals.next() => Stop::Signal(signal),
        why = backends::device_lost(&local, config.exit_on_device_loss) => Stop::DeviceLost(why),
        ended = servers.ended() => return Err(ended.into()),
        never = replacing => match never {},
    };
    let drained = async {
        if let Some(rest) = rest {
            rest.drain();
        }
        health.set_serving(false).await;
        // They serve until the end of the notice, and tell their clients to reconnect elsewhere.
        servers.stop();
        drain::log_start(&why, config.drain.notice.0);
        tokio::time::sleep(config.drain.notice.0).await;
        // Health watchers have been notified; open streams would keep their connections open.
        health.close().await;
        streams.end_streams();
        servers.stopped().await
    };
    Ok(tokio::select! {
        drained = drained => why.exit(drained?),
        signal = signals.next() => {
            tracing::warn!(signal = signal.name(), "second signal: exiting at once, requests in flight are lost");
            signal.exit()
        }
    })
}
