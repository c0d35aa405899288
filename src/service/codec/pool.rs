//! The threads that decode large inputs and encode large outputs.
//!
//! A thread of a runtime should not be occupied for long, and a worker has kernels to run. So what takes longer than
//! [`INLINE`](crate::service::CODEC_INLINE) is done here, on as many threads as the machine has processors, which are started with the first
//! such work. Like the queue of a worker pool, that of these threads is fair among shares. It has no limit of its own: its work
//! belongs to requests that the layers and the backend have let in.

use std::future::Future;
use std::num::NonZero;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::Span;

use crate::fair_queue::{QueueKey, Receiver, Sender, channel};
use crate::panics::{LogLimit, catch_panic};
use crate::service::KernelError;

type Work = Box<dyn FnOnce() + Send>;

/// The queue of the threads, once they have been started.
static QUEUE: Mutex<Option<(Sender<Work>, Receiver<Work>)>> = Mutex::new(None);

/// The result of work on the codec threads. Dropping it cancels the work; what has not started is never started.
#[derive(Debug)]
#[must_use = "dropping it cancels the work"]
pub(crate) struct Offloaded<T> {
    result: oneshot::Receiver<T>,
    _cancel: DropGuard,
}

impl<T> Future for Offloaded<T> {
    type Output = Result<T, KernelError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let panicked = |_| KernelError::Panicked { message: "the thread that had the payload panicked".to_owned() };
        Pin::new(&mut self.result).poll(cx).map_err(panicked)
    }
}

/// Runs `work` on a codec thread, in the current span. `work` gets the token that is cancelled with the result.
///
/// # Errors
/// [`KernelError::Device`] if the operating system cannot start a thread.
pub(crate) fn offload<T: Send + 'static>(
    key: QueueKey,
    work: impl FnOnce(&CancellationToken) -> T + Send + 'static,
) -> Result<Offloaded<T>, KernelError> {
    let (sender, result) = oneshot::channel();
    let (cancelled, span) = (CancellationToken::new(), Span::current());
    let cancel = cancelled.clone().drop_guard();
    let work = move || {
        if !cancelled.is_cancelled() {
            // It fails only if the request was cancelled meanwhile.
            let _ = sender.send(span.in_scope(|| work(&cancelled)));
        }
    };
    send(Box::new(work), key)?;
    Ok(Offloaded { result, _cancel: cancel })
}

fn send(work: Work, key: QueueKey) -> Result<(), KernelError> {
    let mut queue = QUEUE.lock();
    let (sender, _) = match &*queue {
        Some(queue) => queue,
        None => queue.insert(start()?),
    };
    sender.send(work, key).map_err(|_full| KernelError::Device("the queue of the codec threads is full".to_owned()))
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// Starts the threads.
fn start() -> Result<(Sender<Work>, Receiver<Work>), KernelError> {
    let (sender, receiver) = channel(usize::MAX, Duration::ZERO);
    for index in 0..threads() {
        let receiver = receiver.clone();
        let thread = std::thread::Builder::new().name(format!("codec-{index}")).spawn(move || run_all(&receiver));
        thread.map_err(|error| KernelError::Device(format!("a codec thread could not be started: {error}")))?;
    }
    Ok((sender, receiver))
}

/// How busy the codec threads are.
#[cfg(any(feature = "axum", feature = "hyper"))]
#[derive(Debug)]
pub(crate) struct CodecLoad {
    pub(crate) threads: usize,
    /// Inputs and outputs that wait for a thread.
    pub(crate) queued: usize,
}

#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) fn codec_load() -> CodecLoad {
    let queued = QUEUE.lock().as_ref().map_or(0, |(_, receiver)| receiver.len());
    CodecLoad { threads: threads(), queued }
}

