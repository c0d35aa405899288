//! A kernel service in this process, with no layers around it.

use std::error::Error;

use tower_kernels::backends::Local;
use tower_kernels::error::Classify;
use tower_kernels::kernels::register_all;
use tower_kernels::service::{KernelRegistry, KernelRequest, KernelService, Payload};
use tower_service::Service;

use super::super::args::Form;
use super::payload::tensors;
use super::{Caller, Callers, Failure};

pub(in super::super) struct InProcess {
    service: KernelService<Local>,
    request: KernelRequest,
}

impl InProcess {
    pub(super) fn new(kernel: &str, form: Form, document: &str) -> Result<Self, Box<dyn Error + Send + Sync>> {
        let registry = KernelRegistry::new();
        register_all(&registry)?;
        let Some(registered) = registry.get(kernel) else {
            return Err(crate::catalogue::unknown(&registry, kernel).into());
        };
        let json = Payload::json(document.to_owned());
        let payload = match form {
            Form::Json => json,
            Form::Tensors => Payload::Tensors(tensors(registered.input_schema().as_value(), document)?),
            Form::Typed => registered.decode(json).map_err(|error| Failure::of(error.kind().code(), &error))?,
        };
        Ok(Self { service: KernelService::new(registry), request: KernelRequest::new(kernel.to_owned(), payload) })
    }
}

impl Callers for InProcess {
    type Caller = InProcessCaller;

    async fn callers(&self, count: usize) -> Result<Vec<InProcessCaller>, Failure> {
        let caller = || InProcessCaller { service: self.service.clone(), request: self.request.clone() };
        Ok(std::iter::repeat_with(caller).take(count).collect())
    }
}

pub(in super::super) struct InProcessCaller {
    service: KernelService<Local>,
    request: KernelRequest,
}

impl Caller for InProcessCaller {
    async fn call(&mut self) -> Result<usize, Failure> {
        let failed = |error| Failure::of(Classify::kind(&error).code(), &error);
        std::future::poll_fn(|cx| self.service.poll_ready(cx)).await.map_err(failed)?;
        let response = self.service.call(self.request.clone()).await.map_err(failed)?;
        // A typed output has no bytes.
        Ok(response.payload.byte_len().unwrap_or(0))
    }
}
