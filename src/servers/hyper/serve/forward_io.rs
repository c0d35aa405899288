//! Forwards `AsyncRead` and `AsyncWrite` to the stream inside an enum.

/// Implements both traits for an enum of streams. `$within!(&mut enum, stream => call)` calls a method of the stream that
/// the enum holds.
macro_rules! forward_io {
    ($type:ty, $within:ident) => {
        impl tokio::io::AsyncRead for $type {
            fn poll_read(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &mut tokio::io::ReadBuf<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                $within!(&mut *self, stream => std::pin::Pin::new(stream).poll_read(cx, buf))
            }
        }

        impl tokio::io::AsyncWrite for $type {
            fn poll_write(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                buf: &[u8],
            ) -> std::task::Poll<std::io::Result<usize>> {
                $within!(&mut *self, stream => std::pin::Pin::new(stream).poll_write(cx, buf))
            }

            fn poll_write_vectored(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
                bufs: &[std::io::IoSlice<'_>],
            ) -> std::task::Poll<std::io::Result<usize>> {
                $within!(&mut *self, stream => std::pin::Pin::new(stream).poll_write_vectored(cx, bufs))
            }

            fn is_write_vectored(&self) -> bool {
                $within!(self, stream => stream.is_write_vectored())
            }

            fn poll_flush(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                $within!(&mut *self, stream => std::pin::Pin::new(stream).poll_flush(cx))
            }

            fn poll_shutdown(
                mut self: std::pin::Pin<&mut Self>,
                cx: &mut std::task::Context<'_>,
            ) -> std::task::Poll<std::io::Result<()>> {
                $within!(&mut *self, stream => std::pin::Pin::new(stream).poll_shutdown(cx))
            }
        }
    };
}
pub(super) use forward_io;
