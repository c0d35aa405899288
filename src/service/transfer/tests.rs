use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::*;
use crate::error::Classification;
use crate::request::RequestContext;
use crate::service::codec::{decode_json, encode_json};
use crate::service::{
    BackendError, BatchKey, Bf16, Buffer, Cost, F16, FloatArray, HostMemoryError, InvalidInput, Job, Kernel,
    KernelInfo, KernelRegistry, KernelRequest, MemberResults, NumberArray, Operand, OperandValue, Operands, Payload,
    RunContext, TensorSet, Vectors,
};

fn no_versions() -> VersionLookup {
    Arc::new(|_| None)
}

fn read<T: DeserializeOwned>(transfer: Transfer) -> Result<T, TransferError> {
    transfer.read(&no_versions())
}

fn read_error_of<T: DeserializeOwned + Debug>(transfer: Transfer) -> String {
    read::<T>(transfer).unwrap_err().to_string()
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Arrays {
    singles: Buffer<f32>,
    doubles: FloatArray,
    one: FloatArray,
    halves: Buffer<F16>,
    brains: Buffer<Bf16>,
    integers: NumberArray,
    none: Option<Buffer<u8>>,
    some: Option<Buffer<u8>>,
    rows: Vec<Buffer<i64>>,
    empty: Buffer<f64>,
    choice: Choice,
    #[serde(flatten)]
    rest: BTreeMap<String, f64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
enum Choice {
    Name(String),
    Numbers { numbers: Buffer<u32>, scale: Option<f32> },
}

fn arrays() -> Arrays {
    Arrays {
        singles: vec![1.0, -0.0, f32::INFINITY].into(),
        doubles: vec![0.1, f64::MIN_POSITIVE].into(),
        // No section: it is a whole number, as those of sections are.
        one: FloatArray::One(17.0),
        halves: vec![F16::from_f32(0.5)].into(),
        brains: vec![Bf16::from_f32(-3.0)].into(),
        integers: vec![u64::MAX, 0].into(),
        none: None,
        some: Some(vec![1, 2, 3].into()),
        rows: vec![vec![i64::MIN].into(), Vec::new().into(), vec![1, 2].into()],
        empty: Buffer::default(),
        choice: Choice::Numbers { numbers: vec![7, 8].into(), scale: Some(0.1) },
        rest: [("rest".to_owned(), 2.5)].into(),
    }
}

#[test]
fn arrays_are_sections_and_all_else_is_in_the_head() {
    let arrays = arrays();
    let transfer = Transfer::write(&arrays).unwrap();
    // One for each array, those of `rows` and the empty ones included.
    assert_eq!(transfer.sections.len(), 11);
    assert_eq!(read::<Arrays>(transfer.clone()), Ok(arrays));
    // Within one process as well: nothing of a transfer is left on the thread.
    let json = encode_json(&Buffer::from(vec![1_u32]), 0, &RunContext::detached()).unwrap();
    assert_eq!(&json[..], b"[1]");
}

#[test]
fn nan_keeps_its_payload() {
    #[derive(Serialize, Deserialize)]
    struct Numbers {
        single: f32,
        double: f64,
        one: FloatArray,
        array: Buffer<f64>,
    }
    let (single, double) = (f32::from_bits(0x7fc0_1234), f64::from_bits(0xfff8_0000_dead_beef));
    let numbers = Numbers { single, double, one: double.into(), array: vec![double, f64::NEG_INFINITY].into() };
    let read: Numbers = read(Transfer::write(&numbers).unwrap()).unwrap();
    assert_eq!((read.single.to_bits(), read.double.to_bits()), (single.to_bits(), double.to_bits()));
    assert!(matches!(read.one, FloatArray::One(one) if one.to_bits() == double.to_bits()));
    assert_eq!(read.array[0].to_bits(), double.to_bits());
    assert_eq!(read.array[1], f64::NEG_INFINITY);
}

#[test]
fn large_arrays_are_copied_on_neither_side() {
    let written = Buffer::<f32>::zeroed(1 << 20);
    let transfer = Transfer::write(&(&written, FloatArray::F32(written.clone()))).unwrap();
    assert!(transfer.head.len() < 16, "{} bytes", transfer.head.len());
    let (buffer, array): (Buffer<f32>, FloatArray) = read(transfer).unwrap();
    let FloatArray::F32(array) = array else { panic!("another precision") };
    assert_eq!((buffer.as_ptr(), array.as_ptr()), (written.as_ptr(), written.as_ptr()));
}

#[test]
fn a_number_is_an_array_in_transfers_alone() {
    let of_json = decode_json::<Buffer<f32>>(b"16").unwrap_err();
    assert!(of_json.reason.contains("invalid type: integer `16`, expected an array of float32"), "{of_json}");
    assert!(decode_json::<NumberArray>(b"16").unwrap_err().reason.contains("expected an array of numbers"));
    assert_eq!(decode_json::<FloatArray>(b"16"), Ok(FloatArray::One(16.0)));
    let reason = decode_json::<Operand<TensorSet>>(b"16").unwrap_err().reason;
    assert!(reason.contains("invalid type: integer `16`, expected an object"), "{reason}");
}

#[test]
fn sections_that_do_not_fit_are_errors() {
    let transfer = Transfer::write(&Buffer::from(vec![1.0_f32, 2.0])).unwrap();
    assert!(read_error_of::<Buffer<f64>>(transfer.clone()).contains("section 0 is float32 where float64 is expected"));
    let none = Transfer { sections: Vec::new(), ..transfer.clone() };
    assert!(read_error_of::<Buffer<f32>>(none).contains("section 0, and there are 0"));
    let torn = Transfer { sections: vec![transfer.sections[0].slice(..7)], ..transfer.clone() };
    assert!(read_error_of::<Buffer<f32>>(torn).contains("section 0 has 7 bytes, which is no multiple of 4"));
    let unknown_dtype = Transfer { head: write_head(&15_u64).unwrap(), ..transfer.clone() };
    assert!(read_error_of::<Buffer<f32>>(unknown_dtype).contains("unknown dtype"));
    let last = Transfer { head: write_head(&u64::MAX).unwrap(), ..transfer.clone() };
    assert!(read_error_of::<NumberArray>(last).contains("invalid type"));
    let mut more = transfer;
    more.head.push(0);
    assert!(read_error_of::<Buffer<f32>>(more).contains("1 bytes after the value"));
    // Strings and sequences whose lengths are claimed: 4 GiB, of which nothing is there.
    for head in [&[0xdb, 0xff, 0xff, 0xff, 0xff][..], &[0xdd, 0xff, 0xff, 0xff, 0xff], &[0xc6, 0xff, 0xff, 0xff, 0xff]]
    {
        let huge = || Transfer { head: head.to_vec(), sections: Vec::new() };
        assert!(read::<String>(huge()).is_err() && read::<Vec<u64>>(huge()).is_err(), "{head:x?}");
    }
    // Nested more deeply than a thread's stack allows to read.
    let deep = || Transfer { head: vec![0x91; 1 << 20], sections: Vec::new() };
    assert!(read::<serde_json::Value>(deep()).is_err());
}

#[test]
fn an_unaligned_section_is_copied_once_at_most() {
    let padded = Buffer::<u8>::zeroed(64).into_bytes();
    let transfer = Transfer { head: write_head(&(2_u64, 2_u64)).unwrap(), sections: vec![padded.slice(1..9)] };
    assert!(read_error_of::<(Buffer<u32>, Buffer<u32>)>(transfer.clone()).contains("named twice"));
    let once = Transfer { head: write_head(&(2_u64,)).unwrap(), ..transfer.clone() };
    assert_eq!(read::<(Buffer<u32>,)>(once), Ok((vec![0, 0].into(),)));
    let aligned = Transfer { sections: vec![padded.slice(..8)], ..transfer };
    assert!(read::<(Buffer<u32>, Buffer<u32>)>(aligned).is_ok(), "sharing is no copy");
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct WithOperands {
    vectors: Operand<Vectors>,
    set: Option<Operand<TensorSet>>,
}

#[test]
fn stored_operands_cross_as_ids_and_documents_as_they_are() {
    let operands = Operands::default();
    let stored = operands.put("corpus", Vectors::new(2, vec![1.0_f32, 0.5]).unwrap()).unwrap();
    let version = Arc::clone(stored.version().unwrap());
    let transfer = Transfer::write(&WithOperands { vectors: stored.clone(), set: None }).unwrap();
    assert!(transfer.sections.is_empty());
    let known = Arc::clone(&version);
    let lookup: VersionLookup = Arc::new(move |id| (id == known.id()).then(|| Arc::clone(&known)));
    let read: WithOperands = transfer.clone().read(&lookup).unwrap();
    assert!(Arc::ptr_eq(read.vectors.version().unwrap(), &version));
    let unknown = TransferError::UnknownOperand { id: version.id() };
    assert_eq!(transfer.clone().read::<WithOperands>(&no_versions()), Err(unknown.clone()));
    let KernelError::Backend(error) = KernelError::from(unknown.clone()) else { panic!("another variant") };
    assert_eq!(error.downcast_ref::<TransferError>(), Some(&unknown));
    // Of another type than the field.
    let set: Operand<TensorSet> = operands.put("set", TensorSet::of("operand", vec![1.0_f64])).unwrap();
    let other = Arc::clone(set.version().unwrap());
    let wrong: VersionLookup = Arc::new(move |_| Some(Arc::clone(&other)));
    assert!(matches!(transfer.read::<WithOperands>(&wrong), Err(TransferError::Read(_))));

    let documents = || WithOperands {
        vectors: Operand::inline(
            Vectors::decode(Payload::json(r#"{"vectors": [[1, 2]], "dtype": "float16"}"#)).unwrap(),
        ),
        // The name is the key of references in JSON.
        set: Some(Operand::inline(TensorSet::decode(set.value().unwrap().to_tensors().into()).unwrap())),
    };
    let transfer = Transfer::write(&documents()).unwrap();
    assert_eq!(transfer.sections.len(), 2);
    let read: WithOperands = transfer.read(&no_versions()).unwrap();
    let context = RunContext::detached();
    assert_eq!(read.vectors.load(&context).unwrap(), documents().vectors.load(&context).unwrap());
    assert_eq!(read.set.unwrap().load(&context).unwrap(), *set.value().unwrap());
}

#[test]
fn documents_and_references_have_a_form_in_json() {
    let json = |value: &WithOperands| serde_json::to_value(value).unwrap();
    let operands = Operands::default();
    let stored = operands.put("corpus", Vectors::new(2, vec![1.0_f32, 0.5]).unwrap()).unwrap();
    let text = json(&WithOperands { vectors: stored, set: None });
    assert_eq!(text, serde_json::json!({ "vectors": { "operand": "corpus@1" }, "set": null }));
    for document in [
        serde_json::json!({ "vectors": { "vectors": [[1.0, 2.0], [0.5, 4.0]], "dtype": "float16" }, "set": null }),
        serde_json::json!({
            "vectors": { "vectors": [[1.0]], "dtype": "float32" },
            "set": { "a": { "dtype": "float64", "data": [0.5] }, "b": { "dtype": "uint8", "data": [] } },
        }),
    ] {
        let read: WithOperands = serde_json::from_value(document.clone()).unwrap();
        assert_eq!(json(&read), document);
    }
}

/// Doubles numbers, and fails for an empty array.
struct Doubles;

#[derive(Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Numbers {
    numbers: Buffer<f64>,
}

impl Kernel for Doubles {
    type Input = Numbers;
    type Output = Numbers;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/doubles", "1", "A test.")
    }
    fn validate(&self, _: &Numbers) -> Result<(), InvalidInput> {
        Ok(())
    }
    fn cost(&self, input: &Numbers) -> Cost {
        Cost { bytes: input.numbers.len() as u64, ..Cost::default() }
    }
    fn batch_key(&self, _: &Numbers) -> Option<BatchKey> {
        Some(BatchKey::exact(0))
    }
    fn run_cpu(&self, input: &Numbers, _: &RunContext<'_>) -> Result<Numbers, KernelError> {
        match input.numbers.is_empty() {
            true => Err(KernelError::kernel("there are none")),
            false => Ok(Numbers { numbers: input.numbers.iter().map(|number| 2.0 * number).collect() }),
        }
    }
}

/// Runs a job as if it were in another process: everything crosses.
fn run_elsewhere(job: &Job) -> Result<Typed, KernelError> {
    let sent = job.transfers();
    let accepted = sent.iter().filter_map(|sent| sent.as_ref().ok()).cloned().collect();
    let there = Job::received(job.kernel(), accepted, &no_versions())?;
    assert_eq!(there.cost().map(|cost| cost.bytes), Some(job.cost().unwrap().bytes - rejected_bytes(job, &sent)));
    let (output, _) = there.run_with(&RunContext::detached(), |job, context| job.run_kernel_on_cpu(context))?;
    let cross = |output: Result<Typed, KernelError>| {
        let transfer = output.and_then(|output| job.kernel().transfer_output(&output));
        transfer.map_err(|error| read_error(&write_error(&error).unwrap()).unwrap())
    };
    let mut outputs = there.split_output(output).into_iter().map(cross);
    let outputs = sent.into_iter().map(|sent| {
        let transfer = sent.and_then(|_| outputs.next().expect("an output for each"))?;
        job.kernel().receive_output(transfer)
    });
    job.join_outputs(outputs.collect())
}

fn rejected_bytes(job: &Job, sent: &[Result<Transfer, KernelError>]) -> u64 {
    let members = job.members().unwrap_or_default().iter().zip(sent);
    members.filter(|(_, sent)| sent.is_err()).map(|(job, _)| job.cost().unwrap().bytes).sum()
}

fn doubles(json: &str) -> Job {
    let registry = KernelRegistry::new();
    registry.register(Doubles).unwrap();
    let kernel = registry.get("test/doubles").unwrap();
    let mut job = Job::new(kernel, KernelRequest::new("test/doubles", Payload::json(json.to_owned()))).unwrap();
    job.prepare(None).unwrap();
    job
}

#[test]
fn a_job_runs_elsewhere() {
    let output = run_elsewhere(&doubles(r#"{"numbers": [1, 2.5]}"#)).unwrap();
    assert_eq!(output.downcast::<Numbers>().unwrap().numbers[..], [2.0, 5.0]);
    let error = run_elsewhere(&doubles(r#"{"numbers": []}"#)).unwrap_err();
    assert!(matches!(error, KernelError::Kernel(_)), "{error}");
}

#[test]
fn members_of_a_shared_run_cross_one_by_one() {
    let mut late = doubles(r#"{"numbers": [9, 9]}"#);
    late.set_deadline(Instant::now());
    let members =
        vec![doubles(r#"{"numbers": [1]}"#), late, doubles(r#"{"numbers": []}"#), doubles(r#"{"numbers": [2, 3]}"#)];
    let output = run_elsewhere(&Job::merge(members)).unwrap();
    let results = MemberResults::from_payload(Payload::Typed(output)).unwrap();
    // Their requests are JSON, so that the outputs are to be encoded.
    let json = |payload: &Payload| match crate::service::unencoded::Unencoded::encode_in(
        crate::service::KernelResponse::new(payload.clone(), crate::request::Execution::new("CPU")),
        None,
    ) {
        Ok(response) => serde_json::from_slice::<serde_json::Value>(match &response.payload {
            Payload::Json(json) => json,
            other => panic!("{other:?}"),
        })
        .unwrap(),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(results.len(), 4);
    assert_eq!(json(results[0].as_ref().unwrap()), serde_json::json!({ "numbers": [2.0] }));
    assert!(matches!(results[1], Err(KernelError::DeadlineExceeded { started: false })), "{:?}", results[1]);
    assert!(matches!(results[2], Err(KernelError::Kernel(_))), "{:?}", results[2]);
    assert_eq!(json(results[3].as_ref().unwrap()), serde_json::json!({ "numbers": [4.0, 6.0] }));
}

#[test]
fn results_of_another_number_than_the_inputs_are_an_error() {
    let job = doubles(r#"{"numbers": [1]}"#);
    assert!(job.join_outputs(Vec::new()).is_err());
    assert!(
        Job::merge(vec![doubles(r#"{"numbers": [1]}"#), job]).join_outputs(vec![Err(KernelError::Cancelled)]).is_err()
    );
    assert!(Job::received(doubles(r#"{"numbers": [1]}"#).kernel(), Vec::new(), &no_versions()).is_err());
}

#[test]
fn errors_keep_their_variant_kind_retry_after_and_text() {
    #[derive(Debug, thiserror::Error)]
    #[error("the outer error")]
    struct Outer(#[source] std::io::Error);

    let backend = |kind, retry_after| {
        let mut classification = Classification::new(kind);
        classification.retry_after = retry_after;
        KernelError::Backend(Arc::new(BackendError::new(classification, Outer(std::io::Error::other("inner")).into())))
    };
    let mut errors = vec![
        KernelError::UnknownKernel { id: "a/b".into() },
        KernelError::RingKernel { id: "a/b".into() },
        KernelError::UnsupportedBackend { id: "a/b".into(), backend: "CUDA" },
        KernelError::NoBackend { backend: "CUDA" },
        KernelError::InvalidInput(InvalidInput::new("edges[3]", "no")),
        KernelError::DeadlineExceeded { started: true },
        KernelError::DeadlineExceeded { started: false },
        KernelError::Cancelled,
        KernelError::OutOfMemory { need: 3, free: 1, total: 2 },
        KernelError::OutOfMemory { need: 2, free: 1, total: u64::MAX },
        KernelError::Memory(HostMemoryError::TooLarge { needed: 2, max: 1 }),
        KernelError::Memory(HostMemoryError::Exhausted { needed: 3, used: 2, max: 4 }),
        KernelError::ResponseTooLarge { max: 7 },
        KernelError::DeviceLost { device: "CUDA 0".into(), reason: "an illegal address".into() },
        KernelError::DeviceFault { kernel: "a/b".into(), reason: "an illegal address".into() },
        KernelError::Interrupted { device: "CUDA 1".into(), reason: "an illegal address".into() },
        KernelError::Quarantined { kernel: "a/b".into(), remaining: Duration::from_secs(7) },
        KernelError::OperandsLoading,
        KernelError::Stopped { backend: "CPU" },
        KernelError::Panicked { message: "index out of bounds".into() },
        KernelError::Encode("a map".into()),
        KernelError::Device("failed".into()),
        KernelError::kernel(Outer(std::io::Error::other("inner"))),
        backend(ErrorKind::RateLimited, Some(Duration::from_millis(1_500))),
    ];
    errors.extend(ErrorKind::ALL.map(|kind| backend(kind, None)));
    let chain = |error: &dyn std::error::Error| {
        let mut texts = vec![error.to_string()];
        let mut next = error.source();
        while let Some(error) = next {
            texts.push(error.to_string());
            next = error.source();
        }
        texts
    };
    for error in &errors {
        let read = read_error(&write_error(error).unwrap()).unwrap();
        assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(error), "{error:?}");
        assert_eq!((read.kind(), read.retry_after()), (error.kind(), error.retry_after()), "{error:?}");
        assert_eq!(chain(&read), chain(error));
        if !matches!(error, KernelError::Kernel(_) | KernelError::Backend(_)) {
            assert_eq!(format!("{read:?}"), format!("{error:?}"), "all fields");
        }
    }
    // The name of a backend of somebody else's.
    let error = KernelError::Stopped { backend: "remote" };
    let read = read_error(&write_error(&error).unwrap()).unwrap();
    assert_eq!((read.kind(), read.retry_after()), (error.kind(), error.retry_after()));
    assert_eq!(chain(&read)[1], error.to_string());
}

#[test]
fn what_is_no_error_is_rejected() {
    let head = write_error(&KernelError::kernel("failed")).unwrap();
    for end in 0..head.len() {
        assert!(read_error(&head[..end]).is_err());
    }
    assert!(read_error(&write_head(&("Kernel", 1)).unwrap()).is_err());
    let sources = serde_json::json!({ "Kernel": { "texts": vec!["x"; 33] } });
    assert!(read_error(&write_head(&sources).unwrap()).is_err());
    let none = serde_json::json!({ "Backend": { "kind": 99, "retry_after": null, "texts": ["x"] } });
    assert!(read_error(&write_head(&none).unwrap()).is_err());
}
