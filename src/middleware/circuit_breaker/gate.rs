use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Sleep, sleep_until};

use super::Circuit;
use super::circuit::{Pass, Word};
use super::machine::Ticket;
use super::waiting::Waiting;
use crate::error::{AnyError, ErrorKind};
use crate::middleware::clock;

/// Lets a call through as the last `poll_ready` has decided, or says how long until one can be.
#[cold]
#[inline(never)]
pub(super) fn admit(circuit: &Circuit, gate: Option<Gate>) -> Result<Ticket, Duration> {
    let admitted = match gate.and_then(|gate| gate.decision) {
        Some(Decision::Refuse) => Err(circuit.retry_after(clock::now())),
        Some(Decision::Probe(pass)) => pass.into_current().map_or_else(|| circuit.admit(clock::now()), Ok),
        None => circuit.admit(clock::now()),
    };
    admitted.inspect_err(|_| circuit.count_refusal())
}

/// What `poll_ready` has found out where it is more than that the circuit is closed and the inner service ready.
#[derive(Debug, Default)]
pub(super) struct Gate {
    decision: Option<Decision>,
    /// Its line with those that look again when the circuit changes.
    waiting: Option<Waiting>,
    /// Until the next probe, where it waits for that.
    sleep: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Decision {
    /// The inner service has not been asked, so the call is refused whatever the circuit has become by then.
    Refuse,
    /// The place of a probe.
    Probe(Pass),
}

impl Gate {
    /// Ready where the call will be refused or the inner service is ready for it. A circuit that is open does not ask the
    /// inner service, and one that is half open has only as many wait for it as may probe.
    ///
    /// `first` is what the inner service has already answered, where it has.
    pub(super) fn poll<E: AnyError>(
        &mut self,
        circuit: &Arc<Circuit>,
        mut first: Option<Poll<Result<(), E>>>,
        mut inner: impl FnMut(&mut Context<'_>) -> Poll<Result<(), E>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), E>> {
        loop {
            self.decide(circuit);
            let seen = circuit.word();
            if !self.holds_in(seen) {
                continue;
            }
            if matches!(self.decision, Some(Decision::Refuse)) {
                if !circuit.settings().hold {
                    return Poll::Ready(Ok(()));
                }
                ready!(self.poll_due(circuit, cx));
                continue;
            }
            match first.take().unwrap_or_else(|| inner(cx)) {
                Poll::Ready(result) => {
                    self.waiting = None;
                    if let Err(error) = &result {
                        self.fail(circuit, error.classify().kind);
                    }
                    return Poll::Ready(result);
                }
                Poll::Pending => {
                    Waiting::register(&mut self.waiting, circuit.waiters(), cx.waker());
                    // A change from before the waker was there has woken nobody.
                    if circuit.word() == seen {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Keeps the place of a probe for as long as the circuit is half open, and looks anew otherwise.
    fn decide(&mut self, circuit: &Arc<Circuit>) {
        if let Some(Decision::Probe(pass)) = &self.decision
            && pass.is_of(circuit.word())
        {
            return;
        }
        self.decision = match circuit.admit(clock::read()) {
            Err(_) => Some(Decision::Refuse),
            // A closed circuit has no places, and is asked again by the call.
            Ok(_) if circuit.word().closed().is_some() => None,
            Ok(ticket) => Some(Decision::Probe(Pass::reserved(Arc::clone(circuit), ticket))),
        };
    }

    /// Ready when the circuit is worth another look: it has changed, or is due for a probe.
    fn poll_due(&mut self, circuit: &Arc<Circuit>, cx: &mut Context<'_>) -> Poll<()> {
        Waiting::register(&mut self.waiting, circuit.waiters(), cx.waker());
        let now = clock::read();
        let wait = circuit.retry_after(now);
        let Some(due) = now.checked_add(wait).filter(|_| !wait.is_zero()) else { return Poll::Ready(()) };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(due.into())));
        sleep.as_mut().reset(due.into());
        ready!(sleep.as_mut().poll(cx));
        self.sleep = None;
        Poll::Ready(())
    }

    /// The readiness of the inner service failed, which counts like a call that did.
    fn fail(&mut self, circuit: &Arc<Circuit>, kind: ErrorKind) {
        if let Some(Decision::Probe(mut pass)) = self.decision.take() {
            pass.end(Some(kind));
        } else if let Some(ticket) = circuit.word().closed() {
            Pass::reserved(Arc::clone(circuit), ticket).end(Some(kind));
        }
    }

    /// Whether the decision is one for the circuit as it is in `word`.
    fn holds_in(&self, word: Word) -> bool {
        match &self.decision {
            None => word.closed().is_some(),
            Some(Decision::Refuse) => true,
            Some(Decision::Probe(pass)) => pass.is_of(word),
        }
    }
}
