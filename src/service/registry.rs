//! [`KernelRegistry`]: the kernels that a service can run.

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
use super::kernel_index::KernelIndex;
use super::payload::{Encoding, Typed};
use super::run_times::RunTimes;
use super::{
    BatchKey, Cost, Footprint, Kernel, KernelError, KernelInfo, OperandVersion, Operands, Payload, RunContext,
};
use crate::panics::{LogLimit, Panicked, catch_panic};

/// Maps ids and aliases to the kernels that a service can run.
///
/// Lookups take no lock, and kernels may be registered while requests run.
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
    kernels: ArcSwap<KernelIndex>,
    /// The lengths of all aliases, each as a [bit](length_bit). Most names are ids, and need not be looked up as aliases.
    alias_lengths: AtomicU64,
    operands: Operands,
    /// Serializes registrations, so that none is lost to another.
    registering: Mutex<()>,
}

impl KernelRegistry {
    /// Creates an empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates an empty registry whose kernels use these operands.
    pub fn with_operands(operands: Operands) -> Self {
        Self { operands, ..Self::default() }
    }

    /// Returns the operands that requests for the kernels can refer to.
    pub fn operands(&self) -> &Operands {
        &self.operands
    }

    /// Registers a kernel under its id and its aliases.
    ///
    /// # Errors
    /// [`RegisterError`] if a name is taken or invalid, or if [`Kernel::info`] panics. Nothing is registered then.
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
            #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
            signature: OnceLock::new(),
            panics: AtomicU64::new(0),
            log: LogLimit::new(),
            run_times: RunTimes::new(),
            #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
            request_statistics: super::RequestStatistics::default(),
        };
        let kernel = RegisteredKernel(Arc::new(entry));
        let _registering = self.registering.lock().unwrap_or_else(PoisonError::into_inner);
        let kernels = self.kernels.load().with(&kernel)?;
        let lengths = kernel.info().aliases.iter().fold(0, |lengths, alias| lengths | length_bit(alias));
        self.alias_lengths.fetch_or(lengths, Ordering::Relaxed);
        self.kernels.store(Arc::new(kernels));
        Ok(())
    }

    /// Returns the kernel with this id or alias.
    pub fn get(&self, name: &str) -> Option<RegisteredKernel> {
        self.kernels.load().get(name).cloned()
    }

    /// Returns the id of the kernel with this alias; `None` if the name is an id itself, or unknown.
    pub(crate) fn id_of_alias(&self, name: &str) -> Option<Cow<'static, str>> {
        if self.alias_lengths.load(Ordering::Relaxed) & length_bit(name) == 0 {
            return None;
        }
        let kernels = self.kernels.load();
        kernels.get(name).map(|kernel| &kernel.info().id).filter(|id| **id != name).cloned()
    }

    /// Returns all kernels, sorted by id.
    pub fn list(&self) -> Vec<RegisteredKernel> {
        self.kernels.load().sorted().to_vec()
    }

    /// Returns the kernels of a domain, sorted by id.
    pub fn domain(&self, domain: &str) -> Vec<RegisteredKernel> {
        let kernels = self.kernels.load();
        kernels.sorted().iter().filter(|kernel| kernel.info().domain() == domain).cloned().collect()
    }

    /// Returns the description of a kernel with the JSON Schemas of its input and output.
    pub fn describe(&self, name: &str) -> Option<Description> {
        self.get(name).map(Description)
    }

    /// Returns the kernels that are registered now.
    #[cfg(any(feature = "axum", feature = "hyper"))]
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot(self.kernels.load_full())
    }

    /// Returns whether a kernel with this id or alias is registered and [pure](KernelInfo::pure), so that its runs can be
    /// repeated and its outputs cached.
    pub fn is_pure(&self, name: &str) -> bool {
        self.kernels.load().get(name).is_some_and(|kernel| kernel.info().pure)
    }

    /// Returns the number of kernels.
    pub fn len(&self) -> usize {
        self.kernels.load().len()
    }

    /// Returns whether there are no kernels.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The bit of the length of a name; the last is that of all names of 63 bytes or more.
fn length_bit(name: &str) -> u64 {
    1 << name.len().min(63)
}

impl fmt::Debug for KernelRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.list().iter().map(|kernel| &kernel.info().id)).finish()
    }
}

/// The kernels of a registry at a point in time.
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) struct Snapshot(Arc<KernelIndex>);

#[cfg(any(feature = "axum", feature = "hyper"))]
impl Snapshot {
    /// Returns all kernels, sorted by id.
    pub(crate) fn kernels(&self) -> &[RegisteredKernel] {
        self.0.sorted()
    }

