//! Copies between ordinary memory and staging: one thread cannot keep up with the bus.

use std::mem::MaybeUninit;
use std::sync::Arc;

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder};

/// Threads that help lanes to copy. Not rayon's global pool, whose threads may be deep in some kernel's work.
#[derive(Clone, Debug)]
pub(crate) struct Copiers(Option<Arc<ThreadPool>>);

/// What is faster done alone than handed out.
const ALONE: usize = 512 << 10;

impl Copiers {
    pub(crate) fn new(ordinal: u32, threads: usize) -> Result<Self, ThreadPoolBuildError> {
        let name = move |index| format!("cuda{ordinal}-copy-{index}");
        let pool = || ThreadPoolBuilder::new().num_threads(threads).thread_name(name).build();
        (threads > 0).then(pool).transpose().map(|pool| Self(pool.map(Arc::new)))
    }

    /// Copies `from` onto `to`, which is as long and initialised by it.
    pub(crate) fn copy(&self, from: &[u8], to: &mut [MaybeUninit<u8>]) {
        // SAFETY: what is initialised is also what may not be.
        let from: &[MaybeUninit<u8>] = unsafe { &*(std::ptr::from_ref(from) as *const _) };
        let Some(pool) = self.0.as_ref().filter(|_| from.len() > ALONE) else {
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

/// An empty `Vec` with room for `len`. Large ones are asked for in huge pages: a fresh array is written once, and taking
/// it from the system page by page takes longer than the bus takes to fill it. (Not a zeroed `Buffer`: memory that the
/// allocator has kept is not written twice, which halves the time of a download of 4 MiB.)
pub(crate) fn room_for<T>(len: usize) -> Vec<T> {
    let mut room: Vec<T> = Vec::with_capacity(len);
    #[cfg(target_os = "linux")]
    advise_huge_pages(room.spare_capacity_mut());
    room
}

#[cfg(target_os = "linux")]
fn advise_huge_pages<T>(room: &mut [MaybeUninit<T>]) {
    use std::ffi::{c_int, c_void};

    const HUGE_PAGE: usize = 2 << 20;
    const MADV_HUGEPAGE: c_int = 14;
    unsafe extern "C" {
        fn madvise(address: *mut c_void, length: usize, advice: c_int) -> c_int;
    }

    let bytes = size_of_val(room);
    let start = room.as_mut_ptr().cast::<u8>();
    let skipped = start.align_offset(HUGE_PAGE);
    if bytes < 2 * HUGE_PAGE || skipped >= bytes {
        return;
    }
    let length = (bytes - skipped) / HUGE_PAGE * HUGE_PAGE;
    // SAFETY: whole pages within `room`, whose content and mapping the advice does not change. Where the system does not
    // take the advice, everything is as it was.
    unsafe { madvise(start.add(skipped).cast(), length, MADV_HUGEPAGE) };
}

#[cfg(test)]
mod tests {
    use super::Copiers;

    #[test]
    fn a_copy_with_help_is_a_copy() {
        for threads in [0, 3] {
            let copiers = Copiers::new(0, threads).unwrap();
            for len in [0, 1, (512 << 10) + 1, (2 << 20) - 1] {
                let from: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
                let mut to = Vec::with_capacity(len);
                copiers.copy(&from, &mut to.spare_capacity_mut()[..len]);
                // SAFETY: initialised by the copy.
                unsafe { to.set_len(len) };
                assert!(from == to, "{len}");
            }
        }
    }
}
