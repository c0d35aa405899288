//! What is said at the start: to people on stdout, to the log in any case.

use std::error::Error;
use std::fmt::Write;
use std::net::SocketAddr;

use tower_kernels::backends::Local;
use tower_kernels::service::KernelRegistry;

use super::servers::Servers;
use crate::config::{Config, LogFormat};

/// Everything listens by now. With JSON logs the log has it all, and nothing else is written.
pub(super) fn print(
    config: &Config,
    servers: &Servers,
    registry: &KernelRegistry,
    local: &Local,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (devices, kernels, auth) =
        (local.status().to_string(), registry.len(), servers.auth.as_ref().map_or("off", |auth| auth.kinds()));
    let shown = |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |it| format!("http://{it}"));
    let (rest, grpc) = (shown(servers.rest), shown(servers.grpc));
    tracing::info!(rest, grpc, devices, kernels, auth, "serving");
    for (name, address) in [("REST", servers.rest), ("gRPC", servers.grpc)] {
        if let Some(address) = address.filter(|address| servers.auth.is_none() && !address.ip().is_loopback()) {
            tracing::warn!(
                "{name} listens on {address}, where others can reach it, and asks nobody who they are: set \
                 auth.api_keys, auth.api_keys_file or auth.jwt, or listen on 127.0.0.1"
            );
        }
    }
    if config.rate_limit.is_on() && servers.auth.is_none() {
        tracing::warn!("each tenant has a rate, and without authentication a request names the tenant that it likes");
    }
    if config.log.format == LogFormat::Json {
        return Ok(());
    }
    let mut text = format!("tower-kernels {}\n", env!("CARGO_PKG_VERSION"));
    for (name, value) in
        [("REST", rest), ("gRPC", grpc), ("devices", devices), ("kernels", kernels.to_string()), ("auth", auth.into())]
    {
        writeln!(text, "  {name:<8} {value}")?;
    }
    if let (Some(address), Some(_)) = (servers.rest, registry.get("linalg/saxpy")) {
        let prefix = match config.rest.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("/{prefix}"),
        };
        let key = if servers.auth.is_some() { "-H \"authorization: Bearer $KEY\" " } else { "" };
        write!(
            text,
            "Try it:\n  curl -s http://{}{prefix}/kernels/linalg/saxpy/execute -H 'content-type: application/json' {key}\
             -d '{{\"a\": 2.0, \"x\": [1.0, 2.0], \"y\": [10.0, 20.0]}}'\n",
            reachable(address)
        )?;
    }
    // Nobody need read it: on a thread of its own it holds nothing up.
    std::thread::Builder::new().name("greeting".to_owned()).spawn(move || {
        if let Err(error) = crate::output::print(text) {
            tracing::warn!(error = &*error as &dyn Error, "the greeting could not be written");
        }
    })?;
    Ok(())
}

/// An address to connect to: nobody connects to `0.0.0.0`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    address
}
