//! What is said at the start: to people on stdout, to the log in any case.

use std::error::Error;
use std::fmt::Write;
use std::net::SocketAddr;

use tower_kernels::backends::Local;
use tower_kernels::service::KernelRegistry;

use super::auth::Authentication;
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
        (local.status().to_string(), registry.len(), servers.auth.as_ref().map_or("off", Authentication::kinds));
    let scheme = if servers.tls.is_some() { "https" } else { "http" };
    let shown = |address: Option<SocketAddr>| address.map_or_else(|| "off".to_owned(), |it| format!("{scheme}://{it}"));
    let (rest, grpc) = (shown(servers.rest), shown(servers.grpc));
    let memory = mebibytes(servers.memory.max());
    tracing::info!(rest, grpc, devices, kernels, memory, auth, "serving");
    for (name, address) in [("REST", servers.rest), ("gRPC", servers.grpc)] {
        if let Some(address) =
            address.filter(|address| servers.auth.is_none() && servers.tls.is_none() && !address.ip().is_loopback())
        {
            tracing::warn!(
                "{name} listens on {address}, where others can reach it, and asks nobody who they are: set \
                 auth.api_keys, auth.api_keys_file, auth.jwt or tls.client_ca, or listen on 127.0.0.1"
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
    writeln!(text, "  {:<8} {rest}", "REST")?;
    if let Some(address) = servers.rest {
        let credential = if servers.auth.is_some() { "  (asks for a credential)" } else { "" };
        writeln!(text, "  {:<8} {scheme}://{}/docs{credential}", "docs", reachable(address))?;
    }
    for (name, value) in [
        ("gRPC", grpc),
        ("devices", devices),
        ("kernels", kernels.to_string()),
        ("memory", format!("{memory} for requests")),
        ("auth", auth.into()),
    ] {
        writeln!(text, "  {name:<8} {value}")?;
    }
    if let (Some(address), Some(_)) = (servers.rest, registry.get("linalg/saxpy")) {
        let prefix = match config.rest.prefix.trim_matches('/') {
            "" => String::new(),
            prefix => format!("/{prefix}"),
        };
        let header = servers.auth.as_ref().is_some_and(Authentication::has_header);
        let key = if header { "-H \"authorization: Bearer $KEY\" " } else { "" };
        let certificates = match &servers.tls {
            None => "",
            Some(_) if config.tls.has_client_ca() => "--cacert ca.crt --cert client.crt --key client.key ",
            Some(_) => "--cacert ca.crt ",
        };
        write!(
            text,
            "Try it:\n  curl -s {certificates}{scheme}://{}{prefix}/kernels/linalg/saxpy/execute -H 'content-type: application/json' {key}\
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

fn mebibytes(bytes: u64) -> String {
    match bytes >> 20 {
        0 => format!("{bytes} bytes"),
        whole => format!("{whole} MiB"),
    }
}

/// An address to connect to: nobody connects to `0.0.0.0`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() });
    }
    address
}
