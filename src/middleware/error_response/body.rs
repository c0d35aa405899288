use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::Response;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

/// A response body that can be created from bytes, which [`ErrorResponseLayer`](super::ErrorResponseLayer) needs to write a
/// document.
///
/// It is implemented for every body that is `From<Bytes>`, as `axum::body::Body` and `http_body_util::Full` are. For all
/// others there is [`any_body`].
#[diagnostic::on_unimplemented(
    message = "`ErrorResponseLayer` cannot write a document of its own into a response body of type `{Self}`",
    label = "`From<Bytes>` is not implemented for `{Self}`",
    note = "put `.map_response(tower_kernels::middleware::error_response::any_body)` between `ErrorResponseLayer` and what has this body",
    note = "where it is the body of a compression layer, put that layer outside of `ErrorResponseLayer` instead",
    note = "for gRPC, `ErrorResponseLayer::grpc()` writes no body at all"
)]
pub trait FromBytes {
    /// A body of these bytes.
    fn from_bytes(bytes: Bytes) -> Self;
}

#[diagnostic::do_not_recommend]
impl<B: From<Bytes>> FromBytes for B {
    fn from_bytes(bytes: Bytes) -> Self {
        bytes.into()
    }
}

/// Lets [`ErrorResponseLayer`](super::ErrorResponseLayer) write error responses for any response body:
/// `tonic::body::Body`, a `BoxBody`, the body of a compression layer. It goes into `ServiceBuilder::map_response`.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::combinators::BoxBody;
/// use http_body_util::{BodyExt, Empty};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_kernels::layers::ErrorResponseLayer;
/// use tower_kernels::middleware::error_response::any_body;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let service = ServiceBuilder::new()
///     .layer(ErrorResponseLayer::new())
///     .load_shed()
///     .map_response(any_body)
///     .service(service_fn(async |_: Request<()>| {
///         Ok::<_, std::io::Error>(Response::new(BoxBody::new(Empty::<Bytes>::new())))
///     }));
/// let response = service.oneshot(Request::new(())).await.unwrap();
/// assert!(response.into_body().collect().await.unwrap().to_bytes().is_empty());
/// # }
/// ```
pub fn any_body<B>(response: Response<B>) -> Response<AnyBody<B>> {
    response.map(|body| AnyBody { inner: Inner::Body { body } })
}

pin_project! {
    /// The body of a response of the service, or of an error response. See [`any_body`].
    #[derive(Clone, Debug)]
    pub struct AnyBody<B> {
        #[pin]
        inner: Inner<B>,
    }
}

pin_project! {
    #[project = InnerProj]
    #[derive(Clone, Debug)]
    enum Inner<B> {
        Body {
            #[pin]
            body: B,
        },
        // What is left of an error response.
        Bytes {
            bytes: Bytes,
        },
    }
}

impl<B> From<Bytes> for AnyBody<B> {
    fn from(bytes: Bytes) -> Self {
        Self { inner: Inner::Bytes { bytes } }
    }
}

impl<B> Default for AnyBody<B> {
    fn default() -> Self {
        Bytes::new().into()
    }
}

impl<B: Body<Data: From<Bytes>>> Body for AnyBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        match self.project().inner.project() {
            InnerProj::Body { body } => body.poll_frame(cx),
            InnerProj::Bytes { bytes } if bytes.has_remaining() => {
                Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes).into()))))
            }
            InnerProj::Bytes { .. } => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.inner {
            Inner::Body { body } => body.is_end_stream(),
            Inner::Bytes { bytes } => bytes.is_empty(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.inner {
            Inner::Body { body } => body.size_hint(),
            Inner::Bytes { bytes } => SizeHint::with_exact(bytes.len() as u64),
        }
    }
}
