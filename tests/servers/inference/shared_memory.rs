//! Tensors in shared memory, over both servers, and clients that misuse it.

use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Extension;
use serde_json::{Value, json};
use tonic::Code;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::grpc::KernelGrpcServer;
use tower_kernels::grpc::inference::proto::infer_parameter::ParameterChoice;
use tower_kernels::grpc::inference::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use tower_kernels::grpc::inference::proto::*;
use tower_kernels::inference::InferenceExtensions;
use tower_kernels::request::PeerAddress;

use super::grpc;
use super::rest_client::{Answer, Client, HEAD_LENGTH, f32s, saxpy};
use crate::axum::server::Server;
use crate::grpc::server::Running;
use crate::support::kernels;

/// An object of shared memory with a name of its own, removed on drop.
struct Object {
    name: String,
}

impl Object {
    fn of(bytes: &[u8]) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let object = Self { name: format!("tower-kernels-test-{}-{number}", std::process::id()) };
        fs::write(object.path(), bytes).unwrap();
        object
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(&self.name)
    }

    /// As clients name it.
    fn key(&self) -> String {
        format!("/{}", self.name)
    }

    fn truncate(&self, length: u64) {
        File::options().write(true).open(self.path()).unwrap().set_len(length).unwrap();
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        let removed = fs::remove_file(self.path());
        assert!(removed.is_ok() || std::thread::panicking(), "{removed:?}");
    }
}

fn router(extensions: InferenceExtensions) -> axum::Router {
    KernelRouter::new(kernels::registry().0, RouterConfig::default()).inference_extensions(extensions).into_router()
}

async fn rest() -> Client {
    Client(Server::serve_by_hyper(router(InferenceExtensions::new().system_shared_memory())).await)
}

/// Both servers over the same extensions.
async fn both() -> (Client, Running) {
    let extensions = InferenceExtensions::new().system_shared_memory();
    let (registry, naps) = kernels::registry();
    let grpc = KernelGrpcServer::new(registry).inference_extensions(extensions.clone());
    (Client(Server::serve_by_hyper(router(extensions)).await), Running::serve_by_hyper(grpc, naps).await)
}

async fn post(client: &Client, path: &str, body: &Value) -> Answer {
    client.send("POST", &format!("/v2/systemsharedmemory/{path}"), &[], body.to_string().as_bytes()).await
}

async fn register(client: &Client, name: &str, object: &Object, offset: u64, byte_size: u64) -> Answer {
    let body = json!({"key": object.key(), "offset": offset, "byte_size": byte_size});
    post(client, &format!("region/{name}/register"), &body).await
}

fn at(region: &str, offset: u64, byte_size: u64) -> Value {
    json!({"shared_memory_region": region, "shared_memory_offset": offset, "shared_memory_byte_size": byte_size})
}

fn of_grpc(region: &str, offset: i64, byte_size: i64) -> std::collections::HashMap<String, InferParameter> {
    grpc::parameters([
        ("shared_memory_region", ParameterChoice::StringParam(region.to_owned())),
        ("shared_memory_offset", ParameterChoice::Int64Param(offset)),
        ("shared_memory_byte_size", ParameterChoice::Int64Param(byte_size)),
    ])
}

/// A request for saxpy whose `x` and `y` are one after the other in the region, as is the output.
fn in_region(region: &str, elements: u64) -> Value {
    let bytes = 4 * elements;
    json!({
        "inputs": [
            {"name": "a", "datatype": "FP32", "shape": [1], "data": [2.0]},
            {"name": "x", "datatype": "FP32", "shape": [elements], "parameters": at(region, 0, bytes)},
            {"name": "y", "datatype": "FP32", "shape": [elements], "parameters": at(region, bytes, bytes)},
        ],
        "outputs": [{"name": "y", "parameters": at(region, 2 * bytes, bytes)}],
    })
}

