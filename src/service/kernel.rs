//! What a kernel is: one definition that holds its types, its checks, its cost and its code.

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::job::Reply;
use super::payload::Encoding;
use super::{HostReservation, InvalidInput, KernelError, Progress};

/// A kernel: its description, its typed input and output, its checks, its cost, and its code for each backend.
///
/// A request's payload is decoded once, straight into `Input`, whether it came as JSON or as tensors, and `Output` is
/// encoded once; callers in the same process pass both as they are. Use [`Buffer`](super::Buffer) for arrays.
///
/// # Panics
/// Whatever panics here, in the code of the kernel or in that of its types (reading, writing, schemas, drops), costs its own
/// request and no other: the caller is told [`KernelError::Panicked`], clients of servers that it was an internal error,
/// and `kernel_panics_total` counts it. Two things cannot be caught, and end the process: a second panic while the first
/// one unwinds, such as that of the `Drop` of a local variable, and a panic with a value that panics when it is dropped in
/// both halves of a `rayon::join` (and so in two pieces of a parallel iterator), because rayon drops one of the two.
pub trait Kernel: Send + Sync + 'static {
    /// What the kernel takes.
    type Input: DeserializeOwned + JsonSchema + Send + Sync + 'static;
    /// What the kernel gives.
    type Output: Serialize + JsonSchema + Send + Sync + 'static;

    /// Id, version, description, mode, and the backends that there is code for. Asked once, at registration.
    fn info(&self) -> KernelInfo;

    /// Checks what the type cannot: ranges, lengths that must agree, finite numbers. Called before every run, on the
    /// calling thread where the input is small.
    ///
    /// # Errors
    /// The first field found wrong.
    fn validate(&self, input: &Self::Input) -> Result<(), InvalidInput>;

    /// What a valid input will cost. Decides where the kernel runs, so it must cost next to nothing itself.
    fn cost(&self, input: &Self::Input) -> Cost;

    /// The memory of this process that a run of a valid input takes at most, its output included. It is reserved before
    /// the run where the request has a [`HostReservation`], and costs next to nothing to find out.
    ///
    /// `None`, which is the default, where it is not known. The run is then taken to need the [bytes](Cost::bytes) that
    /// it moves, and a sixteenth of the whole [`HostMemory`](super::HostMemory) at most; what its encoded output takes is
    /// reserved as it grows.
    fn footprint(&self, input: &Self::Input) -> Option<Footprint> {
        let _ = input;
        None
    }

    /// The code for the CPU. Long loops call [`RunContext::check`] every millisecond or so; big inputs use rayon.
    ///
    /// # Errors
    /// What [`RunContext::check`] gives, and failures of the kernel's own.
    fn run_cpu(&self, input: &Self::Input, context: &RunContext<'_>) -> Result<Self::Output, KernelError> {
        let (_, _) = (input, context);
        Err(KernelError::UnsupportedBackend { id: self.info().id, backend: "CPU" })
    }

    /// The host side of the code for CUDA. It runs on a lane's own thread, which it may hold up.
    ///
    /// # Errors
    /// What the [`LaunchContext`](super::LaunchContext) gives, and failures of the kernel's own.
    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &Self::Input, cuda: &mut super::LaunchContext<'_>) -> Result<Self::Output, KernelError> {
        let (_, _) = (input, cuda);
        Err(KernelError::UnsupportedBackend { id: self.info().id, backend: "CUDA" })
    }

    /// Which other inputs may share a run with a valid one: those of the same key. `None`, which is the default, is none.
    ///
    /// It is asked on the calling thread, of small inputs only, so it must cost next to nothing. What is the same for a
    /// whole run goes into it: types, and numbers that the code takes once. [`backends::batched`](crate::backends::batched) has
    /// an example, and the [guide](crate::guide) the code for CUDA.
    fn batch_key(&self, input: &Self::Input) -> Option<BatchKey> {
        let _ = input;
        None
    }

    /// Whether two inputs with the same [hash](BatchKey::hash) for a key may indeed share a run: the comparison in full. It
    /// has to be an equivalence.
    fn shares_run(&self, first: &Self::Input, other: &Self::Input) -> bool {
        let (_, _) = (first, other);
        false
    }

    /// The code for the CPU of a run that several inputs share: an output for each, in order, the same as it would have had
    /// alone. The default runs one after the other, which spares them the ways to a thread and back.
    ///
    /// # Errors
    /// As [`run_cpu`](Self::run_cpu). Where it could be the fault of one of them, each is then run alone.
    fn run_cpu_batch(
        &self,
        inputs: &[&Self::Input],
        context: &RunContext<'_>,
    ) -> Result<Vec<Self::Output>, KernelError> {
        inputs.iter().map(|input| self.run_cpu(input, context)).collect()
    }

    /// The host side of the code for CUDA of a run that several inputs share, as [`run_cpu_batch`](Self::run_cpu_batch).
    ///
    /// The default runs one after the other. To gain from it, join them:
    /// [`LaunchContext::upload_parts`](crate::cuda::LaunchContext::upload_parts) makes one array of theirs, each copied once, and
    /// [`LaunchContext::download_parts`](crate::cuda::LaunchContext::download_parts) takes one apart.
    ///
    /// # Errors
    /// As [`run_cuda`](Self::run_cuda). Where it could be the fault of one of them, each is then run alone.
    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&Self::Input],
        cuda: &mut super::LaunchContext<'_>,
    ) -> Result<Vec<Self::Output>, KernelError> {
        inputs.iter().map(|input| self.run_cuda(input, cuda)).collect()
    }
}

