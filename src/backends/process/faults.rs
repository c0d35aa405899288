//! [`Faults`]: the faults of each kernel, and which kernels are quarantined for them.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::service::KernelError;

/// Counts the faults of each kernel, for each tenant and in all, and rejects a kernel that has too many.
#[derive(Debug)]
pub(super) struct Faults {
    /// Faults of a kernel for one tenant that quarantine it for this tenant; twice as many quarantine it for all. 0: none do.
    max: u32,
    /// The time in which they are counted, and for which a kernel is quarantined.
    window: Duration,
    counted: Mutex<HashMap<Subject, Record>>,
    /// Subjects in quarantine, to look no further while there are none.
    quarantined: AtomicUsize,
}

/// A kernel, for one tenant or for all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Subject {
    kernel: Arc<str>,
    /// `None` for all tenants; `Some("")` for requests without a tenant.
    tenant: Option<Arc<str>>,
}

#[derive(Debug, Default)]
struct Record {
    /// When the last faults were, the oldest first.
    faults: VecDeque<Instant>,
    until: Option<Instant>,
}

/// The number of kernels whose faults are remembered. Beyond, those without a recent fault are forgotten.
const MAX_SUBJECTS: usize = 10_000;

/// A kernel that is quarantined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Quarantined {
    pub(super) kernel: Arc<str>,
    /// The tenant; `None` for all.
    pub(super) tenant: Option<Arc<str>>,
    pub(super) remaining: Duration,
}

impl Faults {
    pub(super) fn new(max: u32, window: Duration) -> Self {
        Self { max, window, counted: Mutex::default(), quarantined: AtomicUsize::new(0) }
    }

    /// Checks whether a kernel may run.
    ///
    /// # Errors
    /// [`KernelError::Quarantined`], with the time that is left.
    pub(super) fn check(&self, kernel: &str, tenant: Option<&Arc<str>>) -> Result<(), KernelError> {
        if self.quarantined.load(Ordering::Relaxed) == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let mut counted = self.counted.lock();
        for subject in Self::subjects(kernel, tenant) {
            let Some(record) = counted.get_mut(&subject) else { continue };
            match record.until {
                Some(until) if until > now => {
                    return Err(KernelError::Quarantined { kernel: kernel.to_owned().into(), remaining: until - now });
                }
                // It begins anew.
                Some(_) => {
                    counted.remove(&subject);
                    self.quarantined.fetch_sub(1, Ordering::Relaxed);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Records a fault of a kernel.
    pub(super) fn record(&self, kernel: &str, tenant: Option<&Arc<str>>) {
        if self.max == 0 {
            return;
        }
        let now = Instant::now();
        let mut counted = self.counted.lock();
        if counted.len() >= MAX_SUBJECTS {
            let is_recent = |record: &Record| record.faults.back().is_some_and(|&last| now - last < self.window);
            counted.retain(|_, record| record.until.is_some() || is_recent(record));
        }
        for (subject, max) in Self::subjects(kernel, tenant).into_iter().zip([self.max, self.max.saturating_mul(2)]) {
            let record = counted.entry(subject).or_default();
            record.faults.push_back(now);
            while record.faults.front().is_some_and(|&first| now - first >= self.window) {
                record.faults.pop_front();
            }
            if record.faults.len() >= max as usize && record.until.is_none() {
                record.until = now.checked_add(self.window);
                self.quarantined.fetch_add(1, Ordering::Relaxed);
                tracing::error!(
                    kernel,
                    tenant = tenant.map(|tenant| &**tenant),
                    "a kernel is quarantined for its faults"
                );
            }
        }
    }

    /// Ends the quarantine of a kernel, for all tenants. Returns whether it was in one.
    pub(super) fn release(&self, kernel: &str) -> bool {
        let mut counted = self.counted.lock();
        let before = counted.len();
        let mut released = 0;
        counted.retain(|subject, record| {
            let is_kernel = &*subject.kernel == kernel;
            released += usize::from(is_kernel && record.until.is_some());
            !is_kernel
        });
        self.quarantined.fetch_sub(released, Ordering::Relaxed);
        counted.len() < before && released > 0
    }

    /// Returns the kernels that are quarantined now.
    pub(super) fn quarantined(&self) -> Vec<Quarantined> {
        let now = Instant::now();
        let counted = self.counted.lock();
        let quarantined = counted.iter().filter_map(|(Subject { kernel, tenant }, record)| {
            let remaining = record.until?.checked_duration_since(now)?;
            Some(Quarantined { kernel: Arc::clone(kernel), tenant: tenant.clone(), remaining })
        });
        quarantined.collect()
    }

    /// Returns the kernel for this tenant, and for all.
    fn subjects(kernel: &str, tenant: Option<&Arc<str>>) -> [Subject; 2] {
        let own = tenant.cloned().unwrap_or_else(|| "".into());
        let kernel: Arc<str> = kernel.into();
        [Some(own), None].map(|tenant| Subject { kernel: Arc::clone(&kernel), tenant })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(200);

    fn faults(max: u32) -> (Faults, &'static str) {
        (Faults::new(max, WINDOW), "test/kernel")
    }

    #[test]
    fn a_kernel_is_quarantined_for_the_tenant_whose_requests_fault_and_then_for_all() {
        let (faults, kernel) = faults(2);
        let (acme, other) = (Arc::from("acme"), Arc::from("other"));
        faults.record(kernel, Some(&acme));
        faults.check(kernel, Some(&acme)).unwrap();
        faults.record(kernel, Some(&acme));
        let error = faults.check(kernel, Some(&acme)).unwrap_err();
        assert!(matches!(error, KernelError::Quarantined { remaining, .. } if remaining <= WINDOW), "{error}");
        faults.check(kernel, Some(&other)).unwrap();
        faults.check(kernel, None).unwrap();
        faults.check("test/another", Some(&acme)).unwrap();
        faults.record(kernel, None);
        faults.record(kernel, Some(&other));
        faults.check(kernel, Some(&other)).unwrap_err();
        assert_eq!(faults.quarantined().len(), 2);
    }

    #[test]
    fn a_quarantine_ends_by_time_and_by_hand() {
        let (faults, kernel) = faults(1);
        faults.record(kernel, None);
        faults.check(kernel, None).unwrap_err();
        assert!(faults.release(kernel) && !faults.release(kernel));
        faults.check(kernel, None).unwrap();
        faults.record(kernel, None);
        faults.check(kernel, None).unwrap_err();
        std::thread::sleep(WINDOW);
        faults.check(kernel, None).unwrap();
        assert_eq!(faults.quarantined(), []);
    }

    #[test]
    fn faults_that_are_long_past_do_not_count() {
        let (faults, kernel) = faults(2);
        faults.record(kernel, None);
        std::thread::sleep(WINDOW);
        faults.record(kernel, None);
        faults.check(kernel, None).unwrap();
    }

    #[test]
    fn with_a_maximum_of_zero_no_kernel_is_quarantined() {
        let (faults, kernel) = faults(0);
        for _ in 0..100 {
            faults.record(kernel, None);
        }
        faults.check(kernel, None).unwrap();
    }
}
