use std::collections::HashSet;
use std::sync::Arc;

use http::Extensions;
use parking_lot::RwLock;

use super::shared_memory::{NoSharedMemory, RegionAccess, Regions};
use super::{Model, NO_REPOSITORY};
use crate::error::ErrorKind;
use crate::request::PeerAddress;

/// Enables extensions of the Open Inference Protocol that are off by default.
///
/// Clones share their state: give clones of one value to the servers for REST and for gRPC, so that a region which is
/// registered over one of them can be used over the other.
///
/// ```
/// use tower_kernels::axum::{KernelRouter, RouterConfig};
/// use tower_kernels::grpc::KernelGrpcServer;
/// use tower_kernels::inference::InferenceExtensions;
/// use tower_kernels::service::KernelRegistry;
///
/// let extensions = InferenceExtensions::new().model_control();
/// let rest = KernelRouter::new(KernelRegistry::new(), RouterConfig::default()).inference_extensions(extensions.clone());
/// let grpc = KernelGrpcServer::new(KernelRegistry::new()).inference_extensions(extensions);
/// # drop((rest, grpc));
/// ```
#[derive(Clone, Debug, Default)]
pub struct InferenceExtensions {
    regions: Option<Regions>,
    /// Ids of the kernels that are unloaded, if models can be.
    unloaded: Option<Arc<RwLock<HashSet<String>>>>,
}

impl InferenceExtensions {
    /// Creates the default, in which all of them are off.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets clients pass tensors in POSIX shared memory, as Triton's [extension for system shared
    /// memory](https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_shared_memory.md) has
    /// it.
    ///
    /// Only clients whose [`PeerAddress`] is a loopback address can use it; requests without a known peer address are
    /// rejected. The servers of [`tower_kernels::hyper`](crate::hyper) insert the address. A proxy on the same machine
    /// has a loopback address too, whoever its clients are, so do not enable this behind one. REST requests with the header
    /// `origin` are rejected, as they are from pages in a browser.
    ///
    /// A client names an object below `/dev/shm`, which the server opens with its own permissions: such a client can
    /// read and write every object there that the server's user can. All clients share the regions, whatever their
    /// tenants.
    ///
    /// Regions are read and written with system calls, and are never mapped, so a client that truncates or changes one
    /// at any time gets an error, or what it wrote. At most 256 can be registered. The inputs of a request that are in
    /// regions have at most the maximum size of a request in total, and are charged to the memory of requests.
    #[cfg(all(feature = "hyper", target_os = "linux"))]
    #[must_use]
    pub fn system_shared_memory(self) -> Self {
        Self { regions: Some(Regions::default()), ..self }
    }

    /// Lets clients unload models and load them again.
    ///
    /// This affects the Open Inference Protocol alone: an unloaded model is not ready, is `UNAVAILABLE` in the index, and
    /// its requests are rejected as unavailable. Its kernel still runs for other protocols and in the process, and keeps
    /// its device code and statistics. Requests that have started complete. All models are loaded at the start. Any
    /// client that may send requests can do it.
    #[must_use]
    pub fn model_control(self) -> Self {
        Self { unloaded: Some(Arc::default()), ..self }
    }

    /// Returns the names of the protocol's extensions that the server supports.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        const ALWAYS: [&str; 6] = [
            "binary_tensor_data",
            "model_configuration",
            "model_repository",
            "parameters",
            "schedule_policy",
            "statistics",
        ];
        ALWAYS.into_iter().chain(self.regions.as_ref().map(|_| "system_shared_memory")).collect()
    }

    /// Returns the regions of shared memory that the client of a request with these extensions can use.
    pub(crate) fn regions_for(&self, request: &Extensions) -> RegionAccess {
        let regions = self.regions.as_ref().ok_or(NoSharedMemory::Off)?;
        let PeerAddress(peer) = request.get().ok_or(NoSharedMemory::UnknownPeer)?;
        let peer = peer.ip().to_canonical();
        if peer.is_loopback() { Ok(regions.clone()) } else { Err(NoSharedMemory::Remote(peer)) }
    }

    /// Returns whether clients have not unloaded a model.
    pub(crate) fn is_loaded(&self, model: &Model) -> bool {
        self.unloaded.as_ref().is_none_or(|unloaded| !unloaded.read().contains(model.id()))
    }

    /// Loads or unloads a model; either may be repeated.
    ///
    /// # Errors
    /// Models cannot be loaded or unloaded.
    pub(crate) fn set_loaded(&self, model: &Model, is_loaded: bool) -> Result<(), NoModelControl> {
        let mut unloaded = self.unloaded.as_ref().ok_or(NoModelControl)?.write();
        if is_loaded {
            unloaded.remove(model.id());
        } else {
            unloaded.insert(model.id().to_owned());
        }
        Ok(())
    }

    /// Checks that models can be loaded and unloaded.
    ///
    /// # Errors
    /// They cannot.
    pub(crate) fn check_model_control(&self) -> Result<(), NoModelControl> {
        self.unloaded.as_ref().map(|_| ()).ok_or(NoModelControl)
    }
}

/// Models cannot be loaded or unloaded on this server.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{NO_REPOSITORY}")]
pub(crate) struct NoModelControl;

impl NoModelControl {
    /// The kind of the error.
    pub(crate) const KIND: ErrorKind = ErrorKind::Unsupported;
}

#[cfg(all(test, feature = "hyper", target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn only_peers_on_the_loopback_address_can_use_shared_memory() {
        let extensions = InferenceExtensions::new().system_shared_memory();
        let of = |address: Option<&str>| {
            let mut request = Extensions::new();
            if let Some(address) = address {
                request.insert(PeerAddress(address.parse().unwrap()));
            }
            (extensions.regions_for(&request), InferenceExtensions::new().regions_for(&request))
        };
        for local in ["127.0.0.1:1", "127.1.2.3:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            let (on, off) = of(Some(local));
            assert!(on.is_ok() && matches!(off, Err(NoSharedMemory::Off)), "{local}");
        }
        for remote in ["10.0.0.1:1", "[2001:db8::1]:1", "[::ffff:10.0.0.1]:1", "0.0.0.0:1", "169.254.0.1:1"] {
            assert!(matches!(of(Some(remote)).0, Err(NoSharedMemory::Remote(_))), "{remote}");
        }
        assert!(matches!(of(None).0, Err(NoSharedMemory::UnknownPeer)));
    }
}
