//! [`ErasedKernel`]: a [`Kernel`] with its types erased, as the registry holds it.

use std::any::Any;
use std::sync::Arc;

use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::RecursiveTransform;

#[cfg(feature = "cuda")]
use super::LaunchContext;
use super::codec::{PinnedMemory, decode_json, decode_tensors, decode_within, encode_json, encode_tensors};
use super::payload::{Encoding, Typed};
use super::shared_run::{MemberResults, Members};
use super::transfer::Transfer;
use super::{
    BatchKey, Cost, Footprint, InvalidInput, Job, Kernel, KernelError, OperandVersion, Payload, RunContext,
    VersionLookup,
};

/// The decoded input of a kernel, or the merged jobs of a shared run, with the type erased.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(super) value: Typed,
    pub(crate) cost: Cost,
}

impl Input {
    /// Returns the jobs of a shared run; `None` for the input of a single request.
    pub(super) fn members(&self) -> Option<&[Job]> {
        (self.value.get() as &dyn Any).downcast_ref().map(|Members(jobs)| &jobs[..])
    }
}

/// A [`Kernel`] with its types erased. It has a blanket implementation.
pub(crate) trait ErasedKernel: Send + Sync {
    /// Decodes the payload without validating the input. Large arrays that have to be copied are copied into `memory`.
    fn decode(&self, payload: Payload, memory: Option<&PinnedMemory>) -> Result<Input, KernelError>;
    fn validate(&self, input: &Input) -> Result<(), KernelError>;
    /// Returns the operands in a typed input; none if it is of another type.
    fn operands(&self, input: &Typed) -> Vec<Arc<OperandVersion>>;
    fn batch_key(&self, input: &Input) -> Option<BatchKey>;
    fn shares_run(&self, first: &Input, other: &Input) -> bool;
    /// Returns the cost of a run of these inputs, whose costs have this sum.
    fn batch_cost(&self, inputs: &[&Input], sum: Cost) -> Cost;
    /// Returns the footprint of running a valid input of a single request.
    fn footprint(&self, input: &Input) -> Option<Footprint>;
    /// Returns the least bytes of the output's arrays of a single request, where the footprint counts more.
    fn min_output(&self, input: &Input) -> Option<u64>;
    /// Runs the CPU code. The output of a shared run is [`MemberResults`].
    fn run_cpu(&self, input: &Input, context: &RunContext<'_>) -> Result<Typed, KernelError>;
    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module>;
    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &Input, cuda: &mut LaunchContext<'_>) -> Result<Typed, KernelError>;
    /// Encodes the output of a run, for which `footprint` was reserved.
    fn encode(
        &self,
        output: &Typed,
        encoding: Encoding,
        footprint: Option<Footprint>,
        context: &RunContext<'_>,
    ) -> Result<Payload, KernelError>;
    fn schemas(&self) -> (Schema, Schema);
    /// Writes the input of a single request, for another process.
    fn transfer_input(&self, input: &Input) -> Result<Transfer, KernelError>;
    /// Reads an input, and estimates its cost again. It is not validated.
    fn receive_input(&self, transfer: Transfer, versions: &VersionLookup) -> Result<Input, KernelError>;
    /// Writes the output of a single request, for another process.
    fn transfer_output(&self, output: &Typed) -> Result<Transfer, KernelError>;
    fn receive_output(&self, transfer: Transfer) -> Result<Typed, KernelError>;
}

impl<K: Kernel> ErasedKernel for K {
    fn decode(&self, payload: Payload, memory: Option<&PinnedMemory>) -> Result<Input, KernelError> {
        let value = match payload {
            Payload::Json(document) => Typed::new(decode_within(memory, || decode_json::<K::Input>(&document))?),
            Payload::Tensors(tensors) => Typed::new(decode_within(memory, || decode_tensors::<K::Input>(&tensors))?),
            Payload::Typed(value) => value,
        };
        let cost = self.cost(typed::<K>(&value)?);
        Ok(Input { value, cost })
    }

    fn validate(&self, input: &Input) -> Result<(), KernelError> {
        Ok(Kernel::validate(self, typed::<K>(&input.value)?)?)
    }

    fn operands(&self, input: &Typed) -> Vec<Arc<OperandVersion>> {
        typed::<K>(input).map_or_else(|_| Vec::new(), |input| Kernel::operands(self, input))
    }

    fn batch_key(&self, input: &Input) -> Option<BatchKey> {
        Kernel::batch_key(self, typed::<K>(&input.value).ok()?)
    }

    fn shares_run(&self, first: &Input, other: &Input) -> bool {
        match (typed::<K>(&first.value), typed::<K>(&other.value)) {
            (Ok(first), Ok(other)) => std::ptr::eq(first, other) || Kernel::shares_run(self, first, other),
            _ => false,
        }
    }

    fn batch_cost(&self, inputs: &[&Input], sum: Cost) -> Cost {
        let inputs: Result<Vec<_>, _> = inputs.iter().map(|input| typed::<K>(&input.value)).collect();
        inputs.map_or(sum, |inputs| Kernel::batch_cost(self, &inputs, sum))
    }

    fn footprint(&self, input: &Input) -> Option<Footprint> {
        Kernel::footprint(self, typed::<K>(&input.value).ok()?)
    }

    fn min_output(&self, input: &Input) -> Option<u64> {
        Kernel::min_output(self, typed::<K>(&input.value).ok()?)
    }

