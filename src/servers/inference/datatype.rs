//! Names of element types in the protocol.

use crate::service::{DType, ElementType};

/// The type of text: each element has a length of its own.
pub(crate) const BYTES: &str = "BYTES";

/// All types of numbers. The protocol's `INT8`, `INT16` and `UINT16` are not among them, as kernels have none.
pub(crate) const DATATYPES: [(&str, DType); 10] = [
    ("BOOL", DType::Bool),
    ("UINT8", DType::U8),
    ("UINT32", DType::U32),
    ("UINT64", DType::U64),
    ("INT32", DType::I32),
    ("INT64", DType::I64),
    ("FP16", DType::F16),
    ("BF16", DType::Bf16),
    ("FP32", DType::F32),
    ("FP64", DType::F64),
];

/// Returns the protocol's name of an element type.
pub(crate) fn datatype_name(dtype: DType) -> &'static str {
    let known = DATATYPES.iter().find(|(_, this)| *this == dtype);
    known.expect("the table has all types").0
}

/// Returns the protocol's name of the type of a model's tensor.
pub(crate) fn datatype_of(elements: ElementType) -> &'static str {
    match elements {
        ElementType::Number(dtype) => datatype_name(dtype),
        ElementType::Text => BYTES,
    }
}

/// Returns the element type with this name; `None` for `BYTES` and for unknown names.
pub(crate) fn dtype_named(name: &str) -> Option<DType> {
    DATATYPES.iter().find(|(this, _)| *this == name).map(|(_, dtype)| *dtype)
}

/// Returns the name of a type in the configuration of a model.
pub(crate) fn config_datatype(elements: ElementType) -> String {
    match elements {
        ElementType::Number(dtype) => format!("TYPE_{}", datatype_name(dtype)),
        ElementType::Text => "TYPE_STRING".to_owned(),
    }
}