/// What inputs that may [share a run](Kernel::batch_key) have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchKey {
    pub(super) key: u64,
    pub(super) is_hash: bool,
}

impl BatchKey {
    /// All of it: those of the same number share runs.
    pub const fn exact(key: u64) -> Self {
        Self { key, is_hash: false }
    }

    /// A hash of it: those of the same hash share runs if [`Kernel::shares_run`] says so too.
    pub fn hash(of: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        Self { key: hasher.finish(), is_hash: true }
    }
}

/// Whether a kernel answers requests or stays resident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A request in, an answer out.
    Batch,
    /// Resident on a device, exchanging messages. Listed and described; running one needs a ring runtime.
    Ring,
}

/// What runs a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, JsonSchema)]
#[non_exhaustive]
pub enum BackendKind {
    /// The host's processors.
    #[serde(rename = "CPU")]
    Cpu,
    /// An NVIDIA GPU.
    #[serde(rename = "CUDA")]
    Cuda,
}

impl BackendKind {
    /// `"CPU"` or `"CUDA"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Cuda => "CUDA",
        }
    }
}

/// A kernel's description.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct KernelInfo {
    /// `domain/name`, in lower case.
    pub id: Cow<'static, str>,
    /// The version of its behaviour.
    pub version: Cow<'static, str>,
    /// What it computes, in a sentence or two.
    pub description: Cow<'static, str>,
    /// Whether it answers requests or stays resident.
    pub mode: Mode,
    /// Other ids that it answers to.
    pub aliases: Vec<Cow<'static, str>>,
    /// The backends that there is code for.
    pub backends: Vec<BackendKind>,
    /// Whether a run does nothing but compute its output from its input, so that it does no harm to run it twice.
    #[serde(skip)]
    pub pure: bool,
}

impl KernelInfo {
    /// A batch kernel with code for the CPU.
    pub fn new(
        id: impl Into<Cow<'static, str>>,
        version: impl Into<Cow<'static, str>>,
        description: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            id: id.into(),
            version: version.into(),
            description: description.into(),
            mode: Mode::Batch,
            aliases: Vec::new(),
            backends: vec![BackendKind::Cpu],
            pure: false,
        }
    }

    /// The part of the id before the first slash.
    pub fn domain(&self) -> &str {
        self.id.split_once('/').map_or(&self.id, |(domain, _)| domain)
    }

    /// A ring kernel: described, and run by a ring runtime only.
    #[must_use]
    pub fn ring(mut self) -> Self {
        self.mode = Mode::Ring;
        self.backends.clear();
        self
    }

    /// With another id that it answers to.
    #[must_use]
    pub fn alias(mut self, id: impl Into<Cow<'static, str>>) -> Self {
        self.aliases.push(id.into());
        self
    }

    /// With code for CUDA too, in programs that are built with the feature `cuda`.
    #[must_use]
    pub fn cuda(mut self) -> Self {
        if cfg!(feature = "cuda") {
            self.backends.push(BackendKind::Cuda);
        }
        self
    }

    /// With the promise that a run does nothing but compute its output from its input. A run that a lost device has cut off
    /// is then begun anew elsewhere; without the promise it fails.
    #[must_use]
    pub fn pure(mut self) -> Self {
        self.pure = true;
        self
    }

    /// With code for these backends, in place of the CPU alone.
    #[must_use]
    pub fn backends(mut self, backends: impl Into<Vec<BackendKind>>) -> Self {
        self.backends = backends.into();
        self
    }
}

/// What a run will cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Bytes moved through memory: each input read once, each output written once, scratch as often as it is touched.
    pub bytes: u64,
    /// Arithmetic operations.
    pub operations: u64,
    /// Bytes that a device must hold at one time.
    pub device_memory: u64,
}

