//! Operands over gRPC: what clients upload and refer to, and uploads that fail or are cancelled.

use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt};
use http_body::Frame;
use http_body_util::StreamBody;
use prost::Message as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use tower::ServiceExt;
use tower_kernels::grpc::proto::put_operand_request::Part;
use tower_kernels::grpc::proto::put_operand_response::Outcome;
use tower_kernels::grpc::proto::put_operand_start::Value as Form;
use tower_kernels::grpc::{
    DeleteOperandRequest, Dtype, ExecuteRequest, ExecuteTensorsRequest, GetOperandRequest, KernelClient,
    KernelGrpcServer, ListOperandsRequest, Operand, OperandTensors, PutOperandPhase, PutOperandProgress,
    PutOperandRequest, PutOperandStart, StreamShutdown, Tensor,
};
use tower_kernels::service::{
    Bf16, Buffer, Cost, F16, HostMemory, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, OperandLimits,
    Operands, RunContext,
};

use crate::grpc::server::{Elsewhere, Running};
use crate::support::kernels::{Naps, RowDot};

const MAX_OPERAND: usize = 1 << 20;
const BETWEENNESS: &str = "graph/betweenness-centrality";

type Server = KernelGrpcServer;

async fn start(change: impl FnOnce(&mut OperandLimits)) -> (Running, Arc<KernelRegistry>) {
    start_with(change, |server| server).await
}

async fn start_with(
    limits: impl FnOnce(&mut OperandLimits),
    change: impl FnOnce(Server) -> Server,
) -> (Running, Arc<KernelRegistry>) {
    let mut operand_limits = OperandLimits::default();
    limits(&mut operand_limits);
    let registry = KernelRegistry::with_operands(Operands::new(operand_limits));
    tower_kernels::kernels::register_all(&registry).unwrap();
    let registry = Arc::new(registry);
    let server = KernelGrpcServer::new(Arc::clone(&registry)).max_operand_size(MAX_OPERAND);
    (Running::serve(change(server), Naps::default()).await, registry)
}

fn begin(name: &str, type_name: &str, value: Form) -> PutOperandStart {
    PutOperandStart { name: name.into(), r#type: type_name.into(), value: Some(value), ..Default::default() }
}

fn graph(name: &str, json: impl AsRef<[u8]>) -> PutOperandStart {
    begin(name, "graph", Form::Json(json.as_ref().to_vec().into()))
}

fn message(part: Part) -> PutOperandRequest {
    PutOperandRequest { part: Some(part) }
}

fn messages<'a>(start: PutOperandStart, chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<PutOperandRequest> {
    let chunks = chunks.into_iter().map(|chunk| message(Part::Chunk(chunk.to_vec().into())));
    [message(Part::Start(start))].into_iter().chain(chunks).collect()
}

fn of_tenant<T>(message: T, tenant: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(tenant) = tenant {
        request.metadata_mut().insert("tenant", tenant.parse().unwrap());
    }
    request
}

/// Uploads these messages, and returns the progress and what was stored.
async fn upload<S>(
    client: &mut KernelClient<Channel>,
    request: Request<S>,
) -> Result<(Vec<PutOperandProgress>, Operand), Status>
where
    S: Stream<Item = PutOperandRequest> + Send + 'static,
{
    let mut responses = client.put_operand(request).await?.into_inner();
    let mut progress = Vec::new();
    loop {
        match responses.message().await?.expect("a result before the end").outcome.unwrap() {
            Outcome::Progress(next) => progress.push(next),
            Outcome::Operand(stored) => {
                assert!(responses.message().await.unwrap().is_none(), "the result is last");
                return Ok((progress, stored));
            }
        }
    }
}

async fn put<'a>(
    client: &mut KernelClient<Channel>,
    start: PutOperandStart,
    chunks: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Operand, Status> {
    Ok(upload(client, Request::new(stream::iter(messages(start, chunks)))).await?.1)
}

fn path_of(nodes: u32) -> String {
    json!({"num_nodes": nodes, "edges": (1..nodes).map(|node| [node - 1, node]).collect::<Vec<_>>()}).to_string()
}

async fn scores(client: &mut KernelClient<Channel>, operand: &str) -> Result<Value, Status> {
    let input = json!({"graph": {"operand": operand}, "normalized": false}).to_string();
    let response = client.execute(ExecuteRequest { kernel_id: BETWEENNESS.into(), input }).await?.into_inner();
    let used = response.execution.unwrap().operands;
    assert!(matches!(&used[..], [used] if used.operand.starts_with(operand) && used.resident), "{used:?}");
    Ok(serde_json::from_str::<Value>(&response.output).unwrap()["scores"].clone())
}

