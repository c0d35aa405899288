//! The JSON documents of an execute call, shared by all HTTP transports.
//!
//! ```json
//! {"kernel_id": "linalg/saxpy",
//!  "input": {"a": 2.0, "x": [1.0], "y": [1.0]},
//!  "metadata": {"timeout_ms": 50, "priority": "high", "tenant": "acme", "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}}
//! ```
//! `metadata` and each of its fields are optional. `input` is not parsed here: it is passed on as a slice of the body, and
//! parsed once, into the kernel's own type.
//!
//! ```json
//! {"request_id": "req-1f", "kernel_id": "linalg/saxpy", "output": {"y": [3.0]},
//!  "metadata": {"duration_us": 1, "queued_us": 0, "backend": "CPU"}}
//! ```

use std::borrow::Cow;
use std::io::Write;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::codec::{RawJson, decode_json};
use super::{InvalidInput, KernelError, KernelRequest, KernelResponse, Payload};
use crate::request::limits::check_name;
use crate::request::metadata::{MetadataDocument, RequestMetadata};
use crate::request::{BackendChoice, BackendKind, Execution, OperandUse};

/// A request to run a kernel.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ExecuteRequest")]
pub(crate) struct Request<'a> {
    /// The id of the kernel, or one of its aliases.
    #[serde(borrow)]
    kernel_id: Cow<'a, str>,
    /// The input of the kernel.
    #[serde(borrow)]
    #[schemars(with = "serde_json::Value")]
    input: RawJson<'a>,
    /// Options of the request.
    #[serde(borrow, default)]
    metadata: Option<MetadataDocument<'a>>,
}

/// The output of a kernel and how it was run.
// Only its schema is used: `to_json` writes the document by hand, as serde would parse the output again.
#[derive(JsonSchema)]
#[schemars(rename = "ExecuteResponse")]
#[expect(dead_code, reason = "it has a schema and no values")]
pub(crate) struct Response {
    /// The response's `x-request-id`.
    request_id: String,
    /// The kernel's id or alias, as in the request.
    kernel_id: String,
    /// The output of the kernel.
    output: serde_json::Value,
    /// How the kernel was run.
    metadata: ResponseMetadata<'static>,
}

/// How a request was run, in any document.
#[derive(Serialize, JsonSchema)]
pub(crate) struct ResponseMetadata<'a> {
    /// The time of the run, in microseconds, without decoding and encoding.
    duration_us: u128,
    /// The time from the decoded input to the start of the run, in microseconds.
    queued_us: u128,
    /// The backend that ran it: `CPU` or `CUDA`, or `cache` if the output was cached.
    backend: &'a str,
    /// The ordinal of the device, if the backend has several.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<u32>,
    /// The number of requests that shared the run, if it was more than one.
    #[serde(skip_serializing_if = "is_one")]
    batch_size: u32,
    /// The device's own timing, for a sample of the requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    device_times: Option<ResponseDeviceTimes>,
    /// Decoding and encoding, if the input or the output was large.
    #[serde(skip_serializing_if = "Option::is_none")]
    codec_times: Option<ResponseCodecTimes>,
    /// The operands that the request referred to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    operands: Vec<ResponseOperand>,
    /// Why it ran on this backend, if another one could have run it.
    #[serde(skip_serializing_if = "Option::is_none")]
    choice: Option<ResponseChoice>,
}

/// Why a request ran on its backend.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct ResponseChoice {
    /// `predicted`: the response was predicted to come first from there; `explored`: to measure how long such runs take
    /// there; `requested`: the request asked for it.
    reason: &'static str,
    /// The predicted time to the response on each backend that could have run it, the wait for other requests included, in
    /// microseconds.
    predicted_us: PredictedTimes,
}

/// Predicted times by backend, in microseconds.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct PredictedTimes {
    #[serde(rename = "CPU")]
    cpu: u128,
    #[serde(rename = "CUDA")]
    cuda: u128,
}

