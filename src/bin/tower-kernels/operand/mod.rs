//! The subcommand `operand`: stores, lists, describes and removes operands of a REST server.
//!
//! ```text
//! tower-kernels operand put payments --type graph payments.json
//! tower-kernels operand put prices --type tensors --tensor close=close.npy --tensor volume=volume.npy
//! tower-kernels operand put corpus --type vectors --tensor vectors=corpus.npy
//! tower-kernels operand list
//! tower-kernels operand show payments
//! tower-kernels operand rm payments@3
//! ```
//!
//! `put` reads its files while it sends them, so that a file of any size takes little memory.

mod args;
mod list;
mod npy;
mod progress;
mod request;
mod source;
mod upload;

use http::header::{IF_MATCH, IF_NONE_MATCH};
use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;
use tokio::task::LocalSet;

use self::args::{PutArgs, RemoveArgs, ServerArgs, ShowArgs};
use self::progress::UploadBar;
use self::request::{NOT_AN_OPERAND, Server};
use self::source::Source;
use crate::Outcome;
use crate::client::{CLIENT_TIMEOUT, Failure};
use crate::exit::Exit;

pub(crate) use self::args::Args;

/// The length of the JSON head before binary tensors.
const HEAD_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The text below the options.
pub(crate) const HELP: &str = "\
Examples:
  tower-kernels operand put payments --type graph payments.json
  tower-kernels operand put prices --type tensors --tensor close=close.npy --tensor volume=volume.npy
  tower-kernels operand put corpus --type vectors --tensor vectors=corpus.npy
  tower-kernels operand put payments --type graph --if-match 3-00c0ffee00c0ffee < payments.json
  tower-kernels operand list --rest https://kernels.example.org --cacert ca.crt --header 'x-api-key: ...'
  tower-kernels operand show payments
  tower-kernels operand rm payments@3";

pub(crate) fn main(args: Args) -> Outcome {
    match args {
        Args::Put(args) => put(&args),
        Args::List(args) => {
            let operands = run(&args.server, "the list was cancelled", list::operands)?;
            crate::output::print(if args.json { list::json(&operands)? } else { list::table(&operands)? })?;
            Ok(Exit::Done.into())
        }
        Args::Show(args) => show(&args),
        Args::Rm(args) => remove(&args),
    }
}

fn put(args: &PutArgs) -> Outcome {
    let source = match (&*args.tensors, &args.file) {
        ([], file) => Source::json(file.as_deref().unwrap_or("-".as_ref())),
        (tensors, _) => Source::tensors(tensors),
    };
    let source = source.map_err(|error| Exit::Input.failure(error))?;
    let mut query = vec![("type", &*args.r#type)];
    if args.public {
        query.push(("public", "true"));
    }
    let mut condition: Vec<_> = args.if_match.clone().map(|tag| (IF_MATCH, tag)).into_iter().collect();
    if args.if_absent {
        condition.push((IF_NONE_MATCH, HeaderValue::from_static("*")));
    }
    let route = format!("/operands/{}", args.name);
    let stored = run(&args.server, "the upload was cancelled, and the operand is as it was", async |server| {
        let mut bar = UploadBar::new(source.length);
        let sending = server.put(&route, &query, condition, source, bar.progress());
        bar.while_running(sending).await
    })?;
    print(&stored)
}

fn show(args: &ShowArgs) -> Outcome {
    let route = format!("/operands/{}", args.name);
    print(&run(&args.server, "the request was cancelled", async |server| {
        server.call(Method::GET, &route, &[], None).await
    })?)
}

fn remove(args: &RemoveArgs) -> Outcome {
    let route = format!("/operands/{}", args.name);
    print(&run(&args.server, "the request was cancelled; whether it was removed is not known", async |server| {
        server.call(Method::DELETE, &route, &[], args.if_match.clone().map(|tag| (IF_MATCH, tag))).await
    })?)
}

fn print(operand: &Value) -> Outcome {
    // Any server can respond with a JSON document.
    if !operand["etag"].is_string() {
        let message = format!("{NOT_AN_OPERAND}: the response has no etag, so it is not that of an operand");
        return Err(Exit::Failed.failure(message).into());
    }
    crate::output::print(format!("{operand}\n"))?;
    Ok(Exit::Done.into())
}

/// Runs a request until it ends, its time limit passes, or Ctrl-C is pressed, which cancels it.
fn run<T>(
    args: &ServerArgs,
    interrupted: &str,
    request: impl AsyncFnOnce(&Server) -> Result<T, Failure>,
) -> Result<T, crate::exit::Failure> {
    let server = Server::new(args)?;
    let failed = |error: std::io::Error| Exit::Failed.failure(error.to_string());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let ended = LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            response = tokio::time::timeout(args.timeout.0, request(&server)) => {
                response.unwrap_or_else(|_| {
                    Err(Failure::new(CLIENT_TIMEOUT, format!("no response within --timeout, {}", args.timeout)))
                }).map_err(|failure| failure.exit().failure(failure.to_string()))
            }
            pressed = tokio::signal::ctrl_c() => match pressed {
                Ok(()) => Err(Exit::Interrupted.failure(format!("interrupted: {interrupted}"))),
                Err(error) => Err(failed(error)),
            }
        }
    });
    // A look-up of a host name may block a thread.
    runtime.shutdown_background();
    ended
}
