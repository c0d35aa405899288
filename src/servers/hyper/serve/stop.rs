//! Graceful shutdown of a server that accepts no more connections.

use std::io;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::connection::Phase;
use super::request_tracker::{Connections, Unfinished};
use super::{GRACE, STOP_GRACE, report};

/// How long cancelled connections may take to end.
const CANCEL_TIME: Duration = Duration::from_secs(5);

/// A server that accepts no more connections.
pub(super) struct Stop {
    pub(super) connections: Connections,
    /// One task for each connection.
    pub(super) tasks: JoinSet<()>,
    /// Phase that the connections observe.
    pub(super) phase: watch::Sender<Phase>,
    /// Ends TLS handshakes.
    pub(super) no_more_handshakes: CancellationToken,
}

impl Stop {
    /// Waits until the connections have ended, and cancels those that have not after `drain`.
    pub(super) async fn within(mut self, drain: Duration) -> io::Result<()> {
        if timeout(drain, self.wait()).await.is_err() {
            self.cancel().await;
        }
        conclude(self.connections.counts().cancelled(), drain)
    }

    /// Completes when all connections have ended.
    async fn wait(&mut self) {
        let Self { tasks, phase, no_more_handshakes, .. } = self;
        let stop_connections = async {
            sleep(GRACE).await;
            phase.send_replace(Phase::Stopping);
            sleep(STOP_GRACE).await;
            no_more_handshakes.cancel();
            std::future::pending().await
        };
        let all_ended = async {
            while let Some(ended) = tasks.join_next().await {
                report(ended)
            }
        };
        tokio::select! {
            () = all_ended => {}
            never = stop_connections => never,
        }
    }

    /// Cancels all connections. Each counts its unfinished requests, unless its service blocks the thread.
    async fn cancel(&mut self) {
        self.no_more_handshakes.cancel();
        self.phase.send_replace(Phase::Cancelling);
        let all_ended = async { while self.tasks.join_next().await.is_some() {} };
        if timeout(CANCEL_TIME, all_ended).await.is_err() {
            let (running, connections) = (self.connections.requests_in_flight(), self.tasks.len());
            self.connections.counts().count_cancelled(Unfinished { running, connections, incomplete: 0 });
            self.tasks.shutdown().await;
        }
    }
}

/// Logs the requests that were cancelled, and returns an error if any were running.
fn conclude(cancelled: Unfinished, drain: Duration) -> io::Result<()> {
    let Unfinished { running, connections, incomplete } = cancelled;
    if incomplete > 0 {
        tracing::warn!(requests = incomplete, "requests that had not arrived in full were closed");
    }
    if running == 0 {
        return Ok(());
    }
    let message = format!("{running} requests on {connections} connections were cancelled after a drain of {drain:?}");
    tracing::warn!("{message}");
    Err(io::Error::new(io::ErrorKind::TimedOut, message))
}
