//! Response bodies, tracked as requests in flight and split into frames for HTTP/2.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use super::request_tracker::InFlight;
use super::slow_streams;

/// Maximum size of a data frame that is passed to HTTP/2: 16 KiB, its default frame size.
///
/// h2 buffers a frame until the client reads it, and the frame cannot be taken back. So no more than this is buffered
/// beyond what the client has read.
pub(super) const PIECE: usize = 16 << 10;

/// The body of a response. The request counts as in flight until it is dropped.
#[pin_project]
pub(super) struct CountedBody<B> {
    #[pin]
    source: Source<B>,
    /// Rest of the last frame.
    rest: Bytes,
    is_http2: bool,
    _in_flight: Option<InFlight>,
}

#[pin_project(project = SourceProj)]
enum Source<B> {
    Service(#[pin] B),
    /// A rejection made by the server.
    Rejection(Bytes),
}

impl<B> CountedBody<B> {
    pub(super) fn new(body: B, is_http2: bool, in_flight: Option<InFlight>) -> Self {
        Self { source: Source::Service(body), rest: Bytes::new(), is_http2, _in_flight: in_flight }
    }

    pub(super) fn rejection(document: Bytes, in_flight: Option<InFlight>) -> Self {
        Self { source: Source::Rejection(document), rest: Bytes::new(), is_http2: false, _in_flight: in_flight }
    }
}

/// Takes the next piece of the rest of a frame.
fn next_piece(rest: &mut Bytes) -> Bytes {
    if rest.len() > PIECE {
        return rest.split_to(PIECE);
    }
    // Copied, because h2 may hold the last piece for longer than this body exists, and with it the memory of the whole
    // frame.
    let last = Bytes::copy_from_slice(rest);
    *rest = Bytes::new();
    last
}

impl<B: Body> Body for CountedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        if !this.rest.is_empty() {
            let piece = next_piece(this.rest);
            slow_streams::record_data(piece.len());
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        let body = match this.source.project() {
            SourceProj::Service(body) => body,
            SourceProj::Rejection(document) => {
                let document = std::mem::take(document);
                return Poll::Ready((!document.is_empty()).then(|| Ok(Frame::data(document))));
            }
        };
        let polled = body.poll_frame(cx);
        if !*this.is_http2 {
            return polled.map_ok(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())));
        }
        if polled.is_pending() {
            slow_streams::record_pending();
        }
        let Some(frame) = ready!(polled) else { return Poll::Ready(None) };
        let frame = frame?.map_data(|mut data| data.copy_to_bytes(data.remaining()));
        let frame = frame.map_data(|data| {
            if data.len() <= PIECE {
                return data;
            }
            *this.rest = data;
            next_piece(this.rest)
        });
        slow_streams::record_data(frame.data_ref().map_or(0, Bytes::len));
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
            && match &self.source {
                Source::Service(body) => body.is_end_stream(),
                Source::Rejection(document) => document.is_empty(),
            }
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let source = match &self.source {
            Source::Service(body) => body.size_hint(),
            Source::Rejection(document) => SizeHint::with_exact(document.len() as u64),
        };
        let mut hint = SizeHint::new();
        hint.set_lower(source.lower().saturating_add(rest));
        if let Some(upper) = source.upper().and_then(|upper| upper.checked_add(rest)) {
            hint.set_upper(upper);
        }
        hint
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full};

    #[tokio::test]
    async fn large_frames_are_cut_for_http2_and_lose_nothing() {
        let bytes: Bytes = (0..100_000_u32).map(|at| at as u8).collect::<Vec<_>>().into();
        let mut body = CountedBody::new(Full::new(bytes.clone()), true, None);
        let (mut whole, mut pieces) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            assert_eq!(body.size_hint().exact(), Some(100_000 - whole.len() as u64 - frame_len(&frame)));
            let piece = frame.unwrap().into_data().unwrap();
            assert!(piece.len() <= PIECE);
            whole.extend_from_slice(&piece);
            pieces += 1;
            assert_eq!(body.is_end_stream(), whole.len() == bytes.len());
        }
        assert_eq!((whole, pieces), (bytes.to_vec(), 7));
    }

    fn frame_len<E>(frame: &Result<Frame<Bytes>, E>) -> u64 {
        frame.as_ref().ok().and_then(Frame::data_ref).map_or(0, |data| data.len() as u64)
    }

    #[tokio::test]
    async fn the_last_piece_holds_no_other_memory() {
        let bytes = Bytes::from(vec![7; 3 * PIECE]);
        let mut body = CountedBody::new(Full::new(bytes.clone()), true, None);
        let mut last = Bytes::new();
        while let Some(frame) = body.frame().await {
            last = frame.unwrap().into_data().unwrap();
        }
        assert!(!bytes.as_ptr_range().contains(&last.as_ptr()));
        assert_eq!(last, &bytes[..PIECE]);
    }

    #[tokio::test]
    async fn frames_are_passed_on_whole_to_http1() {
        let bytes = Bytes::from(vec![7; 3 * PIECE]);
        let mut body = CountedBody::new(Full::new(bytes.clone()), false, None);
        let frame = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((frame.as_ptr(), frame.len()), (bytes.as_ptr(), bytes.len()));
    }
}
