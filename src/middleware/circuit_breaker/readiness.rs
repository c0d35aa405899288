use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::{Sleep, sleep_until};

use super::Circuit;
use super::call::CallGuard;
use super::state_machine::Generation;
use crate::error::AnyError;
use crate::middleware::clock;

/// What `poll_ready` has decided for the next call, and what it waits for.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    decision: Option<Decision>,
    changed: Option<Pin<Box<OwnedNotified>>>,
    probe_timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Decision {
    /// Holds the permit if the call is a probe.
    Admit(CallGuard),
    /// The inner service was not polled, so the call is rejected even if the circuit closes before it.
    Reject,
}

impl Readiness {
    /// Admits the next call as `poll` has decided, or returns the time until one can be.
    pub(super) fn admit(&mut self, circuit: &Arc<Circuit>) -> Result<CallGuard, Duration> {
        let now = clock::now();
        match self.decision.take() {
            Some(Decision::Admit(call)) if call.is_current() => Ok(call),
            Some(Decision::Reject) => {
                circuit.count_rejection();
                Err(circuit.retry_after(now))
            }
            Some(Decision::Admit(_)) | None => circuit.admit(None, now),
        }
    }

    /// Ready if the next call will be rejected, or the inner service is ready for it. An open circuit does not poll the
    /// inner service, and no more wait for it than there are permits while the circuit is half open.
    pub(super) fn poll<E: AnyError>(
        &mut self,
        circuit: &Arc<Circuit>,
        mut poll_inner: impl FnMut(&mut Context<'_>) -> Poll<Result<(), E>>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), E>> {
        loop {
            let Some(generation) = self.decide(circuit) else {
                if circuit.settings.unready_while_open {
                    ready!(self.poll_next_probe(circuit, cx));
                    continue;
                }
                self.changed = None;
                return Poll::Ready(Ok(()));
            };
            if let Poll::Ready(result) = poll_inner(cx) {
                self.changed = None;
                if let Err(error) = &result
                    && let Some(Decision::Admit(mut call)) = self.decision.take()
                {
                    // It counts like the error of a call.
                    call.start(None);
                    call.end(Some(error.classify().kind));
                }
                return Poll::Ready(result);
            }
            // The circuit may have changed before it was listened to.
            if self.poll_changed(circuit, cx).is_pending() && circuit.generation() == generation {
                return Poll::Pending;
            }
        }
    }

    /// Decides the next call, unless it is decided and the circuit has not changed since. Returns the generation that
    /// admits it, if one does.
    fn decide(&mut self, circuit: &Arc<Circuit>) -> Option<Generation> {
        if !matches!(&self.decision, Some(Decision::Admit(call)) if call.is_current()) {
            let admitted = circuit.try_admit(None, clock::read());
            self.decision = Some(admitted.map_or(Decision::Reject, Decision::Admit));
        }
        match &self.decision {
            Some(Decision::Admit(call)) => call.generation(),
            Some(Decision::Reject) | None => None,
        }
    }

    /// Ready when the circuit has changed, or is due for a probe.
    fn poll_next_probe(&mut self, circuit: &Arc<Circuit>, cx: &mut Context<'_>) -> Poll<()> {
        if self.poll_changed(circuit, cx).is_ready() {
            return Poll::Ready(());
        }
        let now = clock::read();
        let retry_after = circuit.retry_after(now);
        if retry_after.is_zero() {
            return Poll::Ready(());
        }
        let due = (now + retry_after).into();
        let timer = self.probe_timer.get_or_insert_with(|| Box::pin(sleep_until(due)));
        timer.as_mut().reset(due);
        ready!(timer.as_mut().poll(cx));
        self.probe_timer = None;
        Poll::Ready(())
    }

    /// Ready if the circuit has changed since this was first pending.
    fn poll_changed(&mut self, circuit: &Arc<Circuit>, cx: &mut Context<'_>) -> Poll<()> {
        let changed = self.changed.get_or_insert_with(|| Box::pin(Arc::clone(&circuit.changed).notified_owned()));
        ready!(changed.as_mut().poll(cx));
        self.changed = None;
        Poll::Ready(())
    }
}
