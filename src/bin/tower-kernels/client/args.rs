//! Arguments of every subcommand that talks to a server.

use std::path::PathBuf;

use http::{HeaderName, HeaderValue};

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectionArgs {
    /// PEM file of the authorities that verify the server's certificate, for https URLs.
    #[arg(long, value_name = "FILE")]
    pub(crate) cacert: Option<PathBuf>,

    /// Header (gRPC metadata) to send with each request, such as `authorization: Bearer ...`.
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("must be NAME: VALUE")?;
    let name = name.trim().parse::<HeaderName>().map_err(|error| format!("{name:?}: {error}"))?;
    // An error that repeats the value would show a secret.
    let mut value = value.trim().parse::<HeaderValue>().map_err(|error| format!("the value of {name}: {error}"))?;
    value.set_sensitive(true);
    Ok((name, value))
}
