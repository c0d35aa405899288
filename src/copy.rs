//! Copies of large arrays by several threads: one can saturate neither the bus of a device nor the memory.

// Memory that is copied to need not be initialised.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Threads that help to copy, by default none. A pool of its own, because kernels keep the threads of rayon's global pool busy.
#[derive(Clone, Debug, Default)]
pub(crate) struct CopyThreads(Option<Arc<ThreadPool>>);

/// Up to this many bytes one thread is faster.
const SINGLE_THREADED: usize = 512 << 10;

impl CopyThreads {
    /// How many threads help by default where `processors` are there for one device.
    pub(crate) fn default_count(processors: usize) -> usize {
        (processors / 4).min(4)
    }

    /// Starts `threads` threads, which `owner` is part of the names of.
    pub(crate) fn start(owner: &str, threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let owner = owner.to_owned();
        let name = move |index| format!("{owner}-copy-{index}");
        let pool = || ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
        (threads > 0).then(pool).transpose().map(|pool| Self(pool.map(Arc::new)))
    }

    /// How many threads help.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub(crate) fn count(&self) -> usize {
        self.0.as_ref().map_or(0, |pool| pool.current_num_threads())
    }

    /// Copies `from` to `to`, which has the same length and is initialised by the copy.
    pub(crate) fn copy(&self, from: &[u8], to: &mut [MaybeUninit<u8>]) {
        // SAFETY: `MaybeUninit<u8>` has the layout of `u8`, and initialised bytes are valid for it.
        let from: &[MaybeUninit<u8>] = unsafe { &*(std::ptr::from_ref(from) as *const _) };
        let Some(pool) = self.0.as_ref().filter(|_| from.len() > SINGLE_THREADED) else {
            to.copy_from_slice(from);
            return;
        };
        let share = from.len().div_ceil(pool.current_num_threads() + 1).next_multiple_of(4096);
        pool.in_place_scope(|scope| {
            let mut shares = to.chunks_mut(share).zip(from.chunks(share));
            let own = shares.next();
            for (to, from) in shares {
                scope.spawn(move |_| to.copy_from_slice(from));
            }
            if let Some((to, from)) = own {
                to.copy_from_slice(from);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::CopyThreads;

    #[test]
    fn copies_are_equal_with_any_number_of_threads() {
        for threads in [0, 3] {
            let helpers = CopyThreads::start("test", threads).unwrap();
            for len in [0, 1, (512 << 10) + 1, (2 << 20) - 1] {
                let from: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
                let mut to = Vec::with_capacity(len);
                helpers.copy(&from, &mut to.spare_capacity_mut()[..len]);
                // SAFETY: initialised by the copy.
                unsafe { to.set_len(len) };
                assert!(from == to, "{len}");
            }
        }
    }
}
