use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

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
use crate::service::{InvalidInput, KernelError, KernelRequest, KernelResponse, Payload};

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
    async fn respond(self, mut reply: Option<OneshotSender<ExecutionResult>>) {
        let Self { service, request, input, permit } = self;
        let mut call = pin!(CatchPanic::new(execute(service, request, input)));
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
            permit.end(&result);
            send(reply, result);
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

fn send(reply: Option<OneshotSender<ExecutionResult>>, result: ExecutionResult) {
    if let Some(reply) = reply {
        // Fails if the request was cancelled in the meantime.
        let _ = reply.send(result);
    }
}
