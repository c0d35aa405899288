//! The in-process target: a `KernelService` without layers.

use std::error::Error;

use tower_kernels::backends::Local;
use tower_kernels::error::Classify;
use tower_kernels::kernels::register_all;
use tower_kernels::service::{KernelRegistry, KernelRequest, KernelService, Payload};
use tower_service::Service;

use super::super::args::PayloadFormat;
use super::payload::tensors;
use super::{Client, ClientFactory, Failure};

pub(in super::super) struct InProcess {
    service: KernelService<Local>,
    request: KernelRequest,
}

impl InProcess {
    pub(super) fn new(
        kernel: &str,
        format: PayloadFormat,
        document: &str,
    ) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let registry = KernelRegistry::new();
        register_all(&registry)?;
        let Some(registered) = registry.get(kernel) else {
            return Err(crate::kernels::unknown(&registry, kernel).into());
        };
        let json = Payload::json(document.to_owned());
        let payload = match format {
            PayloadFormat::Json => json,
            PayloadFormat::Tensors => Payload::Tensors(tensors(registered.input_schema().as_value(), document)?),
            PayloadFormat::Typed => {
                registered.decode(json).map_err(|error| Failure::from_error(error.kind().code(), &error))?
            }
        };
        Ok(Self { service: KernelService::new(registry), request: KernelRequest::new(kernel.to_owned(), payload) })
    }
}

impl ClientFactory for InProcess {
    type Client = InProcessClient;

    async fn clients(&self, count: usize) -> Result<Vec<InProcessClient>, Failure> {
        let client = || InProcessClient { service: self.service.clone(), request: self.request.clone() };
        Ok(std::iter::repeat_with(client).take(count).collect())
    }
}

pub(in super::super) struct InProcessClient {
    service: KernelService<Local>,
    request: KernelRequest,
}

impl Client for InProcessClient {
    async fn call(&mut self) -> Result<usize, Failure> {
        let failed = |error| Failure::from_error(Classify::kind(&error).code(), &error);
        std::future::poll_fn(|cx| self.service.poll_ready(cx)).await.map_err(failed)?;
        let response = self.service.call(self.request.clone()).await.map_err(failed)?;
        // A typed output has no encoded size.
        Ok(response.payload.byte_len().unwrap_or(0))
    }
}
