//! The [Open Inference Protocol](https://github.com/kserve/open-inference-protocol) (V2): what its REST and gRPC servers
//! share. A kernel is a model. [`InferenceExtensions`] enables what is off by default.
//!
//! | protocol | here |
//! |---|---|
//! | model name | id or alias of the kernel; dots can stand for slashes, as in `graph.pagerank` |
//! | model version | the first number of the kernel's version |
//! | input, output | a field of the kernel's input or output that has a form as a tensor: [`Signature`](crate::service::Signature) |
//! | tensor of shape `[1]` | a scalar field |
//! | `BYTES` of one element | a field with text |
//! | `parameters` of a request | scheduling, and scalar fields of the input |
//! | `parameters.operand` of an input | a reference to an [operand](crate::service::Operands) in place of the tensor; the same as an input `{name}.operand` with the reference as text |
//! | `parameters.shared_memory_region` of an input or output | the tensor in shared memory, if the server and the client are on one machine and [`InferenceExtensions`] has it enabled |
//!
//! Kernels whose input or output cannot be tensors, such as lists of names, are not models.

mod datatype;
mod extensions;
mod input;
mod model;
mod parameters;
mod shared_memory;

pub(crate) use self::datatype::{BYTES, DATATYPES, config_datatype, datatype_name, datatype_of, dtype_named};
pub use self::extensions::InferenceExtensions;
pub(crate) use self::extensions::NoModelControl;
pub(crate) use self::input::{
    InputParameters, operand_input, text_input, text_of_binary, unknown_parameter, with_texts,
};
pub(crate) use self::model::{Model, UnknownModel, UnloadedModel};
pub(crate) use self::parameters::{ParameterValue, RequestParameters, check_repository_parameters};
pub(crate) use self::shared_memory::{
    NoSharedMemory, Region, RegionAccess, RegionError, RegionInput, RegionInputs, RegionParameters, RegionSlice,
};

/// Platform and backend of every model.
pub(crate) const PLATFORM: &str = "tower-kernels";

/// Why models are neither loaded nor unloaded.
pub(crate) const NO_REPOSITORY: &str =
    "models are kernels of the program, which are neither loaded nor unloaded unless the server enables it";

/// Reason of a model in the index that a client has unloaded.
pub(crate) const UNLOADED: &str = "unloaded";

/// Why registrations of CUDA shared memory are rejected.
pub(crate) const NO_CUDA_SHARED_MEMORY: &str =
    "CUDA shared memory is not supported; send the data of tensors, or use system shared memory";
