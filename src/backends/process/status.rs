use schemars::JsonSchema;
use serde::Serialize;

use super::processes::Shared;

/// The processes of a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct ProcessStatus {
    /// The id of the process that runs jobs; absent while one is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// The id of the standby; absent while one is started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub standby_pid: Option<u32>,
    /// How many processes that ran jobs have ended.
    pub replaced: u64,
    /// Kernels that are rejected for their faults.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub quarantined: Vec<QuarantinedKernel>,
}

/// A kernel that is rejected for its faults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct QuarantinedKernel {
    /// The id of the kernel.
    pub kernel: String,
    /// Whether the requests of all tenants are rejected, and not those of one.
    pub all_tenants: bool,
    /// The tenant whose requests are rejected, empty for requests without one; `None` if all are. Not in JSON, as health checks
    /// need no credentials.
    #[serde(skip)]
    pub tenant: Option<String>,
    /// For how many milliseconds more.
    pub remaining_ms: u64,
}

impl ProcessStatus {
    pub(super) fn of(shared: &Shared) -> Self {
        let (pid, standby_pid) = shared.pids();
        let quarantined = shared.faults.quarantined().into_iter().map(|quarantined| QuarantinedKernel {
            kernel: quarantined.kernel.to_string(),
            all_tenants: quarantined.tenant.is_none(),
            tenant: quarantined.tenant.map(|tenant| tenant.to_string()),
            remaining_ms: u64::try_from(quarantined.remaining.as_millis()).unwrap_or(u64::MAX),
        });
        Self { pid, standby_pid, replaced: shared.replaced(), quarantined: quarantined.collect() }
    }

    /// Describes what is wrong, for people. A standby that is being started is no problem.
    pub(crate) fn problems(&self, device: &str) -> Vec<String> {
        let starting = self.pid.is_none().then(|| format!("the device process of {device} is being started"));
        let quarantined = self.quarantined.iter().map(|QuarantinedKernel { kernel, all_tenants, .. }| {
            let tenants = if *all_tenants { "all tenants" } else { "a tenant" };
            format!("the kernel `{kernel}` is quarantined on {device} for {tenants}")
        });
        starting.into_iter().chain(quarantined).collect()
    }
}
