use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project::pin_project;

use crate::service::{KernelError, KernelResponse, MemberResult, MemberResults, RequestOperands};

/// The response future of [`Batches`](super::Batches): the responses to a batch of jobs, in order.
#[pin_project]
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct BatchFuture<F> {
    #[pin]
    run: Option<F>,
    members: Members,
}

/// How long each job has waited to be merged, and the operands of each that was.
#[derive(Debug)]
enum Members {
    One(Duration),
    Several(Vec<Member>),
}

type Member = (Duration, RequestOperands);

impl<F> BatchFuture<F> {
    pub(super) fn one(run: F, waited: Duration) -> Self {
        Self { run: Some(run), members: Members::One(waited) }
    }

    pub(super) fn several(run: F, members: Vec<Member>) -> Self {
        Self { run: Some(run), members: Members::Several(members) }
    }

    /// Completes a batch of no jobs.
    pub(super) fn none() -> Self {
        Self { run: None, members: Members::Several(Vec::new()) }
    }
}

impl<F, E> Future for BatchFuture<F>
where
    F: Future<Output = Result<KernelResponse, E>>,
    E: From<KernelError>,
{
    type Output = Result<Vec<Result<KernelResponse, E>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let Some(run) = this.run.as_pin_mut() else { return Poll::Ready(Ok(Vec::new())) };
        let mut response = ready!(run.poll(cx))?;
        let responses = match this.members {
            Members::One(waited) => {
                response.execution.queued += *waited;
                vec![Ok(response)]
            }
            Members::Several(members) => split(response, members),
        };
        Poll::Ready(Ok(responses))
    }
}

/// Splits the response of a shared run into those of its members.
fn split<E: From<KernelError>>(response: KernelResponse, members: &[Member]) -> Vec<Result<KernelResponse, E>> {
    let KernelResponse { payload, execution, .. } = response;
    let Some(results) = MemberResults::from_payload(payload) else {
        let error = || KernelError::kernel("a layer inside of the batch layer replaced the payload of a shared run");
        return members.iter().map(|_| Err(error().into())).collect();
    };
    let response = |(result, (waited, operands)): (MemberResult, &Member)| {
        let mut execution = execution.clone();
        execution.queued += *waited;
        // Those of the other members are none of its business: they may be another tenant's.
        let own = operands.uses_among(execution.operands());
        execution.set_operands(own);
        Ok(KernelResponse::new(result?, execution))
    };
    results.into_iter().zip(members).map(response).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Execution, OperandUse};
    use crate::service::{Operands, Payload, PutOptions, TensorSet};

    #[test]
    fn each_member_sees_its_own_operands() {
        let operands = Operands::default();
        let mut members = Vec::new();
        let mut uses = Vec::new();
        // Two tenants, whose operands have the same name and version.
        for tenant in ["acme", "globex"] {
            let options = PutOptions { tenant: Some(tenant.into()), ..PutOptions::default() };
            let stored = operands.put_with("prices", TensorSet::of("close", vec![1.0_f64]), &options).unwrap();
            let version = stored.version().unwrap();
            uses.push(OperandUse::new(version.id(), version.name().into(), version.version(), tenant == "acme"));
            let payload = Payload::json(r#"{"x": {"operand": "prices"}}"#);
            members.push((Duration::ZERO, RequestOperands::of(&payload, &operands, Some(tenant))));
        }
        members.push((Duration::ZERO, RequestOperands::default()));
        let results = (0..3).map(|_| Ok(Payload::json("1"))).collect();
        let mut execution = Execution::new("CUDA");
        execution.set_operands(uses.clone());
        let response = KernelResponse::new(Payload::Typed(MemberResults::into_typed(results)), execution);
        let responses = split::<KernelError>(response, &members);
        let seen: Vec<_> =
            responses.into_iter().map(|response| response.unwrap().execution.operands().to_vec()).collect();
        assert_eq!(seen, [uses[..1].to_vec(), uses[1..].to_vec(), vec![]]);
    }
}
