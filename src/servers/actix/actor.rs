use std::fmt;
use std::sync::Arc;

use ::actix::{Actor, Context, Handler, MessageResult};
use tower::BoxError;
use tower_service::Service;

use super::mailbox::{Admission, Ledger};
use super::messages::Admitted;
use super::reply::Reply;
use super::{ActorError, ExecuteKernel, GetKernelInfo, GetStats, KernelActorConfig, ListKernels};
use crate::backends::Local;
use crate::error::AnyError;
use crate::service::{KernelError, KernelRegistry, KernelRequest, KernelResponse, KernelService, Payload};

/// An actor that runs kernels. See the [module](super).
pub struct KernelActor<S = KernelService<Local>> {
    // An actor must be `Unpin`, a service need not be.
    service: Box<S>,
    registry: Arc<KernelRegistry>,
    config: KernelActorConfig,
    ledger: Arc<Ledger>,
}

impl KernelActor {
    /// An actor over a [`KernelService`] of its own.
    ///
    /// Opening a device takes a few hundred milliseconds, and services do not know of each other's slots: several actors
    /// share one service through [`with_service`](Self::with_service) or a
    /// [`KernelActorSupervisor`](super::KernelActorSupervisor).
    pub fn new(registry: impl Into<Arc<KernelRegistry>>, config: KernelActorConfig) -> Self {
        let registry = registry.into();
        Self::with_service(KernelService::new(Arc::clone(&registry)), registry, config)
    }
}

impl<S> KernelActor<S> {
    /// An actor over a service of yours: a pipeline with layers, or one that other actors and servers use as well.
    /// [`GetKernelInfo`] and [`ListKernels`] are answered from `registry`.
    pub fn with_service(service: S, registry: impl Into<Arc<KernelRegistry>>, config: KernelActorConfig) -> Self {
        let ledger = Ledger::new(&config);
        Self::with_ledger(service, registry.into(), config, ledger)
    }

    pub(super) fn with_ledger(
        service: S,
        registry: Arc<KernelRegistry>,
        config: KernelActorConfig,
        ledger: Arc<Ledger>,
    ) -> Self {
        Self { service: Box::new(service), registry, config, ledger }
    }
}

impl<S: Clone> KernelActor<S> {
    fn run(&self, message: ExecuteKernel, admission: Admission) -> Reply<S> {
        let ExecuteKernel { kernel_id, input, metadata } = message;
        // The payload is written by the reply's own task.
        let mut request = KernelRequest::new(kernel_id, Payload::json(""));
        // A deadline past the end of time is none.
        let timeout = self.config.timeout(metadata.timeout);
        request.deadline = admission.since().checked_add(timeout);
        request.set_deadline_is_server_timeout(metadata.timeout != Some(timeout));
        request.priority = metadata.priority;
        request.tenant = metadata.tenant;
        request.trace = metadata.trace.map(Box::new);
        // A clone waits for a place to run of its own, so that messages do not wait for each other.
        Reply::run(S::clone(&self.service), request, input, admission)
    }
}

impl<S: 'static> Actor for KernelActor<S> {
    type Context = Context<Self>;

    fn started(&mut self, context: &mut Context<Self>) {
        // actix counts senders and messages in one number, and wraps where the capacity leaves none for the senders.
        context.set_mailbox_capacity(self.ledger.capacity().min(usize::MAX >> 2));
    }
}

impl<S> Handler<ExecuteKernel> for KernelActor<S>
where
    S: Service<KernelRequest, Response = KernelResponse> + Clone + 'static,
    S::Error: AnyError + Into<BoxError>,
{
    type Result = Reply<S>;

    fn handle(&mut self, message: ExecuteKernel, _: &mut Context<Self>) -> Reply<S> {
        match self.ledger.admit() {
            Ok(admission) => self.run(message, admission),
            Err(full) => Reply::refuse(full),
        }
    }
}

impl<S> Handler<Admitted> for KernelActor<S>
where
    S: Service<KernelRequest, Response = KernelResponse> + Clone + 'static,
    S::Error: AnyError + Into<BoxError>,
{
    type Result = Reply<S>;

    fn handle(&mut self, message: Admitted, _: &mut Context<Self>) -> Reply<S> {
        self.run(message.message, message.admission)
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
        MessageResult(self.ledger.stats())
    }
}

impl<S> fmt::Debug for KernelActor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelActor")
            .field("config", &self.config)
            .field("stats", &self.ledger.stats())
            .finish_non_exhaustive()
    }
}
