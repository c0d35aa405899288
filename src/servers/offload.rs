//! Moves long work off the threads that drive connections.

use std::num::NonZero;
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::service::until_cancelled;

/// Documents up to this size are scanned inline: about 100 µs at 1 GB/s.
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(super) const DOCUMENT_BYTES: usize = 100 << 10;

/// JSON up to this size is deserialized inline: about 100 µs at 200 MB/s.
#[cfg(any(feature = "actix", feature = "axum", feature = "hyper"))]
pub(super) const TYPED_JSON_BYTES: usize = 20 << 10;

/// Runs `work` inline if it is small, and otherwise on tokio's blocking pool.
///
/// At most half of the machine's threads run such work at one time, so that small requests are not delayed. Dropping
/// the future ends the wait for a permit, and the decoding of JSON. Other work that has started runs to its end and holds its
/// permit, so its duration must be bounded by the size of one request.
pub(super) async fn offload<T, F>(is_large: bool, work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if is_large { apart(work).await } else { work() }
}

// Boxed, so that the future of a small request stays small.
fn apart<T, F>(work: F) -> std::pin::Pin<Box<dyn Future<Output = T> + Send>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    Box::pin(async move {
        let permit = Arc::clone(permits()).acquire_owned().await.expect("the semaphore is never closed");
        let (span, cancelled) = (tracing::Span::current(), CancellationToken::new());
        let _cancel = cancelled.clone().drop_guard();
        let task = tokio::task::spawn_blocking(move || {
            let result = until_cancelled(cancelled, || span.in_scope(work));
            drop(permit);
            result
        });
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime was shut down before the work started, and drops this future as well.
                Err(_) => std::future::pending().await,
            },
        }
    })
}

fn permits() -> &'static Arc<Semaphore> {
    static PERMITS: OnceLock<Arc<Semaphore>> = OnceLock::new();
    PERMITS.get_or_init(|| {
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        Arc::new(Semaphore::new(threads.div_ceil(2)))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn large_work_runs_on_another_thread_and_the_wait_for_a_turn_can_be_given_up() {
        let here = thread::current().id();
        assert_eq!(offload(false, || thread::current().id()).await, here);
        assert_ne!(offload(true, || thread::current().id()).await, here);

        // As many as there are turns, none of which ends.
        let turns = permits().available_permits();
        let (ends, release): (Vec<_>, Vec<_>) = (0..turns).map(|_| mpsc::channel::<()>()).unzip();
        let (begun, has_begun) = mpsc::channel();
        let running: Vec<_> = release
            .into_iter()
            .map(|release| {
                let begun = begun.clone();
                tokio::spawn(offload(true, move || {
                    begun.send(()).unwrap();
                    release.recv().unwrap_err();
                }))
            })
            .collect();
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        tokio::task::spawn_blocking(move || (0..turns).for_each(|_| has_begun.recv().unwrap())).await.unwrap();
        let mut next = Box::pin(offload(true, || panic!("given up before its turn")));
        assert!(futures::poll!(&mut next).is_pending());
        assert_eq!(offload(false, || 7).await, 7);
        drop(next);
        drop(ends);
        for running in running {
            running.await.unwrap();
        }
        assert_eq!(offload(true, || 7).await, 7);
    }

    #[tokio::test]
    #[should_panic(expected = "as it was told to")]
    async fn a_panic_is_its_callers() {
        offload(true, || panic!("as it was told to")).await
    }
}