    fn run_cpu(&self, input: &Input, context: &RunContext<'_>) -> Result<Typed, KernelError> {
        match input.members() {
            None => Ok(Typed::new(Kernel::run_cpu(self, typed::<K>(&input.value)?, context)?)),
            Some(jobs) => self.run_members(jobs, |inputs| Kernel::run_cpu_batch(self, inputs, context)),
        }
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        Kernel::modules(self)
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &Input, cuda: &mut LaunchContext<'_>) -> Result<Typed, KernelError> {
        match input.members() {
            None => Ok(Typed::new(Kernel::run_cuda(self, typed::<K>(&input.value)?, cuda)?)),
            Some(jobs) => self.run_members(jobs, |inputs| Kernel::run_cuda_batch(self, inputs, cuda)),
        }
    }

    fn encode(
        &self,
        output: &Typed,
        encoding: Encoding,
        footprint: Option<Footprint>,
        context: &RunContext<'_>,
    ) -> Result<Payload, KernelError> {
        let value = || output_of::<K>(output);
        Ok(match encoding {
            Encoding::Json => {
                let reserved = context.memory().filter(|memory| memory.is_limited()).zip(footprint);
                let expected = reserved.map_or(0, |(memory, run)| run.max_as_json(memory.max_response_size()));
                Payload::Json(encode_json(value()?, usize::try_from(expected).unwrap_or(usize::MAX), context)?)
            }
            Encoding::Tensors => Payload::Tensors(encode_tensors(value()?, context)?),
            Encoding::Typed => Payload::Typed(output.clone()),
        })
    }

    fn schemas(&self) -> (Schema, Schema) {
        let read = SchemaSettings::default().for_deserialize();
        // JSON has no word for NaN and the infinities, which are written as null.
        let written = SchemaSettings::default().for_serialize().with_transform(RecursiveTransform(allow_null));
        let input = read.into_generator().into_root_schema_for::<K::Input>();
        (input, written.into_generator().into_root_schema_for::<K::Output>())
    }

    fn transfer_input(&self, input: &Input) -> Result<Transfer, KernelError> {
        Transfer::write(typed::<K>(&input.value)?)
    }

    fn receive_input(&self, transfer: Transfer, versions: &VersionLookup) -> Result<Input, KernelError> {
        let value: K::Input = transfer.read(versions)?;
        let cost = self.cost(&value);
        Ok(Input { value: Typed::new(value), cost })
    }

    fn transfer_output(&self, output: &Typed) -> Result<Transfer, KernelError> {
        Transfer::write(output_of::<K>(output)?)
    }

    fn receive_output(&self, transfer: Transfer) -> Result<Typed, KernelError> {
        // No output has operands.
        let none: VersionLookup = Arc::new(|_| None);
        Ok(Typed::new(transfer.read::<K::Output>(&none)?))
    }
}

/// Allows null where a schema has numbers that need not be integers.
fn allow_null(schema: &mut Schema) {
    if let Some(kind) = schema.get_mut("type").filter(|kind| *kind == "number") {
        *kind = serde_json::json!(["number", "null"]);
    }
}

fn typed<K: Kernel>(value: &Typed) -> Result<&K::Input, InvalidInput> {
    (value.get() as &dyn Any).downcast_ref().ok_or_else(|| {
        let expected = std::any::type_name::<K::Input>();
        InvalidInput::new("input", format!("a value of type {} where {expected} is expected", value.type_name()))
    })
}

fn output_of<K: Kernel>(value: &Typed) -> Result<&K::Output, KernelError> {
    (value.get() as &dyn Any)
        .downcast_ref()
        .ok_or_else(|| KernelError::kernel(format!("a value of type {} is not the kernel's output", value.type_name())))
}

/// Runs the members of a shared run.
trait RunMembers: Kernel + Sized {
    /// Runs the members together whose deadline has not passed and whose host memory could be reserved.
    fn run_members(
        &self,
        jobs: &[Job],
        run: impl FnOnce(&[&Self::Input]) -> Result<Vec<Self::Output>, KernelError>,
    ) -> Result<Typed, KernelError> {
        let mut now = None;
        let mut inputs = Vec::with_capacity(jobs.len());
        let mut rejected = Vec::with_capacity(jobs.len());
        for job in jobs {
            let admitted = job.admit(&mut now);
            if admitted.is_ok() {
                let input = job.input().ok_or_else(|| InvalidInput::new("input", "not prepared"))?;
                inputs.push(typed::<Self>(&input.value)?);
            }
            rejected.push(admitted.err());
        }
        let outputs = if inputs.is_empty() { Vec::new() } else { run(&inputs)? };
        if outputs.len() != inputs.len() {
            let error =
                format!("the kernel returned {} outputs for {} inputs of a shared run", outputs.len(), inputs.len());
            return Err(KernelError::kernel(error));
        }
        let mut outputs = outputs.into_iter();
        let result = |(job, rejected): (&Job, Option<KernelError>)| match rejected {
            Some(error) => Err(error),
            None => Ok(job.payload_of(Typed::new(outputs.next().expect("an output for each input")))),
        };
        Ok(MemberResults::into_typed(jobs.iter().zip(rejected).map(result).collect()))
    }
}

impl<K: Kernel> RunMembers for K {}

pub(crate) type SharedKernel = Arc<dyn ErasedKernel>;
