use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::sync::futures::OwnedNotified;
use tokio::time::{Sleep, sleep_until};

use super::call::CallGuard;
use super::circuit::Circuit;
use crate::error::AnyError;
use crate::middleware::clock;

/// What `poll_ready` has decided for the next call, and what it waits for.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    decision: Decision,
    changed: Option<Pin<Box<OwnedNotified>>>,
    probe_timer: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug, Default)]
enum Decision {
    #[default]
    None,
    /// Holds the permit if the call is a probe.
    Admit(CallGuard),
    /// The inner service was not polled, so the call is rejected even if the circuit closes before it.
    Reject,
}

impl Readiness {
    /// Admits the next call as `poll` has decided, or returns the time until one can be.
    pub(super) fn admit(&mut self, circuit: &Arc<Circuit>) -> Result<CallGuard, Duration> {
        let now = clock::now();
        match mem::take(&mut self.decision) {
            Decision::Admit(call) if call.is_current() => Ok(call),
            Decision::Reject => {
                circuit.count_rejection();
                Err(circuit.retry_after(now))
            }
            Decision::Admit(_) | Decision::None => circuit.admit(None, now),
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
            if !self.has_admitted() {
                let admitted = circuit.try_admit(None, clock::read());
                self.decision = admitted.map_or(Decision::Reject, Decision::Admit);
            }
            if matches!(self.decision, Decision::Reject) {
                if !circuit.settings.unready_while_open {
                    self.changed = None;
                    return Poll::Ready(Ok(()));
                }
                ready!(self.poll_next_probe(circuit, cx));
            } else if let Poll::Ready(result) = poll_inner(cx) {
                self.changed = None;
                if let Err(error) = &result
                    && let Decision::Admit(mut call) = mem::take(&mut self.decision)
                {
                    // It counts like the error of a call.
                    call.start(None);
                    call.end(Some(error.classify().kind));
                }
                return Poll::Ready(result);
            } else if self.poll_changed(circuit, cx).is_pending() && self.has_admitted() {
                // It was checked again as the circuit may have changed before it was listened to.
                return Poll::Pending;
            }
        }
    }

    /// Whether the next call is admitted, and the circuit has not changed since.
    fn has_admitted(&self) -> bool {
        matches!(&self.decision, Decision::Admit(call) if call.is_current())
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
        timer.as_mut().poll(cx)
    }

    /// Ready if the circuit has changed since this was first pending.
    fn poll_changed(&mut self, circuit: &Arc<Circuit>, cx: &mut Context<'_>) -> Poll<()> {
        let changed = self.changed.get_or_insert_with(|| Box::pin(Arc::clone(&circuit.changed).notified_owned()));
        ready!(changed.as_mut().poll(cx));
        self.changed = None;
        Poll::Ready(())
    }
}
