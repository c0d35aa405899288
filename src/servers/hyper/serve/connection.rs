//! Runs one connection and closes it when it is idle, too old, or the server stops.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::clock::{Clock, Lifetime, Step};
use super::request_tracker::{Counts, RequestTracker};

/// Phase of the server, as its connections observe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Serving.
    Serving,
    /// Stopping soon: clients are asked to send further requests elsewhere, and requests are still served.
    Notice,
    /// Stopping: idle connections are closed, and requests in flight are completed.
    Stopping,
    /// The drain time is over: requests in flight are cancelled.
    Cancelling,
}

/// Serves a connection until it ends by itself, the server stops and requests in flight are complete, or the connection
/// reaches a limit of its lifetime.
///
/// HTTP/2 clients get GOAWAY, and HTTP/1.1 clients `connection: close` in their next response. A connection that has
/// not ended after its grace period is closed.
pub(super) async fn supervise<C: GracefulConnection>(
    connection: C,
    tracker: &RequestTracker,
    counts: &Arc<Counts>,
    lifetime: Lifetime,
    mut phases: watch::Receiver<Phase>,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    let mut clock = Clock::new(lifetime, tracker);
    let mut timer = pin!(sleep_until(clock.next()));
    let mut goaway = Goaway::Unneeded;
    // A connection that begins late enters the phase before its first request.
    enter(*phases.borrow_and_update(), tracker, &mut goaway, &mut clock);
    loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| poll_connection(connection.as_mut(), &mut goaway, tracker, cx)) => return ended,
            Ok(()) = phases.changed() => {
                let phase = *phases.borrow_and_update();
                if phase == Phase::Cancelling {
                    counts.count_cancelled(tracker.unfinished());
                    return Ok(());
                }
                enter(phase, tracker, &mut goaway, &mut clock);
                timer.as_mut().reset(clock.next());
            }
            () = &mut timer => {
                match clock.tick(tracker) {
                    Step::Wait => {}
                    Step::Idle => {
                        counts.count_idle();
                        goaway = goaway.max(Goaway::Due);
                    }
                    // Closing an HTTP/1.1 connection now could lose a request in transit.
                    Step::MaxAge => {
                        counts.count_old();
                        tracker.close_after_response();
                        goaway = goaway.max(Goaway::Due);
                    }
                    Step::Stalled => {
                        counts.count_cancelled(tracker.unfinished());
                        return Ok(());
                    }
                    Step::CloseWhenIdle => tracker.close_when_idle(),
                    Step::Close => return Ok(()),
                }
                timer.as_mut().reset(clock.next());
            }
        }
    }
}

/// Applies a phase of the server to the connection.
fn enter(phase: Phase, tracker: &RequestTracker, goaway: &mut Goaway, clock: &mut Clock) {
    match phase {
        Phase::Serving => {}
        Phase::Notice => {
            tracker.close_after_response();
            *goaway = (*goaway).max(Goaway::AfterRequest);
        }
        Phase::Stopping | Phase::Cancelling => {
            tracker.close_when_idle();
            *goaway = (*goaway).max(Goaway::Due);
            clock.stop(tracker);
        }
    }
}

/// State of the GOAWAY of an HTTP/2 connection. HTTP/1.1 connections are closed through their responses only: hyper's
/// graceful shutdown would discard requests that have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Goaway {
    Unneeded,
    /// Due after the first request. A client that connects to a server that is about to stop has a request to send, and
    /// many clients send nothing on a connection that begins with GOAWAY.
    AfterRequest,
    Due,
    Sent,
}

/// Polls the connection, and sends GOAWAY if it is due.
fn poll_connection<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    goaway: &mut Goaway,
    tracker: &RequestTracker,
    cx: &mut Context<'_>,
) -> Poll<C::Output> {
    let polled = connection.as_mut().poll(cx);
    let is_due = match goaway {
        Goaway::Unneeded | Goaway::Sent => false,
        Goaway::AfterRequest => tracker.state_changes() > 0,
        Goaway::Due => true,
    };
    if polled.is_ready() || !is_due || !tracker.is_http2() {
        return polled;
    }
    *goaway = Goaway::Sent;
    connection.as_mut().graceful_shutdown();
    connection.poll(cx)
}
