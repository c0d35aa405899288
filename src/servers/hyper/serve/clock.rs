//! How long one connection lives.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use tokio::time::Instant;

use super::read_clock::MIN_PROGRESS;
use super::request_tracker::Activity;
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

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Wait,
    /// Nothing was asked for too long.
    Idle,
    /// It has reached its age.
    Old,
    /// It is to end as soon as no request is on its way: one of HTTP/1.1 that had no response in which to be told.
    CloseWhenIdle,
    /// It has been told to end and has not.
    Close,
    /// The server stops, and the client neither ends the connection nor goes on with what it has begun.
    GivenUp,
}

pub(super) struct Clock {
    lifetime: Lifetime,
    begun: Instant,
    /// When it was last seen that something was asked, and how often until then.
    asked: Instant,
    turns: usize,
    /// When to close it, once it has been told to end.
    closes: Option<Ending>,
    /// Whether the client does its part, once the server stops.
    stopping: Option<Progress>,
}

/// How a connection ends that has been told to.
#[derive(Clone, Copy)]
struct Ending {
    at: Instant,
    /// Whether requests in flight are waited for.
    waits: bool,
    /// Whether it is to end when it is idle.
    is_closing: bool,
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
    pub(super) fn new(lifetime: Lifetime, activity: &Activity) -> Self {
        let now = Instant::now();
        Self { lifetime, begun: now, asked: now, turns: activity.turns(), closes: None, stopping: None }
    }

    /// The server stops.
    pub(super) fn stop(&mut self, activity: &Activity) {
        let (begun, turns, body_bytes) = (Instant::now(), activity.turns(), activity.body_bytes());
        self.stopping = Some(Progress { begun, since: begun, turns, body_bytes });
    }

    /// When to look next: some times within the idle timeout, as requests do not tell it when they end.
    pub(super) fn next(&self) -> Instant {
        if self.stopping.is_some() {
            let look = Instant::now() + STOPPING_LOOK;
            return self.closes.map_or(look, |ending| look.min(ending.at));
        }
        if let Some(ending) = self.closes {
            return ending.at;
        }
        let look = (self.lifetime.idle / 4).max(Duration::from_millis(10));
        let look = later(Instant::now(), look);
        match self.lifetime.age {
            Some((age, _)) => look.min(later(self.begun, age)),
            None => look,
        }
    }

    pub(super) fn tick(&mut self, activity: &Activity) -> Step {
        let now = Instant::now();
        if let Some(progress) = &mut self.stopping
            && progress.has_ceased(activity, now)
        {
            return Step::GivenUp;
        }
        if let Some(ending) = &mut self.closes {
            return ending.tick(activity, now);
        }
        if let Some((age, grace)) = self.lifetime.age
            && now >= later(self.begun, age)
        {
            self.closes = Some(Ending { at: later(now, grace), waits: false, is_closing: false });
            return Step::Old;
        }
        let turns = activity.turns();
        if turns != self.turns || activity.in_flight() > 0 {
            (self.asked, self.turns) = (now, turns);
        }
        if activity.is_http2() && now >= later(self.asked, self.lifetime.idle) {
            // A request may have been on its way when its client was told.
            self.closes = Some(Ending { at: now + GOODBYE, waits: true, is_closing: false });
            return Step::Idle;
        }
        Step::Wait
    }
}

impl Ending {
    fn tick(&mut self, activity: &Activity, now: Instant) -> Step {
        let is_idle = activity.in_flight() == 0;
        if now < self.at {
            return Step::Wait;
        }
        if self.waits && !is_idle {
            self.at = now + GOODBYE;
            return Step::Wait;
        }
        if is_idle && !activity.is_http2() && !self.is_closing {
            (self.at, self.is_closing) = (now + STOP_GRACE, true);
            return Step::CloseWhenIdle;
        }
        Step::Close
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

    #[tokio::test(start_paused = true)]
    async fn one_of_http1_without_a_request_is_closed_when_it_is_idle() {
        let activity = Connections::default().begin().activity();
        let age = Some((MINUTE / 2, MINUTE));
        let mut clock = Clock::new(Lifetime { idle: MINUTE, age }, &activity);
        assert_eq!(next(&mut clock, &activity).await.0, Step::Old);
        let (step, at) = next(&mut clock, &activity).await;
        assert_eq!(step, Step::CloseWhenIdle);
        let (step, later) = next(&mut clock, &activity).await;
        assert!(step == Step::Close && later >= at + STOP_GRACE, "{later:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_that_crosses_with_the_end_of_an_idle_connection_is_waited_for() {
        let (mut clock, activity) = clock(None);
        assert_eq!(next(&mut clock, &activity).await.0, Step::Idle);
        let request = activity.begin();
        let waits = tokio::time::timeout(2 * MINUTE, next(&mut clock, &activity)).await;
        assert!(waits.is_err(), "{waits:?}");
        drop(request);
        assert_eq!(next(&mut clock, &activity).await.0, Step::Close);
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_stops_waits_for_its_work_and_for_clients_that_go_on() {
        let (mut clock, activity) = clock(None);
        clock.stop(&activity);
        let request = activity.begin();
        // It runs.
        let gives_up = tokio::time::timeout(5 * STOP_GRACE, next(&mut clock, &activity)).await;
        assert!(gives_up.is_err(), "{gives_up:?}");
        // Its body comes, more in each grace than it must.
        activity.begin_awaiting_body();
        for _ in 0..5 {
            activity.count_body_bytes(MIN_PROGRESS);
            let gives_up = tokio::time::timeout(STOP_GRACE / 2, next(&mut clock, &activity)).await;
            assert!(gives_up.is_err(), "{gives_up:?}");
        }
        // A byte now and then is no progress.
        let begun = Instant::now();
        let gives_up = async {
            loop {
                activity.count_body_bytes(1);
                if let Ok((step, _)) = tokio::time::timeout(STOP_GRACE / 5, next(&mut clock, &activity)).await {
                    return step;
                }
            }
        };
        assert_eq!(gives_up.await, Step::GivenUp);
        assert!((STOP_GRACE / 2..=STOP_GRACE * 3 / 2).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        activity.end_awaiting_body();
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
