//! Encodings: what turns a payload into a kernel's typed input, and its typed output into a payload, once each.

mod bounded;
mod buffer;
mod deadline;
mod handover;
mod json;
mod memory;
mod object;
mod pages;
mod reals;
mod storage;
mod tensor_de;
mod tensor_ser;

pub use buffer::{Buffer, Element};
pub(crate) use deadline::{Passed, optional_sequence, read_all, until};
pub(crate) use json::{decode_json, decoded_size, encode_json};
pub(crate) use memory::{PinnedMemory, within};
#[cfg(feature = "cuda")]
pub(crate) use pages::Pages;
pub use reals::Reals;
pub(crate) use tensor_de::decode_tensors;
pub(crate) use tensor_ser::encode_tensors;
