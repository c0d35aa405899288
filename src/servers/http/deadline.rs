//! The headers by which clients say how long they wait.

use std::time::Duration;

use http::HeaderMap;

use super::Problem;
use crate::error::ErrorKind;
use crate::servers::headers::{GRPC_TIMEOUT, digits, grpc_timeout};

/// The shorter of [`grpc-timeout`](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md) and
/// [`connect-timeout-ms`](https://connectrpc.com/docs/protocol), where either is there.
pub(super) fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let grpc = read(headers, "grpc-timeout", GRPC_TIMEOUT, grpc_timeout)?;
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
        assert_eq!(of(&[("grpc-timeout", "50m")]).unwrap(), Some(Duration::from_millis(50)));
        let both = of(&[("grpc-timeout", "99999999H"), ("connect-timeout-ms", "250")]);
        assert_eq!(both.unwrap(), Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_no_timeout_is_refused_by_name() {
        for (name, text) in [
            ("grpc-timeout", "soon"),
            ("connect-timeout-ms", ""),
            ("connect-timeout-ms", "1.5"),
            ("connect-timeout-ms", "-1"),
            ("connect-timeout-ms", "12345678901"),
        ] {
            assert!(of(&[(name, text)]).is_err(), "{name}: {text:?}");
        }
    }
}