#[tokio::test]
async fn inputs_and_outputs_are_in_regions_that_both_servers_share() {
    let (rest, server) = both().await;
    let mut client = grpc::client(&server).await;
    assert!(rest.read("/v2").await.ok()["extensions"].to_string().contains("\"system_shared_memory\""));
    // Small, and large enough to be read and written on another thread.
    for elements in [2, 250_000] {
        let bytes = 4 * elements as u64;
        let (x, y) = (vec![1.5; elements], vec![10.0; elements]);
        let before = [vec![7; 16], f32s(&x), f32s(&y), vec![0; 4 * elements]].concat();
        let expected = [&before[..16 + 8 * elements], &f32s(&vec![13.0; elements])].concat();
        let object = Object::of(&before);
        assert_eq!(register(&rest, "mine", &object, 16, 3 * bytes).await.ok(), json!({}));
        let entry = json!([{"name": "mine", "key": object.key(), "offset": 16, "byte_size": 3 * bytes}]);
        assert_eq!(rest.read("/v2/systemsharedmemory/status").await.ok(), entry);
        assert_eq!(rest.read("/v2/systemsharedmemory/region/mine/status").await.ok(), entry);

        let response = rest.infer("linalg.saxpy", &in_region("mine", elements as u64)).await.ok();
        let output =
            json!({"name": "y", "datatype": "FP32", "shape": [elements], "parameters": at("mine", 2 * bytes, bytes)});
        assert_eq!(response["outputs"], json!([output]));
        assert!(object.bytes() == expected);

        fs::write(object.path(), &before).unwrap();
        let (shape, length) = ([elements as i64], bytes as i64);
        let of_region = |name: &str, offset| {
            let parameters = of_grpc("mine", offset, length);
            InferInputTensor { parameters, ..grpc::input(name, "FP32", &shape, None) }
        };
        let request = ModelInferRequest {
            inputs: vec![of_region("x", 0), grpc::input("a", "FP32", &[1], None), of_region("y", length)],
            raw_input_contents: vec![f32s(&[2.0]).into()],
            outputs: vec![InferRequestedOutputTensor {
                name: "y".to_owned(),
                parameters: of_grpc("mine", 2 * length, length),
            }],
            ..grpc::saxpy()
        };
        let response = grpc::infer(&server, request).await.unwrap();
        assert_eq!(
            (&response.outputs[0].shape[..], response.raw_output_contents),
            (&shape[..], vec![bytes::Bytes::new()])
        );
        assert_eq!(response.outputs[0].parameters, of_grpc("mine", 2 * length, length));
        assert!(object.bytes() == expected);
        let status = client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await.unwrap();
        let region = status.into_inner().regions["mine"].clone();
        assert_eq!((region.key, region.offset, region.byte_size), (object.key(), 16, 3 * bytes));
        let unregister = SystemSharedMemoryUnregisterRequest { name: "mine".to_owned() };
        client.system_shared_memory_unregister(unregister).await.unwrap();
        assert_eq!(rest.read("/v2/systemsharedmemory/status").await.ok(), json!([]));
        rest.read("/v2/systemsharedmemory/region/mine/status").await.error(404);
    }
}

#[tokio::test]
async fn a_region_is_mixed_with_json_and_binary_data_and_texts_can_be_in_it() {
    let rest = rest().await;
    let object = Object::of(&[&f32s(&[1.0, 2.0])[..], &3_u32.to_le_bytes(), b"put"].concat());
    register(&rest, "a", &object, 0, 15).await.ok();
    let mut request = saxpy();
    request["inputs"][1] = json!({"name": "x", "datatype": "FP32", "shape": [2], "parameters": at("a", 0, 8)});
    let expected = json!([12.0, 24.0]);
    assert_eq!(rest.infer("linalg.saxpy", &request).await.ok()["outputs"][0]["data"], expected);
    request["inputs"][2] = super::rest_client::binary("y", "FP32", &[2], 8);
    let response = rest.infer_binary("linalg.saxpy", &request, &f32s(&[10.0, 20.0])).await.ok();
    assert_eq!(response["outputs"][0]["data"], expected);
    // An output that is smaller than its place, beside one that is binary by default.
    request["outputs"] = json!([{"name": "y", "parameters": at("a", 0, 15)}]);
    request["parameters"] = json!({"binary_data_output": true});
    let response = rest.infer_binary("linalg.saxpy", &request, &f32s(&[10.0, 20.0])).await.ok();
    assert_eq!(
        response["outputs"][0]["parameters"],
        json!({"shared_memory_region": "a", "shared_memory_byte_size": 8})
    );
    assert_eq!(object.bytes(), [&f32s(&[12.0, 24.0])[..], &3_u32.to_le_bytes(), b"put"].concat());

    let mut inputs: Vec<Value> =
        [("spot", 100.0), ("strike", 90.0), ("rate", 0.05), ("volatility", 0.2), ("time", 1.0)]
            .map(|(name, value)| json!({"name": name, "datatype": "FP64", "shape": [1], "data": [value]}))
            .into();
    inputs.push(json!({"name": "kind", "datatype": "BYTES", "shape": [1], "data": ["put"]}));
    let expected = rest.infer("risk.option-pricing", &json!({"inputs": inputs})).await.ok()["outputs"].clone();
    inputs[5] = json!({"name": "kind", "datatype": "BYTES", "shape": [1], "parameters": at("a", 8, 7)});
    assert_eq!(rest.infer("risk.option-pricing", &json!({"inputs": inputs})).await.ok()["outputs"], expected);
    inputs[5]["parameters"] = at("a", 8, 6);
    assert!(rest.infer("risk.option-pricing", &json!({"inputs": inputs})).await.error(400).contains("inputs[5]"));
}

