//! "gRPC Server".

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tower::BoxError;
use tower_kernels::grpc::{ExecuteRequest, KernelClient};

use super::{CYCLE, assert_scores, input, registry};
use crate::support::unused_address;

mod server_setup {
    use super::{BoxError, SocketAddr};
    use std::sync::Arc;
    use tower_kernels::service::KernelRegistry;

    pub(super) async fn block(registry: Arc<KernelRegistry>, address: SocketAddr) -> Result<(), BoxError> {
        use tonic::transport::Server;
        use tower_kernels::grpc::KernelGrpcServer;

        let server = KernelGrpcServer::new(registry);

        Server::builder().add_service(server.into_service()).serve(address).await?;
        Ok(())
    }
}

/// Starts the server of "Server Setup" and waits until it can be connected to.
async fn start() -> (SocketAddr, KernelClient<Channel>) {
    let address = unused_address();
    tokio::spawn(async move { server_setup::block(registry(), address).await.unwrap() });
    (address, KernelClient::new(connect(address).await))
}

async fn connect(address: SocketAddr) -> Channel {
    let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
    let begun = Instant::now();
    loop {
        match endpoint.connect().await {
            Ok(channel) => return channel,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(50), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn execute(client: &mut KernelClient<Channel>, kernel_id: &str, input: &str) -> Result<String, Status> {
    let request = ExecuteRequest { kernel_id: kernel_id.to_owned(), input: input.to_owned() };
    Ok(client.execute(request).await?.into_inner().output)
}

#[tokio::test]
async fn client_usage() -> Result<(), BoxError> {
    let (address, _) = start().await;
    let (input, url) = (input(), format!("http://{address}"));
    {
        let mut client = KernelClient::connect(url).await?;

        let request = tonic::Request::new(ExecuteRequest {
            kernel_id: "graph/betweenness-centrality".to_string(),
            input: serde_json::to_string(&input)?,
        });

        let response = client.execute(request).await?;

        assert_scores(&serde_json::from_str(&response.into_inner().output)?, CYCLE);
    }
    Ok(())
}

#[tokio::test]
async fn a_deadline_is_a_timeout_around_the_kernel() {
    let (_, mut client) = start().await;
    let message = ExecuteRequest { kernel_id: "test/nap".to_owned(), input: r#"{"millis": 60000}"#.to_owned() };
    let mut request = tonic::Request::new(message);
    request.set_timeout(Duration::from_millis(100));
    let begun = Instant::now();
    let status = client.execute(request).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(begun.elapsed() < Duration::from_secs(50), "{:?}", begun.elapsed());
    assert_eq!(execute(&mut client, "test/nap", r#"{"millis": 1}"#).await.unwrap(), "1");
}

#[tokio::test]
async fn ring_kernels_are_not_executed() {
    let (_, mut client) = start().await;
    let status = execute(&mut client, "orderbook/matching", "{}").await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
    assert!(status.message().contains("ring"), "{status:?}");
}

mod health_service {
    use super::{BoxError, SocketAddr};
    use tower_kernels::grpc::{KernelGrpcServer, Pipeline};

    pub(super) async fn block<S: Pipeline>(
        kernel_server: KernelGrpcServer<S>,
        addr: SocketAddr,
    ) -> Result<(), BoxError> {
        use tonic::transport::Server;
        use tower_kernels::grpc::HealthService;

        Server::builder()
            .add_service(HealthService::new())
            .add_service(kernel_server.into_service())
            .serve(addr)
            .await?;
        Ok(())
    }
}

#[tokio::test]
async fn health_is_the_standards_and_kernels_are_served_as_well() {
    let (address, server) = (unused_address(), tower_kernels::grpc::KernelGrpcServer::new(registry()));
    tokio::spawn(async move { health_service::block(server, address).await.unwrap() });
    let channel = connect(address).await;
    let mut health = HealthClient::new(channel.clone());
    for service in ["", "tower_kernels.v1.Kernel"] {
        let response = health.check(HealthCheckRequest { service: service.to_owned() }).await.unwrap();
        assert_eq!(response.into_inner().status(), ServingStatus::Serving, "{service:?}");
    }
    let none = health.check(HealthCheckRequest { service: "no.such.Service".to_owned() }).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound);

    let output = execute(&mut KernelClient::new(channel), "graph/betweenness-centrality", &input().to_string()).await;
    assert_scores(&serde_json::from_str(&output.unwrap()).unwrap(), CYCLE);
}