impl From<&BackendChoice> for ResponseChoice {
    fn from(choice: &BackendChoice) -> Self {
        let predicted = |backend| choice.predicted_on(backend).unwrap_or_default().as_micros();
        let predicted_us = PredictedTimes { cpu: predicted(BackendKind::Cpu), cuda: predicted(BackendKind::Cuda) };
        Self { reason: choice.reason.as_str(), predicted_us }
    }
}

/// The use of an operand by a request.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct ResponseOperand {
    /// The name and version, such as `payments@7`.
    operand: String,
    /// Whether the device had the operand before the run, so that nothing was uploaded.
    resident: bool,
}

/// The device's own timing of a run.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct ResponseDeviceTimes {
    /// Copies to the device, in microseconds.
    upload_us: u128,
    /// Kernels, in microseconds.
    kernel_us: u128,
    /// Copies from the device, in microseconds.
    download_us: u128,
}

/// Times with the threads that decode and encode, the wait for one included; 0 for what was small.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct ResponseCodecTimes {
    /// Decoding and validation of the input, in microseconds.
    decoding_us: u128,
    /// Encoding of the output, in microseconds.
    encoding_us: u128,
}

impl<'a> From<&'a Execution> for ResponseMetadata<'a> {
    fn from(execution: &'a Execution) -> Self {
        Self {
            duration_us: execution.executed.as_micros(),
            queued_us: execution.queued.as_micros(),
            backend: execution.backend,
            device: execution.device.map(u32::from),
            batch_size: execution.batch_size,
            device_times: execution.device_times().map(|times| ResponseDeviceTimes {
                upload_us: times.upload.as_micros(),
                kernel_us: times.kernel.as_micros(),
                download_us: times.download.as_micros(),
            }),
            codec_times: execution.codec_times().map(|times| ResponseCodecTimes {
                decoding_us: times.decoding.as_micros(),
                encoding_us: times.encoding.as_micros(),
            }),
            operands: execution.operands().iter().map(ResponseOperand::from).collect(),
            choice: execution.choice().map(ResponseChoice::from),
        }
    }
}

impl From<&OperandUse> for ResponseOperand {
    fn from(operand: &OperandUse) -> Self {
        Self { operand: operand.to_string(), resident: operand.resident }
    }
}

fn is_one(batch_size: &u32) -> bool {
    *batch_size == 1
}

impl KernelRequest {
    /// Parses the JSON document of an execute call. A `trace_id` is a W3C trace id of 32 hex digits, or a `traceparent`.
    ///
    /// # Errors
    /// The first invalid field. `input` is validated when the request is run.
    ///
    /// ```
    /// use tower_kernels::service::KernelRequest;
    ///
    /// let body = r#"{"kernel_id": "linalg/saxpy", "input": {"a": 2.0}, "metadata": {"timeout_ms": 50}}"#;
    /// let request = KernelRequest::from_json(body.into()).unwrap();
    /// assert!(request.deadline.is_some());
    ///
    /// let error = KernelRequest::from_json(r#"{"kernel_id": "linalg/saxpy"}"#.into()).unwrap_err();
    /// assert_eq!(error.field, "input");
    /// ```
    pub fn from_json(body: Bytes) -> Result<Self, InvalidInput> {
        let document: Request<'_> = decode_json(&body)?;
        check_name(&document.kernel_id).map_err(|error| InvalidInput::new("kernel_id", error.to_string()))?;
        let input = body.slice_ref(document.input.text());
        let mut request = Self::new(document.kernel_id.into_owned(), Payload::Json(input));
        if let Some(metadata) = document.metadata {
            let metadata = RequestMetadata::from_document(metadata).map_err(|error| error.within("metadata"))?;
            request.apply_metadata(metadata);
        }
        Ok(request)
    }
}

impl KernelResponse {
    /// Writes the JSON document of an execute call's response. The output is copied into it and not parsed again.
    ///
    /// # Errors
    /// [`KernelError::Encode`] if the payload is not JSON, because the request's was not.
    pub fn to_json(&self, request_id: &str, kernel_id: &str) -> Result<Bytes, KernelError> {
        let output = self.json_output()?;
        let mut body = Vec::with_capacity(output.len() + request_id.len() + kernel_id.len() + 160);
        let mut write = || -> Result<(), std::io::Error> {
            write_head(&mut body, request_id, kernel_id)?;
            body.write_all(output)?;
            self.write_tail(&mut body)
        };
        write().map_err(|error| KernelError::Encode(error.to_string()))?;
        Ok(body.into())
    }

