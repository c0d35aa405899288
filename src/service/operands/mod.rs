//! Operands: named, versioned values that are uploaded once and that requests refer to.
//!
//! An operand is an immutable value of an [`OperandValue`] type: a graph, a set of vectors, or a set of named tensors.
//! [`Operands`] holds the operands of a process, by tenant and name. A request names one where its input would have the value:
//!
//! ```json
//! {"kernel_id": "graph/betweenness-centrality", "input": {"graph": {"operand": "payments"}, "samples": 64}}
//! {"kernel_id": "linalg/dot", "input": {"x": {"operand": "prices@7/close"}, "y": [1.0, 2.0, 3.0]}}
//! ```
//!
//! `payments` is the newest version at the time the request is accepted, and `payments@7` that version only. What follows
//! a slash is the tensor of a set. In a request of tensors, a `uint8` tensor named `graph.operand` has the text of the
//! reference.
//!
//! A request holds the versions that it refers to until it has ended. A version that was replaced or deleted cannot be
//! referred to any more, and its memory is freed when the last of those requests has ended.
//!
//! Operands are lost when the process ends, unless they are [opened](Operands::open) in a directory.
//!
//! Storing an operand has a span `put_operand` with its name, type, placement, version, size and time to build. The
//! [request's span](crate::middleware::tracing) has the versions that it refers to.
//!
//! The kernel's code does not know whether a value came with the request. On the CPU it reads the operand's own memory;
//! on CUDA, [`LaunchContext::input`](crate::cuda::LaunchContext::input) returns the copy that is resident on the device.

mod budget;
mod decode;
mod directory;
mod error;
#[cfg(all(test, tower_kernels_loom))]
mod loom;
mod memory;
mod operand;
mod options;
mod persistence;
mod placement;
mod reference;
mod request;
#[cfg(feature = "isolation")]
mod sent;
mod span;
mod store;
mod table;
mod tensor_set;
mod value;
mod vector_norms;
mod vectors;
mod version;

pub use budget::OperandLimits;
pub(crate) use budget::OperandReservation;
pub use directory::OpenOperandsError;
pub use error::{OperandBudget, OperandError};
pub use memory::OperandMemory;
pub use operand::Operand;
pub use options::{PutCondition, PutOptions, RemoveOptions};
pub use persistence::OperandDirectoryUsage;
pub use placement::{OperandDevices, Placement};
pub use reference::{OperandReference, check_operand_name};
pub use store::{OperandUsage, Operands};
pub use tensor_set::TensorSet;
pub use value::{OperandArray, OperandValue};
pub use vector_norms::VectorNorms;
pub use vectors::{VectorElements, Vectors, VectorsDocument};
pub use version::{OperandInfo, OperandVersion};

pub(super) use decode::within as decode_with_operands;
pub(crate) use decode::{VersionLookup, with_versions};
pub(super) use operand::{KEY, array_of_reference, dtype_of_reference, read_reference_object, reference_schema};
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use reference::{name_schema as operand_name_schema, version_schema as operand_version_schema};
pub(crate) use request::RequestOperands;
pub(crate) use request::SUFFIX as REFERENCE_SUFFIX;
pub(super) use request::has_references;
