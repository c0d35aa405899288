//! The headers by which clients say how long they wait.

use std::time::Duration;

use http::HeaderMap;

use super::Problem;
use crate::error::ErrorKind;

/// The shorter of [`grpc-timeout`](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) and
/// [`connect-timeout-ms`](https://connectrpc.com/docs/protocol), where either is there.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let grpc = read(headers, "grpc-timeout", "1 to 8 digits and one of H, M, S, m, u, n", grpc_timeout)?;
    let connect =
        read(headers, "connect-timeout-ms", "1 to 10 digits", |text| digits(text, 10).map(Duration::from_millis))?;
    Ok(match (grpc, connect) {
        (Some(grpc), Some(connect)) => Some(grpc.min(connect)),
        (grpc, connect) => grpc.or(connect),
    })
}

fn read(
    headers: &HeaderMap,
    name: &'static str,
    form: &str,
    parse: impl FnOnce(&str) -> Option<Duration>,
) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(name) else { return Ok(None) };
    match value.to_str().ok().and_then(parse) {
        Some(timeout) => Ok(Some(timeout)),
        None => Err(Problem::new(ErrorKind::InvalidArgument, format!("the header {name} is not {form}")).field(name)),
    }
}

fn grpc_timeout(text: &str) -> Option<Duration> {
    let (&unit, _) = text.as_bytes().split_last()?;
    let nanos: u64 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    let count = digits(text.get(..text.len() - 1)?, 8)?;
    Some(Duration::from_nanos(count.saturating_mul(nanos)))
}

/// A number of at most `most` digits and nothing else: `parse` alone would take a sign.
fn digits(text: &str, most: usize) -> Option<u64> {
    let fits = text.len() <= most && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderName, HeaderValue};

    fn of(headers: &[(&'static str, &'static str)]) -> Result<Option<Duration>, Problem> {
        let pair = |&(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value));
        timeout(&headers.iter().map(pair).collect())
    }

    #[test]
    fn both_headers_are_read_and_the_shorter_holds() {
        assert_eq!(of(&[]).unwrap(), None);
        for (text, timeout) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("3S", Duration::from_secs(3)),
            ("00000050m", Duration::from_millis(50)),
            ("0n", Duration::ZERO),
            ("7u", Duration::from_micros(7)),
        ] {
            assert_eq!(of(&[("grpc-timeout", text)]).unwrap(), Some(timeout), "{text}");
        }
        let both = of(&[("grpc-timeout", "99999999H"), ("connect-timeout-ms", "250")]);
        assert_eq!(both.unwrap(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_no_timeout_is_refused_by_name() {
        for (name, text) in [
            ("grpc-timeout", ""),
            ("grpc-timeout", "m"),
            ("grpc-timeout", "5"),
            ("grpc-timeout", "+5m"),
            ("grpc-timeout", "123456789m"),
            ("connect-timeout-ms", ""),
            ("connect-timeout-ms", "1.5"),
            ("connect-timeout-ms", "-1"),
            ("connect-timeout-ms", "12345678901"),
        ] {
            assert!(of(&[(name, text)]).is_err(), "{name}: {text:?}");
        }
    }
}
