use std::fmt;
use std::sync::Arc;

use super::{PipelineBackend, PipelineHandle};
use crate::backends::Local;
use crate::backends::batched::Batched;
use crate::service::{KernelRegistry, KernelService};

/// Provides the registry, the devices and the pipeline that a server reports on.
///
/// A server accepts any `Service<KernelRequest>`, and cannot access what is inside its layers. So it is given a
/// `KernelSource` along with the service, for `/health`, `/metrics` and the list of kernels. It is implemented by
///
/// * [`KernelService`] over [`Local`] devices, with or without a [`BatchedLayer`](crate::backends::BatchedLayer);
/// * [`LocalPipeline`](super::LocalPipeline), which [`PipelineLayer::over`](super::PipelineLayer::over) makes;
/// * a pair of a [`PipelineHandle`] and one of these, for a pipeline around another service;
/// * [`RegistryOnly`], for kernels that do not run on devices of this process.
///
/// ```
/// use tower_kernels::pipeline::KernelSource;
/// use tower_kernels::service::{KernelRegistry, KernelService};
///
/// let kernels = KernelService::new(KernelRegistry::new());
/// assert!(kernels.devices().is_some() && kernels.pipeline().is_none());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not provide the devices that kernels run on, which a server reports on",
    label = "neither a `KernelService` on the devices of this machine nor a `LocalPipeline`",
    note = "pass the `KernelService`, or the pipeline of `PipelineLayer::over`, that is inside the service",
    note = "`(layer.handle(), kernels)` is the source for a pipeline around another service",
    note = "`RegistryOnly::new(registry)` is for kernels that do not run on devices of this process"
)]
pub trait KernelSource {
    /// Returns the registry of the kernels.
    fn registry(&self) -> &Arc<KernelRegistry>;

    /// Returns the devices of this process that run the kernels.
    fn devices(&self) -> Option<&Local>;

    /// Returns the pipeline around the kernels, if there is one.
    fn pipeline(&self) -> Option<PipelineHandle> {
        None
    }
}

macro_rules! source_over {
    ($($backend:ty: $backend_of:ident => $devices:expr;)+) => {$(
        impl KernelSource for KernelService<$backend> {
            fn registry(&self) -> &Arc<KernelRegistry> {
                self.registry()
            }

            fn devices(&self) -> Option<&Local> {
                let $backend_of = self.backend();
                Some($devices)
            }
        }
    )+};
}

source_over! {
    Local: local => local;
    Batched<Local>: batched => batched.get_ref().backend();
    PipelineBackend: backend => backend.local();
}

impl<K: KernelSource> KernelSource for (PipelineHandle, K) {
    fn registry(&self) -> &Arc<KernelRegistry> {
        self.1.registry()
    }

    fn devices(&self) -> Option<&Local> {
        self.1.devices()
    }

    fn pipeline(&self) -> Option<PipelineHandle> {
        Some(self.0.clone())
    }
}

/// A [`KernelSource`] for kernels that do not run on devices of this process: behind a client of another server, or in
/// a test.
///
/// A server that is given this reports no devices on `/health` and `/metrics`.
#[derive(Clone)]
pub struct RegistryOnly {
    registry: Arc<KernelRegistry>,
}

impl RegistryOnly {
    /// Creates a source of these kernels.
    pub fn new(registry: impl Into<Arc<KernelRegistry>>) -> Self {
        Self { registry: registry.into() }
    }
}

impl KernelSource for RegistryOnly {
    fn registry(&self) -> &Arc<KernelRegistry> {
        &self.registry
    }

    fn devices(&self) -> Option<&Local> {
        None
    }
}

impl fmt::Debug for RegistryOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegistryOnly").field("kernels", &self.registry.len()).finish()
    }
}
