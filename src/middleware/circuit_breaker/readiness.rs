use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::timeout;

use super::circuit::Circuit;
use super::future::CallGuard;
use crate::error::AnyError;
use crate::middleware::clock;

/// What `poll_ready` has decided for the next call, and what it waits for.
#[derive(Default)]
pub(super) struct Readiness {
    decision: Decision,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

#[derive(Default)]
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
                let mut machine = circuit.state.lock();
                machine.rejected += 1;
                Err(machine.retry_after(now))
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
            let is_rejected = matches!(self.decision, Decision::Reject);
            let ready = if !is_rejected {
                poll_inner(cx)
            } else if circuit.settings.unready_while_open {
                Poll::Pending
            } else {
                Poll::Ready(Ok(()))
            };
            if let Poll::Ready(result) = ready {
                self.wait = None;
                return Poll::Ready(result.inspect_err(|error| self.fail(error)));
            }
            // The circuit may have changed before this began to wait for that.
            if self.poll_wait(circuit, is_rejected, cx).is_pending() && (is_rejected || self.has_admitted()) {
                return Poll::Pending;
            }
        }
    }

    /// Whether the next call is admitted, and the circuit has not changed since.
    fn has_admitted(&self) -> bool {
        matches!(&self.decision, Decision::Admit(call) if call.is_current())
    }

    /// Counts an error of the inner service's readiness like that of a call.
    fn fail(&mut self, error: &impl AnyError) {
        if let Decision::Admit(mut call) = mem::take(&mut self.decision) {
            call.start(None);
            call.end(Some(error.classify().kind));
        }
    }

    /// Ready when the circuit has changed, or if `until_probe` when it is due for a probe.
    fn poll_wait(&mut self, circuit: &Arc<Circuit>, until_probe: bool, cx: &mut Context<'_>) -> Poll<()> {
        let wait = self.wait.get_or_insert_with(|| {
            let changed = Arc::clone(&circuit.changed).notified_owned();
            let retry_after = circuit.state.lock().retry_after(clock::read());
            Box::pin(async move {
                if until_probe {
                    // Either is a reason to try again.
                    let (Ok(()) | Err(_)) = timeout(retry_after, changed).await;
                } else {
                    changed.await;
                }
            })
        });
        ready!(wait.as_mut().poll(cx));
        self.wait = None;
        Poll::Ready(())
    }
}
