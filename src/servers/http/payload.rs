//! Reads the body of a request as the value of an operand.

use std::error::Error;
use std::time::Instant;

use bytes::Bytes;
use http::request::Parts;
use http_body::Body;

use super::form::Form;
use super::{Problem, Target, read, tensors};
use crate::servers::body_memory::BodyMemory;
use crate::service::{HostReservation, OperandReservation, Payload};

/// Reads a body of at most `max` bytes, JSON or tensors. JSON is not parsed, and reserved in `memory`. Tensors are reserved in
/// `operand`.
///
/// # Errors
/// 413 if the body is too large, 507 if the tensors exceed a budget of operands, 503 if memory is exhausted, 415 if the body is neither JSON nor tensors, 408 if it does
/// not arrive before the deadline, 400 if it is malformed.
pub(crate) async fn read_payload<B>(
    head: &Parts,
    body: B,
    max: usize,
    deadline: Instant,
    memory: &HostReservation,
    operand: &OperandReservation,
) -> Result<Payload, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let payload = match Form::of(&head.headers)? {
        Form::Json => read::whole(body, max, deadline, memory).await.map(Payload::Json),
        Form::Tensors(length) => {
            let memory = BodyMemory::of_upload(memory, operand);
            let reading = tensors::read(body, length, Target::Input("operand".to_owned()), max, deadline, &memory);
            Box::pin(reading).await.map(|(request, _)| request.payload)
        }
    };
    payload.map_err(|problem| problem.over(head.version))
}