    /// Writes the same document in three frames, of which the second is the output itself and not a copy.
    #[cfg(any(feature = "axum", feature = "hyper"))]
    pub(crate) fn to_json_frames(&self, request_id: &str, kernel_id: &str) -> Result<[Bytes; 3], KernelError> {
        let output = self.json_output()?;
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        let written = write_head(&mut head, request_id, kernel_id).and_then(|()| self.write_tail(&mut tail));
        written.map_err(|error| KernelError::Encode(error.to_string()))?;
        Ok([head.into(), output.clone(), tail.into()])
    }

    fn json_output(&self) -> Result<&Bytes, KernelError> {
        match &self.payload {
            Payload::Json(output) => Ok(output),
            _ => Err(KernelError::Encode("the payload of the response is not JSON".to_owned())),
        }
    }

    /// Writes what follows the output.
    fn write_tail(&self, body: &mut Vec<u8>) -> Result<(), std::io::Error> {
        body.write_all(br#","metadata":"#)?;
        serde_json::to_writer(&mut *body, &ResponseMetadata::from(&self.execution))?;
        body.write_all(b"}")
    }
}

/// Writes what precedes the output.
fn write_head(body: &mut Vec<u8>, request_id: &str, kernel_id: &str) -> Result<(), std::io::Error> {
    body.write_all(br#"{"request_id":"#)?;
    serde_json::to_writer(&mut *body, request_id)?;
    body.write_all(br#","kernel_id":"#)?;
    serde_json::to_writer(&mut *body, kernel_id)?;
    body.write_all(br#","output":"#)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::request::{ChoiceReason, Priority, RequestContext};

    fn parse(body: &str) -> Result<KernelRequest, InvalidInput> {
        KernelRequest::from_json(Bytes::copy_from_slice(body.as_bytes()))
    }

    #[test]
    fn all_metadata_reaches_the_request_and_the_input_is_a_slice_of_the_body() {
        let body = Bytes::from(
            r#"{"metadata": {"timeout_ms": 9, "priority": "high", "tenant": "acme", "backend": "cuda",
                "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}, "input": {"a": [1, 2]}, "kernel_id": "a\u002fb"}"#,
        );
        let request = KernelRequest::from_json(body.clone()).unwrap();
        assert_eq!(
            (request.operation(), request.priority, request.tenant.as_deref()),
            ("a/b", Priority::High, Some("acme"))
        );
        assert_eq!(request.backend(), Some(BackendKind::Cuda));
        assert_eq!(request.trace_context().unwrap().trace_id(), 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        let Payload::Json(input) = request.payload else { panic!("no JSON") };
        assert_eq!(input, r#"{"a": [1, 2]}"#);
        assert!(body.as_ptr_range().contains(&input.as_ptr()), "copied");
    }

    #[test]
    fn errors_name_the_field() {
        for (body, field) in [
            ("", "input"),
            ("[]", "input"),
            (r#"{"input": {}}"#, "kernel_id"),
            (r#"{"kernel_id": "a"}"#, "input"),
            (r#"{"kernel_id": 1, "input": {}}"#, "kernel_id"),
            (r#"{"kernel_id": "a", "input": {}, "metadata": {"timeout_ms": -1}}"#, "metadata.timeout_ms"),
            (r#"{"kernel_id": "a", "input": {}, "metadata": {"timeout": 1}}"#, "metadata.timeout"),
            (r#"{"kernel_id": "a", "input": {}, "metadata": {"priority": "urgent"}}"#, "metadata.priority"),
            (r#"{"kernel_id": "a", "input": {}, "metadata": {"backend": "tpu"}}"#, "metadata.backend"),
            (r#"{"kernel_id": "a", "input": {}, "metadata": {"trace_id": "0"}}"#, "metadata.trace_id"),
        ] {
            assert_eq!(parse(body).unwrap_err().field, field, "{body}");
        }
    }

    #[test]
    fn names_are_bounded_and_errors_do_not_repeat_what_was_sent() {
        let long = "x".repeat(100_000);
        for (body, field) in [
            (format!(r#"{{"kernel_id": "{long}", "input": 1}}"#), "kernel_id"),
            (r#"{"kernel_id": "", "input": 1}"#.to_owned(), "kernel_id"),
            (r#"{"kernel_id": "a\nb", "input": 1}"#.to_owned(), "kernel_id"),
            (format!(r#"{{"kernel_id": "a", "input": 1, "metadata": {{"tenant": "{long}"}}}}"#), "metadata.tenant"),
            (r#"{"kernel_id": "a", "input": 1, "metadata": {"tenant": "a\u0000"}}"#.to_owned(), "metadata.tenant"),
            (format!(r#"{{"kernel_id": "a", "input": 1, "metadata": {{"priority": "{long}"}}}}"#), "metadata.priority"),
            (format!(r#"{{"kernel_id": "a", "input": 1, "metadata": {{"{long}": 1}}}}"#), "metadata.xxx"),
            (format!(r#"{{"kernel_id": "a", "{long}": 1}}"#), "xxx"),
        ] {
            let invalid = parse(&body).unwrap_err();
            assert!(invalid.field.starts_with(field), "{invalid}");
            assert!(invalid.to_string().len() < 1500, "{} bytes", invalid.to_string().len());
        }
        assert_eq!(parse(r#"{"kernel_id": "a", "input": 1, "metadata": {"tenant": ""}}"#).unwrap().tenant, None);
    }

    #[test]
    fn a_timeout_past_the_end_of_time_is_none() {
        let body = format!(r#"{{"kernel_id": "a", "input": 1, "metadata": {{"timeout_ms": {}}}}}"#, u64::MAX);
        let deadline = parse(&body).unwrap().deadline;
        assert!(deadline.is_none_or(|deadline| deadline.elapsed().is_zero()));
    }

    #[test]
    fn the_answer_has_the_fields_of_its_schema() {
        let mut execution = Execution::new("CUDA");
        (execution.device, execution.batch_size) = (Some(1), 2);
        execution.set_device_times(crate::request::DeviceTimes::default());
        execution.set_codec_times(crate::request::CodecTimes::default());
        execution.set_operands(vec![OperandUse::new(1, "payments".into(), 7, true)]);
        let predicted = [(BackendKind::Cuda, Duration::from_micros(85)), (BackendKind::Cpu, Duration::from_millis(2))];
        execution.set_choice(BackendChoice { reason: ChoiceReason::Predicted, predicted });
        let body = KernelResponse::new(Payload::json("1"), execution).to_json("r", "a/b").unwrap();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let settings = schemars::generate::SchemaSettings::draft2020_12().for_serialize();
        let schema = settings.into_generator().into_root_schema_for::<Response>().to_value();
        let keys = |value: &serde_json::Value| -> Vec<String> {
            let mut keys: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys
        };
        assert_eq!(keys(&document), keys(&schema["properties"]));
        assert_eq!(schema["required"].as_array().unwrap().len(), 4);
        let metadata = &schema["$defs"]["ResponseMetadata"]["properties"];
        assert_eq!(keys(&document["metadata"]), keys(metadata));
        let choice = serde_json::json!({"reason": "predicted", "predicted_us": {"CPU": 2000, "CUDA": 85}});
        assert_eq!(document["metadata"]["choice"], choice);
    }

    #[test]
    fn the_answer_is_json_whatever_the_ids_hold() {
        let response = KernelResponse::new(Payload::json(r#"{"y":[1.0]}"#), Execution::new("CPU"));
        let body = response.to_json("req-\"1\"", "a/b").unwrap();
        let document: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            document,
            serde_json::json!({
                "request_id": "req-\"1\"", "kernel_id": "a/b", "output": {"y": [1.0]},
                "metadata": {"duration_us": 0, "queued_us": 0, "backend": "CPU"},
            })
        );
        assert!(KernelResponse::new(Payload::typed(1), Execution::new("CPU")).to_json("1", "a").is_err());
    }
}
