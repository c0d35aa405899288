//! gRPC statuses in the headers of a response, after
//! [PROTOCOL-HTTP2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md).

use std::time::Duration;

use bytes::BufMut;
use http::{HeaderName, HeaderValue, Response, header};

use super::Rejection;
use crate::text::prefix;

pub(super) const CONTENT_TYPE: &str = "application/grpc";

const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const DETAILS: HeaderName = HeaderName::from_static("grpc-status-details-bin");
const PUSHBACK: HeaderName = HeaderName::from_static("grpc-retry-pushback-ms");

/// Peers take some 8 KiB of headers in all. An escaped message is three times as long at worst, and the details repeat
/// it, so a longer text is cut.
const LONGEST_MESSAGE: usize = 1024;

pub(super) fn response<B>(rejection: &Rejection, body: B) -> Response<B> {
    let code = rejection.kind.grpc_code();
    let message = prefix(&rejection.detail, LONGEST_MESSAGE);
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    headers.insert(STATUS, code.into());
    headers.insert(MESSAGE, visible(percent_encoded(message)));
    if let Some(wait) = rejection.retry_after {
        headers.insert(PUSHBACK, u64::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).into());
        headers.insert(DETAILS, visible(base64(&status(code, message, wait))));
    }
    response
}

/// Both encodings below leave visible ASCII only.
fn visible(text: String) -> HeaderValue {
    HeaderValue::try_from(text).expect("encoded as visible ASCII")
}

/// `Percent-Encoded` of the specification: space to tilde as they are, but for the percent sign.
fn percent_encoded(text: &str) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.push(char::from(HEX[usize::from(byte >> 4)]));
            encoded.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
    encoded
}

/// The message `google.rpc.Status` with one detail, a `google.rpc.RetryInfo`, as protocol buffers write them.
fn status(code: i32, message: &str, wait: Duration) -> Vec<u8> {
    let mut delay = Vec::new();
    number(&mut delay, 1, wait.as_secs().min(MOST_SECONDS));
    number(&mut delay, 2, wait.subsec_nanos().into());
    let mut retry_info = Vec::new();
    bytes(&mut retry_info, 1, &delay);
    let mut any = Vec::new();
    bytes(&mut any, 1, b"type.googleapis.com/google.rpc.RetryInfo");
    bytes(&mut any, 2, &retry_info);
    let mut status = Vec::new();
    // The codes of the table are positive.
    number(&mut status, 1, code.unsigned_abs().into());
    bytes(&mut status, 2, message.as_bytes());
    bytes(&mut status, 3, &any);
    status
}

/// The longest `google.protobuf.Duration`: 10 000 years.
const MOST_SECONDS: u64 = 315_576_000_000;

/// A field that holds a number. The default, zero, is not written.
fn number(message: &mut Vec<u8>, field: u8, value: u64) {
    if value != 0 {
        message.put_u8(field << 3);
        varint(message, value);
    }
}

/// A field that holds bytes, text or a message.
fn bytes(message: &mut Vec<u8>, field: u8, value: &[u8]) {
    message.put_u8(field << 3 | 2);
    varint(message, value.len() as u64);
    message.put_slice(value);
}

fn varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    message.put_u8(value as u8);
}

/// Without padding, as the specification asks of whoever writes a header that ends with `-bin`.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().enumerate().fold(0, |group, (i, &byte)| group | u32::from(byte) << (16 - 8 * i));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(group >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

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
            assert_eq!(response(&rejection(text, None), ()).headers()[MESSAGE], escaped);
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let response = response(&rejection(&"ü".repeat(LONGEST_MESSAGE), Some(Duration::from_secs(1))), ());
        assert_eq!(response.headers()[MESSAGE].as_bytes(), "%C3%BC".repeat(LONGEST_MESSAGE / 2).as_bytes());
        let all: usize = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(all < 8192, "{all} bytes of headers");
    }

    #[test]
    fn when_to_retry_is_told_twice() {
        let response = response(&rejection("slow down", Some(Duration::from_micros(1_500_001))), ());
        assert_eq!(response.headers()[PUSHBACK], "1501");
        // As Python's `google.rpc.status_pb2` and `error_details_pb2` write it.
        assert_eq!(
            response.headers()[DETAILS],
            "CAgSCXNsb3cgZG93bho2Cih0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuUmV0cnlJbmZvEgoKCAgBEOjRte4B"
        );
        assert_eq!(super::response(&rejection("no", None), ()).headers().get(DETAILS), None);
    }
}
