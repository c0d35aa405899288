//! How long calls take from their turn to their answer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::line::Line;
use crate::layers::clock;

/// What calls of each [operation](crate::service::RequestContext::operation) took, leaning to the longer ones: whoever has
/// no more left than calls take on the average would be late every other time.
#[derive(Debug, Default)]
pub(super) struct Answers {
    operations: HashMap<Box<str>, u32>,
    times: Vec<Time>,
    /// Of all calls, for those of which nothing else is known.
    all: Time,
}

/// What a call is an example of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Known(u32),
    /// An operation of which none has been answered after a wait.
    New,
}

/// Names beyond these have no time of their own.
const MAX_OPERATIONS: usize = 512;

/// Seconds; zero until something is known.
#[derive(Clone, Copy, Debug, Default)]
struct Time(f64);

impl Time {
    /// A longer one counts a quarter, a shorter one a 32nd: some three calls of four take no longer than this says.
    fn add(&mut self, took: f64) {
        let weight = if took > self.0 { 0.25 } else { 1.0 / 32.0 };
        self.0 = if self.0 == 0.0 { took } else { self.0 + (took - self.0) * weight };
    }
}

impl Answers {
    pub(super) fn kind(&self, operation: &str) -> Kind {
        self.operations.get(operation).map_or(Kind::New, |&known| Kind::Known(known))
    }

    /// How long calls like this one take; zero where nothing is known of any.
    pub(super) fn time(&self, kind: Kind) -> Duration {
        let time = match kind {
            Kind::Known(known) => self.times[known as usize],
            Kind::New => self.all,
        };
        Duration::try_from_secs_f64(time.0).unwrap_or(Duration::MAX)
    }

    /// A call took so long. `name` is its operation's where that was not known as the call's turn came.
    pub(super) fn add(&mut self, kind: Kind, name: Option<Box<str>>, took: Duration) {
        let took = took.as_secs_f64();
        self.all.add(took);
        let known = match (kind, name) {
            (Kind::Known(known), _) => known,
            (Kind::New, Some(name))
                if self.operations.len() < MAX_OPERATIONS || self.operations.contains_key(&name) =>
            {
                let next = self.times.len() as u32;
                let known = *self.operations.entry(name).or_insert(next);
                if known == next {
                    self.times.push(Time::default());
                }
                known
            }
            (Kind::New, _) => return,
        };
        self.times[known as usize].add(took);
    }

    /// A call was refused on the strength of this time alone. One that is too long would never be put right, as no call
    /// would show it, so each such refusal takes something off.
    pub(super) fn doubt(&mut self, kind: Kind) {
        let time = match kind {
            Kind::Known(known) => &mut self.times[known as usize],
            Kind::New => &mut self.all,
        };
        time.0 -= time.0 / 32.0;
    }
}

/// Takes the time of a call from its turn on.
pub(super) struct Watch<S> {
    line: Arc<Line<S>>,
    kind: Kind,
    name: Option<Box<str>>,
    begun: Instant,
    done: bool,
}

impl<S> Watch<S> {
    pub(super) fn new(line: Arc<Line<S>>, kind: Kind, name: Option<Box<str>>, begun: Instant) -> Self {
        Self { line, kind, name, begun, done: false }
    }

    /// The call has ended; a failure says nothing of how long an answer takes.
    pub(super) fn ended(mut self, answered: bool) {
        self.done = true;
        if answered {
            let took = clock::read().saturating_duration_since(self.begun);
            self.line.answered(self.kind, self.name.take(), took);
        }
    }
}

impl<S> Drop for Watch<S> {
    fn drop(&mut self) {
        // One that was given up after it had taken longer than calls do would have taken longer still.
        if !self.done {
            let took = clock::read().saturating_duration_since(self.begun);
            self.line.given_up(self.kind, took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    #[test]
    fn three_calls_of_four_take_no_longer_than_is_said() {
        let mut answers = Answers::default();
        assert_eq!(answers.time(Kind::New), Duration::ZERO);
        // From 5 to 15 ms, in no order.
        let times: Vec<Duration> = (0..2000_u32).map(|n| MILLI * (5 + n * 7 % 11)).collect();
        for &took in &times {
            let kind = answers.kind("a");
            answers.add(kind, (kind == Kind::New).then(|| "a".into()), took);
        }
        let said = answers.time(answers.kind("a"));
        let longer = times.iter().filter(|&&took| took > said).count();
        assert!((400..=600).contains(&longer), "{longer} of 2000 took longer than {said:?}");
        assert_eq!(answers.time(Kind::New), said, "of all of them");
    }

    #[test]
    fn a_time_that_is_too_long_is_doubted_and_names_are_bounded() {
        let mut answers = Answers::default();
        answers.add(Kind::New, Some("a".into()), MILLI * 1000);
        let refusals = (0..).take_while(|_| {
            let kind = answers.kind("a");
            answers.doubt(kind);
            answers.time(kind) > MILLI * 100
        });
        assert!((50..100).contains(&refusals.count()));
        for n in 0..2 * MAX_OPERATIONS {
            answers.add(Kind::New, Some(n.to_string().into()), MILLI);
        }
        assert_eq!((answers.operations.len(), answers.times.len()), (MAX_OPERATIONS, MAX_OPERATIONS));
        assert_eq!((answers.kind("a"), answers.kind("1000")), (Kind::Known(0), Kind::New));
    }
}
