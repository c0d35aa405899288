//! The settings of operands.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{MemoryMax, Span};

/// Limits operands, and the requests that upload them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Operands {
    /// Operands do not survive a restart if it is empty.
    pub(crate) dir: PathBuf,
    pub(crate) max_bytes: MemoryMax,
    /// 0 is no limit but `max_bytes`.
    pub(crate) max_bytes_per_tenant: u64,
    pub(crate) max_operands: NonZeroUsize,
    /// 0 is no limit but `max_operands`.
    pub(crate) max_operands_per_tenant: usize,
    pub(crate) max_upload: usize,
    pub(crate) upload_timeout: Span,
}

impl Default for Operands {
    fn default() -> Self {
        Self {
            dir: PathBuf::new(),
            max_bytes: MemoryMax::Auto,
            max_bytes_per_tenant: 0,
            max_operands: NonZeroUsize::new(100_000).expect("not zero"),
            max_operands_per_tenant: 0,
            max_upload: 16 << 30,
            upload_timeout: Span(Duration::from_secs(600)),
        }
    }
}
