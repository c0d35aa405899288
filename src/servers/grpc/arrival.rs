//! When a call came, and by when its client wants the answer.

use std::time::{Duration, Instant};

use http::HeaderMap;

use crate::service::{Deadline, Invalid};

/// An extension of the call's request, set when its head has come and its body has not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival {
    at: Instant,
    /// The caller's own deadline.
    due: Option<Instant>,
}

impl Arrival {
    pub(super) fn of(headers: &HeaderMap, extensions: &http::Extensions) -> Result<Self, Invalid> {
        let at = tokio::time::Instant::now().into_std();
        let timeout = match headers.get("grpc-timeout") {
            Some(value) => {
                let parsed = value.to_str().ok().and_then(parse);
                Some(parsed.ok_or_else(|| Invalid::new("grpc-timeout", "at most 8 digits and one of H M S m u n"))?)
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

/// `TimeoutValue TimeoutUnit` of the [protocol](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).
fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
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
            ("5m", Duration::from_millis(5)),
            ("6u", Duration::from_micros(6)),
            ("0n", Duration::ZERO),
        ] {
            assert_eq!(parse(text), Some(timeout), "{text}");
        }
        for text in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", "1é", " 1S"] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

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
