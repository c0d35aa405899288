//! The PTX of embedded device code, for code that launches it without the crate.

use std::io::Read;

use lzma_rust2::LzmaReader;

pub(crate) static SAXPY: &[u8] = include_bytes!("../../src/kernels/device_code/linalg/saxpy.bin");
pub(crate) static OPTION_PRICING: &[u8] = include_bytes!("../../src/kernels/device_code/risk/option-pricing.bin");

/// The PTX in a file of `src/kernels/device_code`: its first image, in the format of `src/cuda/device_code.rs`.
pub(crate) fn ptx(file: &[u8]) -> String {
    let number = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap()) as usize;
    let (images, target, packed) = (number(0), number(4), number(12));
    assert_eq!(target, 0, "the first image is PTX");
    let start = 4 + 12 * images;
    let mut text = String::new();
    let mut reader = LzmaReader::new_mem_limit(&file[start..start + packed], 64 << 10, None).unwrap();
    reader.read_to_string(&mut text).unwrap();
    text.truncate(text.len() - 1); // the zero byte at its end
    text
}
