//! Serves kernels over gRPC with [tonic](https://docs.rs/tonic): a server over any pipeline, a client, health and reflection.
//!
//! Unlike in a hand-written tonic service
//! * a call waits for readiness no longer than its deadline, and is cancelled when its client cancels it;
//! * `grpc-timeout` is the deadline of the request, which queues and kernels observe;
//! * every rejection has the code of the [table](crate::error) and the standard details: `ErrorInfo` with the
//!   table's code as its reason, `RequestInfo`, `BadRequest` with the invalid field, `RetryInfo`.
//!
//! ```no_run
//! # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
//! use tonic::transport::Server;
//! use tower_kernels::grpc::{HealthService, KernelGrpcServer, reflection};
//! use tower_kernels::service::KernelRegistry;
//!
//! let registry = KernelRegistry::new();
//! tower_kernels::kernels::register_all(&registry)?;
//!
//! Server::builder()
//!     .add_service(HealthService::new())
//!     .add_service(reflection())
//!     .add_service(KernelGrpcServer::new(registry).into_service())
//!     .serve("[::1]:50051".parse()?)
//!     .await?;
//! # Ok(())
//! # }
//! ```
//!
//! A client:
//!
//! ```no_run
//! # async fn call() -> Result<(), Box<dyn std::error::Error>> {
//! use tower_kernels::grpc::{ExecuteRequest, KernelClient};
//!
//! let mut client = KernelClient::connect("http://[::1]:50051").await?;
//! let input = serde_json::json!({"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]]});
//! let request = tonic::Request::new(ExecuteRequest {
//!     kernel_id: "graph/betweenness-centrality".to_string(),
//!     input: serde_json::to_string(&input)?,
//! });
//! let response = client.execute(request).await?;
//! println!("{}", response.into_inner().output);
//! # Ok(())
//! # }
//! ```
//!
//! JSON requests use `Execute`, tensor requests `ExecuteTensors`, and many of either kind share one `ExecuteStream`.
//! The messages are described in `proto/tower_kernels/v1/kernel.proto`. The generated code is part of this crate, so
//! building it needs no protobuf compiler.
//!
//! # Metadata
//!
//! | key | meaning |
//! |---|---|
//! | `grpc-timeout` | the deadline; set by gRPC clients themselves |
//! | `traceparent`, `tracestate` | the position in a W3C trace; one that is malformed is ignored, as the standard says |
//! | `x-request-id` | id of the call in its response, errors and the log; generated if there is none. Requests of an `ExecuteStream` have this id, a slash and their number in the stream |
//! | `tenant`, `priority` | tenant, and scheduling priority: `low`, `normal`, `high` |
//!
//! The length of a tenant's name is limited like that of [all names](crate::request::check_name), and so is what an
//! error message may repeat. A message above a limit is rejected before it is decoded; on a stream this ends the
//! stream, after running requests have completed.
//!
//! A tenant in the metadata is not verified. To verify it, authenticate in a layer or an interceptor and insert a
//! [`Tenant`](crate::request::Tenant) into the request's extensions. Extensions ([`Tenant`](crate::request::Tenant),
//! [`Priority`](crate::request::Priority), [`TraceContext`](crate::request::TraceContext),
//! [`Deadline`](crate::request::Deadline)) take precedence over metadata. All extensions reach the
//! [`KernelRequest`](crate::service::KernelRequest).
//!
//! # Operands
//!
//! `PutOperand` stores an [operand](crate::service::Operands): its first message describes it, and those that follow have
//! its bytes, in chunks of any length up to [`GrpcConfig::max_request_size`]; chunks of about 1 MiB are fastest. The
//! server sends the progress and, as its last message, the stored version. An upload that is cancelled, that ends early or
//! that exceeds a limit leaves the operand as it was; one whose tensors exceed a budget of operands is rejected after its
//! first message. [`KernelGrpcServer::max_operand_size`] and
//! [`KernelGrpcServer::operand_timeout`] limit uploads, instead of the limits of other calls.
//!
//! ```no_run
//! # async fn put(graph: String) -> Result<(), Box<dyn std::error::Error>> {
//! use tower_kernels::grpc::proto::{put_operand_request::Part, put_operand_response::Outcome, put_operand_start::Value};
//! use tower_kernels::grpc::{ExecuteRequest, KernelClient, PutOperandRequest, PutOperandStart};
//!
//! let mut client = KernelClient::connect("http://[::1]:50051").await?;
//! let value = Some(Value::Json(graph.into()));
//! let start = PutOperandStart { name: "payments".into(), r#type: "graph".into(), value, ..Default::default() };
//! let upload = futures::stream::iter([PutOperandRequest { part: Some(Part::Start(start)) }]);
//! let mut responses = client.put_operand(upload).await?.into_inner();
//! while let Some(response) = responses.message().await? {
//!     match response.outcome {
//!         Some(Outcome::Operand(stored)) => println!("stored {}@{}", stored.name, stored.version),
//!         progress => println!("{progress:?}"),
//!     }
//! }
//! let query = r#"{"graph": {"operand": "payments"}, "samples": 64}"#;
//! let kernel_id = "graph/betweenness-centrality".to_owned();
//! let response = client.execute(ExecuteRequest { kernel_id, input: query.to_owned() }).await?;
//! println!("{}", response.into_inner().output);
//! # Ok(())
//! # }
//! ```
//!
//! # Open Inference Protocol
//!
//! [`KernelGrpcServer::into_inference_service`] makes the service `inference.GRPCInferenceService`, in which kernels are
//! models, so that clients of Triton and KServe can be used. Its messages are in [`inference::proto`]. Typed contents are
//! limited to 4 MiB in a request; raw contents are not copied.
//!
//! # Deadlines
//!
//! tonic's transport and clients have timers of their own for `grpc-timeout`, which start slightly earlier and result
//! in `CANCELLED`. So the deadline is earlier by a tenth of the timeout, at most 10 ms, and `DEADLINE_EXCEEDED` is sent
//! first. It starts with the arrival of the request's head, and includes the time to receive the body.
//!
//! # Cancel safety
//!
//! When a client cancels its call or its connection closes, the transport drops the call's future, which cancels the
//! work: of a stream, all requests in flight.
//!
//! # Streams at shutdown
//!
//! A stream that its client keeps open delays the shutdown of a server. [`StreamShutdown`] ends streams: running
//! requests complete, and the stream ends with `UNAVAILABLE`; so does an upload that has not arrived in full. [`HealthService::set_serving`] updates watch streams of
//! health, and [`HealthService::close`] ends them.
//!
//! # Clients that do not read
//!
//! The calls of a stream run in a task of their own, so they complete, or exceed their deadlines, whether or not the
//! client reads. While [`GrpcConfig::max_concurrent_per_stream`] of them run or are unread, or 1 MiB of responses is
//! unread, no further request of the stream is read. The server must limit how long a client may not read, as
//! `write_timeout` of the server of feature `hyper` does.

