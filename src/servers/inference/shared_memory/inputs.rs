use super::RegionSlice;
use crate::servers::inference::{BYTES, dtype_named, text_of_binary};
use crate::servers::offload::{DOCUMENT_BYTES, offload};
use crate::service::{DType, InvalidInput, Tensor, Tensors};

/// An input whose data is in shared memory.
#[derive(Debug)]
pub(crate) struct RegionInput {
    /// Its place among the inputs of the request.
    index: usize,
    pub(crate) name: String,
    /// `None` for a text.
    dtype: Option<DType>,
    shape: Vec<usize>,
    slice: RegionSlice,
}

impl RegionInput {
    /// Checks the description of an input. Errors have the field within the input.
    pub(crate) fn new(
        index: usize,
        name: String,
        datatype: &str,
        shape: Vec<usize>,
        slice: RegionSlice,
    ) -> Result<Self, InvalidInput> {
        let dtype = dtype_named(datatype);
        if dtype.is_none() && datatype != BYTES {
            let unknown = crate::text::prefix(datatype, 32);
            return Err(InvalidInput::new("datatype", format!("unknown: {unknown:?}")));
        }
        let size = dtype.map_or(1, DType::size);
        let Some(bytes) = shape.iter().try_fold(size, |bytes, &side| bytes.checked_mul(side)) else {
            return Err(InvalidInput::new("shape", format!("{shape:?} exceeds the address space")));
        };
        if dtype.is_none() && bytes != 1 {
            let reason = "a tensor of BYTES has one element: kernels have no lists of texts";
            return Err(InvalidInput::new("shape", reason));
        }
        if dtype.is_some() && bytes != slice.bytes() {
            let reason = format!("it is {}, but {datatype} of shape {shape:?} needs {bytes} bytes", slice.bytes());
            return Err(InvalidInput::new("parameters.shared_memory_byte_size", reason));
        }
        Ok(Self { index, name, dtype, shape, slice })
    }

    fn read(self) -> Result<(String, Tensor), InvalidInput> {
        let Self { name, dtype, shape, slice, .. } = self;
        let data = slice.read()?;
        let tensor = match dtype {
            Some(dtype) => Tensor::new(dtype, shape, data),
            None => {
                let text = text_of_binary(&data)?;
                Tensor::new(DType::U8, vec![text.len()], text)
            }
        };
        let tensor = tensor.map_err(|error| InvalidInput::new("shape", error.to_string()))?;
        Ok((name, tensor))
    }
}

/// The inputs of a request that are in shared memory.
#[derive(Debug, Default)]
pub(crate) struct RegionInputs(Vec<RegionInput>);

impl RegionInputs {
    pub(crate) fn push(&mut self, input: RegionInput) {
        self.0.push(input);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|input| input.name.as_str())
    }

    /// Returns the memory that reading them takes. No region is smaller at this time than what is to be read of it.
    ///
    /// # Errors
    /// A region has been truncated.
    pub(crate) fn checked_bytes(&self) -> Result<u64, InvalidInput> {
        for input in &self.0 {
            input.slice.check_length().map_err(at(input.index))?;
        }
        // Two inputs can be the same memory, so the sum can exceed that of the machine.
        Ok(self.0.iter().fold(0, |sum: u64, input| sum.saturating_add(input.slice.bytes() as u64)))
    }

    /// Adds their tensors, once the memory for them is reserved. Large ones are read off the async threads.
    ///
    /// # Errors
    /// A region has been truncated or cannot be read, a text is not one, or a name is there twice.
    pub(crate) async fn read_into(self, tensors: Tensors, bytes: u64) -> Result<Tensors, InvalidInput> {
        offload(bytes > DOCUMENT_BYTES as u64, move || self.read_now(tensors)).await
    }

    fn read_now(self, mut tensors: Tensors) -> Result<Tensors, InvalidInput> {
        for input in self.0 {
            let index = input.index;
            let (name, tensor) = input.read().map_err(at(index))?;
            let added = tensors.insert(name, tensor);
            added.map_err(|error| at(index)(InvalidInput::new("name", error.to_string())))?;
        }
        Ok(tensors)
    }
}

/// Adds the input to the field of an error.
fn at(index: usize) -> impl Fn(InvalidInput) -> InvalidInput {
    move |InvalidInput { field, reason }| InvalidInput { field: format!("inputs[{index}].{field}"), reason }
}
