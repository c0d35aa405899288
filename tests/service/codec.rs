//! Whatever comes, the process is unharmed; what goes out comes back.

use bytes::Bytes;
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower::ServiceExt;
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::service::{
    Buffer, Cost, DType, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest, Payload,
    RunContext, Tensor, Tensors,
};

use crate::kernels::{Numbers, Sum, service};

#[derive(Debug, Clone, Copy, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Call,
    Put,
}

/// Every shape of field that has a form as a tensor.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Everything {
    flag: bool,
    byte: u8,
    count: u32,
    wide: u64,
    signed: i32,
    long: i64,
    single: f32,
    double: f64,
    text: String,
    kind: Kind,
    absent: Option<f64>,
    present: Option<f64>,
    edges: Vec<[u32; 2]>,
    grid: Vec<Vec<f64>>,
    floats: Buffer<f32>,
    longs: Buffer<i64>,
    empty: Buffer<u32>,
}

struct Echo;

impl Kernel for Echo {
    type Input = Everything;
    type Output = Everything;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/echo", "1.0.0", "Gives what it takes.")
    }

    fn validate(&self, _: &Everything) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Everything) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, input: &Everything, _: &RunContext<'_>) -> Result<Everything, KernelError> {
        Ok(input.clone())
    }
}

/// Takes anything and answers with a shape that tensors cannot have.
struct Ragged;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Rows {
    rows: Vec<Vec<f64>>,
}

impl Kernel for Ragged {
    type Input = Everything;
    type Output = Rows;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/ragged", "1.0.0", "Answers with rows of unequal length.")
    }

    fn validate(&self, _: &Everything) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Everything) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, _: &Everything, _: &RunContext<'_>) -> Result<Rows, KernelError> {
        Ok(Rows { rows: vec![vec![1.0], vec![1.0, 2.0]] })
    }
}

fn everything() -> Everything {
    Everything {
        flag: true,
        byte: 7,
        count: 1 << 31,
        wide: u64::MAX,
        signed: -5,
        long: i64::MIN,
        single: 1.5,
        double: std::f64::consts::PI,
        text: "Zürich".into(),
        kind: Kind::Put,
        absent: None,
        present: Some(0.5),
        edges: vec![[0, 1], [1, 2], [2, 0]],
        grid: vec![vec![1.0, 2.0], vec![3.0, 4.0]],
        floats: Buffer::from(vec![1.0, -0.0, f32::MAX]),
        longs: Buffer::from(vec![i64::MIN, 0]),
        empty: Buffer::default(),
    }
}

async fn run(id: &'static str, payload: Payload) -> Result<Payload, KernelError> {
    let registry = KernelRegistry::new();
    registry.register(Echo).unwrap();
    registry.register(Ragged).unwrap();
    registry.register(Sum { cost: Cost::default() }).unwrap();
    let response = service(registry, 1, 0).oneshot(KernelRequest::new(id, payload)).await?;
    Ok(response.payload)
}

#[tokio::test]
async fn every_type_goes_out_as_tensors_and_comes_back() {
    let json = serde_json::to_vec(&everything()).unwrap();
    let Payload::Json(same) = run("test/echo", Payload::json(json.clone())).await.unwrap() else { panic!("no JSON") };
    assert_eq!(serde_json::from_slice::<Everything>(&same).unwrap(), everything());

    let mut tensors = Tensors::new();
    let mut add = |name: &str, dtype, shape: &[usize], data: Vec<u8>| {
        tensors.insert(name, Tensor::new(dtype, shape.to_vec(), Bytes::from(data)).unwrap()).unwrap();
    };
    let this = everything();
    add("flag", DType::Bool, &[], vec![1]);
    add("byte", DType::U8, &[], vec![7]);
    add("count", DType::U32, &[], this.count.to_le_bytes().into());
    add("wide", DType::U64, &[1], this.wide.to_le_bytes().into());
    add("signed", DType::I32, &[], this.signed.to_le_bytes().into());
    add("long", DType::I64, &[], this.long.to_le_bytes().into());
    add("single", DType::F32, &[], this.single.to_le_bytes().into());
    add("double", DType::F64, &[], this.double.to_le_bytes().into());
    add("text", DType::U8, &[this.text.len()], this.text.clone().into());
    add("kind", DType::U8, &[3], b"put".to_vec());
    add("present", DType::F64, &[], 0.5_f64.to_le_bytes().into());
    add("edges", DType::U32, &[3, 2], this.edges.iter().flatten().flat_map(|n| n.to_le_bytes()).collect());
    add("grid", DType::F64, &[2, 2], this.grid.iter().flatten().flat_map(|n| n.to_le_bytes()).collect());
    add("floats", DType::F32, &[3], this.floats.iter().flat_map(|n| n.to_le_bytes()).collect());
    add("longs", DType::I64, &[2], this.longs.iter().flat_map(|n| n.to_le_bytes()).collect());
    add("empty", DType::U32, &[0], vec![]);

    let Payload::Tensors(out) = run("test/echo", tensors.clone().into()).await.unwrap() else { panic!("no tensors") };
    for (name, tensor) in tensors.iter().filter(|(name, _)| *name != "wide") {
        let back = out.get(name).unwrap_or_else(|| panic!("{name} is not there"));
        assert_eq!((back, back.data()), (tensor, tensor.data()), "{name}");
    }
    assert_eq!(out.iter().len(), tensors.iter().len(), "`absent` has no tensor");
}

