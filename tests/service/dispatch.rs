use bytes::Bytes;
use tower::{Service, ServiceExt};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::service::{
    Buffer, Cost, DType, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest, KernelResponse,
    Payload, RunContext, Tensor, Tensors,
};

use crate::kernels::{LARGE, Nothing, Numbers, Panics, Sum, Total, service};

async fn call(cost: Cost, id: &'static str, payload: Payload) -> Result<KernelResponse, KernelError> {
    let registry = KernelRegistry::new();
    registry.register(Sum { cost }).unwrap();
    service(registry, 1, 0).oneshot(KernelRequest::new(id, payload)).await
}

fn tensors(fields: impl IntoIterator<Item = (&'static str, Tensor)>) -> Payload {
    let mut tensors = Tensors::new();
    for (name, tensor) in fields {
        tensors.insert(name, tensor).unwrap();
    }
    tensors.into()
}

fn f64s(shape: Vec<usize>, elements: &[f64]) -> Tensor {
    let data: Vec<u8> = elements.iter().flat_map(|element| element.to_le_bytes()).collect();
    Tensor::new(DType::F64, shape, data.into()).unwrap()
}

#[tokio::test]
async fn every_encoding_reaches_the_kernel_inline_and_on_a_lane() {
    for cost in [Cost::default(), LARGE] {
        let json = call(cost, "sum", Payload::json(r#"{"numbers": [1, 2.5], "scale": 2}"#)).await.unwrap();
        let Payload::Json(output) = json.payload else { panic!("JSON was asked for") };
        assert_eq!(output, r#"{"total":7.0}"#);

        let named = tensors([("numbers", f64s(vec![2], &[1.0, 2.5])), ("scale", f64s(vec![], &[2.0]))]);
        let Payload::Tensors(output) = call(cost, "sum", named).await.unwrap().payload else { panic!("no tensors") };
        assert_eq!(output.get("total").unwrap(), &f64s(vec![], &[7.0]));

        let typed = Payload::typed(Numbers { numbers: Buffer::from(vec![1.0, 2.5]), scale: Some(2.0) });
        let response = call(cost, "sum", typed).await.unwrap();
        assert_eq!(*response.payload.downcast::<Total>().unwrap(), Total { total: 7.0 });
        assert_eq!((response.execution.backend, response.execution.batch_size), ("CPU", 1));
        assert_eq!(response.execution.estimated.is_zero(), cost == Cost::default());
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_request_is_said_by_kind_and_field() {
    let wide = Tensor::new(DType::F32, vec![2], Bytes::from_static(&[0; 8])).unwrap();
    for cost in [Cost::default(), LARGE] {
        let cases = [
            (Payload::json("{"), "input"),
            (Payload::json(r#"{"numbers": [1, "2"]}"#), "numbers[1]"),
            (Payload::json(r#"{"numbers": [1], "sclae": 1}"#), "sclae"),
            (Payload::json(format!(r#"{{"numbers": {}"#, "[".repeat(1 << 20))), "numbers[0]"),
            (Payload::json("[".repeat(1 << 20)), "input"),
            (tensors([("scale", f64s(vec![], &[1.0]))]), "numbers"),
            (tensors([("numbers", wide.clone())]), "numbers"),
            (tensors([("numbers", f64s(vec![1, 2], &[1.0, 2.0]))]), "numbers"),
            (tensors([("numbers", f64s(vec![2], &[1.0, f64::NAN]))]), "numbers[1]"),
            (tensors([("numbers", f64s(vec![1], &[1.0])), ("x", f64s(vec![], &[1.0]))]), "x"),
            (Payload::typed(1_u8), "input"),
        ];
        for (payload, field) in cases {
            let what = format!("{payload:?}");
            let error = call(cost, "test/sum", payload).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{what:.80}: {error}");
            let KernelError::InvalidInput(invalid) = error else { panic!("{what:.80}: {error}") };
            assert_eq!(invalid.field, field, "{what:.80}: {invalid}");
        }
    }
}

#[tokio::test]
async fn an_unknown_kernel_is_not_found_and_the_slot_stays_for_the_next_call() {
    let registry = KernelRegistry::new();
    registry.register(Sum { cost: Cost::default() }).unwrap();
    let mut service = service(registry, 1, 0);
    let unknown = KernelRequest::new("test/none", Payload::json("{}"));
    let error = service.ready().await.unwrap().call(unknown).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("test/none")), (ErrorKind::NotFound, true));
    let known = KernelRequest::new("sum", Payload::json(r#"{"numbers": []}"#));
    service.ready().await.unwrap().call(known).await.unwrap();
    assert_eq!(tower::load::Load::load(&service).jobs, 0);
}

#[tokio::test]
async fn a_panic_is_an_error_to_its_caller_and_nobody_else() {
    for cost in [Cost::default(), LARGE] {
        let registry = KernelRegistry::new();
        registry.register(Sum { cost }).unwrap();
        registry.register(Panics { cost, twice: false }).unwrap();
        let mut service = service(registry, 1, 0);
        for _ in 0..3 {
            let request = KernelRequest::new("test/panics", Payload::typed(Nothing {}));
            let error = service.ready().await.unwrap().call(request).await.unwrap_err();
            assert!(matches!(&error, KernelError::Panicked { message } if message == "as it was told to"), "{error}");
            let request = KernelRequest::new("sum", Payload::json(r#"{"numbers": [1]}"#));
            service.ready().await.unwrap().call(request).await.unwrap();
        }
        assert_eq!(tower::load::Load::load(&service).jobs, 0);
    }
}

struct Resident;

impl Kernel for Resident {
    type Input = Nothing;
    type Output = Total;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/resident", "1.0.0", "Stays.").ring()
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost::default()
    }
}

/// Says that it has CPU code, and has none.
struct Hollow;

impl Kernel for Hollow {
    type Input = Nothing;
    type Output = Total;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/hollow", "1.0.0", "Has no code.")
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost::default()
    }

    fn run_cpu(&self, _: &Nothing, context: &RunContext<'_>) -> Result<Total, KernelError> {
        context.check()?;
        Err(KernelError::kernel("no code, and it says so itself"))
    }
}

#[tokio::test]
async fn a_ring_kernel_is_described_and_not_executed() {
    let registry = KernelRegistry::new();
    registry.register(Resident).unwrap();
    registry.register(Hollow).unwrap();
    assert_eq!(serde_json::to_value(registry.describe("test/resident").unwrap()).unwrap()["mode"], "ring");
    let mut service = service(registry, 1, 0);
    let request = KernelRequest::new("test/resident", Payload::json("{}"));
    let error = service.ready().await.unwrap().call(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("needs a ring runtime"), "{error}");

    let request = KernelRequest::new("test/hollow", Payload::json("{}"));
    let error = service.ready().await.unwrap().call(request).await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert_eq!((error.kind(), source.to_string().as_str()), (ErrorKind::Internal, "no code, and it says so itself"));
}
