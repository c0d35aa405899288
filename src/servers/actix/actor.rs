use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use ::actix::{Actor, Context, Handler, MessageResult};
use tower::BoxError;
use tower_service::Service;

use super::mailbox::{Mailbox, MailboxPermit};
use super::messages::AcceptedMessage;
use super::reply::Reply;
use super::{ActorError, ExecuteKernel, ExecuteMetadata, GetKernelInfo, GetStats, KernelActorConfig, ListKernels};
use crate::backends::Local;
use crate::error::AnyError;
use crate::request::metadata::RequestMetadata;
use crate::service::{KernelError, KernelRegistry, KernelRequest, KernelResponse, KernelService, Payload};

/// An actor that runs kernels. See the [module](super).
pub struct KernelActor<S = KernelService<Local>> {
    // An actor must be `Unpin`, a service need not be.
    service: Box<S>,
    registry: Arc<KernelRegistry>,
    config: KernelActorConfig,
    mailbox: Arc<Mailbox>,
}

impl KernelActor {
    /// Creates an actor with a [`KernelService`] of its own.
    ///
    /// Opening a device takes a few hundred milliseconds, and services do not share a limit on their requests. To share
    /// one service between several actors, use [`with_service`](Self::with_service) or a
    /// [`KernelActorSupervisor`](super::KernelActorSupervisor).
    pub fn new(registry: impl Into<Arc<KernelRegistry>>, config: KernelActorConfig) -> Self {
        let registry = registry.into();
        Self::with_service(KernelService::new(Arc::clone(&registry)), registry, config)
    }
}

impl<S> KernelActor<S> {
    /// Creates an actor over any service: a pipeline with layers, or one that is shared with other actors and servers.
    /// `registry` is for [`GetKernelInfo`] and [`ListKernels`].
    pub fn with_service(service: S, registry: impl Into<Arc<KernelRegistry>>, config: KernelActorConfig) -> Self {
        let mailbox = Mailbox::new(&config);
        Self::with_mailbox(service, registry.into(), config, mailbox)
    }

    pub(super) fn with_mailbox(
        service: S,
        registry: Arc<KernelRegistry>,
        config: KernelActorConfig,
        mailbox: Arc<Mailbox>,
    ) -> Self {
        Self { service: Box::new(service), registry, config, mailbox }
    }
}

impl<S> KernelActor<S> {
    pub(super) fn registry(&self) -> &KernelRegistry {
        &self.registry
    }

    pub(super) fn config(&self) -> &KernelActorConfig {
        &self.config
    }

    pub(super) fn mailbox(&self) -> &Arc<Mailbox> {
        &self.mailbox
    }
}

impl<S: Clone> KernelActor<S> {
    fn request_metadata(&self, message: ExecuteMetadata, received_at: Instant) -> RequestMetadata {
        let timeout = self.config.timeout(message.timeout);
        let mut metadata = RequestMetadata {
            received_at,
            is_server_timeout: message.timeout != Some(timeout),
            priority: Some(message.priority),
            tenant: message.tenant,
            backend: message.backend,
            trace: message.trace.map(Box::new),
            ..RequestMetadata::new()
        };
        metadata.set_timeout(timeout);
        metadata
    }

    fn run(&self, message: ExecuteKernel, permit: MailboxPermit) -> Reply<S> {
        let ExecuteKernel { kernel_id, input, metadata } = message;
        // The task of the reply serializes the payload.
        let mut request = KernelRequest::new(kernel_id, Payload::json(""));
        request.apply_metadata(self.request_metadata(metadata, permit.received_at()));
        // A clone has a readiness of its own, so that messages do not wait for each other.
        Reply::run(S::clone(&self.service), request, input, permit)
    }
}

impl<S: 'static> Actor for KernelActor<S> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // actix counts senders and messages in one integer, which would overflow.
        context.set_mailbox_capacity(self.mailbox.capacity().min(usize::MAX >> 2));
    }
}

impl<S> Handler<ExecuteKernel> for KernelActor<S>
where
    S: Service<KernelRequest, Response = KernelResponse> + Clone + 'static,
    S::Error: AnyError + Into<BoxError>,
{
    type Result = Reply<S>;

    fn handle(&mut self, message: ExecuteKernel, _: &mut Context<Self>) -> Reply<S> {
        match self.mailbox.try_acquire() {
            Ok(permit) => self.run(message, permit),
            Err(full) => Reply::reject(full),
        }
    }
}

impl<S> Handler<AcceptedMessage> for KernelActor<S>
where
    S: Service<KernelRequest, Response = KernelResponse> + Clone + 'static,
    S::Error: AnyError + Into<BoxError>,
{
    type Result = Reply<S>;

    fn handle(&mut self, message: AcceptedMessage, _: &mut Context<Self>) -> Reply<S> {
        self.run(message.message, message.permit)
    }
}

impl<S: 'static> Handler<GetKernelInfo> for KernelActor<S> {
    type Result = MessageResult<GetKernelInfo>;

    fn handle(&mut self, message: GetKernelInfo, _: &mut Context<Self>) -> Self::Result {
        let unknown = || ActorError::service(KernelError::unknown(message.kernel_id.clone()));
        MessageResult(self.registry.get(&message.kernel_id).ok_or_else(unknown))
    }
}

impl<S: 'static> Handler<ListKernels> for KernelActor<S> {
    type Result = MessageResult<ListKernels>;

    fn handle(&mut self, _: ListKernels, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.registry.list())
    }
}

impl<S: 'static> Handler<GetStats> for KernelActor<S> {
    type Result = MessageResult<GetStats>;

    fn handle(&mut self, _: GetStats, _: &mut Context<Self>) -> Self::Result {
        MessageResult(self.mailbox.stats())
    }
}

impl<S> fmt::Debug for KernelActor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelActor")
            .field("config", &self.config)
            .field("stats", &self.mailbox.stats())
            .finish_non_exhaustive()
    }
}
