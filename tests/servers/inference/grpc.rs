use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tower_kernels::grpc::inference::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use tower_kernels::grpc::inference::proto::infer_parameter::ParameterChoice;
use tower_kernels::grpc::inference::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use tower_kernels::grpc::inference::proto::*;

use super::rest_client::f32s;
use crate::grpc::server::Running;

pub(super) type Client = GrpcInferenceServiceClient<Channel>;

pub(super) async fn client(server: &Running) -> Client {
    Client::new(server.channel().await)
}

pub(super) fn parameters(
    values: impl IntoIterator<Item = (&'static str, ParameterChoice)>,
) -> HashMap<String, InferParameter> {
    let parameter = |(name, value): (&str, _)| (name.to_owned(), InferParameter { parameter_choice: Some(value) });
    values.into_iter().map(parameter).collect()
}

pub(super) fn input(
    name: &str,
    datatype: &str,
    shape: &[i64],
    contents: Option<InferTensorContents>,
) -> InferInputTensor {
    let (name, datatype, shape) = (name.to_owned(), datatype.to_owned(), shape.to_vec());
    InferInputTensor { name, datatype, shape, contents, ..Default::default() }
}

fn floats(values: &[f32]) -> Option<InferTensorContents> {
    Some(InferTensorContents { fp32_contents: values.to_vec(), ..Default::default() })
}

/// A request for `2 x + y`, of two elements, with raw contents.
pub(super) fn saxpy() -> ModelInferRequest {
    ModelInferRequest {
        model_name: "linalg.saxpy".to_owned(),
        id: "mine".to_owned(),
        inputs: vec![input("a", "FP32", &[1], None), input("x", "FP32", &[2], None), input("y", "FP32", &[2], None)],
        raw_input_contents: [&[2.0][..], &[1.0, 2.0], &[10.0, 20.0]].map(|values| f32s(values).into()).into(),
        ..Default::default()
    }
}

pub(super) fn nap(millis: u64, parameters: HashMap<String, InferParameter>) -> ModelInferRequest {
    ModelInferRequest {
        model_name: "test.nap".to_owned(),
        id: millis.to_string(),
        parameters,
        inputs: vec![input("millis", "UINT64", &[1], None)],
        raw_input_contents: vec![Bytes::copy_from_slice(&millis.to_le_bytes())],
        ..Default::default()
    }
}

pub(super) async fn infer(server: &Running, request: ModelInferRequest) -> Result<ModelInferResponse, Status> {
    client(server).await.model_infer(request).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn the_server_and_its_models_describe_themselves() {
    let server = Running::start().await;
    let mut client = client(&server).await;
    assert!(client.server_live(ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let described = client.server_metadata(ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(described.name, "tower-kernels");
    for (name, version) in [("linalg.saxpy", ""), ("linalg/saxpy", "1")] {
        let (name, version) = (name.to_owned(), version.to_owned());
        let request = ModelReadyRequest { name: name.clone(), version: version.clone() };
        assert!(client.model_ready(request).await.unwrap().into_inner().ready);
        let request = ModelMetadataRequest { name: name.clone(), version: version.clone() };
        let model = client.model_metadata(request).await.unwrap().into_inner();
        assert_eq!((&model.name, &model.versions[..], model.inputs.len()), (&name, &["1".to_owned()][..], 3));
        assert_eq!((&*model.inputs[1].datatype, &model.inputs[1].shape[..]), ("FP32", &[-1][..]));
        let request = ModelConfigRequest { name: name.clone(), version };
        let config = client.model_config(request).await.unwrap().into_inner().config.unwrap();
        assert_eq!((config.max_batch_size, config.input[0].data_type()), (0, DataType::TypeFp32));
    }
    for (name, version) in [("unknown", ""), ("linalg.saxpy", "2"), ("", ""), ("orderbook.matching", "")] {
        let request = ModelMetadataRequest { name: name.to_owned(), version: version.to_owned() };
        assert_eq!(client.model_metadata(request).await.unwrap_err().code(), Code::NotFound, "{name} {version}");
    }
    let index = client.repository_index(RepositoryIndexRequest::default()).await.unwrap().into_inner();
    assert!(index.models.iter().any(|model| model.name == "linalg/saxpy" && model.state == "READY"));

    server.health.set_serving(false).await;
    assert!(!client.server_ready(ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let request = ModelReadyRequest { name: "linalg.saxpy".to_owned(), ..Default::default() };
    assert!(!client.model_ready(request).await.unwrap().into_inner().ready);
}

#[tokio::test]
async fn raw_and_typed_contents_have_the_same_outputs() {
    let server = Running::start().await;
    let raw = infer(&server, saxpy()).await.unwrap();
    assert_eq!((&*raw.model_name, &*raw.model_version, &*raw.id), ("linalg.saxpy", "1", "mine"));
    let output = &raw.outputs[0];
    assert_eq!((&*output.name, &*output.datatype, &output.shape[..]), ("y", "FP32", &[2][..]));
    assert_eq!(raw.raw_output_contents, [f32s(&[12.0, 24.0])]);
    let typed = ModelInferRequest {
        inputs: vec![
            input("a", "FP32", &[1], floats(&[2.0])),
            input("x", "FP32", &[2], floats(&[1.0, 2.0])),
            input("y", "FP32", &[2], floats(&[10.0, 20.0])),
        ],
        raw_input_contents: Vec::new(),
        ..saxpy()
    };
    assert_eq!(infer(&server, typed).await.unwrap().raw_output_contents, raw.raw_output_contents);

    // Every type of contents, and parameters as inputs.
    let one = |name: &str, value: f64| {
        input(name, "FP64", &[1], Some(InferTensorContents { fp64_contents: vec![value], ..Default::default() }))
    };
    let text = InferTensorContents { bytes_contents: vec![Bytes::from_static(b"put")], ..Default::default() };
    let bytes = InferTensorContents { uint_contents: vec![1], ..Default::default() };
    let mut outputs = Vec::new();
    for kind in [input("kind", "BYTES", &[1], Some(text)), input("kind", "UINT8", &[1], Some(bytes))] {
        let request = ModelInferRequest {
            model_name: "risk/option-pricing".to_owned(),
            inputs: vec![
                one("spot", 100.0),
                one("strike", 90.0),
                one("rate", 0.05),
                one("volatility", 0.2),
                one("time", 1.0),
                kind,
            ],
            outputs: vec![
                InferRequestedOutputTensor { name: "rho".to_owned(), ..Default::default() },
                InferRequestedOutputTensor { name: "price".to_owned(), ..Default::default() },
            ],
            ..Default::default()
        };
        let response = infer(&server, request).await.unwrap();
        assert_eq!([&*response.outputs[0].name, &*response.outputs[1].name], ["rho", "price"]);
        outputs.push(response.raw_output_contents);
    }
    assert_eq!(outputs[0], outputs[1]);
    let edges = InferTensorContents { uint_contents: vec![0, 1, 1, 2], ..Default::default() };
    let request = ModelInferRequest {
        model_name: "graph.pagerank".to_owned(),
        inputs: vec![input("edges", "UINT32", &[2, 2], Some(edges))],
        parameters: parameters([
            ("num_nodes", ParameterChoice::Int64Param(3)),
            ("damping", ParameterChoice::DoubleParam(0.5)),
            ("directed", ParameterChoice::BoolParam(true)),
        ]),
        ..Default::default()
    };
    let response = infer(&server, request).await.unwrap();
    let scores = response.outputs.iter().position(|output| output.name == "scores").unwrap();
    assert_eq!(response.raw_output_contents[scores].len(), 24);
    let converged = response.outputs.iter().find(|output| output.name == "converged").unwrap();
    assert_eq!((&*converged.datatype, &converged.shape[..]), ("BOOL", &[1][..]));
}

#[tokio::test]
async fn malformed_requests_are_rejected_by_the_field() {
    let server = Running::start().await;
    let with = |change: &dyn Fn(&mut ModelInferRequest)| {
        let mut request = saxpy();
        change(&mut request);
        request
    };
    let output = |name: &str| InferRequestedOutputTensor { name: name.to_owned(), ..Default::default() };
    let cases: [(&str, ModelInferRequest); 19] = [
        ("shape", with(&|request| request.inputs[1].shape = vec![-1])),
        ("inputs[1]", with(&|request| request.inputs[1].shape = vec![3])),
        ("inputs[1]", with(&|request| request.inputs[1].shape = vec![i64::MAX, i64::MAX])),
        ("datatype", with(&|request| request.inputs[1].datatype = "INT16".to_owned())),
        ("contents", with(&|request| request.inputs[1].contents = floats(&[1.0, 2.0]))),
        ("raw_input_contents", with(&|request| request.raw_input_contents.push(Bytes::new()))),
        ("inputs[2]", with(&|request| drop(request.raw_input_contents.pop()))),
        ("twice", with(&|request| request.outputs = vec![output("y"), output("y")])),
        ("unknown", with(&|request| request.outputs = vec![output("unknown")])),
        ("inputs[1]", with(&|request| request.inputs[1].name = "a".to_owned())),
        ("name", with(&|request| request.inputs[1].name = "a\nb".to_owned())),
        (
            "sequence_id",
            with(&|request| request.parameters = parameters([("sequence_id", ParameterChoice::Int64Param(1))])),
        ),
        ("triton_x", with(&|request| request.parameters = parameters([("triton_x", ParameterChoice::Int64Param(1))]))),
        ("unknown", with(&|request| request.parameters = parameters([("unknown", ParameterChoice::BoolParam(true))]))),
        (
            "shared memory",
            with(&|request| {
                request.inputs[0].parameters =
                    parameters([("shared_memory_region", ParameterChoice::StringParam("a".to_owned()))]);
            }),
        ),
        ("BYTES", with(&|request| request.inputs[1].datatype = "BYTES".to_owned())),
        (
            "contents",
            with(&|request| {
                request.raw_input_contents.clear();
                request.inputs[0] = input("a", "FP16", &[1], floats(&[2.0]));
            }),
        ),
        (
            "contents",
            with(&|request| {
                request.raw_input_contents.clear();
                request.inputs[0] = input("a", "FP64", &[1], floats(&[2.0]));
            }),
        ),
        ("id", with(&|request| request.id = "a\nb".to_owned())),
    ];
    for (part, request) in cases {
        let status = infer(&server, request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{part}: {status}");
        assert!(status.message().contains(part), "{part}: {status}");
    }
    let unknown = with(&|request| request.model_name = "unknown".to_owned());
    assert_eq!(infer(&server, unknown).await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test]
async fn the_timeout_is_the_deadline_and_requests_are_counted() {
    let server = Running::start().await;
    let began = Instant::now();
    let late = nap(10_000, parameters([("timeout", ParameterChoice::Uint64Param(50_000))]));
    assert_eq!(infer(&server, late).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert!(began.elapsed() < Duration::from_secs(5));
    infer(&server, nap(1, HashMap::new())).await.unwrap();
    let request = ModelStatisticsRequest { name: "test.nap".to_owned(), ..Default::default() };
    let statistics = client(&server).await.model_statistics(request).await.unwrap().into_inner();
    let of_nap = statistics.model_stats[0].inference_stats.as_ref().unwrap();
    assert_eq!((of_nap.success.as_ref().unwrap().count, of_nap.fail.as_ref().unwrap().count), (1, 1));
    assert!(of_nap.compute_infer.as_ref().unwrap().ns >= 1_000_000);
    let all = client(&server).await.model_statistics(ModelStatisticsRequest::default()).await.unwrap().into_inner();
    assert!(all.model_stats.len() > 30);
}

#[tokio::test]
async fn a_stream_has_a_response_for_each_request_in_their_order() {
    let server = Running::start().await;
    let requests = [
        nap(200, HashMap::new()),
        saxpy(),
        nap(0, parameters([("unknown", ParameterChoice::BoolParam(true))])),
        nap(1, HashMap::new()),
    ];
    let responses =
        client(&server).await.model_stream_infer(futures::stream::iter(requests)).await.unwrap().into_inner();
    let responses: Vec<_> = responses.map(Result::unwrap).collect().await;
    let ids: Vec<_> =
        responses.iter().map(|response| response.infer_response.as_ref().map(|response| &*response.id)).collect();
    assert_eq!(ids, [Some("200"), Some("mine"), None, Some("1")]);
    let failed: Vec<_> = responses.iter().map(|response| response.error_message.contains("unknown")).collect();
    assert_eq!(failed, [false, false, true, false]);
    let parameters = &responses[0].infer_response.as_ref().unwrap().parameters;
    assert_eq!(parameters["triton_final_response"].parameter_choice, Some(ParameterChoice::BoolParam(true)));
}

#[tokio::test]
async fn a_client_that_leaves_cancels_the_requests_of_its_stream() {
    let server = Running::start().await;
    let requests = futures::stream::iter((0..2).map(|_| nap(60_000, HashMap::new()))).chain(futures::stream::pending());
    let mut client = client(&server).await;
    let stream = client.model_stream_infer(requests).await.unwrap();
    server.naps.until(2).await;
    drop(stream);
    server.naps.until(0).await;
    assert_eq!(server.naps.done(), 0);
}

#[tokio::test]
async fn a_stream_ends_at_its_deadline() {
    let server = Running::start().await;
    let mut client = client(&server).await;
    let requests = futures::stream::iter([nap(60_000, HashMap::new())]).chain(futures::stream::pending());
    let mut request = tonic::Request::new(requests);
    request.set_timeout(Duration::from_millis(300));
    let mut responses = client.model_stream_infer(request).await.unwrap().into_inner();
    // The request has the same deadline, so that its response can come first.
    let status = loop {
        match responses.message().await {
            Ok(response) => assert!(!response.unwrap().error_message.is_empty()),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    server.naps.until(0).await;
}
