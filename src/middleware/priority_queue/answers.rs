//! How long calls take from their turn to their answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::middleware::clock;
use crate::middleware::per_share::{Forget, PerShare};
use crate::request::Share;
use crate::request::operation_table::{OperationIndex, OperationTable, insertable_name};

/// What calls of each [operation](crate::request::RequestContext::operation) took, leaning to the longer ones: whoever has
/// no more left than calls take on the average would be late every other time.
///
/// A share that has been assigned has times of its own: what it waits further in is for what it has asked for itself. Nothing
/// is taken for known of such a share's calls of an operation before one has been answered.
#[derive(Debug)]
pub(super) struct Answers {
    operations: OperationTable<PerShare<Time>>,
    /// Of all calls, for those of which nothing else is known, where shares are not apart.
    all: Time,
}

/// What a call is an example of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Known(OperationIndex),
    /// An operation of which none has been answered after a wait.
    New,
}

/// Names beyond these have no time of their own.
const MAX_OPERATIONS: usize = 512;

/// The bits of a float: seconds; zero until something is known. Of two that change it at the same time one may be lost,
/// which what is learned can do without.
#[derive(Debug, Default)]
struct Time(AtomicU64);

impl Time {
    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    fn set(&self, seconds: f64) {
        self.0.store(seconds.to_bits(), Ordering::Relaxed);
    }

    /// A longer one counts a quarter, a shorter one a 32nd: some three calls of four take no longer than this says.
    fn add(&self, took: f64) {
        let known = self.get();
        let weight = if took > known { 0.25 } else { 1.0 / 32.0 };
        self.set(if known == 0.0 { took } else { known + (took - known) * weight });
    }

    fn shave(&self) {
        let known = self.get();
        self.set(known - known / 32.0);
    }
}

impl Forget for Time {
    fn forget(&self) {
        self.set(0.0);
    }
}

impl Answers {
    pub(super) fn new() -> Self {
        Self { operations: OperationTable::new(MAX_OPERATIONS), all: Time::default() }
    }

    pub(super) fn kind(&self, operation: &str) -> Kind {
        self.operations.find(operation).map_or(Kind::New, |(at, _)| Kind::Known(at))
    }

    /// How long calls like this one take; zero where nothing is known of any.
    pub(super) fn time(&self, kind: Kind, share: Option<Share>) -> Duration {
        let seconds = self.of(kind, share).map_or(0.0, Time::get);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// A call took so long. `name` is its operation's where that was not known as the call's turn came.
    pub(super) fn add(&self, kind: Kind, name: Option<&str>, share: Option<Share>, took: Duration) {
        let took = took.as_secs_f64();
        self.all.add(took);
        let times = match (kind, name) {
            (Kind::Known(known), _) => Some(&self.operations[known]),
            (Kind::New, name) => {
                name.and_then(|name| self.operations.find_or_insert(name, PerShare::default)).map(|(_, times)| times)
            }
        };
        if let Some(times) = times {
            times.all.add(took);
            share.and_then(|share| times.get_or_take(share)).inspect(|own| own.add(took));
        }
    }

    /// A call was refused on the strength of this time alone. One that is too long would never be put right, as no call
    /// would show it, so each such refusal takes something off.
    pub(super) fn doubt(&self, kind: Kind, share: Option<Share>) {
        self.of(kind, share).inspect(|time| time.shave());
    }

    fn of(&self, kind: Kind, share: Option<Share>) -> Option<&Time> {
        match kind {
            Kind::Known(known) => self.operations[known].get(share.unwrap_or_default()),
            Kind::New => share.is_none().then_some(&self.all),
        }
    }
}

/// Takes the time of a call from its turn on.
pub(super) struct Watch {
    answers: Arc<Answers>,
    kind: Kind,
    /// Of an operation that is not known yet.
    name: Option<Box<str>>,
    share: Option<Share>,
    begun: Instant,
    done: bool,
}

impl Watch {
    pub(super) fn new(answers: Arc<Answers>, operation: &str, share: Option<Share>, begun: Instant) -> Self {
        let kind = answers.kind(operation);
        let name = (kind == Kind::New).then(|| insertable_name(operation).into());
        Self { answers, kind, name, share, begun, done: false }
    }

    /// The call has ended; a failure says nothing of how long an answer takes.
    pub(super) fn ended(mut self, answered: bool) {
        self.done = true;
        if answered {
            self.answers.add(self.kind, self.name.as_deref(), self.share, self.took());
        }
    }

    fn took(&self) -> Duration {
        clock::read().saturating_duration_since(self.begun)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        // One that was given up after it had taken longer than calls do would have taken longer still.
        let took = self.took();
        if took > self.answers.time(self.kind, self.share) {
            self.answers.add(self.kind, None, self.share, took);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);
    const ALL: Option<Share> = None;

    #[test]
    fn three_calls_of_four_take_no_longer_than_is_said() {
        let answers = Answers::new();
        assert_eq!(answers.time(Kind::New, ALL), Duration::ZERO);
        // From 5 to 15 ms, in no order.
        let times: Vec<Duration> = (0..2000_u32).map(|n| MILLI * (5 + n * 7 % 11)).collect();
        for &took in &times {
            let kind = answers.kind("a");
            answers.add(kind, (kind == Kind::New).then_some("a"), ALL, took);
        }
        let said = answers.time(answers.kind("a"), ALL);
        let longer = times.iter().filter(|&&took| took > said).count();
        assert!((400..=600).contains(&longer), "{longer} of 2000 took longer than {said:?}");
        assert_eq!(answers.time(Kind::New, ALL), said, "of all of them");
        let other = Some(Share::new(9, std::num::NonZeroU16::MIN));
        assert_eq!(answers.time(Kind::New, other), Duration::ZERO, "no guess for a share");
        assert_eq!(answers.time(answers.kind("a"), other), Duration::ZERO, "nor of another share");
        answers.add(answers.kind("a"), None, other, MILLI * 900);
        assert_eq!(answers.time(answers.kind("a"), other), MILLI * 900);
    }

    #[test]
    fn a_time_that_is_too_long_is_doubted_and_names_are_bounded() {
        let answers = Answers::new();
        answers.add(Kind::New, Some("a"), ALL, MILLI * 1000);
        let refusals = (0..).take_while(|_| {
            let kind = answers.kind("a");
            answers.doubt(kind, ALL);
            answers.time(kind, ALL) > MILLI * 100
        });
        assert!((50..100).contains(&refusals.count()));
        for n in 0..2 * MAX_OPERATIONS {
            answers.add(Kind::New, Some(&n.to_string()), ALL, MILLI);
        }
        assert_eq!(answers.operations.iter().count(), MAX_OPERATIONS);
        assert!(matches!((answers.kind("a"), answers.kind("1000")), (Kind::Known(_), Kind::New)));
    }
}