#[tokio::test]
async fn objects_and_regions_that_are_none_are_rejected() {
    let rest = rest().await;
    let object = Object::of(&[0; 100]);
    let long = "x".repeat(300);
    for key in
        ["", "/", "..", "/../etc/passwd", "../../etc/passwd", "/etc/passwd", "/a/b", "a\0b", "/no such object", &long]
    {
        let body = json!({"key": key, "byte_size": 1});
        assert!(post(&rest, "region/a/register", &body).await.error(400).contains("key"), "{key:?}");
    }
    let link = PathBuf::from("/dev/shm").join(format!("{}-link", object.name));
    std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
    let body = json!({"key": format!("/{}-link", object.name), "byte_size": 1});
    let rejected = post(&rest, "region/a/register", &body).await;
    fs::remove_file(&link).unwrap();
    assert!(rejected.error(400).contains("key"));
    let directory = PathBuf::from("/dev/shm").join(format!("{}-directory", object.name));
    fs::create_dir(&directory).unwrap();
    let body = json!({"key": format!("{}-directory", object.name), "byte_size": 1});
    let rejected = post(&rest, "region/a/register", &body).await;
    fs::remove_dir(&directory).unwrap();
    assert!(rejected.error(400).contains("key"));
    for (offset, byte_size) in [(0, 101), (100, 1), (u64::MAX, 1), (1, u64::MAX), (0, 0)] {
        assert!(register(&rest, "a", &object, offset, byte_size).await.error(400).contains("byte_size"));
    }
    for body in [json!({}), json!({"key": "a"}), json!({"key": "a", "byte_size": -1}), json!({"key": 1}), json!([])] {
        post(&rest, "region/a/register", &body).await.error(400);
    }
    post(&rest, "region/a/register", &json!({"key": " ".repeat(5000)})).await.error(413);
    register(&rest, "a%0Ab", &object, 0, 1).await.error(400);
    register(&rest, "a%2F..%2Fb", &object, 0, 1).await.ok();
    for path in ["region/a/b/register", "region//register", "region/register", "register"] {
        post(&rest, path, &json!({"key": object.key(), "byte_size": 1})).await.error(404);
    }
    register(&rest, "a", &object, 0, 100).await.ok();
    assert!(register(&rest, "a", &object, 0, 10).await.error(409).contains("registered already"));
    // As for Triton, what is not there is removed.
    post(&rest, "region/unknown/unregister", &json!({})).await.ok();
    post(&rest, "unregister", &json!({})).await.ok();
    assert_eq!(rest.read("/v2/systemsharedmemory/status").await.ok(), json!([]));
}

