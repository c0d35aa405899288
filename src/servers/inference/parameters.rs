//! [`RequestParameters`]: the `parameters` of a request.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Model, datatype_of};
use crate::request::limits::check_name;
use crate::request::metadata::{MetadataDocument, RequestMetadata};
use crate::request::{BackendKind, Priority};
use crate::servers::sections::{Data, Input};
use crate::service::{Bf16, DType, ElementType, F16, InvalidInput, KernelError, Signature};

/// Checks the parameters of a request that loads or unloads a model.
///
/// # Errors
/// The first that has no meaning here.
pub(crate) fn check_repository_parameters<'a>(
    names: impl IntoIterator<Item = &'a str>,
    loads: bool,
) -> Result<(), InvalidInput> {
    // tritonclient sends it with every request to unload. No model depends on another.
    let is_known = |name: &str| !loads && name == "unload_dependents";
    match names.into_iter().find(|name| !is_known(name)) {
        None => Ok(()),
        Some(name) => {
            let field = format!("parameters.{}", crate::text::prefix(name, 64));
            Err(InvalidInput::new(field, "models are kernels of the program, which have no configuration or files"))
        }
    }
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ParameterValue {
    Bool(bool),
    /// Any integer of the protocol, signed or not.
    Integer(i128),
    Float(f64),
    Text(String),
}

/// The parameters of a request.
///
/// | name | value |
/// |---|---|
/// | `priority` | 0 for the default, 1 high, 2 normal, 3 and above low |
/// | `timeout` | microseconds from the arrival of the request to the response, in queues too; 0 for the server's |
/// | `tenant` | name of the tenant, if the server does not authenticate |
/// | `backend` | `cpu` or `cuda` |
/// | `binary_data_output` | whether outputs are binary by default |
/// | `triton_enable_empty_final_response` | accepted without effect, as each request has one response |
/// | a scalar input of the model | its value |
///
/// All others are rejected: `sequence_id`, `sequence_start` and `sequence_end`, as kernels keep no state between requests,
/// and those that are reserved or unknown, as what they ask for would not happen.
#[derive(Debug)]
pub(crate) struct RequestParameters {
    /// When the request arrived, which timeouts count from.
    received_at: Instant,
    metadata: Option<RequestMetadata>,
    pub(crate) binary_data_output: Option<bool>,
    /// Values of scalar inputs.
    scalars: Vec<(String, ParameterValue)>,
}

impl RequestParameters {
    /// Parses parameters, whose names differ.
    ///
    /// # Errors
    /// The first that is invalid or rejected. Those that may be inputs are checked by [`inputs`](Self::inputs).
    pub(crate) fn parse(
        parameters: impl IntoIterator<Item = (String, ParameterValue)>,
        received_at: Instant,
    ) -> Result<Self, InvalidInput> {
        let mut parsed = Self { received_at, metadata: None, binary_data_output: None, scalars: Vec::new() };
        for (name, value) in parameters {
            parsed.add(name, value)?;
        }
        Ok(parsed)
    }

    fn add(&mut self, name: String, value: ParameterValue) -> Result<(), InvalidInput> {
        let invalid = |reason: &str| Err(InvalidInput::new(format!("parameters.{name}"), reason));
        match (name.as_str(), value) {
            ("priority", ParameterValue::Integer(level)) if level >= 0 => match level {
                0 => {}
                1 => self.metadata().priority = Some(Priority::High),
                2 => self.metadata().priority = Some(Priority::Normal),
                _ => self.metadata().priority = Some(Priority::Low),
            },
            ("priority", _) => return invalid("it is not an integer of at least 0"),
            ("timeout", ParameterValue::Integer(0)) => {}
            ("timeout", ParameterValue::Integer(micros)) => match u64::try_from(micros) {
                Ok(micros) => self.metadata().set_timeout(Duration::from_micros(micros)),
                Err(_) => return invalid("it is not a number of microseconds"),
            },
            ("timeout", _) => return invalid("it is not an integer of microseconds"),
            ("tenant", ParameterValue::Text(tenant)) => {
                let document = MetadataDocument { tenant: Some(tenant.into()), ..MetadataDocument::default() };
                let parsed = RequestMetadata::from_document(document).map_err(|error| error.within("parameters"))?;
                self.metadata().tenant = parsed.tenant;
            }
            ("backend", ParameterValue::Text(backend)) => match backend.parse::<BackendKind>() {
                Ok(backend) => self.metadata().backend = Some(backend),
                Err(error) => return Err(InvalidInput::new("parameters.backend", error.to_string())),
            },
            ("tenant" | "backend", _) => return invalid("it is not a string"),
            ("binary_data_output", ParameterValue::Bool(is_binary)) => self.binary_data_output = Some(is_binary),
            ("triton_enable_empty_final_response", ParameterValue::Bool(_)) => {}
            ("binary_data_output" | "triton_enable_empty_final_response", _) => return invalid("it is not a boolean"),
            ("sequence_id" | "sequence_start" | "sequence_end", _) => {
                return invalid("sequences are not supported: kernels keep no state between requests");
            }
            ("headers", _) => return invalid("the name is reserved"),
            (reserved, _) if reserved.starts_with("triton_") => return invalid("the name is reserved"),
            (_, value) => match check_name(&name) {
                Ok(()) => self.scalars.push((name, value)),
                Err(error) => return Err(InvalidInput::new("parameters", format!("the name of one: {error}"))),
            },
        }
        Ok(())
    }

    fn metadata(&mut self) -> &mut RequestMetadata {
        let received_at = self.received_at;
        self.metadata.get_or_insert_with(|| RequestMetadata { received_at, ..RequestMetadata::new() })
    }

    /// Takes deadline, priority, tenant and backend.
    pub(crate) fn take_metadata(&mut self) -> Option<RequestMetadata> {
        self.metadata.take()
    }

    /// Returns the inputs that are given as parameters.
    ///
    /// # Errors
    /// A parameter is no scalar input of the model, or has a value of another type.
    pub(crate) fn inputs(&self, model: &Model) -> Result<Vec<Input>, KernelError> {
        if self.scalars.is_empty() {
            return Ok(Vec::new());
        }
        let signature = model.signature()?;
        let input = |(name, value): &(String, ParameterValue)| scalar_input(signature, name, value);
        Ok(self.scalars.iter().map(input).collect::<Result<_, _>>()?)
    }
}

fn scalar_input(signature: &Signature, name: &str, value: &ParameterValue) -> Result<Input, InvalidInput> {
    let field = || format!("parameters.{name}");
    let Some(spec) = signature.scalar_input(name) else {
        return Err(InvalidInput::new(
            field(),
            "it is neither a parameter of the protocol nor a scalar input of the model",
        ));
    };
    let input = match (spec.elements, value) {
        (ElementType::Text, ParameterValue::Text(text)) => Some(super::text_input(name.to_owned(), text.clone())),
        (ElementType::Text, _) => None,
        (ElementType::Number(dtype), value) => element(dtype, value).map(|element| {
            let (name, data) = (name.to_owned(), Data::Here(element));
            Input { name, dtype, shape: vec![1], data }
        }),
    };
    input.ok_or_else(|| InvalidInput::new(field(), format!("it is not a {}", datatype_of(spec.elements))))
}

/// Encodes a value as an element; `None` if the type does not have it.
fn element(dtype: DType, value: &ParameterValue) -> Option<Bytes> {
    fn bytes<const N: usize>(bytes: [u8; N]) -> Bytes {
        Bytes::copy_from_slice(&bytes)
    }
    let float = || match *value {
        ParameterValue::Float(value) => Some(value),
        ParameterValue::Integer(value) => Some(value as f64),
        _ => None,
    };
    let integer = || match *value {
        ParameterValue::Integer(value) => Some(value),
        _ => None,
    };
    match dtype {
        DType::Bool => match value {
            ParameterValue::Bool(value) => Some(bytes([u8::from(*value)])),
            _ => None,
        },
        DType::U8 => u8::try_from(integer()?).ok().map(|value| bytes(value.to_le_bytes())),
        DType::U32 => u32::try_from(integer()?).ok().map(|value| bytes(value.to_le_bytes())),
        DType::U64 => u64::try_from(integer()?).ok().map(|value| bytes(value.to_le_bytes())),
        DType::I32 => i32::try_from(integer()?).ok().map(|value| bytes(value.to_le_bytes())),
        DType::I64 => i64::try_from(integer()?).ok().map(|value| bytes(value.to_le_bytes())),
        DType::F16 => float().map(|value| bytes(F16::from_f32(value as f32).to_bits().to_le_bytes())),
        DType::Bf16 => float().map(|value| bytes(Bf16::from_f32(value as f32).to_bits().to_le_bytes())),
        DType::F32 => float().map(|value| bytes((value as f32).to_le_bytes())),
        DType::F64 => float().map(|value| bytes(value.to_le_bytes())),
    }
}

#[cfg(all(test, feature = "kernels"))]
mod tests {
    use super::ParameterValue::{Bool, Float, Integer, Text};
    use super::*;
    use crate::service::KernelRegistry;

    fn parse(name: &str, value: ParameterValue) -> Result<RequestParameters, InvalidInput> {
        RequestParameters::parse([(name.to_owned(), value)], Instant::now())
    }

    #[test]
    fn scheduling_parameters_become_metadata() {
        for (level, priority) in [(1, Priority::High), (2, Priority::Normal), (3, Priority::Low), (99, Priority::Low)] {
            let metadata = parse("priority", Integer(level)).unwrap().take_metadata().unwrap();
            assert_eq!(metadata.priority, Some(priority));
        }
        assert!(parse("priority", Integer(0)).unwrap().take_metadata().is_none());
        let received_at = Instant::now() - Duration::from_secs(1);
        let timeout = [("timeout".to_owned(), Integer(200_000))];
        let metadata = RequestParameters::parse(timeout, received_at).unwrap().take_metadata().unwrap();
        assert_eq!(metadata.deadline, Some(received_at + Duration::from_millis(200)));
        assert!(parse("timeout", Integer(0)).unwrap().take_metadata().is_none());
        let metadata = parse("tenant", Text("acme".to_owned())).unwrap().take_metadata().unwrap();
        assert_eq!(metadata.tenant.as_deref(), Some("acme"));
        assert_eq!(parse("binary_data_output", Bool(true)).unwrap().binary_data_output, Some(true));
    }

    #[test]
    fn reserved_and_mistyped_parameters_are_rejected_by_name() {
        for (name, value) in [
            ("sequence_id", Integer(7)),
            ("sequence_start", Bool(true)),
            ("sequence_end", Bool(false)),
            ("headers", Text(String::new())),
            ("triton_final_response", Bool(true)),
            ("priority", Text("high".to_owned())),
            ("priority", Integer(-1)),
            ("timeout", Float(0.5)),
            ("timeout", Integer(-5)),
            ("timeout", Integer(i128::from(u64::MAX) + 1)),
            ("binary_data_output", Integer(1)),
            ("tenant", Integer(1)),
            ("tenant", Text("a\nb".to_owned())),
            ("backend", Text("tpu".to_owned())),
        ] {
            let error = parse(name, value.clone()).unwrap_err();
            assert_eq!(error.field, format!("parameters.{name}"), "{value:?}");
        }
        assert_eq!(parse("a\nb", Integer(1)).unwrap_err().field, "parameters");
    }

    #[test]
    fn scalar_inputs_are_parameters_and_nothing_else_is() {
        let registry = KernelRegistry::new();
        crate::kernels::register_all(&registry).unwrap();
        let model = Model::find(&registry, "graph.pagerank", "").unwrap();
        let input = |name: &str, value| parse(name, value).unwrap().inputs(&model);
        for (name, value, dtype, bytes) in [
            ("damping", Float(0.5), DType::F64, &0.5_f64.to_le_bytes()[..]),
            ("damping", Integer(1), DType::F64, &1.0_f64.to_le_bytes()),
            ("directed", Bool(true), DType::Bool, &[1]),
            ("max_iterations", Integer(7), DType::U32, &7_u32.to_le_bytes()),
            ("num_nodes", Integer(i128::from(u64::MAX)), DType::U64, &u64::MAX.to_le_bytes()),
            ("graph.operand", Text("payments@7".to_owned()), DType::U8, b"payments@7"),
        ] {
            let inputs = input(name, value.clone()).unwrap();
            let [Input { dtype: found, data: Data::Here(data), .. }] = &inputs[..] else { panic!("{inputs:?}") };
            assert_eq!((*found, &data[..]), (dtype, bytes), "{name} {value:?}");
        }
        for (name, value) in [
            ("max_iterations", Float(1.5)),
            ("max_iterations", Integer(-1)),
            ("max_iterations", Integer(1 << 32)),
            ("directed", Integer(1)),
            ("damping", Text("0.5".to_owned())),
            ("row_offsets", Integer(1)),
            ("unknown", Integer(1)),
        ] {
            let Err(KernelError::InvalidInput(error)) = input(name, value.clone()) else { panic!("{name} {value:?}") };
            assert_eq!(error.field, format!("parameters.{name}"), "{value:?}");
        }
    }
}
