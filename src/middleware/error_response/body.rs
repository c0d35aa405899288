use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
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
    response.map(|body| AnyBody { body: Some(body), document: Bytes::new() })
}

pin_project! {
    /// The body of a response of the service, or of an error response. See [`any_body`].
    #[derive(Clone, Debug)]
    pub struct AnyBody<B> {
        // `None` for an error response.
        #[pin]
        body: Option<B>,
        // What has not been sent of the body of an error response.
        document: Bytes,
    }
}

impl<B> From<Bytes> for AnyBody<B> {
    fn from(document: Bytes) -> Self {
        Self { body: None, document }
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
        let this = self.project();
        match this.body.as_pin_mut() {
            Some(body) => body.poll_frame(cx),
            None if this.document.is_empty() => Poll::Ready(None),
            None => Poll::Ready(Some(Ok(Frame::data(std::mem::take(this.document).into())))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().map_or(self.document.is_empty(), B::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let document = || SizeHint::with_exact(self.document.len() as u64);
        self.body.as_ref().map_or_else(document, B::size_hint)
    }
}
