//! Client of the example `grpc_server`: one unary JSON request, then several requests on one stream, whose responses
//! arrive in the order of completion.
//!
//! ```text
//! cargo run --release --features grpc --example grpc_client -- [http://[::1]:50051]
//! ```

use std::error::Error;
use std::time::Duration;

use tower_kernels::grpc::proto::{execute_stream_request::Call, execute_stream_response::Outcome};
use tower_kernels::grpc::{ExecuteRequest, ExecuteStreamRequest, KernelClient};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "http://[::1]:50051".to_owned());
    let mut client = KernelClient::connect(server).await?;

    let input = serde_json::json!({"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]], "normalized": true});
    let mut request = tonic::Request::new(ExecuteRequest {
        kernel_id: "graph/betweenness-centrality".to_string(),
        input: serde_json::to_string(&input)?,
    });
    request.set_timeout(Duration::from_secs(5));
    println!("{}", client.execute(request).await?.into_inner().output);

    let requests = (1..=4).map(|tag| {
        let input = format!(r#"{{"a": {tag}.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}}"#);
        let call = Call::Json(ExecuteRequest { kernel_id: "linalg/saxpy".to_string(), input });
        ExecuteStreamRequest { tag, call: Some(call), ..Default::default() }
    });
    let mut responses = client.execute_stream(futures::stream::iter(requests)).await?.into_inner();
    while let Some(response) = responses.message().await? {
        match response.outcome {
            Some(Outcome::Json(result)) => println!("{}: {}", response.tag, result.output),
            Some(Outcome::Error(status)) => println!("{}: rejected: {}", response.tag, status.message),
            other => println!("{}: {other:?}", response.tag),
        }
    }
    Ok(())
}
