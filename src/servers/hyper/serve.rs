use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::pin;
use std::time::Duration;

use ::hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tower_service::Service;

use super::KernelHttpService;
use crate::error::Classify;
use crate::service::{KernelRequest, KernelResponse};

/// How long to wait before the next connection is accepted after one could not be.
const PAUSE: Duration = Duration::from_millis(50);

/// Serves HTTP/1.1 on `listener` until `stop` completes. From then on no connection is accepted, requests in flight are
/// answered, and those that take longer than `drain` are cancelled.
///
/// Dropping the future closes every connection.
///
/// # Errors
/// What `stop` failed with, at once; [`io::ErrorKind::TimedOut`] where `drain` was too short.
pub async fn serve<S>(
    listener: TcpListener,
    kernels: KernelHttpService<S>,
    stop: impl Future<Output = io::Result<()>>,
    drain: Duration,
) -> io::Result<()>
where
    S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + 'static,
    S::Error: Classify + Error + 'static,
    S::Future: Send,
{
    // hyper bounds the time that a head may take; it asks for a timer to do so.
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new());
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let mut stop = pin!(stop);
    loop {
        let stream = tokio::select! {
            accepted = accept(&listener) => accepted,
            Some(_) = connections.join_next() => continue,
            stopped = &mut stop => break stopped?,
        };
        match stream {
            Ok(stream) => {
                let connection = server.serve_connection(TokioIo::new(stream), kernels.clone());
                let connection = graceful.watch(connection);
                connections.spawn(async move {
                    if let Err(error) = connection.await {
                        tracing::debug!(error = &error as &dyn Error, "a connection broke off");
                    }
                });
            }
            // Out of file descriptors, or the peer is gone already: the next one may fare better.
            Err(error) => {
                tracing::warn!(%error, "no connection accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    drop(listener);
    tracing::debug!(connections = connections.len(), "stopping");
    match tokio::time::timeout(drain, graceful.shutdown()).await {
        Ok(()) => Ok(()),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "requests were still in flight at the end of the drain")),
    }
}

async fn accept(listener: &TcpListener) -> io::Result<TcpStream> {
    let (stream, _) = listener.accept().await?;
    // An answer is written at once and is not to wait for the acknowledgement of the last one.
    stream.set_nodelay(true)?;
    Ok(stream)
}