#[tokio::test]
async fn what_has_no_form_as_tensors_is_an_error_that_names_it() {
    let json = serde_json::to_vec(&everything()).unwrap();
    assert!(run("test/ragged", Payload::json(json)).await.is_ok(), "JSON has ragged arrays");
    let Payload::Tensors(tensors) = run("test/echo", echo_tensors().await).await.unwrap() else { panic!("no tensors") };
    let error = run("test/ragged", tensors.into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.to_string().contains("rows: a ragged sequence"), "{error}");
}

/// `everything` as tensors, by way of the codec.
async fn echo_tensors() -> Payload {
    let mut tensors = Tensors::new();
    let scalar = |dtype: DType| Tensor::new(dtype, vec![], vec![0; dtype.size()].into()).unwrap();
    for (name, dtype) in [
        ("flag", DType::Bool),
        ("byte", DType::U8),
        ("count", DType::U32),
        ("wide", DType::U64),
        ("signed", DType::I32),
        ("long", DType::I64),
        ("single", DType::F32),
        ("double", DType::F64),
    ] {
        tensors.insert(name, scalar(dtype)).unwrap();
    }
    let array = |dtype, shape: &[usize], data: &'static [u8]| Tensor::new(dtype, shape.to_vec(), data.into()).unwrap();
    tensors.insert("text", array(DType::U8, &[1], b"x")).unwrap();
    tensors.insert("kind", array(DType::U8, &[4], b"call")).unwrap();
    tensors.insert("edges", array(DType::U32, &[1, 2], &[0; 8])).unwrap();
    tensors.insert("grid", array(DType::F64, &[1, 1], &[0; 8])).unwrap();
    for (name, dtype) in [("floats", DType::F32), ("longs", DType::I64), ("empty", DType::U32)] {
        tensors.insert(name, array(dtype, &[0], &[])).unwrap();
    }
    tensors.into()
}

#[tokio::test]
async fn a_string_that_is_no_utf8_and_a_bool_of_two_are_refused() {
    for (field, tensor) in [
        ("text", Tensor::new(DType::U8, vec![1], Bytes::from_static(&[0xff])).unwrap()),
        ("flag", Tensor::new(DType::Bool, vec![], Bytes::from_static(&[2])).unwrap()),
        ("edges[0]", Tensor::new(DType::U32, vec![1, 3], Bytes::from_static(&[0; 12])).unwrap()),
        ("kind", Tensor::new(DType::U8, vec![4], Bytes::from_static(b"sell")).unwrap()),
    ] {
        let mut tensors = Tensors::new();
        tensors.insert(field.trim_end_matches("[0]"), tensor).unwrap();
        let Err(KernelError::InvalidInput(invalid)) = run("test/echo", tensors.into()).await else { panic!("{field}") };
        assert_eq!(invalid.field, field);
    }
}

#[test]
fn a_claim_of_a_gigabyte_over_ten_bytes_is_refused_before_it_is_believed() {
    for shape in [vec![1 << 27], vec![1 << 20, 128], vec![usize::MAX, 2]] {
        assert!(Tensor::new(DType::F64, shape, Bytes::from_static(&[0; 10])).is_err());
    }
}

/// A sequence that claims more rows than there are bytes: no row has any.
#[tokio::test]
async fn rows_without_bytes_cost_nothing() {
    let mut tensors = Tensors::new();
    tensors.insert("edges", Tensor::new(DType::U32, vec![0, 2], Bytes::new()).unwrap()).unwrap();
    let Err(KernelError::InvalidInput(invalid)) = run("test/echo", tensors.into()).await else { panic!("accepted") };
    assert_ne!(invalid.field, "edges", "no edges are no error");
}

fn payload() -> impl Strategy<Value = Payload> {
    let json = prop_oneof![
        any::<Vec<u8>>(),
        "\\PC{0,60}".prop_map(String::into_bytes),
        r#"\{"numbers": ?[\[\]0-9eE,.+-]{0,40}\}?"#.prop_map(String::into_bytes),
    ];
    let dtypes = prop::sample::select(vec![DType::Bool, DType::U8, DType::U32, DType::U64, DType::F32, DType::F64]);
    let name = prop::sample::select(vec!["numbers", "scale", "other"]);
    let tensor = (name, dtypes, prop::collection::vec(0_usize..5, 0..4), any::<u8>());
    let tensors = prop::collection::vec(tensor, 0..4).prop_map(|fields| {
        let mut tensors = Tensors::new();
        for (name, dtype, shape, fill) in fields {
            let data = vec![fill; shape.iter().product::<usize>() * dtype.size()];
            // A name that came up twice is refused, which is as it should be.
            let _ = tensors.insert(name, Tensor::new(dtype, shape, data.into()).unwrap());
        }
        Payload::from(tensors)
    });
    prop_oneof![json.prop_map(Payload::json), tensors]
}

proptest! {
    #[test]
    fn any_payload_is_answered_or_refused_as_invalid(payload in payload()) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        match runtime.block_on(run("sum", payload)) {
            Ok(_) => {}
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{}", error),
        }
    }

    #[test]
    fn numbers_survive_json_and_tensors_bit_for_bit(numbers in prop::collection::vec(prop::num::f64::NORMAL, 0..50)) {
        let input = Numbers { numbers: Buffer::from(numbers.clone()), scale: None };
        let json: Numbers = serde_json::from_slice(&serde_json::to_vec(&input).unwrap()).unwrap();
        prop_assert_eq!(&json, &input);
    }
}