#[tokio::test]
async fn requests_that_misuse_regions_are_rejected_by_the_field() {
    let rest = rest().await;
    let object = Object::of(&[0; 32]);
    register(&rest, "a", &object, 8, 24).await.ok();
    rest.infer("linalg.saxpy", &in_region("a", 2)).await.ok();
    for (pointer, value, part) in [
        ("/inputs/1/parameters", at("b", 0, 8), "inputs[1].parameters.shared_memory_region"),
        ("/inputs/1/parameters", at("a", 17, 8), "inputs[1].parameters.shared_memory_byte_size"),
        ("/inputs/1/parameters", at("a", u64::MAX, 8), "inputs[1].parameters.shared_memory_byte_size"),
        ("/inputs/1/parameters", at("a", 0, 4), "inputs[1].parameters.shared_memory_byte_size"),
        ("/inputs/1/parameters", at("a", 0, u64::MAX), "inputs[1].parameters.shared_memory_byte_size"),
        ("/inputs/1/parameters", json!({"shared_memory_region": "a"}), "inputs[1].parameters.shared_memory_byte_size"),
        ("/inputs/1/parameters", json!({"shared_memory_byte_size": 8}), "inputs[1].parameters.shared_memory_region"),
        ("/inputs/1/parameters", json!({"shared_memory_offset": -1}), "inputs[1].parameters.shared_memory_offset"),
        ("/inputs/1/parameters", json!({"shared_memory_region": 1}), "inputs[1].parameters.shared_memory_region"),
        ("/inputs/1/shape", json!([u64::MAX, 2]), "inputs[1].shape"),
        ("/inputs/1/datatype", json!("FP99"), "inputs[1].datatype"),
        ("/inputs/1/data", json!([1.0, 2.0]), "inputs[1].parameters.shared_memory_region"),
        ("/inputs/1/name", json!("a"), "twice"),
        ("/inputs/1/name", json!("y"), "twice"),
        ("/outputs/0/parameters", at("b", 0, 8), "outputs[0].parameters.shared_memory_region"),
        ("/outputs/0/parameters", at("a", 20, 8), "outputs[0].parameters.shared_memory_byte_size"),
        ("/outputs/0/parameters", at("a", 16, 7), "outputs[0].parameters.shared_memory_byte_size"),
    ] {
        let mut request = in_region("a", 2);
        match request.pointer_mut(pointer) {
            Some(field) => *field = value.clone(),
            None => request["inputs"][1]["data"] = value.clone(),
        }
        let error = rest.infer("linalg.saxpy", &request).await.error(400);
        assert!(error.contains(part), "{pointer} {value}: {error}");
    }
    // More than a request may have.
    let large = Object::of(&[]);
    large.truncate(1 << 40);
    register(&rest, "large", &large, 0, 1 << 40).await.ok();
    let mut request = in_region("large", 1 << 36);
    request["outputs"] = json!([]);
    assert!(rest.infer("linalg.saxpy", &request).await.error(413).contains("shared memory"));
    rest.infer("linalg.saxpy", &in_region("a", 2)).await.ok();
}

#[tokio::test]
async fn an_object_that_is_truncated_is_an_error_of_its_requests() {
    let (rest, server) = both().await;
    let object = Object::of(&[0; 24]);
    register(&rest, "mine", &object, 0, 24).await.ok();
    for (length, part) in [(20, "outputs[0]"), (12, "inputs[2]"), (0, "inputs[1]")] {
        object.truncate(length);
        let error = rest.infer("linalg.saxpy", &in_region("mine", 2)).await.error(400);
        assert!(error.contains(part) && error.contains("\"mine\"") && error.contains("truncated"), "{error}");
        assert_eq!(object.bytes().len() as u64, length, "it is not extended");
    }
    let outputs = vec![InferRequestedOutputTensor { name: "y".to_owned(), parameters: of_grpc("mine", 0, 8) }];
    let mut request = ModelInferRequest { outputs, ..grpc::saxpy() };
    let status = grpc::infer(&server, request.clone()).await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("truncated")), (Code::InvalidArgument, true), "{status:?}");
    object.truncate(24);
    grpc::infer(&server, request.clone()).await.unwrap();
    request.inputs[1].parameters = of_grpc("mine", 0, 8);
    // It has raw contents as well, which are then those of no input.
    assert_eq!(grpc::infer(&server, request).await.unwrap_err().code(), Code::InvalidArgument);
    rest.infer("linalg.saxpy", &in_region("mine", 2)).await.ok();
}

