//! The id of a request: in responses, error responses, logs and spans.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

use super::limits::MAX_NAME_BYTES;

/// The client's `x-request-id`, or a generated id. 1 to 128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    /// Name of the header.
    pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");

    /// Reads the client's id. `None` if there is none or it is not 1 to 128 visible ASCII characters.
    pub(crate) fn parse(headers: &HeaderMap) -> Option<Self> {
        headers.get(Self::HEADER).filter(|id| is_valid(id.as_bytes())).cloned().map(Self)
    }

    /// Reads the client's id or generates one.
    #[cfg(any(feature = "axum", feature = "hyper"))]
    pub(crate) fn from_headers(headers: &HeaderMap) -> Self {
        Self::parse(headers).unwrap_or_else(Self::generate)
    }

    /// Reads the client's id. Otherwise generates one and sets the header to it, so that inner services use the same
    /// id.
    pub(crate) fn ensure(headers: &mut HeaderMap) -> Self {
        Self::parse(headers).unwrap_or_else(|| {
            let id = Self::generate();
            headers.insert(Self::HEADER, id.0.clone());
            id
        })
    }

    /// Generates an id: `req-` and 16 hex digits, which are a count hashed with a key of this process, so that the ids
    /// of replicas differ.
    pub(crate) fn generate() -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let mut hash = KEY.hash_one(COUNT.fetch_add(1, Ordering::Relaxed));
        let mut id = *b"req-0123456789abcdef";
        // By hand, as `format!` takes several times as long.
        for digit in id[4..].iter_mut().rev() {
            *digit = b"0123456789abcdef"[(hash % 16) as usize];
            hash /= 16;
        }
        Self(HeaderValue::from_bytes(&id).expect("hex digits are visible ASCII"))
    }

    /// The id of a request within a stream: that of the stream, a slash, and the number of the request. Generated if
    /// that is too long.
    #[cfg(feature = "grpc")]
    pub(crate) fn nth_of_stream(&self, number: u64) -> Self {
        let id = format!("{}/{number}", self.as_str());
        match HeaderValue::try_from(id) {
            Ok(id) if is_valid(id.as_bytes()) => Self(id),
            _ => Self::generate(),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().expect("checked to be visible ASCII")
    }

    #[cfg(any(feature = "axum", feature = "hyper"))]
    pub(crate) fn value(&self) -> &HeaderValue {
        &self.0
    }
}

fn is_valid(id: &[u8]) -> bool {
    (1..=MAX_NAME_BYTES).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(id: &[u8]) -> Option<RequestId> {
        let id = HeaderValue::from_bytes(id).unwrap();
        RequestId::parse(&HeaderMap::from_iter([(RequestId::HEADER, id)]))
    }

    #[test]
    fn a_clients_id_is_visible_ascii_and_short() {
        assert_eq!(parse(b"job-7/a").unwrap().as_str(), "job-7/a");
        assert!(parse(&[b'a'; 128]).is_some());
        for bad in [&b""[..], b"a b", "é".as_bytes(), &[b'a'; 129]] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn generated_ids_are_valid_and_differ() {
        let (a, b) = (RequestId::generate(), RequestId::generate());
        assert_ne!(a, b);
        assert!(a.as_str().starts_with("req-") && a.as_str().len() == 20 && is_valid(a.as_str().as_bytes()));
    }

    #[test]
    fn an_id_that_is_generated_replaces_an_invalid_header() {
        let mut headers = HeaderMap::from_iter([(RequestId::HEADER, HeaderValue::from_static("a b"))]);
        let id = RequestId::ensure(&mut headers);
        assert_eq!((RequestId::ensure(&mut headers), headers.len()), (id, 1));
    }

    #[cfg(feature = "grpc")]
    #[test]
    fn requests_of_a_stream_are_numbered() {
        assert_eq!(parse(b"job-7").unwrap().nth_of_stream(3).as_str(), "job-7/3");
        assert!(parse(&[b'a'; 128]).unwrap().nth_of_stream(3).as_str().starts_with("req-"));
    }
}
