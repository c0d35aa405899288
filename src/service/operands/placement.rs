//! [`Placement`]: on which devices an operand is, and the devices that put it there.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::error::OperandError;
use super::memory::OperandMemory;

/// On which devices an operand is. Each of them has a copy, besides the value in host memory.
///
/// A device evicts copies that were made on demand and that no request uses where it needs the memory, and makes them again
/// when requests do. Copies that were made from the start stay: they are evicted for no other copy, and where a request needs
/// their memory for its run and nothing else is left, they are made again by the next request that uses them.
///
/// Devices that are [isolated](crate::backends) make all copies on demand, whatever the placement, but for [`HostOnly`](Self::HostOnly).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Placement {
    /// On each device that a request on the operand runs on, from the first such request on.
    #[default]
    OnDemand,
    /// On all devices from the start. The put fails unless there is memory for it on each.
    All,
    /// On one device from the start, the one with the most free memory for operands; on others on demand. The put fails if
    /// there is no memory for it on any.
    One,
    /// On none: each request uploads what it needs.
    HostOnly,
}

impl Placement {
    /// `"on_demand"`, `"all"`, `"one"` or `"host_only"`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OnDemand => "on_demand",
            Self::All => "all",
            Self::One => "one",
            Self::HostOnly => "host_only",
        }
    }
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Devices that can have copies of operands.
pub trait OperandDevices: Send + Sync {
    /// Makes copies of an operand that is about to be stored, as its [placement](OperandMemory::placement) says. They are
    /// freed when the operand's memory is dropped. A device that is lost is left out.
    ///
    /// It is called on the thread that stores the operand, which it blocks until the copies are made.
    ///
    /// # Errors
    /// [`OperandError::OverBudget`] if there is no memory for a copy, and errors of the devices. The operand is not stored.
    fn place(&self, operand: &OperandMemory) -> Result<(), OperandError>;
}

/// The devices that place operands, as long as they are there.
#[derive(Default)]
pub(super) struct Placers(ArcSwap<Vec<Weak<dyn OperandDevices>>>);

impl Placers {
    pub(super) fn add(&self, devices: &Weak<dyn OperandDevices>) {
        self.0.rcu(|known| {
            let others = known.iter().filter(|known| known.strong_count() > 0 && !known.ptr_eq(devices));
            others.chain([devices]).cloned().collect::<Vec<_>>()
        });
    }

    /// Makes the copies that the operand's placement asks for.
    pub(super) fn place(&self, operand: &OperandMemory) -> Result<(), OperandError> {
        if matches!(operand.placement(), Placement::OnDemand | Placement::HostOnly) {
            return Ok(());
        }
        let placers: Vec<Arc<_>> = self.0.load().iter().filter_map(Weak::upgrade).collect();
        placers.iter().try_for_each(|devices| devices.place(operand))
    }
}
