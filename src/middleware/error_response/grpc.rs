//! gRPC statuses in the headers of a response, after
//! [PROTOCOL-HTTP2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).

use http::{HeaderName, HeaderValue, Response, header};

use super::Rejection;
use crate::error::grpc_status::Status;

pub(super) const CONTENT_TYPE: &str = "application/grpc";

const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

pub(super) fn response<B>(rejection: &Rejection, body: B) -> Response<B> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    let mut status = Status::new(rejection.kind, rejection.detail.clone());
    if let Some(wait) = rejection.retry_after {
        headers.insert(PUSHBACK, u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).into());
        status.add_retry_info(wait);
    }
    status.write_headers(headers);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::error::grpc_status::MAX_TEXT_BYTES;
    use std::time::Duration;

    fn rejection(detail: &str, retry_after: Option<Duration>) -> Rejection {
        Rejection { kind: ErrorKind::RateLimited, retry_after, challenge: None, detail: detail.to_owned() }
    }

    #[test]
    fn messages_are_escaped_as_the_specification_says() {
        for (text, escaped) in [
            ("plain, with ~ and \"quotes\"", "plain, with ~ and \"quotes\""),
            ("100 %", "100 %25"),
            ("one\r\ntwo", "one%0D%0Atwo"),
            ("zurück", "zur%C3%BCck"),
            ("\u{7f}", "%7F"),
        ] {
            assert_eq!(response(&rejection(text, None), ()).headers()["grpc-message"], escaped);
        }
    }

    #[test]
    fn a_long_message_is_truncated_between_characters() {
        let response = response(&rejection(&"ü".repeat(MAX_TEXT_BYTES), Some(Duration::from_secs(1))), ());
        let message = "%C3%BC".repeat(MAX_TEXT_BYTES / 2) + "%E2%80%A6";
        assert_eq!(response.headers()["grpc-message"].as_bytes(), message.as_bytes());
        let all: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(all < 8192, "{all} bytes of headers");
    }

    #[test]
    fn the_time_to_retry_is_sent_as_a_header_and_as_a_detail() {
        let response = response(&rejection("slow down", Some(Duration::from_micros(1_500_001))), ());
        assert_eq!(response.headers()[PUSHBACK], "1501");
        // As Python's `google.rpc.status_pb2` and `error_details_pb2` write it.
        assert_eq!(
            response.headers()["grpc-status-details-bin"],
            "CAgSCXNsb3cgZG93bho2Cih0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuUmV0cnlJbmZvEgoKCAgBEOjRte4B"
        );
        assert_eq!(super::response(&rejection("no", None), ()).headers().get("grpc-status-details-bin"), None);
    }
}
