//! Memory that a download is copied to.

use std::mem::MaybeUninit;

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
