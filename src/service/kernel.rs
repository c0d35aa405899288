use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

#[cfg(feature = "cuda")]
use super::LaunchContext;
use super::{Cost, Footprint, InvalidInput, KernelError, KernelInfo, OperandVersion, RunContext};

/// A kernel: its description, typed input and output, validation, cost estimate, and its code for each backend.
///
/// A request's payload is decoded once, straight into `Input`, whether it is JSON or tensors, and `Output` is encoded
/// once. Callers in the same process pass both as they are, without a codec. Use [`Buffer`](super::Buffer) for arrays.
///
/// # Panics
/// A panic in the kernel's code or in the code of its types (decoding, encoding, schemas) fails its own request and no
/// other: the caller gets [`KernelError::Panicked`], clients of servers get an internal error, and `kernel_panics_total`
/// counts it. A panic in the `Drop` of an input or an output is logged, and the response sent. Two panics cannot be caught and abort the process: a second panic while the first one
/// unwinds, such as one in the `Drop` of a local variable; and a panic whose payload panics when it is dropped, in both
/// halves of a `rayon::join` (and so in two pieces of a parallel iterator), because rayon drops one of the payloads.
pub trait Kernel: Send + Sync + 'static {
    /// The input.
    ///
    /// It is `Serialize` because a kernel can run in another process, to which its input crosses. What is read there must
    /// be equal to what was written.
    type Input: DeserializeOwned + Serialize + JsonSchema + Send + Sync + 'static;
    /// The output.
    ///
    /// It is `DeserializeOwned` because it crosses back from the process in which the kernel ran.
    type Output: Serialize + DeserializeOwned + JsonSchema + Send + Sync + 'static;

    /// Describes the kernel: id, version, mode, and the backends that it has code for. Called once, at registration.
    fn info(&self) -> KernelInfo;

    /// Validates what the input's type cannot express: ranges, lengths that must agree, finite numbers.
    ///
    /// Called before every run, on the calling thread if the input is small.
    ///
    /// # Errors
    /// The first invalid field.
    fn validate(&self, input: &Self::Input) -> Result<(), InvalidInput>;

    /// Estimates the cost of running a valid input. The estimate decides where the kernel runs, so it must be cheap.
    fn cost(&self, input: &Self::Input) -> Cost;

    /// Returns the peak host memory of running a valid input, its output included. It must be cheap.
    ///
    /// The memory is reserved before the run if the request has a [`HostReservation`](super::HostReservation). With
    /// `None`, the default, a run is assumed to need the [bytes](Cost::bytes) that it moves, and at most a sixteenth of
    /// the process's [`HostMemory`](super::HostMemory); the encoded output is then reserved as it grows.
    fn footprint(&self, input: &Self::Input) -> Option<Footprint> {
        let _ = input;
        None
    }

    /// Returns the least bytes of the output's arrays, where the footprint counts more because it depends on the data.
    /// With `None`, the default, the output is as large as the footprint says.
    ///
    /// A request is rejected before it runs if its response is certain to be larger than a response may be.
    fn min_output(&self, input: &Self::Input) -> Option<u64> {
        let _ = input;
        None
    }

    /// Returns the versions of the [operands](super::Operand) in an input that a caller in the same process passed. The
    /// default returns none.
    ///
    /// The response then has them in [`Execution::operands`](crate::request::Execution::operands), spans have them, and the
    /// request runs where they are resident, as it is for requests by name, whose references are found without this. It
    /// is called on the calling thread, so it must be cheap. The input has not been validated.
    fn operands(&self, input: &Self::Input) -> Vec<Arc<OperandVersion>> {
        let _ = input;
        Vec::new()
    }

    /// Runs the kernel on the CPU. Long loops call [`RunContext::check`] about once a millisecond; large inputs use
    /// rayon.
    ///
    /// # Errors
    /// The error of [`RunContext::check`], and errors of the kernel's own.
    fn run_cpu(&self, input: &Self::Input, context: &RunContext<'_>) -> Result<Self::Output, KernelError> {
        let (_, _) = (input, context);
        Err(KernelError::UnsupportedBackend { id: self.info().id, backend: "CPU" })
    }

    /// Returns the device code that [`run_cuda`](Self::run_cuda) launches. Servers load it onto each device when they
    /// start, before they report readiness, so that no request waits for the driver to load or compile it.
    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        Vec::new()
    }

    /// Runs the host side of the kernel's CUDA code, on a worker thread that it may block.
    ///
    /// A kernel without CUDA code for some inputs returns [`KernelError::UnsupportedBackend`] for them before it queues any
    /// work. [`Local`](crate::backends::Local) then runs them on the CPU.
    ///
    /// # Errors
    /// The errors of the [`LaunchContext`], and errors of the kernel's own.
    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &Self::Input, cuda: &mut LaunchContext<'_>) -> Result<Self::Output, KernelError> {
        let (_, _) = (input, cuda);
        Err(KernelError::UnsupportedBackend { id: self.info().id, backend: "CUDA" })
    }

    /// Returns the key of the valid inputs that may share a run with this one. `None`, the default, shares with no other.
    ///
    /// It is called on the calling thread, for small inputs only, so it must be cheap. Include whatever has to be the same
    /// for a whole run: types, and parameters that the code takes once.
    /// [`backends::batched`](crate::backends::batched) has an example, and the [guide](crate::guide) the CUDA code.
    fn batch_key(&self, input: &Self::Input) -> Option<BatchKey> {
        let _ = input;
        None
    }

    /// Compares in full two inputs whose keys have the same [hash](BatchKey::hash): whether they may share a run. It must
    /// be an equivalence relation.
    fn shares_run(&self, first: &Self::Input, other: &Self::Input) -> bool {
        let (_, _) = (first, other);
        false
    }

    /// Estimates the cost of a run that these inputs share. `sum` is the sum of their [costs](Self::cost), and the default.
    ///
    /// A kernel whose inputs share memory returns less.
    fn batch_cost(&self, inputs: &[&Self::Input], sum: Cost) -> Cost {
        let _ = inputs;
        sum
    }

    /// Runs several inputs on the CPU in one run, and returns an output for each in order, equal to that of a run by
    /// itself. The default runs them one after the other, which saves them the hops between threads.
    ///
    /// # Errors
    /// As [`run_cpu`](Self::run_cpu). If one of the inputs may have caused the error, each is then run by itself.
    fn run_cpu_batch(
        &self,
        inputs: &[&Self::Input],
        context: &RunContext<'_>,
    ) -> Result<Vec<Self::Output>, KernelError> {
        inputs.iter().map(|input| self.run_cpu(input, context)).collect()
    }

    /// Runs several inputs on CUDA in one run, as [`run_cpu_batch`](Self::run_cpu_batch) does on the CPU.
    ///
    /// The default runs them one after the other. To gain from a shared run, concatenate them:
    /// [`LaunchContext::input_parts`] makes one device array of several host arrays, and
    /// [`LaunchContext::download_parts`] splits one.
    ///
    /// # Errors
    /// As [`run_cuda`](Self::run_cuda). If one of the inputs may have caused the error, each is then run by itself.
    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&Self::Input],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<Self::Output>, KernelError> {
        inputs.iter().map(|input| self.run_cuda(input, cuda)).collect()
    }
}

/// Identifies the inputs of a kernel that may [share a run](Kernel::batch_key).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchKey {
    pub(super) key: u64,
    pub(super) is_hash: bool,
    pub(super) shares_work: bool,
}

impl BatchKey {
    /// Creates a key that is compared by itself: inputs with the same number share runs.
    pub const fn exact(key: u64) -> Self {
        Self { key, is_hash: false, shares_work: false }
    }

    /// Creates a key from a hash: inputs with the same hash share runs if [`Kernel::shares_run`] agrees.
    pub fn hash(of: impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        of.hash(&mut hasher);
        Self { key: hasher.finish(), is_hash: true, shares_work: false }
    }

    /// Marks inputs that do most of their work together in a shared run on a device, such as reading a graph once for all
    /// of them.
    ///
    /// Such inputs share a run even if each of them is heavy, and only a few of their runs are in flight at a time, so that
    /// more of them share the next run.
    #[must_use]
    pub const fn sharing_work(self) -> Self {
        Self { shares_work: true, ..self }
    }
}