    /// Returns whether no kernel was registered since. The address cannot have been reused, as this holds a reference.
    pub(crate) fn is_current(&self, registry: &KernelRegistry) -> bool {
        Arc::ptr_eq(&self.0, &registry.kernels.load())
    }
}

/// The error of registering a kernel.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// Another kernel has this id or alias.
    #[error("the name `{name}` is taken")]
    Taken {
        /// The name.
        name: String,
    },
    /// The id or alias is not a valid name: at most 128 characters of `a-z 0-9 - _ .`, in words separated by slashes.
    #[error("`{name}` is not a kernel name: at most 128 characters of a-z 0-9 - _ . in words separated by slashes")]
    Name {
        /// The name.
        name: String,
    },
    /// [`Kernel::info`] panicked.
    #[error("the kernel's `info` panicked: {message}")]
    Panicked {
        /// The panic's message.
        message: String,
    },
}

/// A handle to a kernel in a registry.
#[derive(Clone)]
pub struct RegisteredKernel(Arc<Entry>);

struct Entry {
    number: u64,
    info: KernelInfo,
    /// A hash of the id and version.
    digest: u64,
    kernel: SharedKernel,
    /// Computed on first use.
    schemas: OnceLock<(Schema, Schema)>,
    /// Read from the schemas on first use.
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    signature: OnceLock<Result<super::Signature, super::InvalidInput>>,
    panics: AtomicU64,
    log: LogLimit,
    run_times: RunTimes,
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    request_statistics: super::RequestStatistics,
}

impl RegisteredKernel {
    /// Returns the kernel's description.
    pub fn info(&self) -> &KernelInfo {
        &self.0.info
    }

    /// Returns a hash of the kernel's id and version.
    pub(crate) fn digest(&self) -> u64 {
        self.0.digest
    }

    /// Returns whether requests can run it, which they cannot for a ring kernel.
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    pub(crate) fn is_batch(&self) -> bool {
        self.info().mode == super::Mode::Batch
    }

    /// Returns the number of the registration, which is unique in the process.
    pub(crate) fn number(&self) -> u64 {
        self.0.number
    }

    /// Returns what the kernel's runs took.
    pub(crate) fn run_times(&self) -> &RunTimes {
        &self.0.run_times
    }

    /// Returns what servers of the Open Inference Protocol count of its requests.
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    pub(crate) fn request_statistics(&self) -> &super::RequestStatistics {
        &self.0.request_statistics
    }

    /// Returns the JSON Schema of the input.
    ///
    /// # Panics
    /// If the schema functions of the kernel's types panic.
    pub fn input_schema(&self) -> &Schema {
        &self.schemas().unwrap_or_else(|error| panic!("no schema of the input: {error}")).0
    }

    /// Returns the JSON Schema of the output.
    ///
    /// # Panics
    /// If the schema functions of the kernel's types panic.
    pub fn output_schema(&self) -> &Schema {
        &self.schemas().unwrap_or_else(|error| panic!("no schema of the output: {error}")).1
    }

    /// Returns how often the kernel's code has panicked, that of its types included.
    pub fn panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }

    /// Decodes a payload into the kernel's input without validating it, so that an input sent many times is decoded once.
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
    /// [`KernelError::InvalidInput`] if the payload does not decode as the input type.
    pub fn decode(&self, payload: Payload) -> Result<Payload, KernelError> {
        self.decode_input(payload, None).map(|input| Payload::Typed(input.value))
    }

    /// Returns the JSON Schemas of the input and the output.
    pub(crate) fn schemas(&self) -> Result<&(Schema, Schema), KernelError> {
        if let Some(schemas) = self.0.schemas.get() {
            return Ok(schemas);
        }
        let schemas = self.guarded(|kernel| kernel.schemas())?;
        Ok(self.0.schemas.get_or_init(|| schemas))
    }

    /// Returns the tensors of the input and the output.
    ///
    /// # Errors
    /// [`KernelError::InvalidInput`] if the input or the output has no form as tensors, and the error of the schemas.
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    pub(crate) fn signature(&self) -> Result<&super::Signature, KernelError> {
        let schemas = self.schemas()?;
        let signature = self.0.signature.get_or_init(|| super::Signature::of(schemas));
        Ok(signature.as_ref().map_err(Clone::clone)?)
    }
}

