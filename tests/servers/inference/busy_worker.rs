//! Requests that need the only worker, over real sockets: until when they wait for it, and when their clients give it back.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tonic::Code;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::grpc::inference::proto::infer_parameter::ParameterChoice;
use tower_kernels::grpc::{GrpcConfig, KernelGrpcServer};
use tower_kernels::pipeline::RegistryOnly;
use tower_kernels::service::{KernelRegistry, KernelService};

use super::grpc::{client, infer, nap as grpc_nap, parameters};
use super::rest_client::Client;
use crate::axum::server::Server;
use crate::grpc::server::Running;
use crate::support::kernels;

/// Far longer than anything waits here, however busy the machine is.
const LONG_MILLIS: u64 = 600_000;
/// Enough to be a job of the worker: a shorter one would run on the thread of the server.
const SHORT_MILLIS: u64 = 100;
const TIMEOUT: Duration = Duration::from_millis(200);
const BOUND: Duration = Duration::from_secs(60);

fn one_worker(registry: Arc<KernelRegistry>) -> KernelService<CpuBackend> {
    let config = CpuConfig { workers: 1, ..CpuConfig::default() };
    KernelService::with_backend(registry, CpuBackend::with_config(config).unwrap())
}

fn rest_nap(millis: u64) -> Value {
    json!({"inputs": [{"name": "millis", "datatype": "UINT64", "shape": [1], "data": [millis]}]})
}

#[tokio::test]
async fn over_rest_a_timeout_ends_the_wait_and_a_client_that_leaves_frees_the_worker() {
    let (registry, naps) = kernels::registry();
    let source = RegistryOnly::new(Arc::clone(&registry));
    let router = KernelRouter::with_service(one_worker(registry), &source, RouterConfig::default());
    let server = Client(Server::serve(router.into_router()).await);
    let body = rest_nap(LONG_MILLIS).to_string();
    let other = server.0.send("POST", "/v2/models/test.nap/infer", &[], body.as_bytes()).await;
    naps.until(1).await;

    let mut late = rest_nap(SHORT_MILLIS);
    late["parameters"] = json!({"timeout": TIMEOUT.as_micros() as u64});
    let began = Instant::now();
    server.infer("test.nap", &late).await.error(504);
    assert!((TIMEOUT..BOUND).contains(&began.elapsed()), "{:?}", began.elapsed());

    drop(other);
    assert_eq!(
        server.infer("test.nap", &rest_nap(SHORT_MILLIS)).await.ok()["outputs"][0]["data"],
        json!([SHORT_MILLIS])
    );
    naps.until(0).await;
    assert_eq!(naps.done(), 1, "the request whose client left has ended early, and the last has not");
}

#[tokio::test]
async fn over_grpc_a_timeout_ends_the_wait_and_a_client_that_cancels_frees_the_worker() {
    let (registry, naps) = kernels::registry();
    let source = RegistryOnly::new(Arc::clone(&registry));
    let grpc = KernelGrpcServer::with_service(one_worker(registry), &source, GrpcConfig::default());
    let server = Running::serve(grpc, naps.clone()).await;
    let mut client = client(&server).await;
    let other = tokio::spawn(async move { client.model_infer(grpc_nap(LONG_MILLIS, HashMap::new())).await });
    naps.until(1).await;

    let timeout = parameters([("timeout", ParameterChoice::Uint64Param(TIMEOUT.as_micros() as u64))]);
    let began = Instant::now();
    let status = infer(&server, grpc_nap(SHORT_MILLIS, timeout)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    assert!((TIMEOUT..BOUND).contains(&began.elapsed()), "{:?}", began.elapsed());

    // This drops the call, which resets its stream; the connection stays.
    other.abort();
    infer(&server, grpc_nap(SHORT_MILLIS, HashMap::new())).await.unwrap();
    naps.until(0).await;
    assert_eq!(naps.done(), 1, "the request that was cancelled has ended early, and the last has not");
}
