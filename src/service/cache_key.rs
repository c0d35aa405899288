//! [`KernelCacheKey`]: makes the keys by which caches and coalescing recognise equal kernel requests.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use super::operands::has_references;
use super::{
    KernelRegistry, KernelRequest, KernelResponse, OperandVersion, Payload, RegisteredKernel, Tensor, Tensors,
};
use crate::middleware::cache_key::{CacheKey, Cacheable, Weight};
use crate::request::{BackendKind, Execution};

/// Makes cache keys of kernel requests: kernel, version, and the payload's bytes.
///
/// Only requests for [pure](super::KernelInfo::pure) kernels have a key. Where the payload refers to
/// [operands](super::Operands), the key has their versions, and requests whose references are not
/// [resolved](KernelRequest::resolve_operands) yet have none. The same input in another encoding has another key,
/// and a typed payload has no bytes to compare and so no key. Neither do requests share that ask for
/// different [backends](KernelRequest::set_backend), whose outputs can differ in the last bits.
///
/// Tenants do not share outputs unless [`share_across_tenants`](Self::share_across_tenants) is set. Requests without a tenant
/// share among themselves.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::sync::Arc;
/// use tower::{Layer, Service, ServiceExt};
/// use tower_kernels::backends::cpu::CpuBackend;
/// use tower_kernels::layers::CoalesceLayer;
/// use tower_kernels::service::{KernelRegistry, KernelRequest, KernelService, Payload, KernelCacheKey};
///
/// let registry = Arc::new(KernelRegistry::new());
/// tower_kernels::kernels::register_all(&registry).unwrap();
/// let kernels = KernelService::with_backend(Arc::clone(&registry), CpuBackend::new());
/// let mut service = CoalesceLayer::new(KernelCacheKey::new(registry)).layer(kernels);
/// let input = Payload::json(r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#);
/// service.ready().await.unwrap().call(KernelRequest::new("linalg/saxpy", input)).await.unwrap();
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct KernelCacheKey {
    registry: Option<Arc<KernelRegistry>>,
    share_across_tenants: bool,
}

impl KernelCacheKey {
    /// Makes keys for requests for the pure kernels of `registry`.
    pub fn new(registry: impl Into<Arc<KernelRegistry>>) -> Self {
        Self { registry: Some(registry.into()), share_across_tenants: false }
    }

    /// Makes no keys, for a layer that is disabled.
    pub fn none() -> Self {
        Self { registry: None, share_across_tenants: false }
    }

    /// Shares outputs among all tenants. The outputs are the same for every tenant, but a tenant that gets one sooner than a
    /// run takes learns that another tenant made the same request.
    #[must_use]
    pub fn share_across_tenants(mut self) -> Self {
        self.share_across_tenants = true;
        self
    }
}

/// The cache key of a [`KernelRequest`], borrowed from it.
#[derive(Debug)]
pub struct KernelKey<'r> {
    kernel: RegisteredKernel,
    payload: &'r Payload,
    operands: &'r [Arc<OperandVersion>],
    tenant: Option<&'r Arc<str>>,
    backend: Option<BackendKind>,
}

/// The cache key of a kernel request.
#[derive(Clone, Debug)]
pub struct OwnedKernelKey {
    kernel: RegisteredKernel,
    payload: Payload,
    /// The ids of the versions. The versions themselves would be kept in memory.
    operands: Box<[u64]>,
    tenant: Option<Arc<str>>,
    backend: Option<BackendKind>,
}

impl OwnedKernelKey {
    /// Returns the kernel's id, even if the request came with an alias.
    pub fn kernel_id(&self) -> &str {
        &self.kernel.info().id
    }

    /// Returns the version of the kernel.
    pub fn version(&self) -> &str {
        &self.kernel.info().version
    }

    /// Returns the tenant; `None` if outputs are shared among tenants.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }
}

impl Hash for KernelKey<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // The digest covers id and version; the payload's hash covers its length.
        state.write_u64(self.kernel.digest());
        if let Some(tenant) = self.tenant {
            tenant.hash(state);
        }
        if let Some(backend) = self.backend {
            backend.hash(state);
        }
        for operand in self.operands {
            state.write_u64(operand.id());
        }
        match self.payload {
            Payload::Json(document) => state.write(document),
            Payload::Tensors(tensors) => hash_tensors(tensors, state),
            Payload::Typed(_) => {}
        }
    }
}

