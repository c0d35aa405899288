//! Compressed bodies of requests, and compression of JSON responses.

use std::io::{Read, Write};

use bytes::{Bytes, BytesMut};
use flate2::Compression;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, VARY};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::ErrorKind;
use crate::middleware::metrics::page::accept::accepts_gzip;
use crate::servers::charged_buffer::append_charged;
use crate::servers::http::Problem;
use crate::servers::http::read::{rejected, too_large};
use crate::servers::offload::{TYPED_JSON_BYTES, offload};
use crate::service::HostReservation;

/// Responses below this size in bytes are not compressed: they fit into one packet.
const MIN_COMPRESSED: usize = 1400;

/// Bytes decompressed at a time.
const PIECE: usize = 64 << 10;

/// How the body of a request is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Gzip,
    Deflate,
}

impl Encoding {
    /// Returns the encoding of a request; `None` if its body is not compressed.
    ///
    /// # Errors
    /// 415 if it is another one, or there are several.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let mut values = headers.get_all(CONTENT_ENCODING).iter();
        let Some(value) = values.next() else { return Ok(None) };
        match (value.as_bytes().to_ascii_lowercase().as_slice(), values.next()) {
            (b"identity", None) => Ok(None),
            (b"gzip" | b"x-gzip", None) => Ok(Some(Self::Gzip)),
            (b"deflate", None) => Ok(Some(Self::Deflate)),
            _ => Err(Problem::unsupported_media_type("the content-encoding is none of gzip, deflate and identity")),
        }
    }

    /// Decompresses a body to at most `max` bytes, whose memory is charged as they come out.
    pub(super) fn decompress(self, body: &[u8], max: usize, memory: &HostReservation) -> Result<Bytes, Problem> {
        let mut decoder: Box<dyn Read + '_> = match self {
            Self::Gzip => Box::new(MultiGzDecoder::new(body)),
            Self::Deflate => Box::new(ZlibDecoder::new(body)),
        };
        let mut plain = BytesMut::new();
        let mut piece = vec![0; PIECE];
        loop {
            let length = decoder.read(&mut piece).map_err(|error| {
                Problem::new(ErrorKind::InvalidArgument, format!("the body cannot be decompressed: {error}"))
                    .field(CONTENT_ENCODING.as_str())
            })?;
            if length == 0 {
                return Ok(plain.freeze());
            }
            if length > max - plain.len() {
                return Err(too_large(max));
            }
            append_charged(&mut plain, &piece[..length], max, memory).map_err(rejected)?;
        }
    }
}

/// Compresses a response in JSON if the client accepts gzip and it is worth it. Returns it with the headers to add.
pub(super) async fn compress(json: Bytes, headers: &HeaderMap) -> (Bytes, Vec<(HeaderName, HeaderValue)>) {
    if json.len() < MIN_COMPRESSED {
        return (json, Vec::new());
    }
    let vary = (VARY, HeaderValue::from_static("accept-encoding"));
    if !accepts_gzip(headers) {
        return (json, vec![vary]);
    }
    let compressed = offload(json.len() > TYPED_JSON_BYTES, move || {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&json).and_then(|()| encoder.finish()).expect("a Vec takes all that is written")
    });
    (compressed.await.into(), vec![vary, (CONTENT_ENCODING, HeaderValue::from_static("gzip"))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::HostMemory;
    use flate2::write::ZlibEncoder;

    fn gzip(data: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bodies_are_decompressed_up_to_the_maximum_and_their_memory_is_charged() {
        let memory = HostMemory::new(64 << 20).reservation(0);
        let data = vec![7; 300_000];
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::best());
        zlib.write_all(&data).unwrap();
        for (encoding, body) in [(Encoding::Gzip, gzip(&data)), (Encoding::Deflate, zlib.finish().unwrap())] {
            assert_eq!(encoding.decompress(&body, 300_000, &memory).unwrap(), data);
            assert!(memory.bytes() >= 300_000);
            assert_eq!(encoding.decompress(&body, 299_999, &memory).unwrap_err().kind(), ErrorKind::TooLarge);
            for broken in [&body[..body.len() / 2], b"", b"plain text"] {
                assert_eq!(
                    encoding.decompress(broken, 300_000, &memory).map(|plain| plain.len()).map_err(|e| e.kind()),
                    Err(ErrorKind::InvalidArgument)
                );
            }
        }
        let small = HostMemory::new(1 << 20).reservation(0);
        let bomb = gzip(&vec![0; 16 << 20]);
        assert!(bomb.len() < 64 << 10);
        let error = Encoding::Gzip.decompress(&bomb, 16 << 20, &small).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge, "more than a request may hold: {error:?}");
        assert!(small.bytes() <= 1 << 20);
    }

    #[test]
    fn an_encoding_is_known_or_rejected() {
        let of = |values: &[&'static str]| {
            let pair = |value: &&'static str| (CONTENT_ENCODING, HeaderValue::from_static(value));
            Encoding::of(&values.iter().map(pair).fold(HeaderMap::new(), |mut map, (name, value)| {
                map.append(name, value);
                map
            }))
        };
        assert_eq!(of(&[]).unwrap(), None);
        assert_eq!(of(&["identity"]).unwrap(), None);
        assert_eq!(of(&["GZIP"]).unwrap(), Some(Encoding::Gzip));
        assert_eq!(of(&["deflate"]).unwrap(), Some(Encoding::Deflate));
        for unknown in [&["br"][..], &["gzip, gzip"], &["gzip", "gzip"], &[""]] {
            assert!(of(unknown).is_err(), "{unknown:?}");
        }
    }
}
