//! Device code that the crate embeds: a compressed file for each kernel, written by `scripts/build_device_code.py`.
//!
//! A file holds the PTX and machine code for some compute capabilities, each compressed by itself, so that loading a kernel
//! unpacks one of them. All numbers are little-endian `u32`s:
//!
//! | bytes | |
//! |---|---|
//! | 4 | number of images |
//! | 12 each | target (0 for PTX, else `10 * major + minor`), length, compressed length |
//! | | the images, in the same order, as `.lzma` streams |

use std::io::Read;

use lzma_rust2::LzmaReader;

/// The most memory that unpacking may take, in KiB. The dictionary is as long as the longest image at most.
const MAX_MEMORY_KIB: u32 = 64 << 10;

/// An embedded file of device code.
#[derive(Clone, Copy)]
pub(crate) struct DeviceCode {
    name: &'static str,
    file: &'static [u8],
}

/// One image of a file, still compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    target: Target,
    len: usize,
    packed: &'static [u8],
}

/// What an image is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// PTX, which the driver compiles for its device.
    Ptx,
    /// Machine code for devices of this compute capability's major number and of no lower minor number.
    Capability(u32, u32),
}

/// The [`DeviceCode`] of a kernel of this crate, by its id.
macro_rules! device_code {
    ($id:literal) => {
        $crate::cuda::DeviceCode::new(
            $id,
            include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/kernels/device_code/", $id, ".bin")),
        )
    };
}
pub(crate) use device_code;

impl DeviceCode {
    pub(crate) const fn new(name: &'static str, file: &'static [u8]) -> Self {
        Self { name, file }
    }

    pub(crate) const fn name(&self) -> &'static str {
        self.name
    }

    /// The machine code that a device of this compute capability runs, if there is some.
    pub(crate) fn machine_code(&self, (major, minor): (u32, u32)) -> Option<Image> {
        self.images().find(|image| matches!(image.target, Target::Capability(of, from) if of == major && from <= minor))
    }

    /// The PTX.
    pub(crate) fn ptx(&self) -> Option<Image> {
        self.images().find(|image| image.target == Target::Ptx)
    }

    /// All images; none where the file is damaged.
    fn images(&self) -> impl Iterator<Item = Image> {
        let (count, entries) = self.file.split_first_chunk().unwrap_or((&[0; 4], &[]));
        let count = u32::from_le_bytes(*count) as usize;
        let (entries, mut packed) = entries.split_at_checked(12 * count).unwrap_or((&[], &[]));
        entries.chunks_exact(12).map_while(move |entry| {
            let number = |at: usize| Some(u32::from_le_bytes(*entry[at..].first_chunk()?));
            let (target, len, packed_len) = (number(0)?, number(4)? as usize, number(8)? as usize);
            let image;
            (image, packed) = packed.split_at_checked(packed_len)?;
            let target = if target == 0 { Target::Ptx } else { Target::Capability(target / 10, target % 10) };
            Some(Image { target, len, packed: image })
        })
    }
}

impl std::fmt::Debug for DeviceCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeviceCode").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Image {
    pub(crate) fn target(&self) -> Target {
        self.target
    }

    /// The image, on an 8-byte boundary, from where the driver reads an ELF file in place. PTX ends with a zero byte.
    ///
    /// # Errors
    /// Where the file is damaged.
    pub(crate) fn unpack(&self) -> std::io::Result<Unpacked> {
        let mut words = vec![0_u64; self.len.div_ceil(8)];
        let bytes = &mut bytemuck::cast_slice_mut(&mut words)[..self.len];
        LzmaReader::new_mem_limit(self.packed, MAX_MEMORY_KIB, None)?.read_exact(bytes)?;
        Ok(Unpacked { words, len: self.len })
    }
}

/// An image that has been unpacked.
#[derive(Debug)]
pub(crate) struct Unpacked {
    words: Vec<u64>,
    len: usize,
}

impl std::ops::Deref for Unpacked {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.words)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAXPY: DeviceCode = device_code!("linalg/saxpy");

    #[test]
    fn a_device_gets_the_machine_code_that_it_can_run() {
        let found = |capability| SAXPY.machine_code(capability).map(|image| image.target());
        let of = |major, minor| Some(Target::Capability(major, minor));
        assert_eq!([(8, 0), (8, 6), (8, 9)].map(found), [of(8, 0); 3]);
        assert_eq!([(9, 0), (10, 3)].map(found), [of(9, 0), of(10, 0)]);
        assert_eq!([(7, 5), (11, 0), (12, 0)].map(found), [None; 3]);
    }

    #[test]
    fn images_are_unpacked_whole() {
        let ptx = SAXPY.ptx().unwrap().unpack().unwrap();
        let text = std::str::from_utf8(&ptx).unwrap();
        assert!(text.contains(".entry saxpy_f32") && text.ends_with('\0'), "{text}");
        for capability in [(8, 0), (9, 0), (10, 0)] {
            let code = SAXPY.machine_code(capability).unwrap().unpack().unwrap();
            assert!(code.starts_with(b"\x7fELF"));
            assert_eq!(code.as_ptr().align_offset(8), 0);
        }
    }

    #[test]
    fn a_damaged_file_is_an_error() {
        let cut = DeviceCode::new("cut", &SAXPY.file[..SAXPY.file.len() - 1]);
        assert_eq!(cut.machine_code((10, 0)), None, "its last image is not whole");
        static EMPTY: DeviceCode = DeviceCode::new("empty", &[]);
        assert_eq!(EMPTY.ptx(), None);
        let mut image = SAXPY.ptx().unwrap();
        image.packed = &image.packed[..image.packed.len() / 2];
        assert!(image.unpack().is_err());
    }
}
