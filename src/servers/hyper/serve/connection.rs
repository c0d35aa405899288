//! How long one connection lives.

use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::activity::{Activity, Counts};
use super::read_clock::MIN_PROGRESS;
use super::{STOP_GRACE, ServerConfig, later};

/// How long an idle connection of HTTP/2 has to acknowledge its end before it is closed without.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long a connection from the reserve is there for a probe before it is told to end, and then until it is closed.
const RESERVED_AGE: Duration = Duration::from_secs(5);

/// How often to look at what a client does while the server stops.
const STOPPING_LOOK: Duration = Duration::from_millis(250);

/// For how long a connection is kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    /// For HTTP/2, how long without a stream. HTTP/1.1 has the clocks of its [`Stream`](super::stream::Stream).
    idle: Duration,
    /// From its beginning, and from then on. `None` is no limit.
    age: Option<(Duration, Duration)>,
}

impl Lifetime {
    pub(super) fn new(config: &ServerConfig) -> Self {
        let jittered = config.max_age.as_secs_f64() * (0.9 + 0.2 * random_share());
        let jittered = Duration::try_from_secs_f64(jittered).unwrap_or(Duration::MAX);
        let age = (!config.max_age.is_zero()).then_some((jittered, config.max_age_grace));
        Self { idle: config.idle_timeout, age }
    }

    /// Of a connection that is there for a probe alone.
    pub(super) fn reserved() -> Self {
        Self { idle: RESERVED_AGE, age: Some((RESERVED_AGE, RESERVED_AGE)) }
    }
}

/// At least 0 and at most 1. So that connections that began together do not end together.
fn random_share() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

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

#[derive(Debug, PartialEq, Eq)]
enum Step {
    Wait,
    /// Nothing was asked for too long.
    Idle,
    /// It has reached its age.
    Old,
    /// It has been told to end and has not.
    Close,
    /// The server stops, and the client neither ends the connection nor goes on with what it has begun.
    GivenUp,
}

struct Clock {
    lifetime: Lifetime,
    begun: Instant,
    /// When it was last seen that something was asked, and how often until then.
    asked: Instant,
    turns: usize,
    /// When to close it, once it has been told to end.
    closes: Option<Instant>,
    /// Whether the client does its part, once the server stops.
    stopping: Option<Progress>,
}

/// What a client has done while its server stops.
struct Progress {
    /// When the server began to stop.
    begun: Instant,
    /// When the client last made progress, or nothing was waited for from it.
    since: Instant,
    turns: usize,
    body_bytes: usize,
}

impl Clock {
    fn new(lifetime: Lifetime, activity: &Activity) -> Self {
        let now = Instant::now();
        Self { lifetime, begun: now, asked: now, turns: activity.turns(), closes: None, stopping: None }
    }

    /// The server stops.
    fn stop(&mut self, activity: &Activity) {
        let (begun, turns, body_bytes) = (Instant::now(), activity.turns(), activity.body_bytes());
        self.stopping = Some(Progress { begun, since: begun, turns, body_bytes });
    }

    /// When to look next: some times within the idle timeout, as requests do not tell it when they end.
    fn next(&self) -> Instant {
        if self.stopping.is_some() {
            let look = Instant::now() + STOPPING_LOOK;
            return self.closes.map_or(look, |closes| look.min(closes));
        }
        if let Some(closes) = self.closes {
            return closes;
        }
        let look = (self.lifetime.idle / 4).max(Duration::from_millis(10));
        let look = later(Instant::now(), look);
        match self.lifetime.age {
            Some((age, _)) => look.min(later(self.begun, age)),
            None => look,
        }
    }

    fn tick(&mut self, activity: &Activity) -> Step {
        let now = Instant::now();
        if let Some(progress) = &mut self.stopping
            && progress.has_ceased(activity, now)
        {
            return Step::GivenUp;
        }
        if let Some(closes) = self.closes {
            return if now >= closes { Step::Close } else { Step::Wait };
        }
        if let Some((age, grace)) = self.lifetime.age
            && now >= later(self.begun, age)
        {
            self.closes = Some(later(now, grace));
            return Step::Old;
        }
        let turns = activity.turns();
        if turns != self.turns || activity.in_flight() > 0 {
            (self.asked, self.turns) = (now, turns);
        }
        if activity.is_http2() && now >= later(self.asked, self.lifetime.idle) {
            self.closes = Some(now + GOODBYE);
            return Step::Idle;
        }
        Step::Wait
    }
}

impl Progress {
    /// Whether nothing is left but to wait for a client that has done too little for too long: one that neither ends its
    /// connection nor the body of its request.
    fn has_ceased(&mut self, activity: &Activity, now: Instant) -> bool {
        let is_past_grace = now >= self.begun + STOP_GRACE;
        if is_past_grace && activity.is_http2() {
            // It was told to send no more, and need not have listened.
            activity.reject_requests();
        }
        let (turns, body_bytes) = (activity.turns(), activity.body_bytes());
        let has_sent = body_bytes.wrapping_sub(self.body_bytes) >= MIN_PROGRESS;
        if turns != self.turns || has_sent || activity.unfinished().running > 0 {
            (self.since, self.turns, self.body_bytes) = (now, turns, body_bytes);
        }
        now >= self.since + STOP_GRACE
    }
}

#[cfg(test)]
mod tests {
    use super::super::Connections;
    use super::*;
    use tokio::time::sleep_until;

    const MINUTE: Duration = Duration::from_secs(60);

    /// What happens next, and when.
    async fn next(clock: &mut Clock, activity: &Activity) -> (Step, Duration) {
        loop {
            sleep_until(clock.next()).await;
            let step = clock.tick(activity);
            if step != Step::Wait {
                return (step, clock.begun.elapsed());
            }
        }
    }

    fn clock(age: Option<(Duration, Duration)>) -> (Clock, Activity) {
        let activity = Connections::default().begin().activity();
        activity.set_http2();
        (Clock::new(Lifetime { idle: MINUTE, age }, &activity), activity)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_is_told_to_end_and_then_closed() {
        let (mut clock, activity) = clock(None);
        let (step, at) = next(&mut clock, &activity).await;
        assert_eq!(step, Step::Idle);
        assert!((MINUTE..=MINUTE * 5 / 4 + GOODBYE).contains(&at), "{at:?}");
        let (step, later) = next(&mut clock, &activity).await;
        assert_eq!(step, Step::Close);
        assert!(later >= at + GOODBYE, "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_reaches_its_age_is_told_to_end_and_closed_after_its_grace() {
        let (mut clock, activity) = clock(Some((MINUTE / 2, MINUTE)));
        let (step, at) = next(&mut clock, &activity).await;
        assert_eq!(step, Step::Old);
        assert!((MINUTE / 2..MINUTE).contains(&at), "{at:?}");
        let (step, at) = next(&mut clock, &activity).await;
        assert_eq!(step, Step::Close);
        assert!((MINUTE * 3 / 2..MINUTE * 2).contains(&at), "{at:?}");
    }

    #[test]
    fn ages_differ_by_a_tenth_at_most_and_are_not_all_the_same() {
        let config = ServerConfig { max_age: MINUTE, ..ServerConfig::default() };
        let ages: Vec<_> = (0..100).map(|_| Lifetime::new(&config).age.unwrap().0).collect();
        assert!(ages.iter().all(|age| (MINUTE * 9 / 10..=MINUTE * 11 / 10).contains(age)), "{ages:?}");
        assert!(ages.iter().any(|age| *age != ages[0]));
        assert!(Lifetime::new(&ServerConfig::default()).age.is_none());
    }
}
