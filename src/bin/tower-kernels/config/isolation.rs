//! The settings of device processes.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
#[cfg(target_os = "linux")]
use tower_kernels::backends::process::ProcessConfig;

use super::Span;

/// Which backends run their kernels in processes of their own, and the settings of these processes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Isolation {
    pub(crate) backends: IsolatedBackends,
    pub(crate) standby: bool,
    /// 0 quarantines no kernel.
    pub(crate) max_faults: u32,
    pub(crate) quarantine: Span,
    pub(crate) hang_timeout: Span,
    pub(crate) start_timeout: Span,
    pub(crate) shared_memory: u64,
    /// Faults leave no reports if it is empty.
    pub(crate) reports: PathBuf,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum IsolatedBackends {
    #[default]
    None,
    Cpu,
    Cuda,
    All,
}

impl IsolatedBackends {
    #[cfg(target_os = "linux")]
    pub(crate) fn cpu(self) -> bool {
        matches!(self, Self::Cpu | Self::All)
    }

    #[cfg(target_os = "linux")]
    pub(crate) fn cuda(self) -> bool {
        matches!(self, Self::Cuda | Self::All)
    }
}

impl Default for Isolation {
    fn default() -> Self {
        Self {
            backends: IsolatedBackends::None,
            standby: true,
            max_faults: 3,
            quarantine: Span(Duration::from_secs(60)),
            hang_timeout: Span(Duration::from_secs(10)),
            start_timeout: Span(Duration::from_secs(60)),
            shared_memory: 4 << 30,
            reports: PathBuf::new(),
        }
    }
}

#[cfg(target_os = "linux")]
impl Isolation {
    pub(crate) fn processes(&self) -> ProcessConfig {
        ProcessConfig {
            standby: self.standby,
            max_faults: self.max_faults,
            quarantine: self.quarantine.0,
            hang_timeout: self.hang_timeout.0,
            start_timeout: self.start_timeout.0,
            shared_memory: self.shared_memory,
            reports: (!self.reports.as_os_str().is_empty()).then(|| self.reports.clone()),
            ..ProcessConfig::default()
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_library() {
        assert_eq!(Isolation::default().processes(), ProcessConfig::default());
    }
}
