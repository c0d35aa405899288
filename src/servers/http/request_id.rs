//! The name of one request, in the answer, in problem documents and in the client's logs.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The client's `x-request-id`, or one made here.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
    /// It is echoed, logged and written into the answer.
    const MAX_LEN: usize = 128;

    /// The one that the client sent, where it is of at most 128 visible ASCII characters; else a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        headers.get(Self::HEADER).filter(|id| is_id(id.as_bytes())).map_or_else(Self::make, |id| Self(id.clone()))
    }

    /// `req-` and 16 hex digits: a count, under a key of this process, so that replicas do not give the same ones.
    fn make() -> Self {
        static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let id = format!("req-{:016x}", KEY.hash_one(COUNT.fetch_add(1, Ordering::Relaxed)));
        Self(HeaderValue::try_from(id).expect("hex digits are visible ASCII"))
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().expect("checked to be visible ASCII")
    }

    pub(crate) fn value(&self) -> &HeaderValue {
        &self.0
    }
}

fn is_id(id: &[u8]) -> bool {
    (1..=RequestId::MAX_LEN).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(id: &[u8]) -> RequestId {
        RequestId::of(&HeaderMap::from_iter([(RequestId::HEADER, HeaderValue::from_bytes(id).unwrap())]))
    }

    #[test]
    fn a_clients_id_is_echoed_unless_it_is_none() {
        assert_eq!(of(b"job-7/a").as_str(), "job-7/a");
        for bad in [&b""[..], b"a b", "é".as_bytes(), &[b'a'; 129]] {
            assert!(of(bad).as_str().starts_with("req-"), "{bad:?}");
        }
    }

    #[test]
    fn made_ids_differ() {
        let (a, b) = (RequestId::make(), RequestId::make());
        assert_ne!(a.as_str(), b.as_str());
        assert_eq!(a.as_str().len(), 20);
    }
}
