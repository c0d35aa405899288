//! Runs one connection, and ends it in time.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tokio::time::sleep_until;

use super::clock::{Clock, Lifetime, Step};
use super::request_tracker::{Activity, Counts};

/// What a server does, as its connections are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It serves until it is told otherwise.
    Serving,
    /// It will stop soon: clients are told to send their next requests elsewhere, and what they send is answered.
    Notice,
    /// It stops: idle connections are closed, and what has been sent is answered.
    Stopping,
    /// It waits no longer.
    Cancelling,
}

/// Serves a connection until it ends by itself, is told to stop and has answered what is in flight, or has been there for
/// too long.
///
/// HTTP/2 is told to end with GOAWAY, and HTTP/1.1 with `connection: close` in its next response; what has not ended
/// after its grace is closed.
pub(super) async fn supervise<C: GracefulConnection>(
    connection: C,
    activity: &Activity,
    counts: &Arc<Counts>,
    lifetime: Lifetime,
    mut phases: watch::Receiver<Phase>,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    let mut clock = Clock::new(lifetime, activity);
    let mut timer = pin!(sleep_until(clock.next()));
    let mut goaway = Goaway::Unneeded;
    // One that begins late is told before its first request.
    enter(*phases.borrow_and_update(), activity, &mut goaway, &mut clock);
    loop {
        tokio::select! {
            biased;
            ended = poll_fn(|cx| poll_connection(connection.as_mut(), &mut goaway, activity, cx)) => return ended,
            Ok(()) = phases.changed() => {
                let phase = *phases.borrow_and_update();
                if phase == Phase::Cancelling {
                    counts.count_cancelled(activity.unfinished());
                    return Ok(());
                }
                enter(phase, activity, &mut goaway, &mut clock);
                timer.as_mut().reset(clock.next());
            }
            () = &mut timer => {
                match clock.tick(activity) {
                    Step::Wait => {}
                    Step::Idle => {
                        counts.count_idle();
                        goaway = goaway.max(Goaway::Due);
                    }
                    // To close one of HTTP/1.1 now would lose a request that is on its way.
                    Step::Old => {
                        counts.count_old();
                        activity.close_after_response();
                        goaway = goaway.max(Goaway::Due);
                    }
                    Step::GivenUp => {
                        counts.count_cancelled(activity.unfinished());
                        return Ok(());
                    }
                    Step::CloseWhenIdle => activity.close_when_idle(),
                    Step::Close => return Ok(()),
                }
                timer.as_mut().reset(clock.next());
            }
        }
    }
}

/// Does what the server has come to.
fn enter(phase: Phase, activity: &Activity, goaway: &mut Goaway, clock: &mut Clock) {
    match phase {
        Phase::Serving => {}
        Phase::Notice => {
            activity.close_after_response();
            *goaway = (*goaway).max(Goaway::AfterRequest);
        }
        Phase::Stopping | Phase::Cancelling => {
            activity.close_when_idle();
            *goaway = (*goaway).max(Goaway::Due);
            clock.stop(activity);
        }
    }
}

/// Whether a connection of HTTP/2 is told to end. One of HTTP/1.1 is told in its responses, and never this way: hyper
/// would close it with what has been sent on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Goaway {
    Unneeded,
    /// Once a request came: a client that connects to a server that is about to stop has something to ask of it, and many
    /// send nothing on a connection that begins with GOAWAY.
    AfterRequest,
    Due,
    Sent,
}

/// Polls the connection, and tells it to end where that is due.
fn poll_connection<C: GracefulConnection>(
    mut connection: Pin<&mut C>,
    goaway: &mut Goaway,
    activity: &Activity,
    cx: &mut Context<'_>,
) -> Poll<C::Output> {
    let polled = connection.as_mut().poll(cx);
    let is_due = match goaway {
        Goaway::Unneeded | Goaway::Sent => false,
        Goaway::AfterRequest => activity.turns() > 0,
        Goaway::Due => true,
    };
    if polled.is_ready() || !is_due || !activity.is_http2() {
        return polled;
    }
    *goaway = Goaway::Sent;
    connection.as_mut().graceful_shutdown();
    connection.poll(cx)
}
