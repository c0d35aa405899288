use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::timeout;

use super::circuits::Circuit;
use super::future::CallGuard;
use crate::error::AnyError;
use crate::middleware::clock;

/// What `poll_ready` has decided for the next call, and what it waits for.
#[derive(Default)]
pub(super) struct Readiness {
    /// The admitted call, which holds a permit if it is a probe. If it is an error, the inner service was not polled, so the
    /// call is rejected even if the circuit closes before it.
    admitted: Option<Result<CallGuard, Duration>>,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Readiness {
    /// Admits the next call as `poll` has decided, or returns the time until one can be.
    pub(super) fn admit(&mut self, circuit: &Arc<Circuit>) -> Result<CallGuard, Duration> {
        let now = clock::now();
        let admitted = match self.admitted.take() {
            Some(Ok(call)) if call.is_current() => Ok(call),
            Some(Err(_)) => Err(circuit.state.lock().retry_after(now)),
            Some(Ok(_)) | None => circuit.try_admit(None, now),
        };
        admitted.inspect_err(|_| circuit.state.lock().rejected += 1)
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
                self.admitted = Some(circuit.try_admit(None, clock::read()));
            }
            let is_rejected = matches!(self.admitted, Some(Err(_)));
            let ready = if !is_rejected {
                poll_inner(cx)
            } else if circuit.config.unready_while_open {
                Poll::Pending
            } else {
                Poll::Ready(Ok(()))
            };
            if let Poll::Ready(result) = ready {
                self.wait = None;
                return Poll::Ready(result.inspect_err(|error| self.fail(error)));
            }
            let wait = self.wait.get_or_insert_with(|| Box::pin(changed(circuit, is_rejected)));
            if wait.as_mut().poll(cx).is_ready() {
                self.wait = None;
            } else if is_rejected || self.has_admitted() {
                return Poll::Pending;
            }
            // The circuit has changed, maybe before this began to wait for that.
        }
    }

    /// Whether the next call is admitted, and the circuit has not changed since.
    fn has_admitted(&self) -> bool {
        matches!(&self.admitted, Some(Ok(call)) if call.is_current())
    }

    /// Counts an error of the inner service's readiness like that of a call.
    fn fail(&mut self, error: &impl AnyError) {
        if let Some(Ok(mut call)) = self.admitted.take() {
            call.start(None);
            call.end(Some(error.classify().kind));
        }
    }
}

/// Resolves when the circuit has changed, or if `or_due` when it is due for a probe.
fn changed(circuit: &Circuit, or_due: bool) -> impl Future<Output = ()> + Send + Sync + use<> {
    let changed = Arc::clone(&circuit.changed).notified_owned();
    let retry_after = circuit.state.lock().retry_after(clock::read());
    async move {
        if or_due {
            // Either is a reason to try again.
            let (Ok(()) | Err(_)) = timeout(retry_after, changed).await;
        } else {
            changed.await;
        }
    }
}
