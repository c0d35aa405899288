//! The type-erased twin of [`Kernel`], made by a blanket impl: what the registry holds and backends run.

use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

use schemars::Schema;
use schemars::generate::SchemaSettings;

#[cfg(feature = "cuda")]
use super::LaunchContext;
use super::codec::{PinnedMemory, decode_json, decode_tensors, encode_json, encode_tensors, within};
use super::job::Members;
use super::payload::{Encoding, Typed};
use super::{BatchKey, Cost, Footprint, HostReservation, InvalidInput, Job, Kernel, KernelError, Payload, RunContext};
use crate::request::RequestContext;

/// A kernel's input with its type erased, or those of several jobs that share a run.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(super) value: Typed,
    pub(crate) cost: Cost,
}

impl Input {
    /// The jobs that share the run, where there are several.
    pub(super) fn members(&self) -> Option<&[Job]> {
        (self.value.get() as &dyn Any).downcast_ref().map(|Members(jobs)| &jobs[..])
    }
}

/// The answers to several jobs that have shared a run, as its payload.
#[derive(Debug)]
pub(crate) struct Answers(Vec<MemberResult>);

/// What one of several jobs has come to, with what its payload holds of the memory of this process.
pub(crate) type MemberResult = Result<(Payload, Option<HostReservation>), KernelError>;

impl Answers {
    pub(crate) fn into_payload(answers: Vec<MemberResult>) -> Payload {
        Payload::typed(Self(answers))
    }

    /// What [`into_payload`](Self::into_payload) has been given. `None` for any other payload.
    pub(crate) fn from_payload(payload: Payload) -> Option<Vec<MemberResult>> {
        let answers = payload.downcast::<Self>()?;
        // The payload has gone, and nobody else has had it.
        drop(payload);
        Arc::into_inner(answers).map(|Self(answers)| answers)
    }
}

pub(crate) trait ErasedKernel: Send + Sync {
    /// Reads the payload, and copies large arrays into `memory` where it copies them; does not validate what it says.
    fn decode(&self, payload: Payload, memory: Option<&PinnedMemory>) -> Result<Input, KernelError>;
    fn validate(&self, input: &Input) -> Result<(), KernelError>;
    /// Of a valid input.
    fn batch_key(&self, input: &Input) -> Option<BatchKey>;
    fn shares_run(&self, first: &Input, other: &Input) -> bool;
    /// Of a valid input that is one.
    fn footprint(&self, input: &Input) -> Option<Footprint>;
    /// Of an input that is several the payload is [`Answers`], each in the encoding of its own request.
    fn run_cpu(&self, input: &Input, encoding: Encoding, context: &RunContext<'_>) -> Result<Payload, KernelError>;
    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &Input, encoding: Encoding, cuda: &mut LaunchContext<'_>)
    -> Result<Payload, KernelError>;
    fn schemas(&self) -> (Schema, Schema);
}

impl<K: Kernel> ErasedKernel for K {
    fn decode(&self, payload: Payload, memory: Option<&PinnedMemory>) -> Result<Input, KernelError> {
        let value = match payload {
            Payload::Json(document) => Typed::new(within(memory, || decode_json::<K::Input>(&document))?),
            Payload::Tensors(tensors) => Typed::new(within(memory, || decode_tensors::<K::Input>(&tensors))?),
            Payload::Typed(value) => value,
        };
        let cost = self.cost(typed::<K>(&value)?);
        Ok(Input { value, cost })
    }

