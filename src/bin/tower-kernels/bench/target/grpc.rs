//! The gRPC target: unary calls over connections that clients share.

use std::borrow::Cow;
use std::error::Error;
use std::path::Path;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Uri};
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::TcpStream;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue, MetadataMap};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use tower_kernels::error::ErrorKind;
use tower_kernels::grpc::inference::proto::grpc_inference_service_client::GrpcInferenceServiceClient;
use tower_kernels::grpc::inference::proto::model_infer_request::InferInputTensor;
use tower_kernels::grpc::inference::proto::{ModelInferRequest, ModelMetadataRequest};
use tower_kernels::grpc::{Dtype, ExecuteRequest, ExecuteTensorsRequest, GetKernelRequest, KernelClient, Tensor};
use tower_kernels::service::{self, Tensors};

use super::super::args::PayloadFormat;
use super::inference::{self, TensorMetadata};
use super::payload::tensors;
use super::{Client, ClientFactory, NOT_AN_OUTPUT};
use crate::client::{CONNECTION, Failure, Tls};
use crate::exit::Exit;

/// The server.
pub(super) struct Server {
    url: String,
    endpoint: Endpoint,
    tls: Option<Tls>,
}

impl Server {
    pub(super) fn new(url: &str, cacert: Option<&Path>) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let format = || Exit::Usage.failure(format!("{url:?} is not of the format http://HOST:PORT, nor with https"));
        let uri: Uri = url.parse().map_err(|error| Exit::Usage.failure(format!("{url:?}: {error}")))?;
        let (Some("http" | "https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(format().into());
        };
        let tls = Tls::new(&uri, cacert, b"h2")?;
        // TLS is established by the connector below, so tonic gets a plain URL.
        let endpoint = Endpoint::from_shared(format!("http://{authority}"));
        let endpoint = endpoint.map_err(|error| Exit::Usage.failure(format!("{url:?}: {error}")))?.tcp_nodelay(true);
        Ok(Self { url: url.to_owned(), endpoint, tls })
    }

    async fn connect(&self) -> Result<Channel, Failure> {
        let connected = match &self.tls {
            None => self.endpoint.connect().await,
            Some(tls) => {
                let authority = self.endpoint.uri().authority();
                let host = authority.map_or("", |authority| authority.host()).trim_matches(['[', ']']).to_owned();
                let port = self.endpoint.uri().port_u16().unwrap_or(443);
                let tls = tls.clone();
                let connector = tower::service_fn(move |_: Uri| {
                    let (tls, host) = (tls.clone(), host.clone());
                    async move {
                        let tcp = TcpStream::connect((host, port)).await?;
                        tcp.set_nodelay(true)?;
                        tls.connect(tcp).await.map(TokioIo::new)
                    }
                });
                self.endpoint.connect_with_connector(connector).await
            }
        };
        connected.map_err(|error| {
            let Failure { code, message } = Failure::from_error(CONNECTION, &error);
            Failure::new(code, format!("{}: {message}", self.url))
        })
    }
}

pub(in super::super) struct Grpc {
    server: Server,
    channels: usize,
    metadata: MetadataMap,
    message: Call,
}

#[derive(Clone)]
enum Call {
    Json(ExecuteRequest),
    Tensors(ExecuteTensorsRequest),
    /// Of the Open Inference Protocol.
    Infer(ModelInferRequest),
}

impl Grpc {
    pub(super) async fn new(
        server: Server,
        kernel: &str,
        format: PayloadFormat,
        headers: &[(HeaderName, HeaderValue)],
        channels: usize,
        document: &str,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let metadata = metadata(headers)?;
        let kernel_id = kernel.to_owned();
        let message = match format {
            PayloadFormat::Json => Call::Json(ExecuteRequest { kernel_id, input: document.to_owned() }),
            // JSON has no number types; they are in the kernel's schema.
            PayloadFormat::Tensors | PayloadFormat::Typed => {
                let mut request = Request::new(GetKernelRequest { kernel_id: kernel_id.clone() });
                *request.metadata_mut() = metadata.clone();
                let channel = server.connect().await?;
                let description = KernelClient::new(channel).get_kernel(request).await.map_err(failure)?.into_inner();
                let schema = serde_json::from_str(&description.input_schema)?;
                Call::Tensors(ExecuteTensorsRequest { kernel_id, inputs: wire(&tensors(&schema, document)?)? })
            }
        };
        Ok(Self { server, channels, metadata, message })
    }

