use std::fmt;
use std::future::Future;
use std::sync::Arc;

use ::actix::{Actor, Addr, Arbiter, ArbiterHandle};
use tower::BoxError;
use tower_service::Service;

use super::mailbox::{Mailbox, MailboxPermit};
use super::messages::AcceptedMessage;
use super::{ActorError, ActorStats, ExecuteKernel, ExecuteResult, KernelActor, KernelActorConfig};
use crate::backends::Local;
use crate::error::AnyError;
use crate::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService};

/// How a supervisor chooses the actor for a message. Actors with a full mailbox are skipped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DispatchStrategy {
    /// The actor with the fewest unanswered messages; round robin among equals.
    #[default]
    LeastLoaded,
    /// Round robin.
    RoundRobin,
}

/// Runs several actors over one service, and restarts those that have died.
///
/// An actor dies if it panics or its arbiter ends. Messages that it had accepted continue as long as its thread lives;
/// those in its mailbox fail with [`ActorError::ActorGone`]. [`dispatch`](Self::dispatch) and [`actors`](Self::actors)
/// first restart dead actors, each on the arbiter where it was spawned. The address of a dead actor stays closed.
///
/// ```
/// use tower_kernels::actix::{ExecuteKernel, KernelActorConfig, KernelActorSupervisor};
/// use tower_kernels::service::KernelRegistry;
///
/// actix::System::new().block_on(async {
///     let registry = KernelRegistry::new();
///     tower_kernels::kernels::register_all(&registry).unwrap();
///     let mut supervisor = KernelActorSupervisor::new(registry);
///     for i in 0..4 {
///         supervisor.spawn(KernelActorConfig { name: format!("worker-{i}"), ..Default::default() });
///     }
///
///     let result = supervisor.dispatch(ExecuteKernel {
///         kernel_id: "linalg/saxpy".to_owned(),
///         input: serde_json::json!({"a": 2.0, "x": [1.0], "y": [10.0]}),
///         metadata: Default::default(),
///     });
///     assert_eq!(result.await.unwrap().output, serde_json::json!({"y": [12.0]}));
/// });
/// ```
pub struct KernelActorSupervisor<S: 'static = KernelService<Local>> {
    service: S,
    registry: Arc<KernelRegistry>,
    strategy: DispatchStrategy,
    actors: Vec<SupervisedActor<S>>,
    /// Index of the next actor of the round robin.
    next: usize,
}

struct SupervisedActor<S: 'static> {
    config: KernelActorConfig,
    mailbox: Arc<Mailbox>,
    arbiter: ArbiterHandle,
    address: Addr<KernelActor<S>>,
}

impl KernelActorSupervisor {
    /// Creates a supervisor of actors over one [`KernelService`].
    pub fn new(registry: impl Into<Arc<KernelRegistry>>) -> Self {
        let registry = registry.into();
        Self::with_service(KernelService::new(Arc::clone(&registry)), registry)
    }
}

impl<S> KernelActorSupervisor<S>
where
    S: Service<KernelRequest, Response = KernelResponse> + Clone + Send + 'static,
    S::Error: AnyError + Into<BoxError>,
{
    /// Creates a supervisor of actors over any service.
    pub fn with_service(service: S, registry: impl Into<Arc<KernelRegistry>>) -> Self {
        let strategy = DispatchStrategy::default();
        Self { service, registry: registry.into(), strategy, actors: Vec::new(), next: 0 }
    }

    /// Sets how the actor for a message is chosen.
    #[must_use]
    pub fn strategy(mut self, strategy: DispatchStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Starts an actor on the current arbiter.
    ///
    /// # Panics
    /// If called outside of an actix [`System`](::actix::System).
    pub fn spawn(&mut self, config: KernelActorConfig) -> Addr<KernelActor<S>> {
        let mailbox = Mailbox::new(&config);
        let arbiter = Arbiter::current();
        let address = self.start(&arbiter, &config, &mailbox);
        self.actors.push(SupervisedActor { config, mailbox, arbiter, address: address.clone() });
        address
    }

    /// Addresses of all actors, in the order in which they were spawned.
    pub fn actors(&mut self) -> Vec<Addr<KernelActor<S>>> {
        self.restart();
        self.actors.iter().map(|actor| actor.address.clone()).collect()
    }

    /// Statistics of all actors, in the order in which they were spawned.
    pub fn stats(&self) -> Vec<ActorStats> {
        self.actors.iter().map(|actor| actor.mailbox.stats()).collect()
    }

    /// Sends a message to one of the actors. It is sent or rejected before this returns. Dropping the future cancels
    /// it.
    ///
    /// # Errors
    /// [`ActorError::MailboxFull`] if the mailboxes of all actors are full, and
    /// [`ActorError::NoActor`] before the first [`spawn`](Self::spawn).
    pub fn dispatch(
        &mut self,
        message: ExecuteKernel,
    ) -> impl Future<Output = Result<ExecuteResult, ActorError>> + Send + 'static + use<S> {
        self.restart();
        let sent = self.choose().map(|(address, permit)| address.send(AcceptedMessage { message, permit }));
        async move { sent?.await? }
    }

    fn choose(&mut self) -> Result<(&Addr<KernelActor<S>>, MailboxPermit), ActorError> {
        let count = self.actors.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        // An actor whose arbiter has ended cannot be restarted.
        let mut alive = in_turn.filter(|&at| self.actors[at].address.connected()).peekable();
        // If all are full, this one returns the error.
        let first = match alive.peek() {
            Some(&first) => first,
            None if count == 0 => return Err(ActorError::NoActor),
            None => return Err(ActorError::ActorGone),
        };
        let with_capacity = match self.strategy {
            DispatchStrategy::LeastLoaded => alive.min_by_key(|&at| self.actors[at].mailbox.in_flight()),
            DispatchStrategy::RoundRobin => alive.find(|&at| self.actors[at].mailbox.has_capacity()),
        };
        let chosen = with_capacity.unwrap_or(first);
        self.next = (chosen + 1) % count;
        let actor = &self.actors[chosen];
        Ok((&actor.address, actor.mailbox.try_acquire()?))
    }

    /// Restarts dead actors.
    fn restart(&mut self) {
        for at in 0..self.actors.len() {
            let SupervisedActor { config, mailbox, arbiter, address } = &self.actors[at];
            if address.connected() {
                continue;
            }
            let address = self.start(arbiter, config, mailbox);
            if address.connected() {
                mailbox.restarted();
                self.actors[at].address = address;
            }
        }
    }

    fn start(
        &self,
        arbiter: &ArbiterHandle,
        config: &KernelActorConfig,
        mailbox: &Arc<Mailbox>,
    ) -> Addr<KernelActor<S>> {
        let actor = (self.service.clone(), Arc::clone(&self.registry), config.clone(), Arc::clone(mailbox));
        KernelActor::start_in_arbiter(arbiter, move |_| {
            let (service, registry, config, mailbox) = actor;
            KernelActor::with_mailbox(service, registry, config, mailbox)
        })
    }
}

impl<S: 'static> fmt::Debug for KernelActorSupervisor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelActorSupervisor")
            .field("strategy", &self.strategy)
            .field("actors", &self.actors.iter().map(|actor| &*actor.mailbox).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
