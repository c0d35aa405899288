//! Stores, finds and removes operands, for every server.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::offload::offload;
use crate::service::{
    HostReservation, InvalidInput, KernelError, OperandError, OperandReference, OperandReservation, OperandVersion,
    Operands, Payload, PutOptions, RemoveOptions, RunContext,
};

/// Default maximum size of an uploaded operand, in bytes: 16 GiB.
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(super) const MAX_OPERAND_SIZE: usize = 16 << 30;

/// Default maximum time of the upload of an operand.
pub(super) const OPERAND_TIMEOUT: Duration = Duration::from_secs(600);

/// An operand to be stored.
pub(super) struct NewOperand {
    pub(super) name: String,
    pub(super) type_name: String,
    pub(super) options: PutOptions,
    pub(super) payload: Payload,
    /// The memory of the payload's tensors.
    pub(super) reservation: OperandReservation,
}

/// Decodes, checks and stores an operand on the blocking pool. Dropping the future aborts this, unless the operand is
/// being inserted already. `memory` is charged for what decoding takes.
pub(super) async fn store_operand(
    operands: Operands,
    operand: NewOperand,
    deadline: Option<Instant>,
    memory: Option<HostReservation>,
) -> Result<Arc<OperandVersion>, OperandError> {
    let abort = AbortOnDrop::default();
    let is_aborted = Arc::clone(&abort.0);
    let storing = offload(true, move || {
        let NewOperand { name, type_name, options, payload, reservation } = operand;
        let is_aborted = || is_aborted.load(Ordering::Relaxed);
        let context = RunContext::new(Some(&is_aborted), deadline).with_memory(memory.as_ref());
        operands.put_received(&name, &type_name, payload, reservation, &options, &context)
    });
    // The work checks the deadline too, but only once it has started.
    match deadline {
        Some(deadline) => within(deadline, storing).await,
        None => storing.await,
    }
}

async fn within<T>(deadline: Instant, work: impl Future<Output = Result<T, OperandError>>) -> Result<T, OperandError> {
    let late = |_| OperandError::from(KernelError::DeadlineExceeded { started: false });
    tokio::time::timeout_at(deadline.into(), work).await.map_err(late)?
}

/// Aborts the storing of an operand if nobody waits for it any more.
#[derive(Default)]
struct AbortOnDrop(Arc<AtomicBool>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns the operand of this name, or this name and version.
pub(super) fn find_operand(
    operands: &Operands,
    tenant: Option<&str>,
    reference: &str,
) -> Result<Arc<OperandVersion>, OperandError> {
    check_whole(reference)?;
    let missing = || match operands.is_loading() {
        true => OperandError::Loading,
        false => OperandError::NotFound { reference: reference.to_owned() },
    };
    operands.get(tenant, reference).ok_or_else(missing)
}

/// Removes the operand of this name, or this name and version; on the blocking pool if it has files.
pub(super) async fn remove_operand(
    operands: &Operands,
    reference: &str,
    options: RemoveOptions,
) -> Result<Arc<OperandVersion>, OperandError> {
    check_whole(reference)?;
    let (operands, reference) = (operands.clone(), reference.to_owned());
    offload(operands.is_persistent(), move || operands.remove(&reference, &options)).await
}

fn check_whole(reference: &str) -> Result<(), InvalidInput> {
    match OperandReference::parse(reference)?.tensor {
        None => Ok(()),
        Some(_) => Err(InvalidInput::new("operand", "it names one tensor of an operand")),
    }
}
