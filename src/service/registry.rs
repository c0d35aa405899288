//! Which kernels there are.

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

#[cfg(feature = "cuda")]
use super::LaunchContext;
use super::codec::PinnedMemory;
use super::erased::{ErasedKernel, Input, SharedKernel};
use super::kernels::Kernels;
use super::payload::Encoding;
use super::{BatchKey, Footprint, Kernel, KernelError, KernelInfo, Payload, RunContext};
use crate::panics::{LogLimit, Panicked, catch_panic};

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
    /// [`RegisterError`] where a name is taken or is no name, and where the kernel panics when it is asked for its
    /// description; then nothing is added.
    pub fn register<K: Kernel>(&self, kernel: K) -> Result<(), RegisterError> {
        let info = catch_panic(|| kernel.info());
        let info = info.map_err(|panicked| RegisterError::Panicked { message: panicked.into_message() })?;
        let digest = xxh3_64_with_seed(info.version.as_bytes(), xxh3_64(info.id.as_bytes()));
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let entry = Entry {
            number,
            info,
            digest,
            kernel: Arc::new(kernel),
            schemas: OnceLock::new(),
            panics: AtomicU64::new(0),
            log: LogLimit::new(),
        };
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
    /// [`Kernel::info`] panicked.
    #[error("the kernel panicked when it was asked for its description: {message}")]
    Panicked {
        /// What it said.
        message: String,
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
    panics: AtomicU64,
    log: LogLimit,
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
    ///
    /// # Panics
    /// Where the kernel's types panic when they are asked for it.
    pub fn input_schema(&self) -> &Schema {
        &self.schemas().unwrap_or_else(|error| panic!("no schema of the input: {error}")).0
    }

    /// The JSON Schema of its output.
    ///
    /// # Panics
    /// Where the kernel's types panic when they are asked for it.
    pub fn output_schema(&self) -> &Schema {
        &self.schemas().unwrap_or_else(|error| panic!("no schema of the output: {error}")).1
    }

    /// How often the kernel's code has panicked, that of its types included.
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
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
    /// [`KernelError::InvalidInput`] where the payload is not in the form of the input.
    pub fn decode(&self, payload: Payload) -> Result<Payload, KernelError> {
        self.read(payload, None).map(|input| Payload::Typed(input.value))
    }

    /// The JSON Schemas of its input and output.
    pub(crate) fn schemas(&self) -> Result<&(Schema, Schema), KernelError> {
        if let Some(schemas) = self.0.schemas.get() {
            return Ok(schemas);
        }
        let schemas = self.guarded(|kernel| kernel.schemas())?;
        Ok(self.0.schemas.get_or_init(|| schemas))
    }
}

/// The code of the kernel and of its types. Nothing else calls it, and each of its panics is caught here, counted and
/// logged: it is run on threads that others need.
impl RegisteredKernel {
    /// Reads a payload, and copies large arrays into `memory` where it copies them; does not validate what it says.
    pub(crate) fn read(&self, payload: Payload, memory: Option<&PinnedMemory>) -> Result<Input, KernelError> {
        self.guarded(|kernel| kernel.decode(payload, memory))?
    }

    pub(crate) fn validate(&self, input: &Input) -> Result<(), KernelError> {
        self.guarded(|kernel| kernel.validate(input))?
    }

    /// Of a valid input. One for which the kernel panics shares no run.
    pub(crate) fn batch_key(&self, input: &Input) -> Option<BatchKey> {
        self.guarded(|kernel| kernel.batch_key(input)).unwrap_or(None)
    }

    /// Inputs for which the kernel panics share no run.
    pub(crate) fn shares_run(&self, first: &Input, other: &Input) -> bool {
        self.guarded(|kernel| kernel.shares_run(first, other)).unwrap_or(false)
    }

    /// Of a valid input that is one. What a run takes is not known of a kernel that panics here.
    pub(crate) fn footprint(&self, input: &Input) -> Option<Footprint> {
        self.guarded(|kernel| kernel.footprint(input)).unwrap_or(None)
    }

    /// Of an input that is several the payload is [`Answers`](super::Answers), each in the encoding of its own request.
    pub(crate) fn run_cpu(
        &self,
        input: &Input,
        encoding: Encoding,
        context: &RunContext<'_>,
    ) -> Result<Payload, KernelError> {
        self.guarded(|kernel| kernel.run_cpu(input, encoding, context))?
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn run_cuda(
        &self,
        input: &Input,
        encoding: Encoding,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Payload, KernelError> {
        self.guarded(|kernel| kernel.run_cuda(input, encoding, cuda))?
    }

    #[inline]
    fn guarded<T>(&self, work: impl FnOnce(&dyn ErasedKernel) -> T) -> Result<T, KernelError> {
        catch_panic(|| work(&*self.0.kernel)).map_err(|panicked| self.panicked(panicked))
    }

    #[cold]
    fn panicked(&self, panicked: Panicked) -> KernelError {
        self.0.panics.fetch_add(1, Ordering::Relaxed);
        if let Some(left_out) = self.0.log.next() {
            tracing::error!(kernel = &*self.info().id, panic = %panicked, left_out, "a kernel panicked");
        }
        KernelError::Panicked { message: panicked.into_message() }
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
        let (input_schema, output_schema) = kernel.schemas().map_err(serde::ser::Error::custom)?;
        let flat = Described { info: kernel.info(), domain: kernel.info().domain(), input_schema, output_schema };
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
