//! Lifetime of a connection: idle timeout, maximum age, and shutdown.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use super::read_timer::MIN_PROGRESS;
use super::request_tracker::RequestTracker;
use super::{STOP_GRACE, ServerConfig, later};

/// How long an idle HTTP/2 connection may take to close after its GOAWAY.
const GOAWAY_GRACE: Duration = Duration::from_secs(5);
/// How long a reserved connection is open before it gets GOAWAY, and then until it is closed.
const RESERVED_AGE: Duration = Duration::from_secs(5);

/// Interval of the checks for progress while the server stops.
const STOPPING_CHECK_INTERVAL: Duration = Duration::from_millis(250);

/// Limits of a connection's lifetime.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lifetime {
    /// Idle timeout of HTTP/2. HTTP/1.1 has the timeouts of its [`Stream`](super::stream::Stream).
    idle: Duration,
    /// Maximum age, and grace period after it. `None` for no limit.
    age: Option<(Duration, Duration)>,
}

impl Lifetime {
    pub(super) fn new(config: &ServerConfig) -> Self {
        let jittered = config.max_age.as_secs_f64() * (0.9 + 0.2 * random_share());
        let jittered = Duration::try_from_secs_f64(jittered).unwrap_or(Duration::MAX);
        let age = (!config.max_age.is_zero()).then_some((jittered, config.max_age_grace));
        Self { idle: config.idle_timeout, age }
    }

    /// Limits of a reserved connection.
    pub(super) fn reserved() -> Self {
        Self { idle: RESERVED_AGE, age: Some((RESERVED_AGE, RESERVED_AGE)) }
    }
}

/// Returns a random number from 0 to 1, so that connections that began together do not end together.
fn random_share() -> f64 {
    RandomState::new().hash_one(0) as f64 / u64::MAX as f64
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing to do yet.
    Wait,
    /// It reached the idle timeout.
    Idle,
    /// It reached its maximum age.
    MaxAge,
    /// Close it once it is idle: an HTTP/1.1 connection that had no response to say `connection: close` in.
    CloseWhenIdle,
    /// It was asked to close and did not.
    Close,
    /// The server stops, and the client neither closes the connection nor makes progress.
    Stalled,
}

pub(super) struct Clock {
    lifetime: Lifetime,
    begun: Instant,
    /// When a request was last seen, and the number of state changes until then.
    last_active: Instant,
    state_changes: usize,
    /// When to close it, once it was asked to close.
    closes: Option<Ending>,
    /// Progress of the client, once the server stops.
    stopping: Option<Progress>,
}

/// How a connection that was asked to close is closed.
#[derive(Clone, Copy)]
struct Ending {
    at: Instant,
    /// Whether to wait for requests in flight.
    waits: bool,
    /// Whether it was asked to close when idle.
    is_closing: bool,
}

/// Progress of a client while the server stops.
struct Progress {
    /// When the server began to stop.
    begun: Instant,
    /// When the client last made progress, or was not expected to send.
    since: Instant,
    state_changes: usize,
    body_bytes: usize,
}

impl Clock {
    pub(super) fn new(lifetime: Lifetime, tracker: &RequestTracker) -> Self {
        let now = Instant::now();
        Self {
            lifetime,
            begun: now,
            last_active: now,
            state_changes: tracker.state_changes(),
            closes: None,
            stopping: None,
        }
    }

    /// Starts to watch the client's progress while the server stops.
    pub(super) fn stop(&mut self, tracker: &RequestTracker) {
        let (begun, state_changes, body_bytes) = (Instant::now(), tracker.state_changes(), tracker.body_bytes());
        self.stopping = Some(Progress { begun, since: begun, state_changes, body_bytes });
    }

    /// Returns when to call [`tick`](Self::tick) next. Several times per idle timeout, because requests do not report
    /// their end here.
    pub(super) fn next(&self) -> Instant {
        if self.stopping.is_some() {
            let check = Instant::now() + STOPPING_CHECK_INTERVAL;
            return self.closes.map_or(check, |ending| check.min(ending.at));
        }
        if let Some(ending) = self.closes {
            return ending.at;
        }
        let check = (self.lifetime.idle / 4).max(Duration::from_millis(10));
        let check = later(Instant::now(), check);
        match self.lifetime.age {
            Some((age, _)) => check.min(later(self.begun, age)),
            None => check,
        }
    }

    /// Returns what is due at this time.
    pub(super) fn tick(&mut self, tracker: &RequestTracker) -> Step {
        let now = Instant::now();
        if let Some(progress) = &mut self.stopping
            && progress.is_stalled(tracker, now)
        {
            return Step::Stalled;
        }
        if let Some(ending) = &mut self.closes {
            return ending.tick(tracker, now);
        }
        if let Some((age, grace)) = self.lifetime.age
            && now >= later(self.begun, age)
        {
            self.closes = Some(Ending { at: later(now, grace), waits: false, is_closing: false });
            return Step::MaxAge;
        }
        let state_changes = tracker.state_changes();
        if state_changes != self.state_changes || tracker.in_flight() > 0 {
            (self.last_active, self.state_changes) = (now, state_changes);
        }
        if tracker.is_http2() && now >= later(self.last_active, self.lifetime.idle) {
            // A request may have been in transit when the client was asked to close.
            self.closes = Some(Ending { at: now + GOAWAY_GRACE, waits: true, is_closing: false });
            return Step::Idle;
        }
        Step::Wait
    }
}

