//! Loading and unloading of models, for this protocol alone.

use serde_json::{Value, json};
use tonic::Code;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::grpc::KernelGrpcServer;
use tower_kernels::grpc::inference::proto::model_repository_parameter::ParameterChoice;
use tower_kernels::grpc::inference::proto::*;
use tower_kernels::inference::InferenceExtensions;

use super::grpc;
use super::rest_client::{Client, saxpy};
use crate::axum::server::{JSON, Server};
use crate::grpc::server::Running;
use crate::support::kernels;

/// Both servers over the same extensions.
async fn servers() -> (Client, Running) {
    let extensions = InferenceExtensions::new().model_control();
    let router = KernelRouter::new(kernels::registry().0, RouterConfig::default());
    let rest = Server::serve(router.inference_extensions(extensions.clone()).into_router()).await;
    let (registry, naps) = kernels::registry();
    let grpc = KernelGrpcServer::new(registry).inference_extensions(extensions);
    (Client(rest), Running::serve(grpc, naps).await)
}

async fn set(rest: &Client, model: &str, action: &str, body: &str) -> super::rest_client::Answer {
    rest.send("POST", &format!("/v2/repository/models/{model}/{action}"), &[], body.as_bytes()).await
}

/// The entry of the model in the index, if it is there.
async fn entry(rest: &Client, body: &str) -> Option<Value> {
    let index = rest.send("POST", "/v2/repository/index", &[], body.as_bytes()).await.ok();
    index.as_array().unwrap().iter().find(|model| model["name"] == "linalg/saxpy").cloned()
}

#[tokio::test]
async fn an_unloaded_model_is_unavailable_over_both_servers_until_it_is_loaded() {
    let (rest, server) = servers().await;
    let mut client = grpc::client(&server).await;
    // By another name of the same kernel.
    assert_eq!(
        set(&rest, "linalg/saxpy", "unload", r#"{"parameters": {"unload_dependents": false}}"#).await.ok(),
        json!({})
    );
    assert!(rest.infer("linalg.saxpy", &saxpy()).await.error(503).contains("unloaded"));
    for path in ["", "/config", "/versions/1"] {
        rest.read(&format!("/v2/models/linalg.saxpy{path}")).await.error(503);
    }
    let ready = rest.read("/v2/models/linalg.saxpy/ready").await;
    assert_eq!((ready.status, ready.json()["ready"].as_bool()), (503, Some(false)));
    let unavailable = json!({"name": "linalg/saxpy", "version": "1", "state": "UNAVAILABLE", "reason": "unloaded"});
    assert_eq!(entry(&rest, "{}").await, Some(unavailable));
    assert_eq!(entry(&rest, r#"{"ready": true}"#).await, None);
    let status = grpc::infer(&server, grpc::saxpy()).await.unwrap_err();
    assert_eq!((status.code(), status.message().contains("unloaded")), (Code::Unavailable, true), "{status:?}");
    let name = || "linalg.saxpy".to_owned();
    let request = ModelReadyRequest { name: name(), ..Default::default() };
    assert!(!client.model_ready(request.clone()).await.unwrap().into_inner().ready);
    let request_of = |ready| RepositoryIndexRequest { ready, ..Default::default() };
    for (ready, state) in [(false, Some("UNAVAILABLE")), (true, None)] {
        let index = client.repository_index(request_of(ready)).await.unwrap().into_inner();
        let model = index.models.iter().find(|model| model.name == "linalg/saxpy");
        assert_eq!(model.map(|model| &*model.state), state);
    }
    // Other models, other protocols, the server and the statistics are as they were.
    let execute = json!({"a": 2.0, "x": [1.0], "y": [1.0]}).to_string();
    assert_eq!(rest.request("POST", "/kernels/linalg/saxpy/execute", &[JSON], execute.as_bytes()).await.status, 200);
    assert!(server.execute("linalg/saxpy", &execute).await.is_ok());
    rest.read("/v2/models/linalg.dot").await.ok();
    rest.read("/v2/health/ready").await.ok();
    rest.read("/v2/models/linalg.saxpy/stats").await.ok();

    let load = |model_name| RepositoryModelLoadRequest { model_name, ..Default::default() };
    client.repository_model_load(load(name())).await.unwrap();
    assert_eq!(rest.infer("linalg.saxpy", &saxpy()).await.ok()["outputs"][0]["data"], json!([12.0, 24.0]));
    assert_eq!(entry(&rest, "").await.unwrap()["state"], "READY");
    let unload = RepositoryModelUnloadRequest { model_name: name(), ..Default::default() };
    client.repository_model_unload(unload).await.unwrap();
    assert_eq!(entry(&rest, "").await.unwrap()["state"], "UNAVAILABLE");
    // Both can be repeated.
    for (action, status) in [("unload", 503), ("load", 200), ("load", 200)] {
        set(&rest, "linalg.saxpy", action, "").await.ok();
        assert_eq!(rest.infer("linalg.saxpy", &saxpy()).await.status, status);
    }
    assert!(client.model_ready(request).await.unwrap().into_inner().ready);
}

#[tokio::test]
async fn only_models_are_loaded_and_without_a_configuration() {
    let (rest, server) = servers().await;
    let mut client = grpc::client(&server).await;
    for (model, action, body, status) in [
        ("unknown", "load", "{}", 404),
        ("unknown", "unload", "{}", 404),
        // Its input is no object, so no tensors can be given to it.
        ("test.panics", "unload", "{}", 400),
        ("linalg.saxpy", "load", r#"{"parameters": {"config": "{}"}}"#, 400),
        ("linalg.saxpy", "load", r#"{"parameters": {"file:1/model.onnx": "AA=="}}"#, 400),
        ("linalg.saxpy", "load", r#"{"parameters": {"unload_dependents": true}}"#, 400),
        ("linalg.saxpy", "unload", r#"{"other": 1}"#, 400),
        ("linalg.saxpy", "unload", "[", 400),
    ] {
        set(&rest, model, action, body).await.error(status);
    }
    let padded = format!("{{}}{}", " ".repeat(5000));
    set(&rest, "linalg.saxpy", "unload", &padded).await.error(413);
    let config = ModelRepositoryParameter { parameter_choice: Some(ParameterChoice::StringParam("{}".to_owned())) };
    for (model_name, parameters, code) in [
        ("unknown", vec![], Code::NotFound),
        ("", vec![], Code::NotFound),
        ("linalg.saxpy", vec![("config".to_owned(), config)], Code::InvalidArgument),
    ] {
        let parameters = parameters.into_iter().collect();
        let request =
            RepositoryModelLoadRequest { model_name: model_name.to_owned(), parameters, ..Default::default() };
        assert_eq!(client.repository_model_load(request).await.unwrap_err().code(), code, "{model_name}");
    }
    rest.infer("linalg.saxpy", &saxpy()).await.ok();
}

#[tokio::test]
async fn it_is_off_by_default() {
    let (rest, server) = (Client::start().await, Running::start().await);
    let mut client = grpc::client(&server).await;
    for action in ["load", "unload"] {
        assert!(set(&rest, "linalg.saxpy", action, "").await.error(422).contains("neither loaded nor unloaded"));
    }
    let unload = RepositoryModelUnloadRequest { model_name: "linalg.saxpy".to_owned(), ..Default::default() };
    let status = client.repository_model_unload(unload).await.unwrap_err();
    assert!(status.message().contains("neither loaded nor unloaded"), "{status:?}");
    rest.infer("linalg.saxpy", &saxpy()).await.ok();
    grpc::infer(&server, grpc::saxpy()).await.unwrap();
}
