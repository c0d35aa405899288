//! Stops the decoding of an input once its deadline has passed.
//!
//! serde cannot pass context to a `Deserialize`, so the deadline is in a thread-local, as [`memory`](super::memory) is. Long
//! sequences check it from time to time. It is the request's deadline or else the server's maximum, so that no input occupies
//! a worker for longer than a kernel could.

use std::cell::Cell;
use std::time::Instant;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess};

use super::buffer::shrink;

thread_local! {
    static STATE: Cell<State> = const { Cell::new(State { deadline: None, passed: false }) };
}

#[derive(Clone, Copy)]
struct State {
    deadline: Option<Instant>,
    passed: bool,
}

/// The error of a decoding that was stopped at its deadline.
#[derive(Debug)]
pub(crate) struct DeadlinePassed;

/// Runs `decode` until `deadline`. Any error is replaced by [`DeadlinePassed`] once the deadline was found to have passed.
pub(crate) fn decode_until<T, E>(
    deadline: Option<Instant>,
    decode: impl FnOnce() -> Result<T, E>,
) -> Result<Result<T, E>, DeadlinePassed> {
    /// Restores the previous value when `decode` ends, by a panic as well.
    struct Restore(State);

    impl Drop for Restore {
        fn drop(&mut self) {
            STATE.set(self.0);
        }
    }

    if deadline.is_none() {
        return Ok(decode());
    }
    let _restore = Restore(STATE.replace(State { deadline, passed: false }));
    let decoded = decode();
    if decoded.is_err() && has_passed() { Err(DeadlinePassed) } else { Ok(decoded) }
}

/// Returns whether this thread's decoding was found to be past its deadline.
pub(super) fn has_passed() -> bool {
    STATE.get().passed
}

/// Fails once the deadline of this thread's decoding has passed.
pub(super) fn check<E: Error>() -> Result<(), E> {
    let state = STATE.get();
    if state.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
        STATE.set(State { passed: true, ..state });
        return Err(E::custom("the deadline passed"));
    }
    Ok(())
}

/// Elements between two checks of the deadline.
const STRIDE: usize = 4096;

/// Reads a sequence of any length, and checks the deadline on the way.
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

/// Appends a sequence of any length, and checks the deadline on the way.
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
        assert!(decode_until(past, || decode_json::<Buffer<f32>>(long.as_bytes())).is_err());
        assert!(decode_until(past, || decode_json::<FloatArray>(long.as_bytes())).is_err());
        let edges = format!(r#"{{"edges": [{}[0, 1]]}}"#, "[0, 1],".repeat(100_000));
        assert!(decode_until(past, || decode_json::<Edges>(edges.as_bytes())).is_err());
        // Nothing is left to the thread, and without a deadline nothing is given up.
        assert_eq!(
            decode_until(None, || decode_json::<Edges>(edges.as_bytes())).unwrap().unwrap().edges.unwrap().len(),
            100_001
        );
        assert_eq!(
            decode_until(past, || decode_json::<Buffer<f32>>(numbers(9).as_bytes())).unwrap().unwrap().len(),
            10
        );
        let wrong = decode_until(past, || decode_json::<Buffer<f32>>(b"[true]")).unwrap().unwrap_err();
        assert_eq!(wrong.field, "[0]");
        assert_eq!(decode_json::<Edges>(b"{}").unwrap().edges, None);
        assert_eq!(decode_json::<Edges>(br#"{"edges": null}"#).unwrap().edges, None);
    }
}