fn hash_tensors<H: Hasher>(tensors: &Tensors, state: &mut H) {
    for (name, tensor) in tensors.iter() {
        name.hash(state);
        tensor.dtype().hash(state);
        tensor.shape().hash(state);
        tensor.data().hash(state);
    }
}

impl CacheKey<KernelRequest> for KernelCacheKey {
    type Key<'r> = KernelKey<'r>;
    type OwnedKey = OwnedKernelKey;

    #[inline]
    fn key<'r>(&'r self, request: &'r KernelRequest) -> Option<KernelKey<'r>> {
        let registry = self.registry.as_ref()?;
        if let Payload::Typed(_) = request.payload {
            return None;
        }
        let kernel = registry.get(&request.kernel_id).filter(|kernel| kernel.info().pure)?;
        if !request.is_resolved() && !registry.operands().is_empty() && has_references(&request.payload) {
            return None;
        }
        let tenant = request.tenant.as_ref().filter(|_| !self.share_across_tenants);
        let (operands, backend) = (request.operands(), request.backend());
        Some(KernelKey { kernel, payload: &request.payload, operands, tenant, backend })
    }

    #[inline]
    fn is_equal(&self, owned: &OwnedKernelKey, key: &KernelKey<'_>) -> bool {
        let (ours, theirs) = (owned.kernel.info(), key.kernel.info());
        let same_kernel = std::ptr::eq(ours, theirs) || (&ours.id, &ours.version) == (&theirs.id, &theirs.version);
        let same_payload = match (&owned.payload, key.payload) {
            (Payload::Json(ours), Payload::Json(theirs)) => ours == theirs,
            (Payload::Tensors(ours), Payload::Tensors(theirs)) => ours == theirs,
            _ => false,
        };
        let same_operands = owned.operands.iter().copied().eq(key.operands.iter().map(|operand| operand.id()));
        let same_scope = (owned.tenant.as_ref(), owned.backend) == (key.tenant, key.backend);
        same_kernel && same_payload && same_operands && same_scope
    }

    #[inline]
    fn to_owned_key(&self, key: KernelKey<'_>) -> OwnedKernelKey {
        let KernelKey { kernel, payload, operands, tenant, backend } = key;
        let operands = operands.iter().map(|operand| operand.id()).collect();
        OwnedKernelKey { kernel, payload: payload.clone(), operands, tenant: tenant.cloned(), backend }
    }

    /// Copies the payload, which can be a slice of a larger body or lie in pinned memory.
    fn compact(&self, mut owned: OwnedKernelKey) -> OwnedKernelKey {
        // A payload without bytes has no key.
        if let Some(payload) = copied(&owned.payload) {
            owned.payload = payload;
        }
        owned
    }

    fn weight(&self, owned: &OwnedKernelKey) -> usize {
        weigh(&owned.payload) + size_of_val(&*owned.operands) + owned.tenant.weight()
    }
}

/// A cached response has a copy of the payload, which can lie in pinned memory or be a slice of a larger body. It has no
/// extensions, which belong to one call, and its [`Execution`] has the backend [`Execution::CACHE`] and no times.
impl Cacheable for KernelResponse {
    fn to_cached(&self) -> Option<Self> {
        Some(Self::new(copied(&self.payload)?, Execution::new(Execution::CACHE)))
    }

    #[inline]
    fn to_response(&self) -> Self {
        Self::new(self.payload.clone(), Execution::new(Execution::CACHE))
    }

    fn weight(&self) -> usize {
        weigh(&self.payload)
    }
}

/// Returns a copy with memory of its own; `None` for a typed value, whose size is unknown.
fn copied(payload: &Payload) -> Option<Payload> {
    match payload {
        Payload::Json(document) => Some(Payload::Json(Bytes::copy_from_slice(document))),
        Payload::Tensors(tensors) => Some(Payload::Tensors(tensors.copied())),
        Payload::Typed(_) => None,
    }
}

/// The overhead of a shared [`Bytes`].
const SHARED: usize = 24;

fn weigh(payload: &Payload) -> usize {
    match payload {
        Payload::Json(document) => document.len() + SHARED,
        Payload::Tensors(tensors) => tensors.iter().map(|(name, tensor)| weigh_tensor(name, tensor)).sum(),
        Payload::Typed(_) => 0,
    }
}

fn weigh_tensor(name: &str, tensor: &Tensor) -> usize {
    let fixed = size_of::<(String, Tensor)>() + SHARED;
    fixed + name.len() + size_of_val(tensor.shape()) + tensor.data().len()
}