async fn get(client: &mut KernelClient<Channel>, operand: &str, tenant: Option<&str>) -> Result<Operand, Status> {
    let request = of_tenant(GetOperandRequest { operand: operand.into() }, tenant);
    client.get_operand(request).await.map(tonic::Response::into_inner)
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn field_of(status: &Status) -> String {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    violations.first().map(|violation| violation.field.clone()).unwrap_or_default()
}

#[tokio::test]
async fn a_graph_is_put_in_one_or_many_chunks_and_queried_by_name() {
    let (server, registry) = start(|_| ()).await;
    let mut client = server.client().await;
    let json = path_of(4);
    let stored = put(&mut client, graph("payments", &json), []).await.unwrap();
    assert_eq!((&*stored.name, stored.version, &*stored.r#type, stored.bytes), ("payments", 1, "graph", 92));
    let summary: Value = serde_json::from_str(&stored.summary).unwrap();
    assert_eq!(summary, json!({"nodes": 4, "edges": 3, "directed": false, "weighted": false}));

    for (version, length) in [(2, json.len()), (3, 7), (4, 1)] {
        let chunks = json.as_bytes().chunks(length);
        let request = Request::new(stream::iter(messages(graph("payments", ""), chunks)));
        let (progress, stored) = upload(&mut client, request).await.unwrap();
        assert_eq!((stored.version, stored.bytes), (version, 92));
        assert!(progress.is_sorted_by_key(|progress| progress.received_bytes), "{progress:?}");
    }
    // The document begins in the first message.
    let (beginning, rest) = json.split_at(10);
    assert_eq!(put(&mut client, graph("payments", beginning), [rest.as_bytes()]).await.unwrap().version, 5);
    for _ in 0..3 {
        assert_eq!(scores(&mut client, "payments").await.unwrap(), json!([0.0, 2.0, 2.0, 0.0]));
    }
    let found = get(&mut client, "payments@5", None).await.unwrap();
    assert_eq!((found.uses, found.public), (3, false));
    let status = scores(&mut client, "payments@1").await.unwrap_err();
    assert_eq!((status.code(), &*field_of(&status)), (Code::InvalidArgument, "graph"), "{status}");

    let delete = |if_match: &[&str]| DeleteOperandRequest {
        operand: "payments".into(),
        if_match: if_match.iter().map(|&tag| tag.to_owned()).collect(),
    };
    let status = client.delete_operand(delete(&["\"1-0\""])).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
    let removed = client.delete_operand(delete(&[&found.etag])).await.unwrap().into_inner();
    assert_eq!(removed.version, 5);
    assert_eq!(get(&mut client, "payments", None).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(client.delete_operand(delete(&[])).await.unwrap_err().code(), Code::NotFound);
    assert_eq!((registry.operands().usage().versions, registry.operands().usage().bytes), (0, 0));
}

fn tensor(name: &str, dtype: Dtype, shape: &[u64], data: &[u8]) -> Tensor {
    Tensor { name: name.into(), dtype: dtype.into(), shape: shape.into(), data: data.to_vec().into() }
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn columns(data: [&[u8]; 2]) -> PutOperandStart {
    let tensors = vec![
        tensor("ids", Dtype::Uint8, &[3], data[0]),
        tensor("x", Dtype::Float32, &[2], data[1]),
        tensor("none", Dtype::Float64, &[0], &[]),
    ];
    begin("prices", "tensors", Form::Tensors(OperandTensors { tensors }))
}

#[tokio::test]
async fn tensors_are_put_in_any_chunks_and_any_array_can_refer_to_them() {
    let (server, registry) = start(|_| ()).await;
    let mut client = server.client().await;
    let (ids, x) = (vec![7, 8, 9], floats(&[1.0, 2.5]));
    let all = [&ids[..], &x[..]].concat();
    let mut tags = std::collections::BTreeSet::new();
    for (start, chunks) in [
        (columns([&ids, &x]), vec![]),
        (columns([&[], &[]]), vec![&all[..]]),
        (columns([&[], &[]]), all.chunks(1).collect()),
        (columns([&[], &[]]), all.chunks(4).collect()),
        (columns([&ids, &[]]), vec![&x[..3], &[], &x[3..]]),
        (columns([&[], &x]), vec![&ids[..]]),
    ] {
        let stored = put(&mut client, start, chunks).await.unwrap();
        tags.insert(stored.etag.split('-').nth(1).unwrap().to_owned());
        let summary: Value = serde_json::from_str(&stored.summary).unwrap();
        assert_eq!(summary["tensors"]["x"], json!({"dtype": "float32", "shape": [2]}));
    }
    assert_eq!(tags.len(), 1, "the content is the same: {tags:?}");
    for array in registry.operands().get(None, "prices").unwrap().arrays() {
        assert!(array.bytes.is_empty() || array.bytes.as_ptr().addr().is_multiple_of(8), "{}", array.name);
    }

    let input = json!({"a": 2.0, "x": {"operand": "prices/x"}, "y": {"operand": "prices@6/x"}}).to_string();
    assert_eq!(server.execute("linalg/saxpy", &input).await.unwrap(), r#"{"y":[3.0,7.5]}"#);
    // In a request of tensors, the reference is a tensor of text.
    let reference =
        |reference: &str| tensor("x.operand", Dtype::Uint8, &[reference.len() as u64], reference.as_bytes());
    let inputs = |text: &str| {
        let [a, y] = [("a", &[][..], &[2.0][..]), ("y", &[2], &[10.0, 20.0])]
            .map(|(name, shape, values)| tensor(name, Dtype::Float32, shape, &floats(values)));
        ExecuteTensorsRequest { kernel_id: "linalg/saxpy".into(), inputs: vec![a, reference(text), y] }
    };
    let output = client.execute_tensors(inputs("prices@6/x")).await.unwrap().into_inner();
    assert_eq!(output.outputs, [tensor("y", Dtype::Float32, &[2], &floats(&[12.0, 25.0]))]);
    for (text, says) in [("prices@1/x", "there is no operand `prices@1`"), ("prices", "after a slash")] {
        let status = client.execute_tensors(inputs(text)).await.unwrap_err();
        assert_eq!((status.code(), status.message().contains(says)), (Code::InvalidArgument, true), "{status}");
    }
}

#[tokio::test]
async fn vectors_are_put_in_chunks_and_queried_by_name_or_inline() {
    let (server, registry) = start(|_| ()).await;
    registry.register(RowDot).unwrap();
    let mut client = server.client().await;
    let numbers = [1.0, 2.0, 0.5, -4.0, 8.0, 0.25];
    let halves: Vec<u8> = numbers.iter().flat_map(|&n| F16::from_f32(n).to_bits().to_le_bytes()).collect();
    let brains: Vec<u8> = numbers.iter().flat_map(|&n| Bf16::from_f32(n).to_bits().to_le_bytes()).collect();
    let of = |dtype, shape: &[u64]| {
        let tensors = vec![tensor("vectors", dtype, shape, &[])];
        begin("corpus", "vectors", Form::Tensors(OperandTensors { tensors }))
    };
    let json = r#"{"vectors": [[1, 2], [0.5, -4], [8, 0.25]], "dtype": "float16"}"#;
    let from_json = begin("corpus", "vectors", Form::Json(json.into()));
    let expected = r#"{"scores":[5.0,-7.5,8.5]}"#;
    for (start, data, chunk, dtype) in [
        (of(Dtype::Float16, &[3, 2]), &halves, 3, "float16"),
        (of(Dtype::Bfloat16, &[3, 2]), &brains, 5, "bfloat16"),
        (of(Dtype::Float32, &[3, 2]), &floats(&numbers), 7, "float32"),
        (from_json, &vec![], 1, "float16"),
    ] {
        let stored = put(&mut client, start, data.chunks(chunk)).await.unwrap();
        let summary: Value = serde_json::from_str(&stored.summary).unwrap();
        assert_eq!(summary, json!({"rows": 3, "dimension": 2, "dtype": dtype}));
        let by_name = r#"{"corpus": {"operand": "corpus"}, "query": [1, 2]}"#;
        assert_eq!(server.execute("test/row-dot", by_name).await.unwrap(), expected);
        // In a request of tensors, by name only.
        let inputs = vec![
            tensor("corpus.operand", Dtype::Uint8, &[6], b"corpus"),
            tensor("query", Dtype::Float32, &[2], &floats(&[1.0, 2.0])),
        ];
        let request = ExecuteTensorsRequest { kernel_id: "test/row-dot".into(), inputs };
        let output = client.execute_tensors(request).await.unwrap().into_inner();
        assert_eq!(output.outputs, [tensor("scores", Dtype::Float32, &[3], &floats(&[5.0, -7.5, 8.5]))]);
    }
    let inline = format!(r#"{{"corpus": {json}, "query": [1, 2]}}"#);
    assert_eq!(server.execute("test/row-dot", &inline).await.unwrap(), expected);
    let data = &floats(&[1.0, f32::NAN])[..];
    for (start, data, field) in [
        (of(Dtype::Float32, &[1, 2]), data, "vectors[0][1]"),
        (of(Dtype::Float32, &[2]), data, "vectors"),
        (of(Dtype::Float64, &[1, 1]), data, "vectors"),
        // Nothing is allocated for a size that is only claimed.
        (of(Dtype::Float16, &[u64::MAX, 2]), &[], "tensors[0]"),
        (of(Dtype::Float16, &[1 << 40, 0]), &[], "vectors"),
    ] {
        let status = put(&mut client, start, [data]).await.unwrap_err();
        assert_eq!((status.code(), &*field_of(&status)), (Code::InvalidArgument, field), "{status}");
    }
    assert_eq!(registry.operands().usage().bytes, 12 + 3 * 4);
}

#[tokio::test]
async fn lists_have_pages_by_name() {
    let (server, _registry) = start(|_| ()).await;
    let mut client = server.client().await;
    for name in ["c", "a", "b"] {
        put(&mut client, graph(name, path_of(2)), []).await.unwrap();
    }
    let mut page = ListOperandsRequest { page_size: 2, page_token: String::new() };
    let first = client.list_operands(page.clone()).await.unwrap().into_inner();
    let names = |page: &[Operand]| page.iter().map(|operand| operand.name.clone()).collect::<Vec<_>>();
    assert_eq!((names(&first.operands), first.total_size), (vec!["a".to_owned(), "b".to_owned()], 3));
    page.page_token = first.next_page_token;
    let last = client.list_operands(page).await.unwrap().into_inner();
    assert_eq!((names(&last.operands), &*last.next_page_token), (vec!["c".to_owned()], ""));
    let long = ListOperandsRequest { page_size: 0, page_token: "x".repeat(200) };
    assert_eq!(field_of(&client.list_operands(long).await.unwrap_err()), "page_token");
    for (operand, field) in [("../a", "operand"), ("a/x", "operand"), (&*"x".repeat(10_000), "operand")] {
        let status = get(&mut client, operand, None).await.unwrap_err();
        assert_eq!((status.code(), &*field_of(&status)), (Code::InvalidArgument, field), "{status}");
        assert!(status.message().len() < 200, "{status}");
    }
}

#[tokio::test]
async fn a_bad_upload_leaves_the_old_version() {
    let memory = HostMemory::new(64 << 20);
    let (server, registry) = start_with(|limits| limits.max_bytes = 1000, |server| server.memory(memory.clone())).await;
    let mut client = server.client().await;
    put(&mut client, graph("payments", path_of(4)), []).await.unwrap();
    let with = |change: fn(&mut PutOperandStart)| {
        let mut start = graph("payments", path_of(4));
        change(&mut start);
        messages(start, [])
    };
    let columns = |rest| messages(PutOperandStart { name: "payments".into(), ..columns([&[], &[]]) }, [rest]);
    let json = path_of(4);
    let again = [messages(graph("payments", ""), []), messages(graph("payments", ""), [])].concat();
    let wrong = tensor("x", Dtype::Float32, &[2], &[0; 7]);
    let huge = tensor("x", Dtype::Float64, &[u64::MAX, 2], &[]);
    let many = tensor("x", Dtype::Float64, &[MAX_OPERAND as u64], &[]);
    let of = |tensor: &Tensor| {
        let tensors = OperandTensors { tensors: vec![tensor.clone()] };
        messages(begin("payments", "tensors", Form::Tensors(tensors)), [])
    };
    for (messages, code, field, says) in [
        (vec![], Code::InvalidArgument, "start", "before its first message"),
        (vec![PutOperandRequest { part: None }], Code::InvalidArgument, "part", "neither"),
        (vec![message(Part::Chunk("{}".into()))], Code::InvalidArgument, "start", "missing"),
        (again, Code::InvalidArgument, "start", "after the first"),
        (with(|start| start.value = None), Code::InvalidArgument, "value", "neither"),
        (with(|start| start.name = ".hidden".into()), Code::InvalidArgument, "operand", "starts with a dot"),
        (with(|start| start.name = "a/b".into()), Code::InvalidArgument, "operand", "a character other than"),
        (with(|start| start.name = "x".repeat(10_000)), Code::InvalidArgument, "name", "128 bytes"),
        (with(|start| start.r#type = "matrix".into()), Code::InvalidArgument, "", "tensors"),
        (with(|start| start.if_match = vec!["7".into()]), Code::InvalidArgument, "if_match[0]", "quotation"),
        (with(|start| start.if_match = vec!["\"7\"".into()]), Code::FailedPrecondition, "", "entity tag"),
        (with(|start| start.if_absent = true), Code::FailedPrecondition, "", "entity tag"),
        (with(|start| start.value = Some(Form::Json("[1]".into()))), Code::InvalidArgument, "input", ""),
        // Too few and too many bytes.
        (messages(graph("payments", &json[..30]), []), Code::InvalidArgument, "input", ""),
        (messages(graph("payments", &json), [&b"x"[..]]), Code::InvalidArgument, "input", ""),
        (columns(&[0; 10]), Code::InvalidArgument, "tensors[1]", "8 bytes"),
        (columns(&[]), Code::InvalidArgument, "tensors[0]", "3 bytes"),
        (columns(&[0; 12]), Code::InvalidArgument, "chunk", "after the end"),
        (of(&wrong), Code::InvalidArgument, "tensors[0]", "7 bytes"),
        (of(&huge), Code::InvalidArgument, "tensors[0]", "address space"),
        (of(&many), Code::OutOfRange, "", "1048576"),
        (messages(graph("payments", ""), [&[b' '; MAX_OPERAND][..], b" "]), Code::OutOfRange, "", "1048576"),
    ] {
        let status = upload(&mut client, Request::new(stream::iter(messages.clone()))).await.unwrap_err();
        let short = format!("{messages:.200?}");
        let seen = (status.code(), &*field_of(&status));
        assert_eq!(seen, (code, field), "{}: {status}", short.chars().take(200).collect::<String>());
        assert!(status.message().contains(says), "{says}: {status}");
    }
    // 507 of REST: the error has what is needed and what is free.
    let status = put(&mut client, graph("payments", path_of(100)), []).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("2396 bytes, and 908"), "{status}");
    assert_eq!(status.get_error_details().error_info().unwrap().reason, "insufficient_storage");

    let found = get(&mut client, "payments", None).await.unwrap();
    assert_eq!((found.version, registry.operands().usage().bytes), (1, 92));
    until("the memory of failed uploads is released", || memory.used() == 0).await;
}

#[tokio::test]
async fn an_upload_that_exceeds_the_budget_is_rejected_before_its_bytes_are_read() {
    let memory = HostMemory::new(2 << 20);
    let (server, registry) = start_with(
        |limits| limits.max_bytes = 2 << 20,
        |server| server.memory(memory.clone()).max_operand_size(1 << 40),
    )
    .await;
    let tensors = OperandTensors { tensors: vec![tensor("x", Dtype::Uint8, &[1 << 30], &[])] };
    let first = messages(begin("x", "tensors", Form::Tensors(tensors)), []);
    let never_ends = stream::iter(first).chain(stream::pending());
    let status = upload(&mut server.client().await, Request::new(never_ends)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted, "{status}");
    assert!(status.message().contains("needs 1073741824 bytes, and 2097152"), "{status}");
    assert_eq!(memory.peak().min(1 << 20), memory.peak(), "nothing is allocated for what was announced");
    until("the memory is released", || memory.used() == 0).await;
    assert_eq!((registry.operands().usage().bytes, registry.operands().usage().rejected), (0, 1));
}

#[tokio::test]
async fn an_operand_can_be_larger_than_the_memory_of_requests() {
    let memory = HostMemory::new(1 << 20);
    let (server, registry) =
        start_with(|_| (), |server| server.memory(memory.clone()).max_operand_size(64 << 20)).await;
    let mut client = server.client().await;
    let bytes = 8 << 20;
    let tensors = OperandTensors { tensors: vec![tensor("x", Dtype::Uint8, &[bytes], &[])] };
    let data = vec![7; bytes as usize];
    let stored = put(&mut client, begin("x", "tensors", Form::Tensors(tensors)), data.chunks(64 << 10)).await.unwrap();
    assert_eq!((stored.bytes, registry.operands().usage().bytes), (bytes, bytes));
    assert!(memory.peak() <= 1 << 20);
    // JSON is not the operand, and counts to the memory of requests.
    let json = format!(r#"{{"x": [{}1]}}"#, "1,".repeat(400_000));
    let status = put(&mut client, begin("y", "tensors", Form::Json("".into())), json.as_bytes().chunks(64 << 10)).await;
    assert_eq!(status.unwrap_err().code(), Code::OutOfRange);
    until("the memory is released", || memory.used() == 0).await;
    assert_eq!(registry.operands().usage().bytes, bytes);
}

#[tokio::test]
async fn of_several_writers_of_one_condition_one_succeeds() {
    let (server, _registry) = start(|_| ()).await;
    let channel = server.channel().await;
    let round = async |condition: fn(&mut PutOperandStart, &str), tag: String| {
        let writers = (2..10).map(|nodes| {
            let (mut client, tag) = (KernelClient::new(channel.clone()), &tag);
            async move {
                let mut start = graph("payments", "");
                condition(&mut start, tag);
                let json = path_of(nodes);
                put(&mut client, start, json.as_bytes().chunks(5))
                    .await
                    .map_or_else(|status| status.code(), |_| Code::Ok)
            }
        });
        let codes = futures::future::join_all(writers).await;
        let ok = codes.iter().filter(|code| **code == Code::Ok).count();
        assert!(codes.iter().all(|code| [Code::Ok, Code::FailedPrecondition].contains(code)), "{codes:?}");
        assert_eq!(ok, 1, "{codes:?}");
    };
    round(|start, _| start.if_absent = true, String::new()).await;
    let mut client = server.client().await;
    let tag = get(&mut client, "payments", None).await.unwrap().etag;
    round(|start, tag| start.if_match = vec![tag.to_owned()], tag).await;
    assert_eq!(get(&mut client, "payments", None).await.unwrap().version, 2);
}

#[tokio::test]
async fn tenants_do_not_learn_of_each_others_operands() {
    let (server, _registry) = start(|limits| limits.max_bytes_per_tenant = 180).await;
    let mut client = server.client().await;
    let put = async |client: &mut KernelClient<Channel>, start, tenant| {
        upload(client, of_tenant(stream::iter(messages(start, [])), Some(tenant))).await.map(|(_, stored)| stored)
    };
    put(&mut client, graph("payments", path_of(4)), "acme").await.unwrap();
    let status = put(&mut client, graph("more", path_of(8)), "acme").await.unwrap_err();
    assert!(status.code() == Code::ResourceExhausted && status.message().contains("the tenant's memory"), "{status}");
    for (tenant, total) in [(Some("acme"), 1), (Some("globex"), 0), (None, 0)] {
        let page = client.list_operands(of_tenant(ListOperandsRequest::default(), tenant)).await.unwrap().into_inner();
        assert_eq!(page.total_size, total, "{tenant:?}");
    }
    let seen = get(&mut client, "payments", Some("globex")).await.unwrap_err();
    let never = get(&mut client, "nobodys", Some("globex")).await.unwrap_err();
    assert_eq!(
        (seen.code(), seen.message().replace("payments", "nobodys")),
        (never.code(), never.message().to_owned())
    );
    let delete = DeleteOperandRequest { operand: "payments".into(), if_match: Vec::new() };
    let status = client.delete_operand(of_tenant(delete, Some("globex"))).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    let input = json!({"graph": {"operand": "payments"}}).to_string();
    for (tenant, code) in [("acme", Code::Ok), ("globex", Code::InvalidArgument)] {
        let call = ExecuteRequest { kernel_id: BETWEENNESS.into(), input: input.clone() };
        let result = client.execute(of_tenant(call, Some(tenant))).await;
        assert_eq!(result.map_or_else(|status| status.code(), |_| Code::Ok), code, "{tenant}");
    }
    let open = || PutOperandStart { public: true, ..graph("open", path_of(3)) };
    put(&mut client, open(), "acme").await.unwrap();
    assert!(get(&mut client, "open", Some("globex")).await.unwrap().public);
    assert_eq!(put(&mut client, open(), "globex").await.unwrap_err().code(), Code::AlreadyExists);
}

/// Sums its input once it is released.
struct Hold {
    started: UnboundedSender<()>,
    release: Mutex<mpsc::Receiver<()>>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Held {
    x: Buffer<f64>,
}

impl Kernel for Hold {
    type Input = Held;
    type Output = f64;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/hold", "1.0.0", "Waits, and sums its input.")
    }

    fn validate(&self, _: &Held) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Held) -> Cost {
        Cost { bytes: 1 << 40, ..Cost::default() }
    }

    fn run_cpu(&self, input: &Held, _: &RunContext<'_>) -> Result<f64, KernelError> {
        self.started.send(()).unwrap();
        self.release.lock().unwrap().recv().unwrap();
        Ok(input.x.iter().sum())
    }
}

fn hold(registry: &KernelRegistry) -> (UnboundedReceiver<()>, mpsc::Sender<()>) {
    let (started, has_started) = unbounded_channel();
    let (release, released) = mpsc::channel();
    registry.register(Hold { started, release: Mutex::new(released) }).unwrap();
    (has_started, release)
}

#[tokio::test]
async fn a_running_request_keeps_the_version_that_is_replaced() {
    let (server, registry) = start(|_| ()).await;
    let (mut started, release) = hold(&registry);
    let mut client = server.client().await;
    let value = |json: &str| begin("x", "tensors", Form::Json(json.to_owned().into()));
    put(&mut client, value(r#"{"x": [1, 2]}"#), []).await.unwrap();
    let mut other = server.client().await;
    let call = ExecuteRequest { kernel_id: "test/hold".into(), input: r#"{"x": {"operand": "x"}}"#.into() };
    let query = |call: ExecuteRequest| {
        let mut client = other.clone();
        tokio::spawn(async move { client.execute(call).await.unwrap().into_inner().output })
    };
    let running = query(call.clone());
    started.recv().await.unwrap();
    assert_eq!(put(&mut client, value(r#"{"x": [10, 20]}"#), []).await.unwrap().version, 2);
    assert_eq!(registry.operands().usage().versions, 2, "one that is used and one that replaces it");
    release.send(()).unwrap();
    assert_eq!(running.await.unwrap(), "3.0");
    until("the replaced version is freed", || registry.operands().usage().versions == 1).await;
    let running = query(call);
    started.recv().await.unwrap();
    let delete = DeleteOperandRequest { operand: "x".into(), if_match: Vec::new() };
    other.delete_operand(delete).await.unwrap();
    release.send(()).unwrap();
    assert_eq!(running.await.unwrap(), "30.0");
    until("the deleted version is freed", || registry.operands().usage().versions == 0).await;
}

/// The beginning of an upload that never ends.
fn unfinished() -> impl Stream<Item = PutOperandRequest> + Send + 'static {
    stream::iter(messages(columns([&[], &[]]), [&[0; 5][..]])).chain(stream::pending())
}

/// The frames of an upload that break off in the middle of a chunk.
fn until_reset(reset: oneshot::Receiver<()>) -> impl Stream<Item = Result<Frame<Bytes>, Status>> + Send + 'static {
    let frame = |message: PutOperandRequest| {
        let message = message.encode_to_vec();
        let length = u32::try_from(message.len()).unwrap().to_be_bytes();
        [&[0], &length[..], &message].concat()
    };
    let mut bytes: Vec<u8> =
        messages(columns([&[], &[]]), [&[0; 5][..], &[0; 6]]).into_iter().flat_map(frame).collect();
    bytes.truncate(bytes.len() - 3);
    let broken = async {
        reset.await.unwrap_err();
        Err(Status::cancelled("the client resets the stream"))
    };
    stream::iter([Ok(Frame::data(bytes.into()))]).chain(stream::once(broken))
}

#[tokio::test]
async fn a_client_that_is_gone_in_the_middle_leaves_the_old_version() {
    let memory = HostMemory::new(64 << 20);
    let (server, registry) = start_with(|_| (), |server| server.memory(memory.clone())).await;
    let mut client = server.client().await;
    put(&mut client, columns([&[1, 2, 3], &floats(&[1.0, 2.0])]), []).await.unwrap();
    until("the memory of the upload is released", || memory.used() == 0).await;
    let stored = registry.operands().usage().bytes;

    // Its process ends, and with it the connection.
    let address = server.address;
    let gone = Elsewhere::run(async move {
        let mut client = KernelClient::connect(format!("http://{address}")).await.unwrap();
        let responses = client.put_operand(unfinished()).await.unwrap();
        std::future::pending::<()>().await;
        drop(responses);
    });
    until("the bytes arrive", || registry.operands().usage().bytes > stored).await;
    drop(gone);
    until("the upload ends", || registry.operands().usage().bytes == stored && memory.used() == 0).await;

    // It resets the stream within a chunk, and the connection stays.
    let channel = server.channel().await;
    let (reset, is_reset) = oneshot::channel::<()>();
    let request = http::Request::post(format!("http://{address}/tower_kernels.v1.Kernel/PutOperand"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(StreamBody::new(until_reset(is_reset))))
        .unwrap();
    let response = channel.clone().oneshot(request).await.unwrap();
    until("the bytes arrive", || registry.operands().usage().bytes > stored).await;
    drop(reset);
    until("the upload ends", || registry.operands().usage().bytes == stored && memory.used() == 0).await;
    drop(response);

    let mut client = KernelClient::new(channel);
    assert_eq!(get(&mut client, "prices", None).await.unwrap().version, 1);
    assert_eq!((registry.operands().usage().versions, registry.operands().usage().bytes), (1, 11));
}

#[tokio::test]
async fn a_deadline_in_the_middle_ends_the_upload() {
    let limit = |server: Server| server.operand_timeout(Duration::from_millis(200));
    for (limit, timeout) in [(limit as fn(Server) -> Server, None), (|server| server, Some("300m"))] {
        let (server, registry) = start_with(|_| (), limit).await;
        let mut request = Request::new(unfinished());
        if let Some(timeout) = timeout {
            request.metadata_mut().insert("grpc-timeout", timeout.parse().unwrap());
        }
        let mut responses = server.patient_client().put_operand(request).await.unwrap().into_inner();
        let mut last = 0;
        let status = loop {
            match responses.message().await {
                Ok(response) => match response.unwrap().outcome.unwrap() {
                    Outcome::Progress(progress) => {
                        assert_eq!(progress.phase(), PutOperandPhase::Receiving);
                        last = progress.received_bytes;
                    }
                    Outcome::Operand(stored) => panic!("{stored:?}"),
                },
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
        assert!([0, 5].contains(&last), "{last}");
        until("the memory is released", || registry.operands().usage().bytes == 0).await;
        assert_eq!(registry.operands().usage().stored, 0);
    }
}

#[tokio::test]
async fn progress_says_how_many_bytes_have_arrived() {
    let (server, _registry) = start(|_| ()).await;
    let (send, chunks) = tokio::sync::mpsc::unbounded_channel();
    let chunks = stream::unfold(chunks, |mut chunks| async { chunks.recv().await.map(|chunk| (chunk, chunks)) });
    let mut responses = server.client().await.put_operand(chunks).await.unwrap().into_inner();
    let data = [&[7, 8, 9][..], &floats(&[1.0, 2.5])].concat();
    let mut parts = messages(columns([&[], &[]]), data.chunks(6)).into_iter();
    send.send(parts.next().unwrap()).unwrap();
    for bytes in [6, 11] {
        send.send(parts.next().unwrap()).unwrap();
        loop {
            let response = responses.message().await.unwrap().unwrap();
            let Some(Outcome::Progress(progress)) = response.outcome else { panic!("{response:?}") };
            if progress.received_bytes == bytes {
                assert_eq!(progress.phase(), PutOperandPhase::Receiving);
                break;
            }
            assert!(progress.received_bytes < bytes, "{progress:?}");
        }
    }
    drop(send);
    let stored = loop {
        match responses.message().await.unwrap().unwrap().outcome.unwrap() {
            Outcome::Progress(progress) => assert_eq!(progress.phase(), PutOperandPhase::Building),
            Outcome::Operand(stored) => break stored,
        }
    };
    assert_eq!((&*stored.name, stored.bytes), ("prices", 11));
}

#[tokio::test]
async fn a_client_that_never_reads_its_progress_stores_its_operand() {
    let (server, registry) = start(|_| ()).await;
    let json = path_of(1000);
    let chunks = json.as_bytes().chunks(1);
    let mut client = server.client().await;
    let responses = client.put_operand(stream::iter(messages(graph("payments", ""), chunks))).await.unwrap();
    until("it is stored", || registry.operands().get(None, "payments").is_some()).await;
    drop(responses);
    assert_eq!(get(&mut client, "payments", None).await.unwrap().version, 1);
}

#[tokio::test]
async fn a_server_that_stops_ends_uploads_that_have_not_arrived() {
    let shutdown = StreamShutdown::new();
    let handle = shutdown.clone();
    let (server, registry) = start_with(|_| (), |server| server.stream_shutdown(handle)).await;
    let mut responses = server.client().await.put_operand(unfinished()).await.unwrap().into_inner();
    responses.message().await.unwrap().unwrap();
    shutdown.end_streams();
    let status = loop {
        match responses.message().await {
            Ok(response) => assert!(matches!(response.unwrap().outcome, Some(Outcome::Progress(_)))),
            Err(status) => break status,
        }
    };
    assert_eq!(status.code(), Code::Unavailable, "{status}");
    assert_eq!(registry.operands().usage().stored, 0);
}
