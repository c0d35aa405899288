//! Moves long work off the threads that drive connections.

use std::num::NonZero;
use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;

/// Bytes up to which the document of a request is looked through where it is: at some 1 GB/s, about 100 µs.
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(super) const DOCUMENT_BYTES: usize = 100 << 10;

/// Bytes up to which JSON is read into types where it is: at some 200 MB/s, about 100 µs.
#[cfg(any(feature = "actix", feature = "axum", feature = "hyper"))]
pub(super) const TYPED_JSON_BYTES: usize = 20 << 10;

/// Runs `work` here if it is small, and on tokio's blocking pool if it is not.
///
/// At most half of the machine's threads do so at one time, so that decoding leaves room for requests that are small. The
/// wait for a turn ends when the future is dropped, as it is when the client hangs up or its deadline passes. Work that has
/// begun runs to its end and keeps its turn until then, so it must be bounded by the bytes of one request, and linear.
pub(super) async fn offload<T, F>(is_large: bool, work: F) -> T
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    if is_large { apart(work).await } else { work() }
}

// In a box, so that a small request's future has no room for what it does not do.
fn apart<T, F>(work: F) -> std::pin::Pin<Box<dyn Future<Output = T> + Send>>
where
    T: Send + 'static,
    F: FnOnce() -> T + Send + 'static,
{
    Box::pin(async move {
        let permit = Arc::clone(permits()).acquire_owned().await.expect("the semaphore is never closed");
        let span = tracing::Span::current();
        let task = tokio::task::spawn_blocking(move || {
            let result = span.in_scope(work);
            drop(permit);
            result
        });
        match task.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime has ended before the work began, and drops this future as well.
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
