//! [`KernelCacheKey`]: which requests for kernels ask for the same, for the layers that answer them once.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use bytes::Bytes;

use super::{KernelRegistry, KernelRequest, KernelResponse, Payload, RegisteredKernel, Tensor, Tensors};
use crate::middleware::cache_key::{Repeatable, Repeats, Weigh};
use crate::request::Execution;

/// Requests for one [pure](super::KernelInfo::pure) kernel, of one version, with the same payload to the byte, ask for the
/// same. A payload in another encoding is another, and a typed one has no bytes to compare, so it is always run.
///
/// Tenants do not share answers unless [`across_tenants`](Self::across_tenants) says so. Requests without a tenant share
/// among themselves.
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
    across_tenants: bool,
}

impl KernelCacheKey {
    /// The pure ones among the kernels of `registry`.
    pub fn new(registry: impl Into<Arc<KernelRegistry>>) -> Self {
        Self { registry: Some(registry.into()), across_tenants: false }
    }

    /// None: no request is a repeat of another. For a layer that is there and off.
    pub fn none() -> Self {
        Self { registry: None, across_tenants: false }
    }

    /// Has all tenants share answers. Answers are the same whoever asks; but a tenant who is answered sooner than
    /// the work takes knows that some other has asked the same.
    #[must_use]
    pub fn across_tenants(mut self) -> Self {
        self.across_tenants = true;
        self
    }
}

/// What a [`KernelRequest`] asks.
#[derive(Debug)]
pub struct KernelKey<'r> {
    kernel: RegisteredKernel,
    payload: &'r Payload,
    tenant: Option<&'r Arc<str>>,
}

/// What was asked of a kernel.
#[derive(Clone, Debug)]
pub struct OwnedKernelKey {
    kernel: RegisteredKernel,
    payload: Payload,
    tenant: Option<Arc<str>>,
}

impl OwnedKernelKey {
    /// The kernel, by its id and not by the alias that it was asked by.
    pub fn kernel_id(&self) -> &str {
        &self.kernel.info().id
    }

    /// The version of the kernel.
    pub fn version(&self) -> &str {
        &self.kernel.info().version
    }

    /// On whose behalf; nobody's where all tenants share.
    pub fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }
}

impl Hash for KernelKey<'_> {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        // Of its id and version; the payload's own hash has its length.
        state.write_u64(self.kernel.digest());
        if let Some(tenant) = self.tenant {
            tenant.hash(state);
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

impl Repeats<KernelRequest> for KernelCacheKey {
    type Question<'r> = KernelKey<'r>;
    type Kept = OwnedKernelKey;

    #[inline]
    fn question<'r>(&'r self, request: &'r KernelRequest) -> Option<KernelKey<'r>> {
        let registry = self.registry.as_ref()?;
        if let Payload::Typed(_) = request.payload {
            return None;
        }
        let kernel = registry.get(&request.kernel_id).filter(|kernel| kernel.info().pure)?;
        let tenant = request.tenant.as_ref().filter(|_| !self.across_tenants);
        Some(KernelKey { kernel, payload: &request.payload, tenant })
    }

    #[inline]
    fn is_same(&self, kept: &OwnedKernelKey, question: &KernelKey<'_>) -> bool {
        let (ours, theirs) = (kept.kernel.info(), question.kernel.info());
        let same_kernel = std::ptr::eq(ours, theirs) || (&ours.id, &ours.version) == (&theirs.id, &theirs.version);
        let same_payload = match (&kept.payload, question.payload) {
            (Payload::Json(ours), Payload::Json(theirs)) => ours == theirs,
            (Payload::Tensors(ours), Payload::Tensors(theirs)) => ours == theirs,
            _ => false,
        };
        same_kernel && same_payload && kept.tenant.as_ref() == question.tenant
    }

    #[inline]
    fn hold(&self, question: KernelKey<'_>) -> OwnedKernelKey {
        let KernelKey { kernel, payload, tenant } = question;
        OwnedKernelKey { kernel, payload: payload.clone(), tenant: tenant.cloned() }
    }

    /// Copies the payload: it can be a slice of a whole body, and tensors can lie in pinned memory.
    fn keep(&self, mut held: OwnedKernelKey) -> OwnedKernelKey {
        // What has no bytes is no question.
        if let Some(payload) = copied(&held.payload) {
            held.payload = payload;
        }
        held
    }

    fn weigh(&self, kept: &OwnedKernelKey) -> usize {
        weigh(&kept.payload) + kept.tenant.weigh()
    }
}

/// Kept is the payload alone, as a copy, since it can lie in pinned memory or be a part of something larger. The
/// extensions are of one call, and so is its execution: an answer that is given again was run by nothing, in no time, and
/// its backend is [`Execution::CACHE`].
impl Repeatable for KernelResponse {
    fn keep(&self) -> Option<Self> {
        Some(Self::new(copied(&self.payload)?, Execution::new(Execution::CACHE)))
    }

    #[inline]
    fn repeat(&self) -> Self {
        Self::new(self.payload.clone(), Execution::new(Execution::CACHE))
    }

    fn weigh(&self) -> usize {
        weigh(&self.payload)
    }
}

/// A copy with memory of its own; `None` of a typed value, whose size nobody knows.
fn copied(payload: &Payload) -> Option<Payload> {
    match payload {
        Payload::Json(document) => Some(Payload::Json(Bytes::copy_from_slice(document))),
        Payload::Tensors(tensors) => Some(Payload::Tensors(tensors.copied())),
        Payload::Typed(_) => None,
    }
}

/// What a [`Bytes`] has beside its bytes, once it is shared.
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
