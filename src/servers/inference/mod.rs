//! The [Open Inference Protocol](https://github.com/kserve/open-inference-protocol) (V2): what its REST and gRPC servers
//! share. A kernel is a model.
//!
//! | protocol | here |
//! |---|---|
//! | model name | id or alias of the kernel; dots can stand for slashes, as in `graph.pagerank` |
//! | model version | the first number of the kernel's version |
//! | input, output | a field of the kernel's input or output that has a form as a tensor: [`Signature`](crate::service::Signature) |
//! | tensor of shape `[1]` | a scalar field |
//! | `BYTES` of one element | a field with text |
//! | `parameters` of a request | [`RequestParameters`]: scheduling, and scalar fields of the input |
//! | `parameters.operand` of an input | a reference to an [operand](crate::service::Operands) in place of the tensor; the same as an input `{name}.operand` with the reference as text |
//!
//! Kernels whose input or output cannot be tensors, such as lists of names, are not models.

mod datatype;
mod input;
mod model;
mod parameters;

pub(crate) use self::datatype::{BYTES, DATATYPES, config_datatype, datatype_name, datatype_of, dtype_named};
pub(crate) use self::input::{
    InputParameters, operand_input, text_input, text_of_binary, unknown_parameter, with_texts,
};
pub(crate) use self::model::{Model, UnknownModel};
pub(crate) use self::parameters::{ParameterValue, RequestParameters};

/// Platform and backend of every model.
pub(crate) const PLATFORM: &str = "tower-kernels";

/// Extensions of the protocol that the servers support.
pub(crate) const EXTENSIONS: &[&str] =
    &["binary_tensor_data", "model_configuration", "model_repository", "parameters", "schedule_policy", "statistics"];

/// Why models are neither loaded nor unloaded.
pub(crate) const NO_REPOSITORY: &str = "models are kernels of the program, which are neither loaded nor unloaded";

/// Why requests with regions of shared memory, and registrations of regions, are rejected.
pub(crate) const NO_SHARED_MEMORY: &str = "this server has no shared memory with clients; send the data of tensors";
