use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use ::actix::dev::{MessageResponse, OneshotSender};
use ::actix::{Actor, Message};
use bytes::Bytes;
use tower::BoxError;
use tower_service::Service;

use super::mailbox::MailboxPermit;
use super::{ActorError, ExecuteResult};
use crate::error::AnyError;
use crate::middleware::timeout::oneshot;
use crate::panics::CatchPanic;
use crate::request::limits::check_name;
use crate::servers::offload::{TYPED_JSON_BYTES, offload};
use crate::servers::operands::{NewOperand, remove_operand, store_operand};
use crate::service::{
    InvalidInput, KernelError, KernelRequest, KernelResponse, OperandInfo, Operands, Payload, RemoveOptions,
};

type ExecutionResult = Result<ExecuteResult, ActorError>;

/// Response of an actor: runs the kernel in a task of its own, so that the actor can handle its next message.
///
/// Unlike actix's `ResponseFuture` it cancels the work when the sender of the message drops its future.
pub struct Reply<S>(Result<Run<S>, ActorError>);

impl<S> std::fmt::Debug for Reply<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").finish_non_exhaustive()
    }
}

struct Run<S> {
    service: S,
    request: KernelRequest,
    input: serde_json::Value,
    permit: MailboxPermit,
}

impl<S> Reply<S> {
    pub(super) fn reject(error: ActorError) -> Self {
        Self(Err(error))
    }

    /// Runs `request`, which must have a deadline. Its payload is serialized from `input`.
    pub(super) fn run(service: S, request: KernelRequest, input: serde_json::Value, permit: MailboxPermit) -> Self {
        Self(Ok(Run { service, request, input, permit }))
    }
}

impl<A, M, S> MessageResponse<A, M> for Reply<S>
where
    A: Actor,
    M: Message<Result = ExecutionResult>,
    S: Service<KernelRequest, Response = KernelResponse> + 'static,
    S::Error: AnyError + Into<BoxError>,
{
    fn handle(self, _: &mut A::Context, reply: Option<OneshotSender<ExecutionResult>>) {
        match self.0 {
            // A task of its own, as an actor polls all of its futures whenever one of them is woken.
            Ok(run) => drop(::actix::spawn(run.respond(reply))),
            Err(error) => send(reply, Err(error)),
        }
    }
}

impl<S> Run<S>
where
    S: Service<KernelRequest, Response = KernelResponse>,
    S::Error: AnyError + Into<BoxError>,
{
    async fn respond(self, reply: Option<OneshotSender<ExecutionResult>>) {
        let Self { service, request, input, permit } = self;
        respond(execute(service, request, input), permit, |result| result.execution.executed, reply).await;
    }
}

/// Sends the result of a call, unless the sender of the message has dropped its future, which cancels the call.
async fn respond<T>(
    call: impl Future<Output = Result<T, ActorError>>,
    permit: MailboxPermit,
    executed: fn(&T) -> Duration,
    mut reply: Option<OneshotSender<Result<T, ActorError>>>,
) {
    let mut call = pin!(CatchPanic::new(call));
    let result = poll_fn(|cx| match (call.as_mut().poll(cx), &mut reply) {
        (Poll::Ready(result), _) => Poll::Ready(Some(result)),
        (Poll::Pending, Some(reply)) => reply.poll_closed(cx).map(|()| None),
        // Sent with `do_send` or `try_send`, which have no response.
        (Poll::Pending, None) => Poll::Pending,
    });
    if let Some(result) = result.await {
        let result = result.unwrap_or_else(|panicked| {
            Err(ActorError::service(KernelError::kernel(format!("the service panicked: {panicked}"))))
        });
        // Counted before the response is sent, so that the statistics include it.
        permit.end(result.as_ref().ok().map(executed));
        send(reply, result);
    }
}

/// Response of an actor to [`PutOperand`](super::PutOperand) and [`DeleteOperand`](super::DeleteOperand): stores or removes
/// the operand in a task of its own. Storing is aborted when the sender of the message drops its future.
pub struct OperandReply(Result<Change, ActorError>);

enum Change {
    Store(Store),
    Remove { operands: Operands, reference: String, options: RemoveOptions },
}

struct Store {
    operands: Operands,
    operand: NewOperand,
    deadline: Option<Instant>,
    permit: MailboxPermit,
}

impl OperandReply {
    pub(super) fn reject(error: ActorError) -> Self {
        Self(Err(error))
    }

    pub(super) fn store(
        operands: Operands,
        operand: NewOperand,
        deadline: Option<Instant>,
        permit: MailboxPermit,
    ) -> Self {
        Self(Ok(Change::Store(Store { operands, operand, deadline, permit })))
    }

    pub(super) fn remove(operands: Operands, reference: String, options: RemoveOptions) -> Self {
        Self(Ok(Change::Remove { operands, reference, options }))
    }
}

impl std::fmt::Debug for OperandReply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OperandReply").finish_non_exhaustive()
    }
}

type OperandResult = Result<OperandInfo, ActorError>;

impl<A, M> MessageResponse<A, M> for OperandReply
where
    A: Actor,
    M: Message<Result = OperandResult>,
{
    fn handle(self, _: &mut A::Context, reply: Option<OneshotSender<OperandResult>>) {
        match self.0 {
            Ok(Change::Store(Store { operands, operand, deadline, permit })) => {
                let store = async move {
                    let stored = store_operand(operands, operand, deadline, None).await;
                    stored.map(|stored| stored.info()).map_err(ActorError::service)
                };
                ::actix::spawn(respond(store, permit, |_| Duration::ZERO, reply));
            }
            Ok(Change::Remove { operands, reference, options }) => {
                ::actix::spawn(async move {
                    let removed = remove_operand(&operands, &reference, options).await;
                    send(reply, removed.map(|removed| removed.info()).map_err(ActorError::service));
                });
            }
            Err(error) => send(reply, Err(error)),
        }
    }
}

async fn execute<S>(service: S, mut request: KernelRequest, input: serde_json::Value) -> ExecutionResult
where
    S: Service<KernelRequest, Response = KernelResponse>,
    S::Error: AnyError + Into<BoxError>,
{
    let encode = |error: serde_json::Error| ActorError::service(KernelError::Encode(error.to_string()));
    for (field, name) in [("kernel_id", Some(&*request.kernel_id)), ("metadata.tenant", request.tenant.as_deref())] {
        let checked = name.map_or(Ok(()), check_name);
        checked.map_err(|error| ActorError::service(KernelError::from(InvalidInput::new(field, error.to_string()))))?;
    }
    let kernel_id = request.kernel_id.to_string();
    request.payload = Payload::Json(Bytes::from(serde_json::to_vec(&input).map_err(encode)?));
    drop(input);
    let response = oneshot(service, request).await?;
    let Payload::Json(output) = &response.payload else {
        let error = KernelError::Encode("the request was JSON and the response is not".to_owned());
        return Err(ActorError::service(error));
    };
    let output = output.clone();
    let read = offload(output.len() > TYPED_JSON_BYTES, move || serde_json::from_slice(&output));
    let output = read.await.map_err(encode)?;
    Ok(ExecuteResult { kernel_id, output, execution: response.execution })
}

fn send<T>(reply: Option<OneshotSender<T>>, result: T) {
    if let Some(reply) = reply {
        // Fails if the request was cancelled in the meantime.
        let _ = reply.send(result);
    }
}