impl Ending {
    fn tick(&mut self, tracker: &RequestTracker, now: Instant) -> Step {
        let is_idle = tracker.in_flight() == 0;
        if now < self.at {
            return Step::Wait;
        }
        if self.waits && !is_idle {
            self.at = now + GOAWAY_GRACE;
            return Step::Wait;
        }
        if is_idle && !tracker.is_http2() && !self.is_closing {
            (self.at, self.is_closing) = (now + STOP_GRACE, true);
            return Step::CloseWhenIdle;
        }
        Step::Close
    }
}

impl Progress {
    /// Whether the client has made too little progress for too long: it neither closes its connection nor completes the
    /// body of its request.
    fn is_stalled(&mut self, tracker: &RequestTracker, now: Instant) -> bool {
        let is_past_grace = now >= self.begun + STOP_GRACE;
        if is_past_grace && tracker.is_http2() {
            // The client may ignore the GOAWAY.
            tracker.reject_requests();
        }
        let (state_changes, body_bytes) = (tracker.state_changes(), tracker.body_bytes());
        let has_sent = body_bytes.wrapping_sub(self.body_bytes) >= MIN_PROGRESS;
        if state_changes != self.state_changes || has_sent || tracker.unfinished().running > 0 {
            (self.since, self.state_changes, self.body_bytes) = (now, state_changes, body_bytes);
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

    /// Waits for the next step, and returns it with its time.
    async fn next(clock: &mut Clock, tracker: &RequestTracker) -> (Step, Duration) {
        loop {
            sleep_until(clock.next()).await;
            let step = clock.tick(tracker);
            if step != Step::Wait {
                return (step, clock.begun.elapsed());
            }
        }
    }

    fn clock(age: Option<(Duration, Duration)>) -> (Clock, RequestTracker) {
        let tracker = Connections::default().begin().tracker();
        tracker.set_http2();
        (Clock::new(Lifetime { idle: MINUTE, age }, &tracker), tracker)
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_gets_goaway_and_is_then_closed() {
        let (mut clock, tracker) = clock(None);
        let (step, at) = next(&mut clock, &tracker).await;
        assert_eq!(step, Step::Idle);
        assert!((MINUTE..=MINUTE * 5 / 4 + GOAWAY_GRACE).contains(&at), "{at:?}");
        let (step, later) = next(&mut clock, &tracker).await;
        assert_eq!(step, Step::Close);
        assert!(later >= at + GOAWAY_GRACE, "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_past_its_maximum_age_gets_goaway_and_is_closed_after_its_grace() {
        let (mut clock, tracker) = clock(Some((MINUTE / 2, MINUTE)));
        let (step, at) = next(&mut clock, &tracker).await;
        assert_eq!(step, Step::MaxAge);
        assert!((MINUTE / 2..MINUTE).contains(&at), "{at:?}");
        let (step, at) = next(&mut clock, &tracker).await;
        assert_eq!(step, Step::Close);
        assert!((MINUTE * 3 / 2..MINUTE * 2).contains(&at), "{at:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_http1_connection_without_a_request_is_closed_when_idle() {
        let tracker = Connections::default().begin().tracker();
        let age = Some((MINUTE / 2, MINUTE));
        let mut clock = Clock::new(Lifetime { idle: MINUTE, age }, &tracker);
        assert_eq!(next(&mut clock, &tracker).await.0, Step::MaxAge);
        let (step, at) = next(&mut clock, &tracker).await;
        assert_eq!(step, Step::CloseWhenIdle);
        let (step, later) = next(&mut clock, &tracker).await;
        assert!(step == Step::Close && later >= at + STOP_GRACE, "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_crosses_with_goaway_delays_the_close() {
        let (mut clock, tracker) = clock(None);
        assert_eq!(next(&mut clock, &tracker).await.0, Step::Idle);
        let request = tracker.begin();
        let waits = tokio::time::timeout(2 * MINUTE, next(&mut clock, &tracker)).await;
        assert!(waits.is_err(), "{waits:?}");
        drop(request);
        assert_eq!(next(&mut clock, &tracker).await.0, Step::Close);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stopping_server_waits_for_running_requests_and_for_clients_that_make_progress() {
        let (mut clock, tracker) = clock(None);
        clock.stop(&tracker);
        let request = tracker.begin();
        // The request is running.
        let next_step = tokio::time::timeout(5 * STOP_GRACE, next(&mut clock, &tracker)).await;
        assert!(next_step.is_err(), "{next_step:?}");
        // Its body arrives, faster than required.
        tracker.begin_awaiting_body();
        for _ in 0..5 {
            tracker.count_body_bytes(MIN_PROGRESS);
            let next_step = tokio::time::timeout(STOP_GRACE / 2, next(&mut clock, &tracker)).await;
            assert!(next_step.is_err(), "{next_step:?}");
        }
        // A byte now and then is no progress.
        let begun = Instant::now();
        let next_step = async {
            loop {
                tracker.count_body_bytes(1);
                if let Ok((step, _)) = tokio::time::timeout(STOP_GRACE / 5, next(&mut clock, &tracker)).await {
                    return step;
                }
            }
        };
        assert_eq!(next_step.await, Step::Stalled);
        assert!((STOP_GRACE / 2..=STOP_GRACE * 3 / 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        tracker.end_awaiting_body();
        drop(request);
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
