//! [`BodyMemory`]: where the memory of a request's body is reserved.

use super::sections::SectionError;
use crate::service::{HostMemoryError, HostReservation, OperandReservation};

/// The reservations of a request that is being received.
///
/// Tensors of an uploaded operand are reserved in the budget of operands, because they become the operand. All else is
/// temporary, and reserved in the memory of requests: received frames, JSON, and the tensors of requests that run a kernel.
#[derive(Clone, Copy, Debug)]
pub(super) struct BodyMemory<'a> {
    request: &'a HostReservation,
    operand: Option<&'a OperandReservation>,
}

impl<'a> BodyMemory<'a> {
    /// Reserves everything in the memory of requests.
    pub(super) fn of_request(request: &'a HostReservation) -> Self {
        Self { request, operand: None }
    }

    /// Reserves tensors in the budget of operands.
    pub(super) fn of_upload(request: &'a HostReservation, operand: &'a OperandReservation) -> Self {
        Self { request, operand: Some(operand) }
    }

    /// Returns the reservation of what is temporary.
    pub(super) fn request(&self) -> &'a HostReservation {
        self.request
    }

    /// Checks whether tensors of `bytes` in total can be received, without reserving them.
    ///
    /// # Errors
    /// No request may have as much, or the operand is larger than what is free of a budget.
    pub(super) fn check_tensors(&self, bytes: u64) -> Result<(), SectionError> {
        match self.operand {
            Some(operand) => Ok(operand.check_free(bytes)?),
            None => Ok(self.request.check_possible(bytes)?),
        }
    }

    /// Reserves the memory of tensors.
    ///
    /// # Errors
    /// There is not enough memory.
    pub(super) fn grow_tensors(&self, bytes: u64) -> Result<(), SectionError> {
        match self.operand {
            Some(operand) => Ok(operand.grow(bytes)?),
            None => Ok(self.request.grow(bytes)?),
        }
    }

    /// Reserves memory of what is temporary.
    ///
    /// # Errors
    /// There is not enough memory.
    pub(super) fn grow(&self, bytes: u64) -> Result<(), HostMemoryError> {
        self.request.grow(bytes)
    }

    /// Returns the bytes that are reserved.
    pub(super) fn bytes(&self) -> u64 {
        self.request.bytes() + self.operand.map_or(0, OperandReservation::bytes)
    }

    /// Returns whether it has more than `bytes` of memory for the lack of which others were rejected lately.
    pub(super) fn is_short(&self, bytes: u64) -> bool {
        let request = self.request.bytes() > bytes && self.request.memory().is_short();
        request || self.operand.is_some_and(|operand| operand.bytes() > bytes && operand.is_short())
    }
}