fn run_all(queue: &Receiver<Work>) {
    static LIMIT: LogLimit = LogLimit::new();
    while let Some((work, charge)) = queue.recv() {
        let started = Instant::now();
        // Panics of a kernel's types are caught further in: this is a bug in this crate, or a panic in the `Drop` of a value.
        if let Err(panicked) = catch_panic(work)
            && let Some(left_out) = LIMIT.next()
        {
            tracing::error!(panic = %panicked, left_out, "a codec thread panicked and goes on");
        }
        queue.complete(charge, started.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::mpsc;

    use serde::{Deserialize, Deserializer};

    use super::*;
    use crate::service::codec::{decode_json, decode_until, read_all};

    #[tokio::test]
    async fn work_is_done_on_another_thread_and_a_panic_is_the_error_of_its_request_alone() {
        let here = std::thread::current().id();
        let there = offload(QueueKey::default(), |_| std::thread::current().id()).unwrap();
        assert_ne!(there.await.unwrap(), here);
        let panics = offload(QueueKey::default(), |_| -> u32 { panic!("as it was told to") }).unwrap();
        assert!(matches!(panics.await, Err(KernelError::Panicked { .. })));
        assert_eq!(offload(QueueKey::default(), |_| 7).unwrap().await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_dropped_result_cancels_work_that_runs_and_work_that_waits() {
        let (started, has_started) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        // More than there are threads, none of which ends by itself.
        let threads = std::thread::available_parallelism().map_or(1, NonZero::get);
        let works: Vec<_> = (0..threads)
            .map(|_| {
                let (started, ended) = (started.clone(), ended.clone());
                offload(QueueKey::default(), move |cancelled| {
                    started.send(()).unwrap();
                    while !cancelled.is_cancelled() {
                        std::thread::yield_now();
                    }
                    ended.send(()).unwrap();
                })
                .unwrap()
            })
            .collect();
        (0..threads).for_each(|_| has_started.recv().unwrap());
        let (ran, has_run) = mpsc::channel::<()>();
        let waiting = offload(QueueKey::default(), move |_| ran.send(()).unwrap()).unwrap();
        drop(waiting);
        drop(works);
        (0..threads).for_each(|_| has_ended.recv().unwrap());
        assert!(has_run.recv().is_err(), "it was cancelled before it started");
    }

    /// The tenth element waits until the result was dropped.
    #[tokio::test]
    async fn a_dropped_result_ends_the_decoding_of_a_long_array() {
        thread_local! {
            static ELEMENTS: Cell<usize> = const { Cell::new(0) };
            static TENTH: Cell<Option<(mpsc::Sender<()>, mpsc::Receiver<()>)>> = const { Cell::new(None) };
        }

        struct Element;

        impl<'de> Deserialize<'de> for Element {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                u64::deserialize(deserializer)?;
                ELEMENTS.set(ELEMENTS.get() + 1);
                if ELEMENTS.get() == 10 {
                    let (reached, goes_on) = TENTH.take().unwrap();
                    reached.send(()).unwrap();
                    goes_on.recv().unwrap();
                }
                Ok(Self)
            }
        }

        #[derive(Deserialize)]
        struct Long {
            #[serde(deserialize_with = "read_long")]
            elements: Vec<Element>,
        }

        fn read_long<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Element>, D::Error> {
            struct Elements;

            impl<'de> serde::de::Visitor<'de> for Elements {
                type Value = Vec<Element>;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a sequence")
                }

                fn visit_seq<A: serde::de::SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
                    read_all(seq)
                }
            }

            deserializer.deserialize_seq(Elements)
        }

        let (reached, is_reached) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let (ended, has_ended) = mpsc::channel();
        let decoding = offload(QueueKey::default(), move |cancelled| {
            TENTH.set(Some((reached, goes_on)));
            ELEMENTS.set(0);
            let document = format!(r#"{{"elements": [{}0]}}"#, "0,".repeat(1_000_000));
            let decoded = decode_until(None, Some(cancelled), || decode_json::<Long>(document.as_bytes()));
            let decoded = decoded.map(|long| long.map(|long| long.elements.len()));
            ended.send((decoded.map_err(KernelError::from), ELEMENTS.get())).unwrap();
        })
        .unwrap();
        is_reached.recv().unwrap();
        drop(decoding);
        go_on.send(()).unwrap();
        let (decoded, elements) = has_ended.recv().unwrap();
        assert!(matches!(decoded, Err(KernelError::Cancelled)) && elements < 10_000, "{elements}: {decoded:?}");
    }
}
