use std::fmt;
use std::future::Future;
use std::sync::Arc;

use ::actix::{Actor, Addr, Arbiter, ArbiterHandle};
use tower::BoxError;
use tower_service::Service;

use super::mailbox::{Admission, Ledger};
use super::messages::Admitted;
use super::{ActorError, ActorStats, ExecuteKernel, ExecuteResult, KernelActor, KernelActorConfig};
use crate::backends::Local;
use crate::error::AnyError;
use crate::service::{KernelRegistry, KernelRequest, KernelResponse, KernelService};

/// How a supervisor chooses the actor for a message. Those with a full mailbox are passed over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DispatchStrategy {
    /// The one with the fewest unanswered messages; among equals, in turn.
    #[default]
    LeastLoaded,
    /// Each in turn.
    RoundRobin,
}

/// Several actors over one service, each started again when it has died.
///
/// An actor dies where it panics, and with its arbiter. What it had taken in goes on and is answered while its thread
/// lives; what was still in its mailbox is answered with [`ActorError::ActorGone`]. The supervisor looks when it is next
/// used: [`dispatch`](Self::dispatch) and [`actors`](Self::actors) first start again what has died, on the arbiter
/// where it was spawned. An address of the old one stays dead.
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
///     let answer = supervisor.dispatch(ExecuteKernel {
///         kernel_id: "linalg/saxpy".to_owned(),
///         input: serde_json::json!({"a": 2.0, "x": [1.0], "y": [10.0]}),
///         metadata: Default::default(),
///     });
///     assert_eq!(answer.await.unwrap().output, serde_json::json!({"y": [12.0]}));
/// });
/// ```
pub struct KernelActorSupervisor<S: 'static = KernelService<Local>> {
    service: S,
    registry: Arc<KernelRegistry>,
    strategy: DispatchStrategy,
    actors: Vec<Member<S>>,
    /// Where the next turn starts.
    next: usize,
}

struct Member<S: 'static> {
    config: KernelActorConfig,
    ledger: Arc<Ledger>,
    arbiter: ArbiterHandle,
    address: Addr<KernelActor<S>>,
}

impl KernelActorSupervisor {
    /// A supervisor of actors over one [`KernelService`].
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
    /// A supervisor of actors over a service of yours.
    pub fn with_service(service: S, registry: impl Into<Arc<KernelRegistry>>) -> Self {
        let strategy = DispatchStrategy::default();
        Self { service, registry: registry.into(), strategy, actors: Vec::new(), next: 0 }
    }

    /// With another way to choose the actor for a message.
    #[must_use]
    pub fn strategy(mut self, strategy: DispatchStrategy) -> Self {
        self.strategy = strategy;
        self
    }

    /// Starts an actor on the current arbiter.
    ///
    /// # Panics
    /// Outside of an actix [`System`](::actix::System).
    pub fn spawn(&mut self, config: KernelActorConfig) -> Addr<KernelActor<S>> {
        let ledger = Ledger::new(&config);
        let arbiter = Arbiter::current();
        let address = self.start(&arbiter, &config, &ledger);
        self.actors.push(Member { config, ledger, arbiter, address: address.clone() });
        address
    }

    /// The addresses of all actors, in the order in which they were spawned.
    pub fn actors(&mut self) -> Vec<Addr<KernelActor<S>>> {
        self.restart();
        self.actors.iter().map(|actor| actor.address.clone()).collect()
    }

    /// What became of the messages to each actor, in the order in which they were spawned.
    pub fn stats(&self) -> Vec<ActorStats> {
        self.actors.iter().map(|actor| actor.ledger.stats()).collect()
    }

    /// Sends a message to one of the actors. It is sent, or refused, before this returns; dropping the future cancels it.
    ///
    /// # Errors
    /// [`ActorError::MailboxFull`] at once where the mailboxes of all actors are full, and
    /// [`ActorError::NoActor`] before the first [`spawn`](Self::spawn).
    pub fn dispatch(
        &mut self,
        message: ExecuteKernel,
    ) -> impl Future<Output = Result<ExecuteResult, ActorError>> + Send + 'static + use<S> {
        self.restart();
        let sent = self.choose().map(|(address, admission)| address.send(Admitted { message, admission }));
        async move { sent?.await? }
    }

    fn choose(&mut self) -> Result<(&Addr<KernelActor<S>>, Admission), ActorError> {
        let count = self.actors.len();
        let in_turn = (0..count).map(|step| (self.next + step) % count);
        // One whose arbiter has ended cannot be started again.
        let mut alive = in_turn.filter(|&at| self.actors[at].address.connected()).peekable();
        // Where all are full, this one says so.
        let first = match alive.peek() {
            Some(&first) => first,
            None if count == 0 => return Err(ActorError::NoActor),
            None => return Err(ActorError::ActorGone),
        };
        let with_room = match self.strategy {
            DispatchStrategy::LeastLoaded => alive.min_by_key(|&at| self.actors[at].ledger.in_flight()),
            DispatchStrategy::RoundRobin => alive.find(|&at| self.actors[at].ledger.has_room()),
        };
        let chosen = with_room.unwrap_or(first);
        self.next = (chosen + 1) % count;
        let actor = &self.actors[chosen];
        Ok((&actor.address, actor.ledger.admit()?))
    }

    /// Starts again what has died.
    fn restart(&mut self) {
        for at in 0..self.actors.len() {
            let Member { config, ledger, arbiter, address } = &self.actors[at];
            if address.connected() {
                continue;
            }
            let address = self.start(arbiter, config, ledger);
            if address.connected() {
                ledger.restarted();
                self.actors[at].address = address;
            }
        }
    }

    fn start(&self, arbiter: &ArbiterHandle, config: &KernelActorConfig, ledger: &Arc<Ledger>) -> Addr<KernelActor<S>> {
        let actor = (self.service.clone(), Arc::clone(&self.registry), config.clone(), Arc::clone(ledger));
        KernelActor::start_in_arbiter(arbiter, move |_| {
            let (service, registry, config, ledger) = actor;
            KernelActor::with_ledger(service, registry, config, ledger)
        })
    }
}

impl<S: 'static> fmt::Debug for KernelActorSupervisor<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KernelActorSupervisor")
            .field("strategy", &self.strategy)
            .field("actors", &self.actors.iter().map(|actor| &*actor.ledger).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
