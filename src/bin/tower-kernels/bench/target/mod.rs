//! Targets of the load.

mod grpc;
mod in_process;
mod inference;
mod payload;
mod rest;

use super::args::{PayloadFormat, Protocol};
use crate::client::{ConnectionArgs, Failure, RestServer};
use crate::exit::Exit;
use std::error::Error;
use std::fmt;

/// The target of the load.
#[derive(Debug)]
pub(super) enum Destination {
    InProcess {
        kernel: String,
        format: PayloadFormat,
    },
    Rest {
        url: String,
        protocol: Protocol,
        kernel: String,
        format: PayloadFormat,
        connection: ConnectionArgs,
    },
    Grpc {
        url: String,
        protocol: Protocol,
        kernel: String,
        format: PayloadFormat,
        connection: ConnectionArgs,
        channels: usize,
    },
}

impl Destination {
    pub(super) fn kernel(&self) -> &str {
        let (Self::InProcess { kernel, .. } | Self::Rest { kernel, .. } | Self::Grpc { kernel, .. }) = self;
        kernel
    }

    pub(super) fn format(&self) -> PayloadFormat {
        match self {
            Self::InProcess { format, .. } | Self::Rest { format, .. } | Self::Grpc { format, .. } => *format,
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (transport, url, protocol) = match self {
            Self::InProcess { .. } => return f.write_str("in process"),
            Self::Rest { url, protocol, .. } => ("REST", url, protocol),
            Self::Grpc { url, protocol, .. } => ("gRPC", url, protocol),
        };
        let protocol = if *protocol == Protocol::V2 { "Open Inference Protocol over " } else { "" };
        write!(f, "{protocol}{transport} at {url}")
    }
}

/// A connected target, with the input encoded.
pub(super) enum Target {
    InProcess(Box<in_process::InProcess>),
    Rest(rest::Rest),
    Grpc(Box<grpc::Grpc>),
}

pub(super) async fn connect(destination: &Destination, input: &[u8]) -> Result<Target, Box<dyn Error + Send + Sync>> {
    let document = std::str::from_utf8(input).map_err(|error| not_json(&error))?.trim_start_matches('\u{feff}');
    Ok(match destination {
        Destination::InProcess { kernel, format } => {
            Target::InProcess(Box::new(in_process::InProcess::new(kernel, *format, document)?))
        }
        Destination::Rest { url, protocol, kernel, format, connection } => {
            let server = RestServer::new(url, connection.cacert.as_deref())?;
            let headers = &connection.headers;
            Target::Rest(match protocol {
                Protocol::Native => rest::Rest::new(server, kernel, *format, headers, document).await?,
                Protocol::V2 => rest::Rest::of_model(server, kernel, *format, headers, document).await?,
            })
        }
        Destination::Grpc { url, protocol, kernel, format, connection, channels } => {
            let server = grpc::Server::new(url, connection.cacert.as_deref())?;
            let headers = &connection.headers;
            Target::Grpc(Box::new(match protocol {
                Protocol::Native => grpc::Grpc::new(server, kernel, *format, headers, *channels, document).await?,
                Protocol::V2 => grpc::Grpc::of_model(server, kernel, headers, *channels, document).await?,
            }))
        }
    })
}

fn not_json(error: &dyn Error) -> crate::exit::Failure {
    Exit::Input.failure(format!("the input is not JSON: {error}"))
}

/// Creates clients, on the thread and runtime on which they will run.
pub(super) trait ClientFactory: Sync {
    type Client: Client;

    async fn clients(&self, count: usize) -> Result<Vec<Self::Client>, Failure>;
}

/// Sends one request at a time.
pub(super) trait Client: 'static {
    /// Sends a request, waits for the whole response and returns the size of its payload. If the future is dropped, the
    /// next call starts over.
    async fn call(&mut self) -> Result<usize, Failure>;
}

/// A successful response that is not a kernel output: another server listens there.
const NOT_AN_OUTPUT: &str = "not_an_output";
