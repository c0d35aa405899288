//! The type-erased twin of [`Kernel`], made by a blanket impl: what the registry holds and backends run.

use std::any::Any;
use std::sync::Arc;

use schemars::Schema;
use schemars::generate::SchemaSettings;

use super::codec::{PinnedMemory, decode_json, decode_tensors, encode_json, encode_tensors, within};
use super::payload::{Encoding, Typed};
use super::{Context, Cost, Invalid, Kernel, KernelError, Payload};
#[cfg(feature = "cuda")]
use crate::backends::cuda::Lane;

/// A kernel's input with its type erased.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    pub(super) value: Typed,
    pub(crate) cost: Cost,
}

pub(crate) trait ErasedKernel: Send + Sync {
    /// Reads the payload, and copies large arrays into `memory` where it copies them; does not validate what it says.
    fn decode(&self, payload: Payload, memory: Option<&PinnedMemory>) -> Result<Input, KernelError>;
    fn validate(&self, input: &Input) -> Result<(), KernelError>;
    fn run_cpu(&self, input: &Input, encoding: Encoding, context: &Context<'_>) -> Result<Payload, KernelError>;
    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &Input, encoding: Encoding, lane: &mut Lane<'_>) -> Result<Payload, KernelError>;
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

    fn run_cpu(&self, input: &Input, encoding: Encoding, context: &Context<'_>) -> Result<Payload, KernelError> {
        encode(Kernel::run_cpu(self, typed::<K>(&input.value)?, context)?, encoding)
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &Input, encoding: Encoding, lane: &mut Lane<'_>) -> Result<Payload, KernelError> {
        encode(Kernel::run_cuda(self, typed::<K>(&input.value)?, lane)?, encoding)
    }

    fn schemas(&self) -> (Schema, Schema) {
        let (read, written) = (SchemaSettings::default().for_deserialize(), SchemaSettings::default().for_serialize());
        let input = read.into_generator().into_root_schema_for::<K::Input>();
        (input, written.into_generator().into_root_schema_for::<K::Output>())
    }
}

fn typed<K: Kernel>(value: &Typed) -> Result<&K::Input, Invalid> {
    (value.get() as &dyn Any).downcast_ref().ok_or_else(|| {
        let expected = std::any::type_name::<K::Input>();
        Invalid::new("input", format!("a value of type {} where {expected} is expected", value.type_name()))
    })
}

fn encode<T: serde::Serialize + Any + Send + Sync>(output: T, encoding: Encoding) -> Result<Payload, KernelError> {
    Ok(match encoding {
        Encoding::Json => Payload::Json(encode_json(&output)?),
        Encoding::Tensors => Payload::Tensors(encode_tensors(&output)?),
        Encoding::Typed => Payload::typed(output),
    })
}

pub(crate) type SharedKernel = Arc<dyn ErasedKernel>;