    fn validate(&self, input: &Input) -> Result<(), KernelError> {
        Ok(Kernel::validate(self, typed::<K>(&input.value)?)?)
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

    fn footprint(&self, input: &Input) -> Option<Footprint> {
        Kernel::footprint(self, typed::<K>(&input.value).ok()?)
    }

    fn run_cpu(&self, input: &Input, encoding: Encoding, context: &RunContext<'_>) -> Result<Payload, KernelError> {
        match input.members() {
            None => {
                let output = Kernel::run_cpu(self, typed::<K>(&input.value)?, context)?;
                encode(output, encoding, ErasedKernel::footprint(self, input), context)
            }
            Some(jobs) => self.run_members(jobs, context, |inputs| Kernel::run_cpu_batch(self, inputs, context)),
        }
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &Input,
        encoding: Encoding,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Payload, KernelError> {
        match input.members() {
            None => {
                let output = Kernel::run_cuda(self, typed::<K>(&input.value)?, cuda)?;
                encode(output, encoding, ErasedKernel::footprint(self, input), cuda.context())
            }
            Some(jobs) => {
                let context = *cuda.context();
                self.run_members(jobs, &context, |inputs| Kernel::run_cuda_batch(self, inputs, cuda))
            }
        }
    }

    fn schemas(&self) -> (Schema, Schema) {
        let (read, written) = (SchemaSettings::default().for_deserialize(), SchemaSettings::default().for_serialize());
        let input = read.into_generator().into_root_schema_for::<K::Input>();
        (input, written.into_generator().into_root_schema_for::<K::Output>())
    }
}

fn typed<K: Kernel>(value: &Typed) -> Result<&K::Input, InvalidInput> {
    (value.get() as &dyn Any).downcast_ref().ok_or_else(|| {
        let expected = std::any::type_name::<K::Input>();
        InvalidInput::new("input", format!("a value of type {} where {expected} is expected", value.type_name()))
    })
}

/// Runs of several jobs.
trait RunMembers: Kernel + Sized {
    /// Runs those together that can still be answered in time and have the memory that it takes.
    fn run_members(
        &self,
        jobs: &[Job],
        context: &RunContext<'_>,
        run: impl FnOnce(&[&Self::Input]) -> Result<Vec<Self::Output>, KernelError>,
    ) -> Result<Payload, KernelError> {
        let mut now = None;
        let mut inputs = Vec::with_capacity(jobs.len());
        let mut rejected = Vec::with_capacity(jobs.len());
        for job in jobs {
            let late = job.deadline().is_some_and(|deadline| deadline <= *now.get_or_insert_with(Instant::now));
            let reserved = if late { Err(KernelError::DeadlineExceeded { started: false }) } else { job.reserve_run() };
            if reserved.is_ok() {
                let input = job.input().ok_or_else(|| InvalidInput::new("input", "not prepared"))?;
                inputs.push(typed::<Self>(&input.value)?);
            }
            rejected.push(reserved.err());
        }
        let outputs = if inputs.is_empty() { Vec::new() } else { run(&inputs)? };
        if outputs.len() != inputs.len() {
            let text = format!("{} outputs for the {} inputs of a run", outputs.len(), inputs.len());
            return Err(KernelError::kernel(text));
        }
        let mut ran = outputs.into_iter().zip(inputs);
        let answer = |(job, rejected): (&Job, Option<KernelError>)| match rejected {
            Some(error) => Err(error),
            None => {
                let (output, input) = ran.next().expect("an output for each input");
                let own = context.until(job.deadline()).with_memory(job.memory());
                let payload = encode(output, job.encoding(), self.footprint(input), &own)?;
                let memory = job.split_response(&payload);
                Ok((payload, memory))
            }
        };
        Ok(Answers::into_payload(jobs.iter().zip(rejected).map(answer).collect()))
    }
}

impl<K: Kernel> RunMembers for K {}

/// Writes an output. Its `footprint` says what has been reserved for its encoded form.
fn encode<T: serde::Serialize + Any + Send + Sync>(
    output: T,
    encoding: Encoding,
    footprint: Option<Footprint>,
    context: &RunContext<'_>,
) -> Result<Payload, KernelError> {
    Ok(match encoding {
        Encoding::Json => {
            let reserved = context.memory().filter(|memory| memory.is_limited()).zip(footprint);
            let expected = reserved.map_or(0, |(memory, run)| run.most_as_json(memory.max_response_size()));
            Payload::Json(encode_json(&output, usize::try_from(expected).unwrap_or(usize::MAX), context)?)
        }
        Encoding::Tensors => Payload::Tensors(encode_tensors(&output, context)?),
        Encoding::Typed => Payload::typed(output),
    })
}

pub(crate) type SharedKernel = Arc<dyn ErasedKernel>;
