//! Stops the decoding of an input once its deadline has passed or its request was cancelled.
//!
//! serde cannot pass context to a `Deserialize`, so both are in a thread-local, as [`memory`](super::memory) is. Long
//! sequences check it from time to time. The deadline is the request's or else the server's maximum, so that no input occupies
//! a thread for longer than a kernel could.

use std::cell::RefCell;
use std::fmt;
use std::time::Instant;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess};
use tokio_util::sync::CancellationToken;

use super::buffer::shrink;
use crate::service::KernelError;

thread_local! {
    static DECODING: RefCell<Decoding> = const { RefCell::new(Decoding { deadline: None, cancelled: None, stopped: None }) };
}

/// What may stop the decoding of this thread, and what has.
#[derive(Default)]
struct Decoding {
    deadline: Option<Instant>,
    cancelled: Option<CancellationToken>,
    stopped: Option<Stopped>,
}

/// Restores the previous value when it is dropped, by a panic as well.
struct Restore(Decoding);

impl Drop for Restore {
    fn drop(&mut self) {
        DECODING.replace(std::mem::take(&mut self.0));
    }
}

impl Decoding {
    /// Makes it that of this thread.
    fn enter(self) -> Restore {
        Restore(DECODING.replace(self))
    }

    fn find_reason(&self) -> Option<Stopped> {
        if self.cancelled.as_ref().is_some_and(CancellationToken::is_cancelled) {
            return Some(Stopped::Cancelled);
        }
        let passed = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        passed.then_some(Stopped::DeadlinePassed)
    }
}

/// Why a decoding was stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    DeadlinePassed,
    Cancelled,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DeadlinePassed => "the deadline passed",
            Self::Cancelled => "the request was cancelled",
        })
    }
}

/// The error of a request whose input was being decoded.
impl From<Stopped> for KernelError {
    fn from(stopped: Stopped) -> Self {
        match stopped {
            Stopped::DeadlinePassed => Self::DeadlineExceeded { started: false },
            Stopped::Cancelled => Self::Cancelled,
        }
    }
}

/// Runs `decode` until `deadline` and while it is not `cancelled`. Any error is replaced by [`Stopped`] once one of them was
/// found to stop it.
pub(crate) fn decode_until<T, E>(
    deadline: Option<Instant>,
    cancelled: Option<&CancellationToken>,
    decode: impl FnOnce() -> Result<T, E>,
) -> Result<Result<T, E>, Stopped> {
    if deadline.is_none() && cancelled.is_none() {
        return Ok(decode());
    }
    let _restore = Decoding { deadline, cancelled: cancelled.cloned(), stopped: None }.enter();
    let decoded = decode();
    match stopped() {
        Some(stopped) if decoded.is_err() => Err(stopped),
        _ => Ok(decoded),
    }
}

/// Runs `work`, in which decoding fails once it is `cancelled`.
#[cfg(any(feature = "actix", feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) fn until_cancelled<T>(cancelled: CancellationToken, work: impl FnOnce() -> T) -> T {
    let _restore = Decoding { deadline: None, cancelled: Some(cancelled), stopped: None }.enter();
    work()
}

/// Returns why this thread's decoding was found to be stopped.
pub(super) fn stopped() -> Option<Stopped> {
    DECODING.with_borrow(|decoding| decoding.stopped)
}

/// Fails once this thread's decoding is to stop.
pub(super) fn check<E: Error>() -> Result<(), E> {
    let reason = DECODING.with_borrow_mut(|decoding| {
        decoding.stopped = decoding.stopped.or(decoding.find_reason());
        decoding.stopped
    });
    reason.map_or(Ok(()), |stopped| Err(E::custom(stopped)))
}

/// Elements between two checks.
const STRIDE: usize = 4096;

/// Reads a sequence of any length, and checks on the way whether to stop.
pub(crate) fn read_all<'de, T, A>(seq: A) -> Result<Vec<T>, A::Error>
where
    T: Deserialize<'de>,
    A: SeqAccess<'de>,
{
    // Grown as elements arrive, whatever length is claimed.
    let mut elements = Vec::new();
    read_into(seq, &mut elements)?;
    shrink(&mut elements);
    Ok(elements)
}

/// Appends a sequence of any length, and checks on the way whether to stop.
pub(crate) fn read_into<'de, T, A>(mut seq: A, elements: &mut Vec<T>) -> Result<(), A::Error>
where
    T: Deserialize<'de>,
    A: SeqAccess<'de>,
{
    while let Some(element) = seq.next_element()? {
        elements.push(element);
        if elements.len().is_multiple_of(STRIDE) {
            check()?;
        }
    }
    Ok(())
}

/// Reads an optional sequence, as [`read_all`] does. For `#[serde(default, deserialize_with)]` on long fields that are not a
/// [`Buffer`](super::Buffer).
pub(crate) fn optional_sequence<'de, D, T>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Sequence<T>(Vec<T>);

    impl<'de, T: Deserialize<'de>> Deserialize<'de> for Sequence<T> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Elements<T>(std::marker::PhantomData<T>);

            impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Elements<T> {
                type Value = Vec<T>;

                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("a sequence")
                }

                fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
                    read_all(seq)
                }
            }

            deserializer.deserialize_seq(Elements(std::marker::PhantomData)).map(Self)
        }
    }

    Ok(Option::<Sequence<T>>::deserialize(deserializer)?.map(|Sequence(elements)| elements))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::{decode_until, optional_sequence};
    use crate::service::codec::decode_json;
    use crate::service::{Buffer, FloatArray};

    #[derive(Debug, Deserialize)]
    struct Edges {
        #[serde(default, deserialize_with = "optional_sequence")]
        edges: Option<Vec<[u32; 2]>>,
    }

    #[test]
    fn long_sequences_are_given_up_at_the_deadline_and_short_ones_read() {
        let past = std::time::Instant::now().checked_sub(Duration::from_millis(1));
        let numbers = |count: usize| format!("[{}0]", "0,".repeat(count));
        let long = numbers(100_000);
        assert!(decode_until(past, None, || decode_json::<Buffer<f32>>(long.as_bytes())).is_err());
        assert!(decode_until(past, None, || decode_json::<FloatArray>(long.as_bytes())).is_err());
        let edges = format!(r#"{{"edges": [{}[0, 1]]}}"#, "[0, 1],".repeat(100_000));
        assert!(decode_until(past, None, || decode_json::<Edges>(edges.as_bytes())).is_err());
        // Nothing is left to the thread, and without a deadline nothing is given up.
        assert_eq!(
            decode_until(None, None, || decode_json::<Edges>(edges.as_bytes())).unwrap().unwrap().edges.unwrap().len(),
            100_001
        );
        assert_eq!(
            decode_until(past, None, || decode_json::<Buffer<f32>>(numbers(9).as_bytes())).unwrap().unwrap().len(),
            10
        );
        let wrong = decode_until(past, None, || decode_json::<Buffer<f32>>(b"[true]")).unwrap().unwrap_err();
        assert_eq!(wrong.field, "[0]");
        assert_eq!(decode_json::<Edges>(b"{}").unwrap().edges, None);
        assert_eq!(decode_json::<Edges>(br#"{"edges": null}"#).unwrap().edges, None);
    }
}
