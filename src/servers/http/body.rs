use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::vec;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

/// Response body: a document, or a head and the tensors it describes, each a frame of its own that is not copied.
#[derive(Clone, Default)]
pub struct ResponseBody {
    next: Bytes,
    rest: vec::IntoIter<Bytes>,
}

impl ResponseBody {
    /// A body of these frames. Only the first can be empty, as an empty frame would end the body.
    pub(super) fn in_frames(first: Bytes, mut rest: Vec<Bytes>) -> Self {
        rest.retain(|frame| !frame.is_empty());
        Self { next: first, rest: rest.into_iter() }
    }

    fn len(&self) -> usize {
        self.next.len() + self.rest.as_slice().iter().map(Bytes::len).sum::<usize>()
    }
}

impl From<Bytes> for ResponseBody {
    fn from(document: Bytes) -> Self {
        // An empty `Vec` does not allocate.
        Self::in_frames(document, Vec::new())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let after = self.rest.next().unwrap_or_default();
        let frame = std::mem::replace(&mut self.next, after);
        Poll::Ready((!frame.is_empty()).then(|| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.next.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len() as u64)
    }
}

impl fmt::Debug for ResponseBody {
    /// Omits the data, which can be gigabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseBody").field("bytes", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::ResponseBody;
    use bytes::Bytes;
    use http_body::Body;
    use http_body_util::BodyExt;

    #[tokio::test]
    async fn frames_come_as_they_are_and_their_length_is_known() {
        for (first, rest) in [("", vec![]), ("head", vec![]), ("head", vec!["", "a", "", "bcd"])] {
            let rest: Vec<_> = rest.into_iter().map(Bytes::from).collect();
            let mut frames: Vec<_> = std::iter::once(Bytes::from(first)).chain(rest.clone()).collect();
            frames.retain(|frame| !frame.is_empty());
            let mut body = ResponseBody::in_frames(Bytes::from(first), rest);
            for frame in frames {
                assert!(!body.is_end_stream());
                let left = body.size_hint().exact().unwrap();
                let came = body.frame().await.unwrap().unwrap().into_data().unwrap();
                assert_eq!((came.as_ptr(), came.len()), (frame.as_ptr(), frame.len()));
                assert_eq!(body.size_hint().exact().unwrap(), left - came.len() as u64);
            }
            assert!(body.is_end_stream() && body.frame().await.is_none());
        }
    }
}