/// Maximum size of a message to health and reflection, in bytes. Their errors repeat it.
const MAX_NAME_MESSAGE_BYTES: usize = 1024;

mod call_context;
mod config;
mod dispatch;
mod future;
mod handler;
mod health;
pub mod inference;
mod memory;
mod message;
mod operands;
pub mod proto;
mod put_operand;
mod received_value;
mod reflection;
mod registry;
mod server;
mod shutdown;
mod status;
mod stream;
mod timer;
mod unread;
mod wire;

pub use self::config::GrpcConfig;
pub use self::future::ResponseFuture;
pub use self::health::HealthService;
pub use self::inference::InferenceGrpcService;
pub use self::proto::kernel_client::KernelClient;
pub use self::proto::{
    BackendChoice, CodecTimes, DeleteOperandRequest, DeviceTimes, Dtype, ExecuteRequest, ExecuteResponse,
    ExecuteStreamRequest, ExecuteStreamResponse, ExecuteTensorsRequest, ExecuteTensorsResponse, Execution,
    GetKernelRequest, GetOperandRequest, KernelDescription, ListKernelsRequest, ListKernelsResponse,
    ListOperandsRequest, ListOperandsResponse, Mode, Operand, OperandTensors, OperandUse, PredictedTime,
    PutOperandPhase, PutOperandProgress, PutOperandRequest, PutOperandResponse, PutOperandStart, Tensor,
};
pub use self::reflection::{reflection, reflection_v1alpha};
pub use self::server::{KernelGrpcServer, KernelGrpcService, Pipeline};
pub use self::shutdown::{EndStreams, EndStreamsFuture, StreamShutdown};
