//! Operands that another process of the same program has sent.

use std::sync::Arc;

use super::budget::{Budget, OperandLimits};
use super::error::OperandError;
use super::memory::OperandMemory;
use super::placement::Placement;
use super::store::Operands;
use super::version::OperandVersion;
use crate::panics::catch_panic;
use crate::service::{KernelError, Payload, RunContext, Tensors};

impl OperandVersion {
    /// Returns the tensors of a document that makes an equal value, with which the version is sent to another process.
    pub(crate) fn to_tensors(&self) -> Tensors {
        self.erased_value().to_tensors()
    }
}

impl Operands {
    /// Makes a version of the tensors that another process has sent. It is not stored, and is charged to no budget, as the
    /// process that has sent it holds the budgets.
    ///
    /// # Errors
    /// The type is not registered, or the tensors are not those of a value.
    pub(crate) fn receive(
        &self,
        id: u64,
        type_name: &str,
        (name, version): (String, u64),
        placement: Placement,
        tensors: Tensors,
    ) -> Result<Arc<OperandVersion>, KernelError> {
        let failed = |error: OperandError| KernelError::Device(format!("an operand cannot be received: {error}"));
        let operand_type = self.shared.operand_type(type_name).map_err(failed)?;
        let context = RunContext::detached();
        let value = catch_panic(|| (operand_type.decode)(Payload::Tensors(tensors), &context));
        let value = value.map_err(|panicked| KernelError::Panicked { message: panicked.into_message() })?;
        let value = value.map_err(failed)?;
        let reservation = Arc::new(Budget::new(OperandLimits::default())).reservation("".into());
        reservation.resize(value.bytes()).map_err(failed)?;
        let memory = OperandMemory::new(value, reservation.into_charge(), placement);
        Ok(Arc::new(OperandVersion::received(id, memory, (name.into(), version))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{PutOptions, TensorSet};
    use super::*;
    use crate::service::KernelRegistry;

    #[test]
    fn a_received_version_is_where_that_of_its_sender_is() {
        let registry = KernelRegistry::new();
        let operands = registry.operands();
        for placement in [Placement::OnDemand, Placement::HostOnly] {
            let options = PutOptions { placement, ..PutOptions::default() };
            let stored = operands.put_with("x", TensorSet::of("x", vec![1.0_f32; 4]), &options).unwrap();
            let sent = stored.version().unwrap();
            let identity = (sent.name().to_owned(), sent.version());
            let received = operands.receive(sent.id(), sent.type_name(), identity, sent.placement(), sent.to_tensors());
            let received = received.unwrap();
            assert_eq!((received.id(), received.placement()), (sent.id(), placement));
            let bytes = |version: &OperandVersion| version.to_tensors().get("x").map(|tensor| tensor.data().clone());
            assert!(bytes(&received).is_some() && bytes(&received) == bytes(sent));
        }
    }
}
