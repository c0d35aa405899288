//! How long one connection lives.

use std::hash::{BuildHasher, RandomState};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::activity::{Activity, Counts};
use super::{ServerConfig, later};

/// How long an idle connection of HTTP/2 has to acknowledge its end before it is closed without.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long a connection from the reserve is there for a probe before it is told to end, and then until it is closed.
const RESERVED_AGE: Duration = Duration::from_secs(5);

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
    mut stopping: watch::Receiver<()>,
) -> Result<(), C::Error> {
    let mut connection = pin!(connection);
    let mut clock = Clock::new(lifetime, activity);
    let mut timer = pin!(sleep_until(clock.next()));
    let mut stopped = false;
    loop {
        tokio::select! {
            biased;
            ended = &mut connection => return ended,
            _ = stopping.changed(), if !stopped => {
                stopped = true;
                connection.as_mut().graceful_shutdown();
            }
            () = &mut timer => {
                match clock.tick(activity) {
                    Step::Wait => {}
                    Step::Idle => {
                        counts.count_idle();
                        connection.as_mut().graceful_shutdown();
                    }
                    Step::Old if activity.is_http2() => {
                        counts.count_old();
                        connection.as_mut().graceful_shutdown();
                    }
                    // To close it now would lose a request that is on its way.
                    Step::Old => {
                        counts.count_old();
                        activity.close_after_response();
                    }
                    Step::Close => return Ok(()),
                }
                timer.as_mut().reset(clock.next());
            }
        }
    }
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
}

struct Clock {
    lifetime: Lifetime,
    begun: Instant,
    /// When it was last seen that something was asked, and how often until then.
    asked: Instant,
    turns: usize,
    /// When to close it, once it has been told to end.
    closes: Option<Instant>,
}

impl Clock {
    fn new(lifetime: Lifetime, activity: &Activity) -> Self {
        let now = Instant::now();
        Self { lifetime, begun: now, asked: now, turns: activity.turns(), closes: None }
    }

    /// When to look next: some times within the idle timeout, as requests do not tell it when they end.
    fn next(&self) -> Instant {
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