    /// A target that speaks the Open Inference Protocol.
    pub(super) async fn of_model(
        server: Server,
        model: &str,
        headers: &[(HeaderName, HeaderValue)],
        channels: usize,
        document: &str,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let metadata = metadata(headers)?;
        let model_name = model.to_owned();
        let mut request = Request::new(ModelMetadataRequest { name: model_name.clone(), ..Default::default() });
        *request.metadata_mut() = metadata.clone();
        let channel = server.connect().await?;
        let described = GrpcInferenceServiceClient::new(channel).model_metadata(request).await.map_err(failure)?;
        let described = described.into_inner().inputs.into_iter();
        let described: Vec<_> =
            described.map(|input| TensorMetadata { name: input.name, datatype: input.datatype }).collect();
        let (mut inputs, mut raw_input_contents) = (Vec::new(), Vec::new());
        for input in inference::inputs(&described, document)? {
            let shape = input.shape.iter().map(|&side| side as i64).collect();
            inputs.push(InferInputTensor { name: input.name, datatype: input.datatype, shape, ..Default::default() });
            raw_input_contents.push(Bytes::from(input.data));
        }
        let message = Call::Infer(ModelInferRequest { model_name, inputs, raw_input_contents, ..Default::default() });
        Ok(Self { server, channels, metadata, message })
    }
}

fn metadata(headers: &[(HeaderName, HeaderValue)]) -> Result<MetadataMap, Box<dyn Error + Send + Sync>> {
    let mut metadata = MetadataMap::new();
    for (name, value) in headers {
        let key = AsciiMetadataKey::from_bytes(name.as_str().as_bytes())?;
        metadata.append(key, AsciiMetadataValue::try_from(value.as_bytes())?);
    }
    Ok(metadata)
}

impl ClientFactory for Grpc {
    type Client = GrpcClient;

    async fn clients(&self, count: usize) -> Result<Vec<GrpcClient>, Failure> {
        let mut clients = Vec::new();
        for _ in 0..self.channels.min(count) {
            let channel = self.server.connect().await?;
            let inference = GrpcInferenceServiceClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
            clients.push((KernelClient::new(channel).max_decoding_message_size(usize::MAX), inference));
        }
        let client = |(kernels, inference): &(KernelClient<_>, GrpcInferenceServiceClient<_>)| GrpcClient {
            kernels: kernels.clone(),
            inference: inference.clone(),
            metadata: self.metadata.clone(),
            message: self.message.clone(),
        };
        Ok(clients.iter().cycle().take(count).map(client).collect())
    }
}

pub(in super::super) struct GrpcClient {
    kernels: KernelClient<Channel>,
    inference: GrpcInferenceServiceClient<Channel>,
    metadata: MetadataMap,
    message: Call,
}

impl GrpcClient {
    fn request<T>(&self, message: T) -> Request<T> {
        Request::from_parts(self.metadata.clone(), Default::default(), message)
    }
}

impl Client for GrpcClient {
    async fn call(&mut self) -> Result<usize, Failure> {
        match &self.message {
            Call::Json(message) => {
                let request = self.request(message.clone());
                let response = self.kernels.execute(request).await.map_err(failure)?.into_inner();
                verify(&message.kernel_id, &response.kernel_id, !response.output.is_empty())?;
                Ok(response.encoded_len())
            }
            Call::Tensors(message) => {
                let request = self.request(message.clone());
                let response = self.kernels.execute_tensors(request).await.map_err(failure)?.into_inner();
                verify(&message.kernel_id, &response.kernel_id, !response.outputs.is_empty())?;
                Ok(response.encoded_len())
            }
            Call::Infer(message) => {
                let request = self.request(message.clone());
                let response = self.inference.model_infer(request).await.map_err(failure)?.into_inner();
                verify(&message.model_name, &response.model_name, !response.outputs.is_empty())?;
                Ok(response.encoded_len())
            }
        }
    }
}

/// Checks that a response is a kernel output, as any empty message would decode.
fn verify(asked: &str, kernel_id: &str, has_output: bool) -> Result<(), Failure> {
    if kernel_id == asked && has_output {
        return Ok(());
    }
    let why = if has_output { format!("it is of {kernel_id:?}") } else { "it has no output".to_owned() };
    Err(Failure::new(NOT_AN_OUTPUT, format!("the response is not the output of a kernel: {why}")))
}

/// The code of our own servers from the status details, else from the status code.
fn failure(status: Status) -> Failure {
    let code: Cow<'static, str> = match status.get_details_error_info() {
        Some(info) => info.reason.into(),
        None if status.code() == Code::Unavailable => CONNECTION.into(),
        None => {
            let number = i32::from(status.code());
            let kind = ErrorKind::ALL.into_iter().find(|kind| kind.grpc_code() == number);
            kind.map_or_else(|| format!("grpc_{number}").into(), |kind| kind.code().into())
        }
    };
    Failure::new(code, status.message())
}

fn wire(tensors: &Tensors) -> Result<Vec<Tensor>, String> {
    let wire = |(name, tensor): (&str, &service::Tensor)| {
        let dtype = Dtype::from_str_name(&format!("DTYPE_{}", tensor.dtype().as_str().to_uppercase()))
            .ok_or_else(|| format!("{} has no name in gRPC", tensor.dtype()))?;
        let shape = tensor.shape().iter().map(|&side| side as u64).collect();
        Ok(Tensor { name: name.to_owned(), dtype: dtype.into(), shape, data: tensor.data().clone() })
    };
    tensors.iter().map(wire).collect()
}