impl Cost {
    /// The time that a machine of these rates takes: memory and arithmetic overlap, so the slower of the two.
    pub fn time(&self, bytes_per_second: f64, operations_per_second: f64) -> Duration {
        let seconds = (self.bytes as f64 / bytes_per_second).max(self.operations as f64 / operations_per_second);
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// The memory of this process that a run takes at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of the output's arrays, where each number takes its own size: 8 for an `f64`. What they take in the encoding
    /// of the response is derived from it.
    pub output: u64,
    /// Bytes that the run takes beside its input and output: copies of the input in another form, working memory.
    pub scratch: u64,
}

impl Footprint {
    /// The bytes of an output array with so many elements of type `T`.
    ///
    /// ```
    /// use tower_kernels::service::Footprint;
    ///
    /// assert_eq!(Footprint::of_array::<f64>(1000), 8000);
    /// ```
    pub fn of_array<T>(elements: u64) -> u64 {
        elements.saturating_mul(size_of::<T>() as u64)
    }

    /// The bytes that the output takes at least in this encoding. As JSON a number has a digit and a separator, and takes
    /// 8 bytes of an array at most.
    pub(crate) fn least_encoded(&self, encoding: Encoding) -> u64 {
        match encoding {
            Encoding::Json => self.output / 4,
            Encoding::Tensors => self.output,
            Encoding::Typed => 0,
        }
    }

    /// The bytes that an output takes as JSON at most, in a response of `max_response_size`. An `f64` has 24 characters
    /// and a separator, and no other number has more than 4 for each of its bytes.
    pub(crate) fn most_as_json(&self, max_response_size: u64) -> u64 {
        /// Names of fields, brackets, and single numbers.
        const FRAME: u64 = 1 << 10;
        self.output.saturating_mul(4).saturating_add(FRAME).min(max_response_size)
    }

    /// The bytes to reserve for a run whose output is to be in this encoding.
    pub(crate) fn reserved(&self, encoding: Encoding, max_response_size: u64) -> u64 {
        let encoded = match encoding {
            Encoding::Json => self.most_as_json(max_response_size),
            // They share the memory of the output.
            Encoding::Tensors | Encoding::Typed => 0,
        };
        self.output.saturating_add(self.scratch).saturating_add(encoded)
    }
}

/// The caller's side of a run: whether it still wants the answer, and until when.
#[derive(Clone, Copy, Debug)]
pub struct RunContext<'a> {
    reply: Option<&'a Reply>,
    deadline: Option<Instant>,
    progress: Option<&'a Progress>,
    memory: Option<&'a HostReservation>,
}

impl<'a> RunContext<'a> {
    /// A run that nobody can cancel.
    pub const fn detached() -> Self {
        Self { reply: None, deadline: None, progress: None, memory: None }
    }

    pub(crate) const fn new(reply: Option<&'a Reply>, deadline: Option<Instant>) -> Self {
        Self { reply, deadline, progress: None, memory: None }
    }

    pub(crate) const fn watched_by(mut self, progress: Option<&'a Progress>) -> Self {
        self.progress = progress;
        self
    }

    /// The same for a part of the run that is of use until then.
    pub(crate) const fn until(mut self, deadline: Option<Instant>) -> Self {
        self.deadline = deadline;
        self
    }

    /// The same with what the request holds of this process's memory.
    pub(crate) const fn with_memory(mut self, memory: Option<&'a HostReservation>) -> Self {
        self.memory = memory;
        self
    }

    pub(crate) fn memory(&self) -> Option<&'a HostReservation> {
        self.memory
    }

    /// Reserves memory that makes the run faster and that it can do without, beyond its
    /// [footprint](Kernel::footprint). Answers whether the run may use it; it is given back when the run has ended.
    pub fn try_reserve(&self, bytes: u64) -> bool {
        self.memory.is_none_or(|memory| memory.try_grow(bytes))
    }

    /// Says how many steps the run takes, to whoever watches its [`Progress`].
    pub fn set_steps(&self, total: u64) {
        if let Some(progress) = self.progress {
            progress.set_total(total);
        }
    }

    /// Says that so many steps more are done. Any thread of the run may.
    #[inline]
    pub fn advance(&self, steps: u64) {
        if let Some(progress) = self.progress {
            progress.advance(steps);
        }
    }

    pub(crate) fn set_estimate(&self, estimate: impl FnOnce() -> Duration) {
        if let Some(progress) = self.progress {
            progress.set_estimate(estimate());
        }
    }

    /// When the answer stops being of use.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether to go on. It reads the clock where there is a deadline: some 25 ns.
    ///
    /// # Errors
    /// [`KernelError::Cancelled`] once the caller has dropped its future, and [`KernelError::DeadlineExceeded`] once the
    /// deadline has passed.
    pub fn check(&self) -> Result<(), KernelError> {
        if self.reply.is_some_and(Reply::is_closed) {
            return Err(KernelError::Cancelled);
        }
        match self.deadline {
            Some(deadline) if Instant::now() >= deadline => Err(KernelError::DeadlineExceeded { started: true }),
            _ => Ok(()),
        }
    }
}