/// Calls into the kernel's code and that of its types. Nothing else calls it, so that every panic is caught, counted and
/// logged here: the code runs on threads that other requests need.
impl RegisteredKernel {
    /// Decodes a payload without validating the input. Large arrays that have to be copied are copied into `memory`.
    pub(crate) fn decode_input(&self, payload: Payload, memory: Option<&PinnedMemory>) -> Result<Input, KernelError> {
        self.guarded(|kernel| kernel.decode(payload, memory))?
    }

    pub(crate) fn validate(&self, input: &Input) -> Result<(), KernelError> {
        self.guarded(|kernel| kernel.validate(input))?
    }

    /// Returns the operands in a typed input; none if it is of another type or the kernel panics.
    pub(crate) fn operands(&self, input: &Typed) -> Vec<Arc<OperandVersion>> {
        self.guarded(|kernel| kernel.operands(input)).unwrap_or_default()
    }

    /// Returns the batch key of a valid input; `None` if the kernel panics.
    pub(crate) fn batch_key(&self, input: &Input) -> Option<BatchKey> {
        self.guarded(|kernel| kernel.batch_key(input)).unwrap_or(None)
    }

    /// Returns whether two inputs may share a run; `false` if the kernel panics.
    pub(crate) fn shares_run(&self, first: &Input, other: &Input) -> bool {
        self.guarded(|kernel| kernel.shares_run(first, other)).unwrap_or(false)
    }

    /// Returns the cost of a run of these valid inputs, whose costs have this sum; the sum if the kernel panics.
    pub(crate) fn batch_cost(&self, inputs: &[&Input], sum: Cost) -> Cost {
        self.guarded(|kernel| kernel.batch_cost(inputs, sum)).unwrap_or(sum)
    }

    /// Returns the footprint of running a valid input; `None` if the kernel panics.
    pub(crate) fn footprint(&self, input: &Input) -> Option<Footprint> {
        self.guarded(|kernel| kernel.footprint(input)).unwrap_or(None)
    }

    /// Returns the least bytes of the output, where the footprint counts more; `None` if the kernel panics.
    pub(crate) fn min_output(&self, input: &Input) -> Option<u64> {
        self.guarded(|kernel| kernel.min_output(input)).unwrap_or(None)
    }

    /// Runs the CPU code. The output of a shared run is [`MemberResults`](super::MemberResults).
    pub(crate) fn run_cpu(&self, input: &Input, context: &RunContext<'_>) -> Result<Typed, KernelError> {
        self.guarded(|kernel| kernel.run_cpu(input, context))?
    }

    #[cfg(feature = "cuda")]
    pub(crate) fn run_cuda(&self, input: &Input, cuda: &mut LaunchContext<'_>) -> Result<Typed, KernelError> {
        self.guarded(|kernel| kernel.run_cuda(input, cuda))?
    }

    /// Encodes the output of a run, for which `footprint` was reserved.
    pub(crate) fn encode(
        &self,
        output: &Typed,
        encoding: Encoding,
        footprint: Option<Footprint>,
        context: &RunContext<'_>,
    ) -> Result<Payload, KernelError> {
        self.guarded(|kernel| kernel.encode(output, encoding, footprint, context))?
    }

    /// Returns the device code that the kernel launches; none if the kernel panics when it is asked.
    #[cfg(feature = "cuda")]
    pub(crate) fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        self.guarded(|kernel| kernel.modules()).unwrap_or_default()
    }

    pub(super) fn guarded<T>(&self, work: impl FnOnce(&dyn ErasedKernel) -> T) -> Result<T, KernelError> {
        catch_panic(|| work(&*self.0.kernel)).map_err(|panicked| self.panicked(panicked))
    }

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

/// The description of a kernel with its schemas, which serializes to one flat JSON object.
#[derive(Clone, Debug)]
pub struct Description(RegisteredKernel);

impl Serialize for Description {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(kernel) = self;
        let (input_schema, output_schema) = kernel.schemas().map_err(serde::ser::Error::custom)?;
        let fields =
            DescriptionFields { info: kernel.info(), domain: kernel.info().domain(), input_schema, output_schema };
        fields.serialize(serializer)
    }
}

/// The JSON fields of a [`Description`].
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "KernelDescription")]
struct DescriptionFields<'a> {
    #[serde(flatten)]
    info: &'a KernelInfo,
    /// The part of the id before the first slash.
    domain: &'a str,
    /// The JSON Schema of the input.
    input_schema: &'a Schema,
    /// The JSON Schema of the output.
    output_schema: &'a Schema,
}

impl JsonSchema for Description {
    fn inline_schema() -> bool {
        DescriptionFields::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        DescriptionFields::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        DescriptionFields::json_schema(generator)
    }
}
