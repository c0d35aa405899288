//! Messages about operands.

use std::sync::Arc;
use std::time::Duration;

use ::actix::{Context, Handler, Message, MessageResult};

use super::mailbox::MailboxPermit;
use super::reply::OperandReply;
use super::{ActorError, KernelActor};
use crate::request::limits::check_name;
use crate::request::metadata::RequestMetadata;
use crate::servers::operands::{NewOperand, OPERAND_TIMEOUT, find_operand};
use crate::service::{InvalidInput, OperandError, OperandInfo, Payload, PutOptions, RemoveOptions};

/// Stores an operand, as [`Operands::put_payload`](crate::service::Operands::put_payload) does, on the blocking pool.
///
/// It counts towards the capacity of the mailbox. Dropping the future of the response aborts it.
#[derive(Clone, Debug)]
pub struct PutOperand {
    /// Name of the operand.
    pub name: String,
    /// Type of the operand: `graph`, `vectors`, `tensors`, or the name of another registered type.
    pub type_name: String,
    /// Value of the operand: JSON, tensors, or a typed document.
    pub payload: Payload,
    /// Tenant, whether it is public, and the condition under which it is stored.
    pub options: PutOptions,
    /// Time until the deadline, from when the actor accepts the message. `None` for 10 minutes.
    pub timeout: Option<Duration>,
}

impl Message for PutOperand {
    type Result = Result<OperandInfo, ActorError>;
}

/// Returns the description of an operand of the tenant, or of a public one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GetOperand {
    /// Name, or name and version: `payments` or `payments@7`.
    pub operand: String,
    /// Tenant of the request.
    pub tenant: Option<Arc<str>>,
}

impl Message for GetOperand {
    type Result = Result<OperandInfo, ActorError>;
}

/// Lists the operands of a tenant and public ones, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListOperands {
    /// Tenant of the request.
    pub tenant: Option<Arc<str>>,
}

impl Message for ListOperands {
    type Result = Result<Vec<OperandInfo>, ActorError>;
}

/// Removes an operand of the tenant, and returns its description. Requests that use it continue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeleteOperand {
    /// Name, or name and version: `payments` or `payments@7`.
    pub operand: String,
    /// Tenant of the request, and the condition under which it is removed.
    pub options: RemoveOptions,
}

impl Message for DeleteOperand {
    type Result = Result<OperandInfo, ActorError>;
}

/// Rejects the tenants that no request can have.
fn check_tenant(tenant: Option<&str>) -> Result<(), ActorError> {
    let invalid = |error| OperandError::from(InvalidInput::new("tenant", format!("{error}")));
    tenant.map_or(Ok(()), check_name).map_err(|error| ActorError::service(invalid(error)))
}

impl<S> KernelActor<S> {
    fn put(&self, message: PutOperand, permit: MailboxPermit) -> OperandReply {
        let PutOperand { name, type_name, payload, options, timeout } = message;
        if let Err(error) = check_tenant(options.tenant.as_deref()) {
            permit.end(None);
            return OperandReply::reject(error);
        }
        let timeout = timeout.unwrap_or(OPERAND_TIMEOUT);
        let timeout = self.config().max_timeout.map_or(timeout, |max| timeout.min(max));
        let mut metadata = RequestMetadata { received_at: permit.received_at(), ..RequestMetadata::new() };
        metadata.set_timeout(timeout);
        let operands = self.registry().operands().clone();
        let reservation = operands.reservation(&options);
        let operand = NewOperand { name, type_name, options, payload, reservation };
        OperandReply::store(operands, operand, metadata.deadline, permit)
    }
}

impl<S: 'static> Handler<PutOperand> for KernelActor<S> {
    type Result = OperandReply;

    fn handle(&mut self, message: PutOperand, _: &mut Context<Self>) -> OperandReply {
        match self.mailbox().try_acquire() {
            Ok(permit) => self.put(message, permit),
            Err(full) => OperandReply::reject(full),
        }
    }
}

impl<S: 'static> Handler<GetOperand> for KernelActor<S> {
    type Result = MessageResult<GetOperand>;

    fn handle(&mut self, message: GetOperand, _: &mut Context<Self>) -> Self::Result {
        let tenant = message.tenant.as_deref();
        let find = || find_operand(self.registry().operands(), tenant, &message.operand).map_err(ActorError::service);
        MessageResult(check_tenant(tenant).and_then(|()| find()).map(|found| found.info()))
    }
}

impl<S: 'static> Handler<ListOperands> for KernelActor<S> {
    type Result = MessageResult<ListOperands>;

    fn handle(&mut self, message: ListOperands, _: &mut Context<Self>) -> Self::Result {
        let tenant = message.tenant.as_deref();
        MessageResult(check_tenant(tenant).map(|()| self.registry().operands().list(tenant)))
    }
}

impl<S: 'static> Handler<DeleteOperand> for KernelActor<S> {
    type Result = OperandReply;

    fn handle(&mut self, DeleteOperand { operand, options }: DeleteOperand, _: &mut Context<Self>) -> OperandReply {
        match check_tenant(options.tenant.as_deref()) {
            Ok(()) => OperandReply::remove(self.registry().operands().clone(), operand, options),
            Err(error) => OperandReply::reject(error),
        }
    }
}
