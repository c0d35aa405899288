//! A server for `benches/grpc.sh`: `bare`, a tonic service that takes and gives the same messages, parses the same JSON and
//! does the same sum, or `ours`, the gRPC server over the kernel service.

use serde::{Deserialize, Serialize};
use tonic::codegen::tokio_stream::Empty;
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use tower_kernels::grpc::proto::{
    DeleteOperandRequest, GetOperandRequest, ListOperandsRequest, ListOperandsResponse, Operand, PutOperandRequest,
    PutOperandResponse,
};
use tower_kernels::grpc::{
    ExecuteRequest, ExecuteResponse, ExecuteStreamRequest, ExecuteStreamResponse, ExecuteTensorsRequest,
    ExecuteTensorsResponse, Execution, GetKernelRequest, KernelDescription, KernelGrpcServer, ListKernelsRequest,
    ListKernelsResponse,
};
use tower_kernels::service::KernelRegistry;

use self::generated::kernel_server::{Kernel, KernelServer};

/// Written from `proto/` by `scripts/proto`.
#[allow(unreachable_pub, reason = "the generator writes a library's module")]
mod generated {
    include!("../generated/kernel_server.rs");
}

struct Bare;

#[derive(Deserialize)]
struct Input {
    a: f32,
    x: Vec<f32>,
    y: Vec<f32>,
}

#[derive(Serialize)]
struct Output {
    y: Vec<f32>,
}

#[tonic::async_trait]
impl Kernel for Bare {
    async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let ExecuteRequest { kernel_id, input } = request.into_inner();
        let Input { a, x, y } =
            serde_json::from_str(&input).map_err(|error| Status::invalid_argument(error.to_string()))?;
        let y = x.iter().zip(&y).map(|(x, y)| a.mul_add(*x, *y)).collect();
        let output = serde_json::to_string(&Output { y }).map_err(|error| Status::internal(error.to_string()))?;
        let execution = Execution {
            backend: "CPU".to_owned(),
            device: None,
            queued_us: 0,
            duration_us: 0,
            batch_size: 1,
            device_times: None,
            operands: Vec::new(),
            choice: None,
            codec_times: None,
        };
        let request_id = "req-1".to_owned();
        Ok(Response::new(ExecuteResponse { request_id, kernel_id, output, execution: Some(execution) }))
    }

    async fn execute_tensors(
        &self,
        _: Request<ExecuteTensorsRequest>,
    ) -> Result<Response<ExecuteTensorsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    type ExecuteStreamStream = Empty<Result<ExecuteStreamResponse, Status>>;

    async fn execute_stream(
        &self,
        _: Request<Streaming<ExecuteStreamRequest>>,
    ) -> Result<Response<Self::ExecuteStreamStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn get_kernel(&self, _: Request<GetKernelRequest>) -> Result<Response<KernelDescription>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_kernels(&self, _: Request<ListKernelsRequest>) -> Result<Response<ListKernelsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    type PutOperandStream = Empty<Result<PutOperandResponse, Status>>;

    async fn put_operand(
        &self,
        _: Request<Streaming<PutOperandRequest>>,
    ) -> Result<Response<Self::PutOperandStream>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn get_operand(&self, _: Request<GetOperandRequest>) -> Result<Response<Operand>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn list_operands(&self, _: Request<ListOperandsRequest>) -> Result<Response<ListOperandsResponse>, Status> {
        Err(Status::unimplemented("not measured"))
    }

    async fn delete_operand(&self, _: Request<DeleteOperandRequest>) -> Result<Response<Operand>, Status> {
        Err(Status::unimplemented("not measured"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, which, address] = arguments.as_slice() else { return Err("usage: grpc_server bare|ours ADDRESS".into()) };
    let router = match which.as_str() {
        "bare" => Server::builder().add_service(KernelServer::new(Bare)),
        "ours" => {
            let registry = KernelRegistry::new();
            tower_kernels::kernels::register_all(&registry)?;
            Server::builder().add_service(KernelGrpcServer::new(registry).into_service())
        }
        other => return Err(format!("{other} is neither bare nor ours").into()),
    };
    Ok(router.serve(address.parse()?).await?)
}
