//! When a call came, and by when its client wants the answer.

use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::request::Deadline;
use crate::servers::headers::{GRPC_TIMEOUT, grpc_timeout};
use crate::service::InvalidInput;

/// An extension of the call's request, set when its head has come and its body has not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    at: Instant,
    /// The caller's own deadline.
    due: Option<Instant>,
}

impl Arrival {
    pub(super) fn of(headers: &HeaderMap, extensions: &http::Extensions) -> Result<Self, InvalidInput> {
        let at = tokio::time::Instant::now().into_std();
        let timeout = match headers.get("grpc-timeout") {
            Some(value) => {
                let parsed = value.to_str().ok().and_then(grpc_timeout);
                Some(parsed.ok_or_else(|| InvalidInput::new("grpc-timeout", format!("it is not {GRPC_TIMEOUT}")))?)
            }
            None => None,
        };
        // The answer must be there before the timers of tonic's transport and of the client, which say something else.
        let due = timeout.and_then(|timeout| at.checked_add(timeout - (timeout / 10).min(Duration::from_millis(10))));
        let set = extensions.get::<Deadline>().map(|deadline| deadline.0);
        Ok(Self { at, due: earlier(due, set) })
    }

    /// The caller's own deadline.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// When the call must have ended: `limit` after it came, or when its caller says.
    pub(super) fn deadline(&self, limit: Duration) -> Option<Instant> {
        earlier(self.due, self.at.checked_add(limit))
    }
}

pub(super) fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.min(other)),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_earliest_deadline_counts_and_the_answer_has_time_to_travel() {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-timeout", "50m".parse().unwrap());
        let mut extensions = http::Extensions::new();
        let arrival = Arrival::of(&headers, &extensions).unwrap();
        assert_eq!(arrival.due, Some(arrival.at + Duration::from_millis(45)));
        assert_eq!(arrival.deadline(Duration::from_millis(1)), Some(arrival.at + Duration::from_millis(1)));
        assert_eq!(arrival.deadline(Duration::MAX), arrival.due);
        extensions.insert(Deadline(arrival.at));
        assert_eq!(Arrival::of(&headers, &extensions).unwrap().due, Some(arrival.at));
    }
}
