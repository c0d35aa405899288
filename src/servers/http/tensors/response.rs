//! Responses with tensors.

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Serialize;

use super::RequestedOutputs;
use crate::error::ErrorKind;
use crate::servers::http::Problem;
use crate::servers::inference::datatype_name;
use crate::service::{InvalidInput, KernelError, KernelResponse, Payload, ResponseMetadata, Tensor, Tensors};

/// The JSON before the tensors of a response.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TensorResponseHead")]
pub(crate) struct Document<'a> {
    /// The `kernel_id`, under the protocol's name.
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    request_id: &'a str,
    kernel_id: &'a str,
    /// Tensors, in the order of their bytes.
    outputs: Vec<Output<'a>>,
    metadata: ResponseMetadata<'a>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Output<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: &'a [usize],
    parameters: Parameters,
}

impl<'a> From<(&'a str, &'a Tensor)> for Output<'a> {
    fn from((name, tensor): (&'a str, &'a Tensor)) -> Self {
        let parameters = Parameters { binary_data_size: tensor.data().len() };
        Self { name, datatype: datatype_name(tensor.dtype()), shape: tensor.shape(), parameters }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Parameters {
    /// Length in bytes of this tensor after the head.
    binary_data_size: usize,
}

/// Creates the head and returns the tensors in its order, without copying them.
pub(in super::super) fn write(
    response: &KernelResponse,
    request_id: &str,
    kernel_id: &str,
    requested: &RequestedOutputs,
) -> Result<(Bytes, Vec<Bytes>), Problem> {
    let Payload::Tensors(tensors) = &response.payload else {
        let reason = "tensors were requested, but the payload has none".to_owned();
        return Err(Problem::of(&KernelError::Encode(reason)));
    };
    let tensors = select(tensors, requested)?;
    let document = Document {
        model_name: kernel_id,
        id: requested.id.as_deref(),
        request_id,
        kernel_id,
        outputs: tensors.iter().copied().map(Output::from).collect(),
        metadata: (&response.execution).into(),
    };
    let head = serde_json::to_vec(&document)
        .map_err(|error| Problem::new(ErrorKind::Internal, format!("the response cannot be encoded: {error}")))?;
    Ok((head.into(), tensors.into_iter().map(|(_, tensor)| tensor.data().clone()).collect()))
}

/// Selects the requested outputs, in the requested order.
fn select<'a>(tensors: &'a Tensors, requested: &'a RequestedOutputs) -> Result<Vec<(&'a str, &'a Tensor)>, Problem> {
    let Some(names) = &requested.outputs else { return Ok(tensors.iter().collect()) };
    let named = |(index, name): (usize, &'a String)| match tensors.get(name) {
        Some(tensor) => Ok((name.as_str(), tensor)),
        None => {
            let all: Vec<_> = tensors.iter().map(|(name, _)| name).collect();
            let reason = format!("there is no output `{name}`; there are: {}", all.join(", "));
            Err(InvalidInput::new(format!("outputs[{index}].name"), reason).into())
        }
    };
    names.iter().enumerate().map(named).collect()
}
