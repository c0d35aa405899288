//! What requests say beside their bodies, over REST and over gRPC alike.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::request::TraceContext;
use crate::request::limits::{MAX_NAME_BYTES, MAX_TRACE_STATE_BYTES};

/// Names the request, in its answer and in the client's logs.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// It is echoed, logged and written into the answer.
const LONGEST_ID: usize = MAX_NAME_BYTES;

/// Whether a client's name for its request can be repeated: 1 to 128 visible ASCII characters.
pub(super) fn is_request_id(id: &[u8]) -> bool {
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

/// A name for a request that has none. `req-` and 16 hex digits: a count, under a key of this process, so that replicas
/// do not give the same ones.
pub(super) fn made_request_id() -> String {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!("req-{:016x}", KEY.hash_one(COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// The client's name for its request where it is one, or else a new name, which replaces what the client has sent:
/// whoever handles the request reads the same one from then on.
pub(super) fn ensure_request_id(headers: &mut HeaderMap) -> HeaderValue {
    if let Some(theirs) = headers.get(REQUEST_ID).filter(|id| is_request_id(id.as_bytes())) {
        return theirs.clone();
    }
    let made = HeaderValue::try_from(made_request_id()).expect("hex digits are visible ASCII");
    headers.insert(REQUEST_ID, made.clone());
    made
}

/// The position in a W3C trace. A malformed `traceparent` starts a new trace, as the standard says, and refuses nothing.
pub(super) fn trace_context(headers: &HeaderMap) -> Option<TraceContext> {
    let header = |name| headers.get(name)?.to_str().ok();
    let context: TraceContext = header("traceparent")?.parse().ok()?;
    Some(match header("tracestate") {
        // The standard lets those who carry a trace on drop a state that is too long for them.
        Some(state) if state.len() <= MAX_TRACE_STATE_BYTES => context.with_state(state),
        _ => context,
    })
}

/// What `grpc-timeout` may say, for whoever is told that it did not.
pub(super) const GRPC_TIMEOUT: &str = "1 to 8 digits and one of H, M, S, m, u, n";

/// `TimeoutValue TimeoutUnit` of the [protocol](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
pub(super) fn grpc_timeout(text: &str) -> Option<Duration> {
    let (value, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let value = digits(value, 8)?;
    match unit {
        "H" => Some(Duration::from_secs(value * 3600)),
        "M" => Some(Duration::from_secs(value * 60)),
        "S" => Some(Duration::from_secs(value)),
        "m" => Some(Duration::from_millis(value)),
        "u" => Some(Duration::from_micros(value)),
        "n" => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

/// A number of at most `most` digits and nothing else: `parse` alone would take a sign.
pub(super) fn digits(text: &str, most: usize) -> Option<u64> {
    let fits = text.len() <= most && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_says() {
        for (text, timeout) in [
            ("2H", Duration::from_secs(7200)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
            ("3M", Duration::from_secs(180)),
            ("4S", Duration::from_secs(4)),
            ("00000050m", Duration::from_millis(50)),
            ("6u", Duration::from_micros(6)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(grpc_timeout(text), Some(timeout), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1é", " 1S"] {
            assert_eq!(grpc_timeout(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_clients_id_is_of_visible_ascii_and_short() {
        assert!(is_request_id(b"job-7/a") && is_request_id(&[b'a'; 128]));
        for bad in [&b""[..], b"a b", "é".as_bytes(), &[b'a'; 129]] {
            assert!(!is_request_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_long_trace_state_is_dropped_and_its_trace_kept() {
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        for (length, is_kept) in [(512, true), (513, false)] {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", parent.parse().unwrap());
            headers.insert("tracestate", "x".repeat(length).parse().unwrap());
            let context = trace_context(&headers).unwrap();
            assert_eq!((context.to_string().as_str(), context.state().is_some()), (parent, is_kept), "{length}");
        }
    }

    #[test]
    fn made_ids_differ() {
        let (a, b) = (made_request_id(), made_request_id());
        assert_ne!(a, b);
        assert!(a.len() == 20 && is_request_id(a.as_bytes()));
    }
}
