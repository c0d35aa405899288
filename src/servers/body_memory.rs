//! [`BodyMemory`]: where the memory of a request's body is reserved.

use super::sections::SectionError;
use crate::service::{HostReservation, OperandReservation};

/// The reservations of a request that is being received. Clones share them.
///
/// Tensors of an uploaded operand are reserved in the budget of operands, because they become the operand. All else is
/// temporary, and reserved in the memory of requests: received frames, JSON, and the tensors of requests that run a kernel.
#[derive(Clone, Debug)]
pub(super) struct BodyMemory {
    request: HostReservation,
    operand: Option<OperandReservation>,
}

impl BodyMemory {
    /// Reserves everything in the memory of requests.
    pub(super) fn of_request(request: &HostReservation) -> Self {
        Self { request: request.clone(), operand: None }
    }

    /// Reserves tensors in the budget of operands.
    pub(super) fn of_upload(request: &HostReservation, operand: &OperandReservation) -> Self {
        Self { request: request.clone(), operand: Some(operand.clone()) }
    }

    /// Returns the reservation of what is temporary.
    pub(super) fn request(&self) -> &HostReservation {
        &self.request
    }

    /// Checks whether tensors of `bytes` in total can be received, without reserving them.
    ///
    /// # Errors
    /// No request may have as much, or the operand is larger than what is free of a budget.
    pub(super) fn check_tensors(&self, bytes: u64) -> Result<(), SectionError> {
        match &self.operand {
            Some(operand) => Ok(operand.check_free(bytes)?),
            None => Ok(self.request.check_possible(bytes)?),
        }
    }

    /// Reserves the memory of tensors.
    ///
    /// # Errors
    /// There is not enough memory.
    pub(super) fn grow_tensors(&self, bytes: u64) -> Result<(), SectionError> {
        match &self.operand {
            Some(operand) => Ok(operand.grow(bytes)?),
            None => Ok(self.request.grow(bytes)?),
        }
    }

    /// Returns the bytes that are reserved.
    pub(super) fn bytes(&self) -> u64 {
        self.request.bytes() + self.operand.as_ref().map_or(0, OperandReservation::bytes)
    }

    /// Returns whether it has more than `bytes` of memory for the lack of which others were rejected lately.
    pub(super) fn is_short(&self, bytes: u64) -> bool {
        let request = self.request.bytes() > bytes && self.request.memory().is_short();
        request || self.operand.as_ref().is_some_and(|operand| operand.bytes() > bytes && operand.is_short())
    }
}
