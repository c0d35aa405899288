use std::sync::Arc;
use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

use super::operands::has_references;
use super::{Job, KernelError, KernelRegistry, KernelRequest, KernelResponse, ResponseFuture};

/// Runs kernels: looks up the kernel that a request names and hands the job to a backend.
///
/// `poll_ready` is the backend's, so `Ready` means that a permit has been reserved; see [`backends`](crate::backends).
/// Dropping the response future cancels the run.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tower::{Service, ServiceExt};
/// use tower_kernels::service::{KernelRegistry, KernelRequest, KernelService, Payload};
///
/// let registry = KernelRegistry::new();
/// tower_kernels::kernels::register_all(&registry).unwrap();
/// let mut service = KernelService::new(registry);
///
/// let input = r#"{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}"#;
/// let request = KernelRequest::new("linalg/saxpy", Payload::json(input));
/// let response = service.ready().await?.call(request).await?;
///
/// assert_eq!(response.json::<serde_json::Value>()?["y"], serde_json::json!([12.0, 24.0]));
/// # Ok(())
/// # }
/// ```
// The backend's own `Clone` starts without a reservation.
#[derive(Clone, Debug)]
pub struct KernelService<B> {
    registry: Arc<KernelRegistry>,
    backend: B,
}

// `KernelService::new`, which opens the devices of this machine, is in `backends::local`.
impl<B> KernelService<B> {
    /// Creates a service over a backend of your choice: one of [`backends`](crate::backends), one wrapped in layers, or your
    /// own.
    pub fn with_backend(registry: impl Into<Arc<KernelRegistry>>, backend: B) -> Self {
        Self { registry: registry.into(), backend }
    }

    /// Returns the registry of the kernels.
    pub fn registry(&self) -> &Arc<KernelRegistry> {
        &self.registry
    }

    /// Returns the backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }
}

impl<B> Service<KernelRequest> for KernelService<B>
where
    B: Service<Job, Response = KernelResponse>,
    B::Error: From<KernelError>,
{
    type Response = KernelResponse;
    type Error = B::Error;
    type Future = ResponseFuture<B::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), B::Error>> {
        self.backend.poll_ready(cx)
    }

    fn call(&mut self, mut request: KernelRequest) -> Self::Future {
        request.resolve_operands(&self.registry);
        let job = match self.registry.get(&request.kernel_id) {
            Some(_) if self.registry.operands().is_loading() && has_references(&request.payload) => {
                Err(KernelError::OperandsLoading)
            }
            Some(kernel) => Job::new(kernel, request),
            None => Err(KernelError::unknown(request.kernel_id)),
        };
        match job {
            Ok(job) => ResponseFuture::running(self.backend.call(job)),
            Err(error) => ResponseFuture::rejected(error),
        }
    }
}

impl<B: Load> Load for KernelService<B> {
    type Metric = B::Metric;

    fn load(&self) -> B::Metric {
        self.backend.load()
    }
}
