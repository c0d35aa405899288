//! Copies between pageable and pinned memory, by several threads: one cannot saturate the bus.

use std::mem::MaybeUninit;
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Threads that help to copy. A pool of its own, because kernels keep the threads of rayon's global pool busy.
#[derive(Clone, Debug)]
pub(super) struct CopyThreads(Option<Arc<ThreadPool>>);

/// Up to this many bytes one thread is faster.
const SINGLE_THREADED: usize = 512 << 10;

impl CopyThreads {
    pub(super) fn new(ordinal: u32, threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let name = move |index| format!("cuda{ordinal}-copy-{index}");
        let pool = || ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
        (threads > 0).then(pool).transpose().map(|pool| Self(pool.map(Arc::new)))
    }

    /// Copies `from` to `to`, which has the same length and is initialised by the copy.
    pub(super) fn copy(&self, from: &[u8], to: &mut [MaybeUninit<u8>]) {
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

/// An empty `Vec` with capacity for `len` elements, in huge pages if it is large: it is written once, and faulting it in page
/// by page takes longer than the bus takes to fill it. (Not a zeroed `Buffer`: memory that the allocator has kept would be
/// written twice, which doubles the time of a download of 4 MiB.)
pub(super) fn vec_in_huge_pages<T>(len: usize) -> Vec<T> {
    let mut vec: Vec<T> = Vec::with_capacity(len);
    #[cfg(target_os = "linux")]
    advise_huge_pages(vec.spare_capacity_mut());
    vec
}

#[cfg(target_os = "linux")]
fn advise_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    use std::ffi::{c_int, c_void};

    const HUGE_PAGE: usize = 2 << 20;
    const MADV_HUGEPAGE: c_int = 14;
    unsafe extern "C" {
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }

    let bytes = size_of_val(memory);
    let start = memory.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(HUGE_PAGE);
    if bytes < 2 * HUGE_PAGE || skipped >= bytes {
        return;
    }
    let length = (bytes - skipped) / HUGE_PAGE * HUGE_PAGE;
    // SAFETY: whole pages within `memory`, whose content and mapping the advice does not change. It is only advice, so an
    // error changes nothing.
    unsafe { madvise(start.add(skipped).cast(), length, MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::CopyThreads;

    #[test]
    fn copies_are_equal_with_any_number_of_threads() {
        for threads in [0, 3] {
            let helpers = CopyThreads::new(0, threads).unwrap();
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
