//! Decodes payloads into kernels' typed inputs, and encodes typed outputs into payloads.

mod bounded;
mod buffer;
mod float_array;
mod json;
mod memory;
mod number_array;
mod object;
mod pairs;
mod pool;
mod sections;
mod stop;
mod tensor_de;
mod tensor_ser;
mod zero_copy;

use crate::buffer::{Buffer, Element};
pub(crate) use buffer::shrink;
pub use float_array::FloatArray;
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use json::write_document;
pub(crate) use json::{RawJson, decode_json, decoded_size, encode_json, read_usual_json, write_json};
pub(crate) use memory::{PinnedMemory, decode_within};
pub use number_array::NumberArray;
pub(crate) use pairs::{optional_pairs, serialize_pairs};
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use pool::{CodecLoad, codec_load};
pub(crate) use pool::{Offloaded, offload};
pub(crate) use sections::{
    add_section, array_of_section, collecting_sections, is_transfer, section_bytes, with_sections,
};
#[cfg(any(feature = "actix", feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) use stop::until_cancelled;
pub(crate) use stop::{decode_until, optional_sequence, read_all, read_into};
pub(crate) use tensor_de::decode_tensors;
pub(crate) use tensor_ser::encode_tensors;
