//! [`KernelService`]: finds the kernel that a request names and hands the job to a backend.

use std::sync::Arc;
use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

use super::future::ResponseFuture;
use super::job::Job;
use super::{KernelError, KernelRegistry, KernelRequest, KernelResponse};
use crate::backends::Local;

/// Runs kernels: the service at the core of every pipeline.
///
/// It is ready when its backend is, which means that a place to run has been reserved; see
/// [`backends`](crate::backends). Dropping the future that a call returns cancels the work.
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
// The backend's own `Clone` starts without what this one has reserved.
#[derive(Clone, Debug)]
pub struct KernelService<B = Local> {
    registry: Arc<KernelRegistry>,
    backend: B,
}

impl KernelService {
    /// A service over what this machine has: its CUDA devices where any answer, and the CPU.
    ///
    /// Opening a device takes a few hundred milliseconds; [`Local`] says what was found.
    pub fn new(registry: impl Into<Arc<KernelRegistry>>) -> Self {
        Self::with_backend(registry, Local::detect())
    }
}

impl<B> KernelService<B> {
    /// A service over a backend of your choice: one of [`backends`](crate::backends), one in layers, or your own.
    pub fn with_backend(registry: impl Into<Arc<KernelRegistry>>, backend: B) -> Self {
        Self { registry: registry.into(), backend }
    }

    /// The kernels that it knows.
    pub fn registry(&self) -> &Arc<KernelRegistry> {
        &self.registry
    }

    /// What it runs them on.
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

    fn call(&mut self, request: KernelRequest) -> Self::Future {
        let job = match self.registry.get(&request.kernel_id) {
            Some(kernel) => Job::new(kernel, request),
            None => Err(KernelError::unknown(request.kernel_id)),
        };
        match job {
            Ok(job) => ResponseFuture::run(self.backend.call(job)),
            Err(error) => ResponseFuture::refuse(error),
        }
    }
}

impl<B: Load> Load for KernelService<B> {
    type Metric = B::Metric;

    fn load(&self) -> B::Metric {
        self.backend.load()
    }
}
