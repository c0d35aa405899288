//! [`SentOperands`]: the operands that a device process has.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::service::OperandVersion;

/// The versions of operands that a process was sent.
#[derive(Default)]
pub(super) struct SentOperands {
    versions: Mutex<HashMap<u64, Sent>>,
}

struct Sent {
    version: Weak<OperandVersion>,
    /// Whether the process has it; locked while it is sent.
    is_there: Arc<Mutex<bool>>,
}

impl SentOperands {
    /// Sends a version unless the process has it. Other workers that need it wait meanwhile, and no others do.
    pub(super) fn ensure<E>(
        &self,
        version: &Arc<OperandVersion>,
        send: impl FnOnce() -> Result<(), E>,
    ) -> Result<(), E> {
        let is_there = {
            let mut versions = self.versions.lock();
            let new = || Sent { version: Arc::downgrade(version), is_there: Arc::default() };
            Arc::clone(&versions.entry(version.id()).or_insert_with(new).is_there)
        };
        let mut is_there = is_there.lock();
        if !*is_there {
            send()?;
            *is_there = true;
        }
        Ok(())
    }

    /// Takes the versions that no request can refer to any more.
    pub(super) fn take_unused(&self) -> Vec<u64> {
        let mut unused = Vec::new();
        self.versions.lock().retain(|&id, sent| {
            let is_used = sent.version.strong_count() > 0;
            if !is_used {
                unused.push(id);
            }
            is_used
        });
        unused
    }
}
