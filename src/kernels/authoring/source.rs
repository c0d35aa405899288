//! [`with_device_headers!`](super::with_device_headers): the headers of device code for kernels given as source.

/// The text of `elementwise.cuh`.
pub const ELEMENTWISE_HEADER: &str = include_str!("../include/elementwise.cuh");

/// The text of `reduce.cuh`.
pub const REDUCE_HEADER: &str = include_str!("../include/reduce.cuh");

/// The parts one after the other; `N` is the sum of their lengths.
pub const fn join<const N: usize>(parts: [&str; 3]) -> [u8; N] {
    let mut joined = [0; N];
    let (mut part, mut end) = (0, 0);
    while part < parts.len() {
        let bytes = parts[part].as_bytes();
        let mut index = 0;
        while index < bytes.len() {
            joined[end] = bytes[index];
            index += 1;
            end += 1;
        }
        part += 1;
    }
    joined
}

/// CUDA C++ source with the headers `elementwise.cuh` and `reduce.cuh` before it, as a `&'static str` for
/// [`Module::from_source`](crate::cuda::Module::from_source). The source needs no `#include`.
#[doc(hidden)]
#[macro_export]
macro_rules! __with_device_headers {
    ($source:expr) => {{
        use $crate::kernels::authoring::{ELEMENTWISE_HEADER, REDUCE_HEADER, join};
        const PARTS: [&str; 3] = [ELEMENTWISE_HEADER, REDUCE_HEADER, $source];
        const LENGTH: usize = PARTS[0].len() + PARTS[1].len() + PARTS[2].len();
        const JOINED: [u8; LENGTH] = join(PARTS);
        const TEXT: &str = match std::str::from_utf8(&JOINED) {
            Ok(text) => text,
            Err(_) => panic!("strings joined to a string"),
        };
        TEXT
    }};
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_source_follows_the_headers_and_includes_no_file() {
        let text: &'static str = crate::kernels::authoring::with_device_headers!("int last;");
        assert!(text.ends_with("int last;") && text.contains("elementwise(") && text.contains("merge_partials("));
        // Source that includes files is compiled anew in each process.
        assert!(!text.contains("#include"));
    }
}
