//! What is answered when all goes well.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use tonic::{Code, Request};
use tower_kernels::error::{Classify, ErrorKind};
use tower_kernels::grpc::proto::execute_stream_request::Call;
use tower_kernels::grpc::{
    Dtype, ExecuteRequest, ExecuteStreamRequest, ExecuteTensorsRequest, GetKernelRequest, GrpcConfig, KernelClient,
    ListKernelsRequest, Mode, Tensor,
};
use tower_kernels::request::{BackendKind, Execution, Priority};
use tower_kernels::service::{KernelRequest, KernelResponse, Payload};

use crate::grpc::server::Running;

/// The client of the page that the public names come from, word for word.
async fn seed_page(url: String, input: serde_json::Value) -> Result<String, Box<dyn std::error::Error>> {
    let mut client = KernelClient::connect(url).await?;

    let request = tonic::Request::new(ExecuteRequest {
        kernel_id: "graph/betweenness-centrality".to_string(),
        input: serde_json::to_string(&input)?,
    });

    let response = client.execute(request).await?;
    Ok(response.into_inner().output)
}

#[tokio::test]
async fn the_documented_client_gets_its_response() {
    let server = Running::start().await;
    let input = serde_json::json!({"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3]], "normalized": true});
    let output = seed_page(format!("http://{}", server.address), input).await.unwrap();
    let output: serde_json::Value = serde_json::from_str(&output).unwrap();
    let scores: Vec<f64> = serde_json::from_value(output["scores"].clone()).unwrap();
    for (score, golden) in scores.iter().zip([0.0, 2.0 / 3.0, 2.0 / 3.0, 0.0]) {
        assert!((score - golden).abs() < 1e-6, "{scores:?}");
    }
    assert_eq!(scores.len(), 4);
}

fn tensor(name: &str, dtype: Dtype, shape: &[u64], data: &[u8]) -> Tensor {
    Tensor { name: name.into(), dtype: dtype.into(), shape: shape.into(), data: data.to_vec().into() }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

#[tokio::test]
async fn tensors_in_give_tensors_out() {
    let server = Running::start().await;
    let inputs = vec![
        tensor("a", Dtype::Float32, &[], &floats(&[2.0])),
        tensor("x", Dtype::Float32, &[2], &floats(&[1.0, 2.0])),
        tensor("y", Dtype::Float32, &[2], &floats(&[10.0, 20.0])),
    ];
    let request = ExecuteTensorsRequest { kernel_id: "linalg/saxpy".into(), inputs };
    let response = server.client().await.execute_tensors(request).await.unwrap().into_inner();
    assert_eq!(response.outputs, [tensor("y", Dtype::Float32, &[2], &floats(&[12.0, 24.0]))]);
    assert_eq!(response.execution.unwrap().batch_size, 1);
}

#[tokio::test]
async fn invalid_tensors_are_rejected_by_name() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let good = || tensor("x", Dtype::Float32, &[1], &floats(&[1.0]));
    for inputs in [
        vec![tensor("x", Dtype::Float32, &[u64::MAX, 8], &[])],
        vec![tensor("x", Dtype::Float32, &[2], &[0; 4])],
        vec![tensor("x", Dtype::Unspecified, &[4], &[0; 4])],
        vec![Tensor { dtype: 99, ..good() }],
        vec![good(), good()],
    ] {
        let request = ExecuteTensorsRequest { kernel_id: "linalg/saxpy".into(), inputs: inputs.clone() };
        let status = client.execute_tensors(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{inputs:?}: {status}");
        assert!(status.message().contains('x'), "{status}");
    }
}

#[tokio::test]
async fn kernels_are_listed_by_page_and_described_by_any_name() {
    let server = Running::start().await;
    let mut client = server.client().await;
    let all = client.list_kernels(ListKernelsRequest::default()).await.unwrap().into_inner();
    let ids: Vec<_> = all.kernels.iter().map(|kernel| kernel.id.clone()).collect();
    assert!(ids.is_sorted() && ids.iter().any(|id| id == "linalg/saxpy"), "{ids:?}");
    assert_eq!((all.total_size as usize, all.next_page_token.as_str()), (ids.len(), ""));

    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        let request = ListKernelsRequest { page_size: 2, page_token: token, ..Default::default() };
        let page = client.list_kernels(request).await.unwrap().into_inner();
        assert!(page.kernels.len() <= 2 && page.total_size == all.total_size);
        paged.extend(page.kernels.into_iter().map(|kernel| kernel.id));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(paged, ids);

    let rings = ListKernelsRequest { mode: Mode::Ring.into(), ..Default::default() };
    let rings = client.list_kernels(rings).await.unwrap().into_inner().kernels;
    assert!(!rings.is_empty() && rings.iter().all(|kernel| kernel.mode() == Mode::Ring));
    let domain = ListKernelsRequest { domain: "test".into(), ..Default::default() };
    assert_eq!(client.list_kernels(domain).await.unwrap().into_inner().kernels[0].id, "test/nap");
    let unknown = ListKernelsRequest { mode: 9, ..Default::default() };
    assert_eq!(client.list_kernels(unknown).await.unwrap_err().code(), Code::InvalidArgument);

    let kernel = client.get_kernel(GetKernelRequest { kernel_id: "nap".into() }).await.unwrap().into_inner();
    assert_eq!((kernel.id.as_str(), kernel.domain.as_str(), kernel.mode()), ("test/nap", "test", Mode::Batch));
    let schema: serde_json::Value = serde_json::from_str(&kernel.input_schema).unwrap();
    assert!(schema["properties"]["millis"].is_object(), "{schema}");
    let missing = client.get_kernel(GetKernelRequest { kernel_id: "no/such".into() }).await.unwrap_err();
    assert_eq!(missing.code(), Code::NotFound);
}

#[tokio::test]
async fn an_alias_reaches_the_pipeline_as_the_id() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&seen);
    let service = tower::service_fn(move |request: KernelRequest| {
        sink.lock().unwrap().push(request.kernel_id.into_owned());
        async { Ok::<_, Never>(KernelResponse::new(Payload::json("1"), Execution::new("CPU"))) }
    });
    let server = Running::over(service, GrpcConfig::default()).await;
    let json = || ExecuteRequest { kernel_id: "nap".into(), input: "1".into() };
    let tensors = ExecuteTensorsRequest { kernel_id: "rest/nap".into(), inputs: Vec::new() };
    let mut client = server.client().await;
    let response = client.execute(json()).await.unwrap().into_inner();
    assert_eq!(response.kernel_id, "nap", "as in the request");
    // The output is JSON, which these calls do not take.
    client.execute_tensors(tensors).await.unwrap_err();
    let call = ExecuteStreamRequest { tag: 1, timeout_ms: 0, call: Some(Call::Json(json())) };
    let mut responses = client.execute_stream(futures::stream::iter([call])).await.unwrap().into_inner();
    responses.message().await.unwrap().unwrap();
    assert_eq!(*seen.lock().unwrap(), ["test/nap"; 3]);
}

#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("no error")]
struct Never;

impl Classify for Never {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

#[tokio::test]
async fn metadata_reaches_the_request() {
    let seen: Arc<Mutex<Vec<KernelRequest>>> = Arc::default();
    let seer = Arc::clone(&seen);
    let pipeline = tower::service_fn(move |request: KernelRequest| {
        seer.lock().unwrap().push(request);
        std::future::ready(Ok::<_, Never>(KernelResponse::new(Payload::json("{}"), Execution::new("CPU"))))
    });
    let server = Running::over(pipeline, GrpcConfig::default()).await;
    let mut client = server.client().await;

    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let call = ExecuteRequest { kernel_id: "a/b".into(), input: "{}".into() };
    let mut request = Request::new(call.clone());
    for (key, value) in [
        ("traceparent", trace),
        ("tracestate", "vendor=1"),
        ("tenant", "acme"),
        ("priority", "high"),
        ("backend", "cuda"),
        ("x-request-id", "r7"),
    ] {
        request.metadata_mut().insert(key, value.parse().unwrap());
    }
    request.set_timeout(std::time::Duration::from_secs(9));
    assert_eq!(client.execute(request).await.unwrap().into_inner().request_id, "r7");

    let mut request = Request::new(call.clone());
    request.metadata_mut().insert("traceparent", "nonsense".parse().unwrap());
    assert!(client.execute(request).await.unwrap().into_inner().request_id.starts_with("req-"));

    for (key, value) in [("priority", "urgent"), ("backend", "tpu")] {
        let mut request = Request::new(call.clone());
        request.metadata_mut().insert(key, value.parse().unwrap());
        let status = client.execute(request).await.unwrap_err();
        assert_eq!((status.code(), status.message().contains(key)), (Code::InvalidArgument, true));
    }

    let seen = seen.lock().unwrap();
    let [first, second] = &**seen else { panic!("{} requests", seen.len()) };
    assert_eq!((first.tenant.as_deref(), first.priority), (Some("acme"), Priority::High));
    assert_eq!((first.backend(), second.backend()), (Some(BackendKind::Cuda), None));
    let context = first.trace.as_deref().unwrap();
    assert_eq!((context.to_string().as_str(), context.state()), (trace, Some("vendor=1")));
    let left = first.deadline.unwrap().duration_since(Instant::now()).as_millis();
    assert!((4000..9000).contains(&left), "{left} ms");
    assert!(first.extensions.get::<tonic::transport::server::TcpConnectInfo>().is_some());
    assert_eq!((second.tenant.as_deref(), second.priority), (None, Priority::Normal));
    assert!(second.trace.is_none() && second.deadline.is_some());
}
