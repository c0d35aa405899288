//! [`KernelSource`]: what servers show of a service of kernels beside its responses.

use std::fmt;
use std::sync::Arc;

use super::{KernelRegistry, KernelService};
use crate::backends::Local;
use crate::backends::batched::Batched;
use crate::pipeline::{PipelineBackend, PipelineHandle};

/// What servers show of the kernels behind a service: which there are, the devices that they run on, and how the pipeline
/// around them is.
///
/// A server takes any `Service<KernelRequest>`, and cannot see through layers of your own what is inside of them. So it is told
/// with the service, and health, metrics and the list of kernels are always those of what it serves. Implemented by
///
/// * [`KernelService`] over [`Local`] devices, with or without a [`BatchedLayer`](crate::backends::BatchedLayer);
/// * [`LocalPipeline`](crate::pipeline::LocalPipeline), which [`PipelineLayer::over`](crate::pipeline::PipelineLayer::over) makes;
/// * a pair of a [`PipelineHandle`] and one of these, for a pipeline around a service of your own;
/// * [`RegistryOnly`], for kernels that run on no devices of this process.
///
/// ```
/// use tower_kernels::service::{KernelRegistry, KernelService, KernelSource};
///
/// let kernels = KernelService::new(KernelRegistry::new());
/// assert!(kernels.devices().is_some() && kernels.pipeline().is_none());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what kernels run on, so a server could not show how healthy that is",
    label = "neither a `KernelService` on the devices of this machine nor a `LocalPipeline`",
    note = "pass the `KernelService`, or the pipeline of `PipelineLayer::over`, that is inside of the service",
    note = "`(layer.handle(), kernels)` is a pipeline around a service of your own",
    note = "`RegistryOnly::new(registry)` is for kernels that run on no devices of this process"
)]
pub trait KernelSource {
    /// The kernels that there are.
    fn registry(&self) -> &Arc<KernelRegistry>;

    /// The devices of this process that they run on.
    fn devices(&self) -> Option<&Local>;

    /// The pipeline around them, where there is one.
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

/// Kernels that run on no devices of this process: behind a client of another server, or in a test.
///
/// A server that is given this has no devices to show on `/health` and `/metrics`.
#[derive(Clone)]
pub struct RegistryOnly {
    registry: Arc<KernelRegistry>,
}

impl RegistryOnly {
    /// These kernels.
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
