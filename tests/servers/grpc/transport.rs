//! Compression, limits, health and reflection.

use tonic::codec::CompressionEncoding;
use tonic::{Code, Request};
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus};
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_reflection::pb::v1::{ServerReflectionRequest, ServerReflectionResponse};
use tower_kernels::grpc::{ExecuteRequest, GrpcConfig, HealthService};

use crate::grpc::server::Running;

fn saxpy(len: usize) -> ExecuteRequest {
    let ones = vec!["1.0"; len].join(",");
    let input = format!(r#"{{"a": 1.0, "x": [{ones}], "y": [{ones}]}}"#);
    ExecuteRequest { kernel_id: "linalg/saxpy".into(), input }
}

#[tokio::test]
async fn responses_are_compressed_if_the_server_is_configured_to() {
    for (compress, name) in [(true, "gzip"), (false, "identity")] {
        let server = Running::with_config(GrpcConfig { compress_responses: compress, ..Default::default() }).await;
        let mut client = server.client().await.accept_compressed(CompressionEncoding::Gzip);
        let response = client.execute(saxpy(1000)).await.unwrap();
        let used = response.metadata().get("grpc-encoding").map_or("identity", |value| value.to_str().unwrap());
        assert_eq!(used, name);
        assert_eq!(response.get_ref().output, format!(r#"{{"y":[{}]}}"#, vec!["2.0"; 1000].join(",")));
    }
}

#[tokio::test]
async fn requests_are_compressed_with_gzip_where_the_server_allows_it() {
    for (allow, encoding, accepted) in [
        (true, "gzip", None),
        (true, "zstd", Some("gzip,identity")),
        (false, "gzip", Some("identity")),
        (false, "zstd", Some("identity")),
    ] {
        let server = Running::with_config(GrpcConfig { compressed_requests: allow, ..Default::default() }).await;
        let mut client = server.client().await;
        let mut request = Request::new(saxpy(1000));
        if encoding == "gzip" {
            client = client.send_compressed(CompressionEncoding::Gzip);
        } else {
            request.metadata_mut().insert("grpc-encoding", encoding.parse().unwrap());
        }
        match (client.execute(request).await, accepted) {
            (Ok(response), None) => {
                assert_eq!(response.get_ref().output, format!(r#"{{"y":[{}]}}"#, vec!["2.0"; 1000].join(",")));
            }
            (Err(status), Some(accepted)) => {
                assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
                assert_eq!(status.metadata().get("grpc-accept-encoding").unwrap(), accepted);
            }
            (result, _) => panic!("{encoding}, allowed: {allow}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn messages_over_the_limits_are_rejected_compressed_or_not() {
    let config = GrpcConfig {
        max_request_size: 20_000,
        max_response_size: 2_000,
        compressed_requests: true,
        ..Default::default()
    };
    let server = Running::with_config(config).await;
    let mut client = server.client().await;
    client.execute(saxpy(100)).await.unwrap();
    assert_eq!(client.execute(saxpy(1000)).await.unwrap_err().code(), Code::OutOfRange, "the answer is over its limit");
    assert_eq!(client.execute(saxpy(10_000)).await.unwrap_err().code(), Code::OutOfRange);
    let mut compressed = server.client().await.send_compressed(CompressionEncoding::Gzip);
    let bomb = compressed.execute(saxpy(100_000)).await.unwrap_err();
    assert_eq!(bomb.code(), Code::ResourceExhausted, "{bomb}");
}

#[tokio::test]
async fn health_reports_the_status_that_was_set() {
    let server = Running::start().await;
    let mut client = HealthClient::new(server.channel().await);
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "tower_kernels.v1.Kernel"] {
        let status = client.check(ask(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving, "{service:?}");
    }
    assert_eq!(client.check(ask("other")).await.unwrap_err().code(), Code::NotFound);

    let mut watch = client.watch(ask("tower_kernels.v1.Kernel")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.health.set_serving(false).await;
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    assert_eq!(client.check(ask("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
}

#[tokio::test]
async fn a_health_service_can_be_made_in_a_task_that_has_used_up_its_budget() {
    tokio::spawn(async {
        while tokio::task::coop::has_budget_remaining() {
            tokio::task::coop::consume_budget().await;
        }
        HealthService::new()
    })
    .await
    .unwrap();
}

/// What reflection answers, whichever its version: the two have the same messages.
async fn reflect(server: &Running, ask: MessageRequest) -> MessageResponse {
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let mut client = ServerReflectionClient::new(server.channel().await);
    let responses = client.server_reflection_info(futures::stream::iter([request])).await.unwrap();
    let response: ServerReflectionResponse = responses.into_inner().message().await.unwrap().unwrap();
    response.message_response.unwrap()
}

#[tokio::test]
async fn reflection_tells_the_services_and_their_messages() {
    let server = Running::start().await;
    let MessageResponse::ListServicesResponse(list) =
        reflect(&server, MessageRequest::ListServices(String::new())).await
    else {
        panic!("no list");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for name in ["tower_kernels.v1.Kernel", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|this| this == name), "{names:?}");
    }
    for (symbol, file) in [
        ("tower_kernels.v1.Kernel", "tower_kernels/v1/kernel.proto"),
        ("tower_kernels.v1.ExecuteRequest", "tower_kernels/v1/kernel.proto"),
        ("google.rpc.Status", "google/rpc/status.proto"),
    ] {
        let ask = MessageRequest::FileContainingSymbol(symbol.into());
        let MessageResponse::FileDescriptorResponse(files) = reflect(&server, ask).await else { panic!("no file") };
        let named =
            files.file_descriptor_proto.iter().any(|bytes| bytes.windows(file.len()).any(|at| at == file.as_bytes()));
        assert!(named, "{symbol} is in {file}");
    }
}

#[tokio::test]
async fn older_clients_find_reflection_under_its_older_name() {
    use tonic_reflection::pb::v1alpha;
    let server = Running::start().await;
    let mut client = v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel().await);
    let ask = v1alpha::server_reflection_request::MessageRequest::FileByFilename("google/protobuf/any.proto".into());
    let request = v1alpha::ServerReflectionRequest { host: String::new(), message_request: Some(ask) };
    let responses = client.server_reflection_info(futures::stream::iter([request])).await.unwrap();
    let response = responses.into_inner().message().await.unwrap().unwrap().message_response.unwrap();
    let file = v1alpha::server_reflection_response::MessageResponse::FileDescriptorResponse;
    assert!(std::mem::discriminant(&response) == std::mem::discriminant(&file(Default::default())), "{response:?}");
}
