//! The message at startup: on stdout as text, and in the log.

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use tower_kernels::backends::Local;
use tower_kernels::hyper::ListenAddress;
use tower_kernels::service::KernelRegistry;

use super::auth::Authentication;
use super::servers::Servers;
use crate::config::{Config, LogFormat};

/// Prints and logs addresses, devices and authentication. With JSON logs nothing is printed.
pub(super) fn print(
    config: &Config,
    servers: &Servers,
    registry: &KernelRegistry,
    local: &Local,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (devices, kernels, auth) =
        (local.status().to_string(), registry.len(), servers.auth.as_ref().map_or("off", Authentication::kinds));
    let scheme = if servers.tls.is_some() { "https" } else { "http" };
    let (rest, grpc) = (shown(&servers.rest, scheme), shown(&servers.grpc, scheme));
    let memory = mebibytes(servers.memory.max());
    let operands = mebibytes(registry.operands().limits().max_bytes);
    tracing::info!(rest, grpc, devices, kernels, memory, operands, auth, "serving");
    let is_open = servers.auth.is_none() && servers.tls.is_none();
    for (name, addresses) in [("REST", &servers.rest), ("gRPC", &servers.grpc)] {
        for address in addresses.iter().filter(|address| is_open && address.is_public()) {
            tracing::warn!(
                "{name} listens on {address}, which other machines can reach, without authentication: set auth.api_keys, \
                 auth.api_keys_file, auth.jwt or tls.client_ca, or listen on 127.0.0.1"
            );
        }
    }
    if config.rate_limit.is_on() && servers.auth.is_none() {
        tracing::warn!("rate limits are per tenant, but without authentication a request can name any tenant");
    }
    if config.log.format == LogFormat::Json {
        return Ok(());
    }
    let mut text = format!("tower-kernels {}\n", env!("CARGO_PKG_VERSION"));
    writeln!(text, "  {:<8} {rest}", "REST")?;
    // Browsers cannot connect to Unix domain sockets.
    if let Some(address) = servers.rest.iter().find(|address| !matches!(address, ListenAddress::Unix(_))) {
        let credential = match &servers.auth {
            Some(auth) if !auth.has_open_docs() => "  (needs credentials)",
            _ => "",
        };
        writeln!(text, "  {:<8} {scheme}://{}/docs{credential}", "docs", reachable(address).1)?;
    }
    for (name, value) in [
        ("gRPC", grpc),
        ("devices", devices),
        ("kernels", kernels.to_string()),
        ("memory", format!("{memory} for requests, {operands} for operands")),
        ("auth", auth.into()),
    ] {
        writeln!(text, "  {name:<8} {value}")?;
    }
    if let (Some(address), Some(_)) = (servers.rest.first(), registry.get("linalg/saxpy")) {
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
        let (socket, host) = reachable(address);
        write!(
            text,
            "Try it:\n  curl -s {socket}{certificates}{scheme}://{host}{prefix}/kernels/linalg/saxpy/execute -H 'content-type: application/json' {key}\
             -d '{{\"a\": 2.0, \"x\": [1.0, 2.0], \"y\": [10.0, 20.0]}}'\n"
        )?;
    }
    // On a thread of its own, as stdout may block.
    std::thread::Builder::new().name("startup-message".to_owned()).spawn(move || {
        if let Err(error) = crate::output::print(text) {
            tracing::warn!(error = &*error as &dyn Error, "cannot write the startup message");
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

/// Formats the addresses of a server as URLs.
fn shown(addresses: &[ListenAddress], scheme: &str) -> String {
    let shown = addresses.iter().map(|address| match address {
        ListenAddress::Unix(_) if scheme == "https" => format!("{address} (TLS)"),
        ListenAddress::Unix(_) => address.to_string(),
        _ => format!("{scheme}://{address}"),
    });
    let shown: Vec<_> = shown.collect();
    if shown.is_empty() { "off".to_owned() } else { shown.join(" and ") }
}

/// The arguments for curl: the option for a Unix domain socket, and a host that can be connected to, unlike `0.0.0.0`.
fn reachable(address: &ListenAddress) -> (String, String) {
    match address {
        ListenAddress::Unix(path) => (format!("--unix-socket {} ", quoted(path)), "localhost".to_owned()),
        ListenAddress::Ip(address) if address.ip().is_unspecified() => {
            let host = if address.is_ipv4() { "127.0.0.1" } else { "localhost" };
            (String::new(), format!("{host}:{}", address.port()))
        }
        address => (String::new(), address.to_string()),
    }
}

/// Quotes a path for a shell.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte);
    if path.bytes().all(is_plain) { path } else { format!("'{}'", path.replace('\'', "'\\''")) }
}
