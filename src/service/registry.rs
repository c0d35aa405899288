//! Which kernels there are.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::erased::{ErasedKernel, SharedKernel};
use super::kernels::Kernels;
use super::{Kernel, KernelError, KernelInfo, Payload};

/// The kernels that a service knows, by id and alias.
///
/// Reading takes no lock, so kernels may be added while requests run.
///
/// ```
/// use tower_kernels::service::KernelRegistry;
///
/// let registry = KernelRegistry::new();
/// tower_kernels::kernels::register_all(&registry).unwrap();
/// assert_eq!(registry.get("linalg/saxpy").unwrap().info().domain(), "linalg");
/// ```
#[derive(Default)]
pub struct KernelRegistry {
    kernels: ArcSwap<Kernels>,
    /// Held while the next version of `kernels` is made, so that no registration is lost to another.
    writing: Mutex<()>,
}

impl KernelRegistry {
    /// No kernels.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a kernel under its id and its aliases.
    ///
    /// # Errors
    /// [`RegisterError`] where a name is taken or is no name; then nothing is added.
    pub fn register<K: Kernel>(&self, kernel: K) -> Result<(), RegisterError> {
        let info = kernel.info();
        let digest = xxh3_64_with_seed(info.version.as_bytes(), xxh3_64(info.id.as_bytes()));
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let entry = Entry { number, info, digest, kernel: Arc::new(kernel), schemas: OnceLock::new() };
        let kernel = RegisteredKernel(Arc::new(entry));
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let kernels = self.kernels.load().with(&kernel)?;
        self.kernels.store(Arc::new(kernels));
        Ok(())
    }

    /// The kernel of this id or alias.
    pub fn get(&self, name: &str) -> Option<RegisteredKernel> {
        self.kernels.load().get(name).cloned()
    }

    /// All kernels, by id.
    pub fn list(&self) -> Vec<RegisteredKernel> {
        self.kernels.load().sorted().to_vec()
    }

    /// The kernels of one domain, by id.
    pub fn domain(&self, domain: &str) -> Vec<RegisteredKernel> {
        let kernels = self.kernels.load();
        kernels.sorted().iter().filter(|kernel| kernel.info().domain() == domain).cloned().collect()
    }

    /// A kernel with the JSON Schemas of its input and output, as a document to serialize.
    pub fn describe(&self, name: &str) -> Option<Description> {
        self.get(name).map(Description)
    }

    /// The kernels as they are now, all at one time.
    #[cfg(feature = "axum")]
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.kernels.load_full())
    }

    /// Whether there is a kernel of this id or alias and it is [pure](KernelInfo::pure): it does no harm to run a request
    /// for it twice, and its answer can be given to everyone who asks the same.
    pub fn is_pure(&self, name: &str) -> bool {
        self.kernels.load().get(name).is_some_and(|kernel| kernel.info().pure)
    }

    /// How many kernels there are.
    pub fn len(&self) -> usize {
        self.kernels.load().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for KernelRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.list().iter().map(|kernel| &kernel.info().id)).finish()
    }
}

/// The kernels of a registry at one time.
#[cfg(feature = "axum")]
pub(crate) struct Snapshot(Arc<Kernels>);

#[cfg(feature = "axum")]
impl Snapshot {
    /// All kernels, by id.
    pub(crate) fn kernels(&self) -> &[RegisteredKernel] {
        self.0.sorted()
    }

    /// Whether the registry has had no other kernels since. It cannot be taken in by the address: this keeps it in use.
    pub(crate) fn is_of(&self, registry: &KernelRegistry) -> bool {
        Arc::ptr_eq(&self.0, &registry.kernels.load())
    }
}

/// Why a kernel cannot be registered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Another kernel has this id or alias.
    #[error("the name `{name}` is taken")]
    Taken {
        /// The name.
        name: String,
    },
    /// Not a name: at most 128 of `a-z 0-9 - _ .`, in words separated by slashes.
    #[error("`{name}` is not a kernel name: at most 128 of a-z 0-9 - _ . in words separated by slashes")]
    Name {
        /// The name.
        name: String,
    },
}

/// A kernel in a registry.
#[derive(Clone)]
pub struct RegisteredKernel(Arc<Entry>);

struct Entry {
    number: u64,
    info: KernelInfo,
    /// Of its id and version.
    digest: u64,
    kernel: SharedKernel,
    /// Made when first asked for.
    schemas: OnceLock<(Schema, Schema)>,
}

impl RegisteredKernel {
    /// Its description.
    pub fn info(&self) -> &KernelInfo {
        &self.0.info
    }

    /// A hash of its id and version.
    pub(crate) fn digest(&self) -> u64 {
        self.0.digest
    }

    /// Whether it answers requests.
    #[cfg(feature = "axum")]
    pub(crate) fn is_batch(&self) -> bool {
        self.info().mode == super::Mode::Batch
    }

    /// Different for each registration in the process.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    /// The JSON Schema of its input.
    pub fn input_schema(&self) -> &Schema {
        &self.schemas().0
    }

    /// The JSON Schema of its output.
    pub fn output_schema(&self) -> &Schema {
        &self.schemas().1
    }

    /// A payload as the kernel's own input, not validated yet: what is to be sent many times is decoded once.
    ///
    /// ```
    /// use tower_kernels::service::{KernelRegistry, Payload};
    ///
    /// let registry = KernelRegistry::new();
    /// tower_kernels::kernels::register_all(&registry).unwrap();
    /// let saxpy = registry.get("linalg/saxpy").unwrap();
    /// let input = saxpy.decode(Payload::json(r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#)).unwrap();
    /// assert!(matches!(input, Payload::Typed(_)));
    /// ```
    ///
    /// # Errors
    /// [`KernelError::Invalid`] where the payload is not in the form of the input.
    pub fn decode(&self, payload: Payload) -> Result<Payload, KernelError> {
        self.code().decode(payload, None).map(|input| Payload::Typed(input.value))
    }

    fn schemas(&self) -> &(Schema, Schema) {
        self.0.schemas.get_or_init(|| self.0.kernel.schemas())
    }

    pub(crate) fn code(&self) -> &dyn ErasedKernel {
        &*self.0.kernel
    }
}

impl fmt::Debug for RegisteredKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RegisteredKernel").field(&self.info().id).finish()
    }
}

/// A kernel's description with its schemas; serializes to one flat JSON object.
#[derive(Clone, Debug)]
pub struct Description(RegisteredKernel);

impl Serialize for Description {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(kernel) = self;
        let flat = Described {
            info: kernel.info(),
            domain: kernel.info().domain(),
            input_schema: kernel.input_schema(),
            output_schema: kernel.output_schema(),
        };
        flat.serialize(serializer)
    }
}

/// What is described of a kernel.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "KernelDescription")]
struct Described<'a> {
    #[serde(flatten)]
    info: &'a KernelInfo,
    /// The part of the id before the first slash.
    domain: &'a str,
    /// The JSON Schema of its input.
    input_schema: &'a Schema,
    /// The JSON Schema of its output.
    output_schema: &'a Schema,
}

impl JsonSchema for Description {
    fn inline_schema() -> bool {
        Described::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        Described::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Described::json_schema(generator)
    }
}
