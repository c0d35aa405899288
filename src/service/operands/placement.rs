//! [`Placement`]: on which devices an operand is, and the devices that put it there.

use std::fmt;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::version::OperandVersion;

/// On which devices an operand is. Each of them has a copy, besides the value in host memory.
///
/// A device evicts copies that no request uses where it needs the memory, and makes them again when requests do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Placement {
    /// On each device that a request on the operand runs on, from the first such request on.
    #[default]
    OnDemand,
    /// On all devices from the start.
    All,
    /// On one device from the start, the one with the most free memory for operands; on others on demand.
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
    /// Makes copies of a version that was just stored, as its [placement](OperandVersion::placement) says. Where there is no
    /// memory for a copy, or a device fails, requests make the copies that they need.
    ///
    /// It is called on the thread that stores the operand, which it blocks until the copies are made.
    fn place(&self, version: &OperandVersion);
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

    pub(super) fn place(&self, version: &OperandVersion) {
        if matches!(version.placement(), Placement::OnDemand | Placement::HostOnly) {
            return;
        }
        let placers: Vec<Arc<_>> = self.0.load().iter().filter_map(Weak::upgrade).collect();
        placers.iter().for_each(|devices| devices.place(version));
    }
}