#[tokio::test]
async fn regions_come_and_go_while_requests_use_them() {
    let (rest, object) = (rest().await, Object::of(&[0; 24]));
    let changes = async {
        for _ in 0..50 {
            register(&rest, "a", &object, 0, 24).await.ok();
            tokio::task::yield_now().await;
            post(&rest, "region/a/unregister", &json!({})).await.ok();
        }
        register(&rest, "a", &object, 0, 24).await.ok();
    };
    let requests = async {
        for _ in 0..100 {
            let response = rest.infer("linalg.saxpy", &in_region("a", 2)).await;
            if response.status != 200 {
                assert!(response.error(400).contains("there is no region"));
            }
        }
    };
    tokio::join!(changes, requests);
    rest.infer("linalg.saxpy", &in_region("a", 2)).await.ok();
}

#[tokio::test]
async fn only_clients_whose_address_is_a_loopback_address_can_use_it() {
    let object = Object::of(&[0; 24]);
    let on = || router(InferenceExtensions::new().system_shared_memory());
    let remote = PeerAddress("203.0.113.7:4711".parse().unwrap());
    for (name, server, reason) in [
        ("off", Server::serve_by_hyper(router(InferenceExtensions::new())).await, "not enabled"),
        // axum's own server does not say who the client is.
        ("unknown", Server::serve(on()).await, "unknown"),
        ("remote", Server::serve(on().layer(Extension(remote))).await, "203.0.113.7"),
    ] {
        let client = Client(server);
        let answers = [
            register(&client, "a", &object, 0, 24).await,
            post(&client, "region/a/unregister", &json!({})).await,
            post(&client, "unregister", &json!({})).await,
            client.read("/v2/systemsharedmemory/status").await,
            client.read("/v2/systemsharedmemory/region/a/status").await,
        ];
        for answer in answers {
            let error = answer.error(422);
            assert!(error.contains(reason), "{name}: {error}");
        }
        let error = client.infer("linalg.saxpy", &in_region("a", 2)).await.error(400);
        assert!(
            error.contains("inputs[1].parameters.shared_memory_region") && error.contains(reason),
            "{name}: {error}"
        );
        let json = in_region("a", 2).to_string();
        let binary = client.infer_raw("linalg.saxpy", &[(HEAD_LENGTH, &json.len().to_string())], json.as_bytes()).await;
        assert!(binary.error(400).contains(reason), "{name}");
        client.infer("linalg.saxpy", &saxpy()).await.ok();
    }
    // A page in a browser on the machine.
    let client = rest().await;
    register(&client, "a", &object, 0, 24).await.ok();
    let origin = [("origin", "https://pages.example")];
    let json = in_region("a", 2).to_string();
    let error = client.infer_raw("linalg.saxpy", &origin, json.as_bytes()).await.error(400);
    assert!(error.contains("origin"), "{error}");
    for (method, path) in [("POST", "region/b/register"), ("POST", "unregister"), ("GET", "status")] {
        let body = json!({"key": object.key(), "byte_size": 1}).to_string();
        let answer = client.send(method, &format!("/v2/systemsharedmemory/{path}"), &origin, body.as_bytes()).await;
        assert!(answer.error(422).contains("origin"), "{path}");
    }
    client.infer_raw("linalg.saxpy", &[], json.as_bytes()).await.ok();
    client.infer_raw("linalg.saxpy", &origin, saxpy().to_string().as_bytes()).await.ok();

    let (registry, naps) = kernels::registry();
    let extensions = InferenceExtensions::new().system_shared_memory();
    let unknown = Running::serve(KernelGrpcServer::new(registry).inference_extensions(extensions), naps).await;
    for (server, reason) in [(unknown, "unknown"), (Running::start().await, "not enabled")] {
        let mut client = grpc::client(&server).await;
        let request =
            SystemSharedMemoryRegisterRequest { name: "a".to_owned(), key: object.key(), offset: 0, byte_size: 24 };
        let status = client.system_shared_memory_register(request).await.unwrap_err();
        assert!(status.message().contains(reason), "{status:?}");
        let status = client.system_shared_memory_status(SystemSharedMemoryStatusRequest::default()).await.unwrap_err();
        assert!(status.message().contains(reason), "{status:?}");
        let mut request = grpc::saxpy();
        request.inputs[0].parameters = of_grpc("a", 0, 4);
        let status = grpc::infer(&server, request).await.unwrap_err();
        assert!(status.message().contains(reason), "{status:?}");
    }
}
