use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use ::actix::dev::{MessageResponse, OneshotSender};
use ::actix::{Actor, Message};
use bytes::Bytes;
use tower::BoxError;
use tower_service::Service;

use super::mailbox::Admission;
use super::{ActorError, ExecuteResult};
use crate::error::AnyError;
use crate::middleware::timeout::oneshot;
use crate::panics::CatchPanic;
use crate::request::limits::check_name;
use crate::servers::offload::{TYPED_JSON_BYTES, offload};
use crate::service::{InvalidInput, KernelError, KernelRequest, KernelResponse, Payload};

type Answer = Result<ExecuteResult, ActorError>;

/// A kernel to be run beside the actor, which goes on with its next message.
///
/// actix's own `ResponseFuture` runs to its end even when nobody waits for the answer any more; this one watches.
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
    admission: Admission,
}

impl<S> Reply<S> {
    pub(super) fn refuse(error: ActorError) -> Self {
        Self(Err(error))
    }

    /// `request` is to have a deadline; its payload is written from `input`.
    pub(super) fn run(service: S, request: KernelRequest, input: serde_json::Value, admission: Admission) -> Self {
        Self(Ok(Run { service, request, input, admission }))
    }
}

impl<A, M, S> MessageResponse<A, M> for Reply<S>
where
    A: Actor,
    M: Message<Result = Answer>,
    S: Service<KernelRequest, Response = KernelResponse> + 'static,
    S::Error: AnyError + Into<BoxError>,
{
    fn handle(self, _: &mut A::Context, reply: Option<OneshotSender<Answer>>) {
        match self.0 {
            // A task of its own and not one of the actor's futures, which are all polled whenever one of them wakes.
            Ok(run) => drop(::actix::spawn(run.answer(reply))),
            Err(error) => send(reply, Err(error)),
        }
    }
}

impl<S> Run<S>
where
    S: Service<KernelRequest, Response = KernelResponse>,
    S::Error: AnyError + Into<BoxError>,
{
    async fn answer(self, mut reply: Option<OneshotSender<Answer>>) {
        let Self { service, request, input, admission } = self;
        let mut call = pin!(CatchPanic::new(execute(service, request, input)));
        let answer = poll_fn(|cx| match (call.as_mut().poll(cx), &mut reply) {
            (Poll::Ready(answer), _) => Poll::Ready(Some(answer)),
            (Poll::Pending, Some(reply)) => reply.poll_closed(cx).map(|()| None),
            // Sent with `do_send` or `try_send`: nobody ever waited.
            (Poll::Pending, None) => Poll::Pending,
        });
        if let Some(answer) = answer.await {
            let answer = answer.unwrap_or_else(|panicked| {
                Err(ActorError::service(KernelError::kernel(format!("the service panicked: {panicked}"))))
            });
            // Before the caller knows, so that it finds itself counted.
            admission.end(&answer);
            send(reply, answer);
        }
    }
}

async fn execute<S>(service: S, mut request: KernelRequest, input: serde_json::Value) -> Answer
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
        let error = KernelError::Encode("JSON was asked for and the answer is not JSON".to_owned());
        return Err(ActorError::service(error));
    };
    let output = output.clone();
    let read = offload(output.len() > TYPED_JSON_BYTES, move || serde_json::from_slice(&output));
    let output = read.await.map_err(encode)?;
    Ok(ExecuteResult { kernel_id, output, execution: response.execution })
}

fn send(reply: Option<OneshotSender<Answer>>, answer: Answer) {
    if let Some(reply) = reply {
        // The caller may have left meanwhile.
        let _ = reply.send(answer);
    }
}
