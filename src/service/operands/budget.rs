//! [`OperandLimits`]: the memory and the number of operands, and what of it each version is charged.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::{OperandBudget, OperandError};
use crate::sync::AtomicU64;

/// Limits of the operands of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperandLimits {
    /// Bytes of host memory that all operands may have together. A version that was replaced or deleted counts until the
    /// last request on it has ended.
    pub max_bytes: u64,
    /// Bytes of host memory that the operands of one tenant may have together.
    pub max_bytes_per_tenant: u64,
    /// Maximum number of operands.
    pub max_operands: usize,
    /// Maximum number of operands of one tenant.
    pub max_operands_per_tenant: usize,
}

impl Default for OperandLimits {
    /// No limit on bytes, 100 000 operands.
    fn default() -> Self {
        Self {
            max_bytes: u64::MAX,
            max_bytes_per_tenant: u64::MAX,
            max_operands: 100_000,
            max_operands_per_tenant: 100_000,
        }
    }
}

/// Counts of the operands of a process or a tenant.
#[derive(Debug, Default)]
pub(super) struct Usage {
    pub(super) bytes: AtomicU64,
    pub(super) versions: AtomicU64,
}

/// The memory of one version, which counts as used until this is dropped.
#[derive(Debug)]
pub(super) struct Charge {
    bytes: u64,
    all: Arc<Usage>,
    tenant: Arc<Usage>,
}

impl Charge {
    /// Charges `bytes`. The caller holds the lock, so that no other charge comes between check and change.
    pub(super) fn new(
        bytes: u64,
        all: &Arc<Usage>,
        tenant: &Arc<Usage>,
        limits: &OperandLimits,
    ) -> Result<Self, OperandError> {
        for (budget, usage, max) in
            [(OperandBudget::Tenant, tenant, limits.max_bytes_per_tenant), (OperandBudget::Host, all, limits.max_bytes)]
        {
            let free = max.saturating_sub(usage.bytes.load(Ordering::Relaxed));
            if bytes > free {
                return Err(OperandError::OverBudget { budget, need: bytes, free });
            }
        }
        for usage in [all, tenant] {
            usage.bytes.fetch_add(bytes, Ordering::Relaxed);
            usage.versions.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Self { bytes, all: Arc::clone(all), tenant: Arc::clone(tenant) })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        for usage in [&self.all, &self.tenant] {
            usage.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
            usage.versions.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
