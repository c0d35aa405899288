//! Reads the header of a numpy file (`.npy`), format versions 1 and 2.
//!
//! The file is the magic string and version, the length of the header, the header, and the elements. The header is a
//! Python dict: `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.

use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use tower_kernels::request::MAX_RANK;
use tower_kernels::service::DType;

const MAGIC: &[u8] = b"\x93NUMPY";

/// Maximum length of a header in bytes, which is numpy's own default. A header of [`MAX_RANK`] dimensions is far shorter.
const MAX_HEADER: usize = 10_000;

/// Dtypes by their names in the header, and their names in the binary tensor data extension of the Open Inference
/// Protocol.
const DTYPES: [(&str, DType, &str); 9] = [
    ("|b1", DType::Bool, "BOOL"),
    ("|u1", DType::U8, "UINT8"),
    ("<u4", DType::U32, "UINT32"),
    ("<u8", DType::U64, "UINT64"),
    ("<i4", DType::I32, "INT32"),
    ("<i8", DType::I64, "INT64"),
    ("<f2", DType::F16, "FP16"),
    ("<f4", DType::F32, "FP32"),
    ("<f8", DType::F64, "FP64"),
];

/// An array in a numpy file, opened at its first element.
#[derive(Debug)]
pub(super) struct NpyFile {
    pub(super) path: PathBuf,
    pub(super) file: File,
    /// Name of the element type in the Open Inference Protocol.
    pub(super) datatype: &'static str,
    pub(super) shape: Vec<u64>,
    /// Size of the elements in bytes, which is what remains of the file.
    pub(super) bytes: u64,
}

impl NpyFile {
    /// Opens a file and checks its header and its length.
    ///
    /// # Errors
    /// The file, and what is wrong.
    pub(super) fn open(path: &Path) -> Result<Self, String> {
        Self::read(path).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn read(path: &Path) -> Result<Self, String> {
        let mut file = File::open(path).map_err(|error| error.to_string())?;
        let metadata = file.metadata().map_err(|error| error.to_string())?;
        if !metadata.is_file() {
            return Err("it is not a regular file, whose length is known".to_owned());
        }
        let Header { dtype, datatype, shape } = Header::parse(&header(&mut file)?)?;
        let begin = file.stream_position().map_err(|error| error.to_string())?;
        let sizes = shape.iter().copied().chain([dtype.size() as u64]);
        let bytes = sizes.into_iter().try_fold(1_u64, u64::checked_mul);
        let bytes = bytes.ok_or_else(|| format!("its shape {shape:?} has more than 2^64 bytes"))?;
        let found = metadata.len().saturating_sub(begin);
        if found != bytes {
            let what = if found < bytes { "truncated" } else { "too long" };
            return Err(format!(
                "it is {what}: its shape {shape:?} of {dtype} needs {bytes} bytes, and it has {found}"
            ));
        }
        Ok(Self { path: path.to_owned(), file, datatype, shape, bytes })
    }
}

/// Reads the header's text.
fn header(file: &mut impl Read) -> Result<String, String> {
    let truncated = |_| "it is truncated: it ends within its header".to_owned();
    let mut magic = [0; MAGIC.len()];
    match file.read_exact(&mut magic) {
        Ok(()) if magic == MAGIC => {}
        _ => return Err("it is not a numpy file: it does not begin with \\x93NUMPY".to_owned()),
    }
    let mut version = [0; 2];
    file.read_exact(&mut version).map_err(truncated)?;
    let length = match version[0] {
        1 => {
            let mut length = [0; 2];
            file.read_exact(&mut length).map_err(truncated)?;
            usize::from(u16::from_le_bytes(length))
        }
        2 => {
            let mut length = [0; 4];
            file.read_exact(&mut length).map_err(truncated)?;
            u32::from_le_bytes(length) as usize
        }
        major => return Err(format!("its format version is {major}.{}, and 1 and 2 are supported", version[1])),
    };
    if length > MAX_HEADER {
        return Err(format!("its header has {length} bytes, more than {MAX_HEADER}"));
    }
    let mut text = vec![0; length];
    file.read_exact(&mut text).map_err(truncated)?;
    String::from_utf8(text).ok().filter(|text| text.is_ascii()).ok_or_else(|| "its header is not ASCII".to_owned())
}

#[derive(Debug, PartialEq)]
struct Header {
    dtype: DType,
    datatype: &'static str,
    shape: Vec<u64>,
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        let mut parser = Parser { rest: text };
        let (mut descr, mut fortran_order, mut shape) = (None, None, None);
        parser.expect("{")?;
        while !parser.skip("}") {
            let key = parser.string()?;
            parser.expect(":")?;
            let is_first = match key {
                "descr" => descr.replace(parser.descr()?).is_none(),
                "fortran_order" => fortran_order.replace(parser.boolean()?).is_none(),
                "shape" => shape.replace(parser.tuple()?).is_none(),
                _ => return Err(format!("its header has the unknown key {key:?}")),
            };
            if !is_first {
                return Err(format!("its header has the key {key:?} twice"));
            }
            if !parser.skip(",") {
                parser.expect("}")?;
                break;
            }
        }
        parser.end()?;
        let missing = |key: &str| format!("its header has no key {key:?}");
        let (dtype, datatype) = dtype(descr.ok_or_else(|| missing("descr"))?)?;
        if fortran_order.ok_or_else(|| missing("fortran_order"))? {
            return Err("it is in Fortran order; save it in C order, with numpy.ascontiguousarray".to_owned());
        }
        Ok(Self { dtype, datatype, shape: shape.ok_or_else(|| missing("shape"))? })
    }
}

fn dtype(descr: &str) -> Result<(DType, &'static str), String> {
    if let Some((_, dtype, datatype)) = DTYPES.iter().find(|(name, ..)| *name == descr) {
        return Ok((*dtype, datatype));
    }
    let little = format!("<{}", descr.get(1..).unwrap_or_default());
    if descr.starts_with('>') && DTYPES.iter().any(|(name, ..)| *name == little) {
        return Err(format!("its dtype {descr:?} is big-endian; save it as {little:?}, with array.astype({little:?})"));
    }
    let known = DTYPES.map(|(name, ..)| name).join(" ");
    Err(format!("its dtype {descr:?} is not one of {known}"))
}

/// Parses the few Python literals that a header has.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    /// Skips white space, and this token if it comes next.
    fn skip(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_ascii_start();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: &str) -> Result<(), String> {
        if self.skip(token) { Ok(()) } else { Err(self.unexpected(&format!("`{token}`"))) }
    }

    fn unexpected(&self, expected: &str) -> String {
        let found: String = self.rest.chars().take(20).collect();
        format!("its header is malformed: {found:?} where {expected} is expected")
    }

    /// A string in single or double quotes, without escapes.
    fn string(&mut self) -> Result<&'a str, String> {
        let quote = if self.skip("'") {
            '\''
        } else if self.skip("\"") {
            '"'
        } else {
            return Err(self.unexpected("a string"));
        };
        match self.rest.split_once(quote) {
            Some((text, rest)) if !text.contains('\\') => {
                self.rest = rest;
                Ok(text)
            }
            _ => Err(self.unexpected("a string without escapes")),
        }
    }

    fn descr(&mut self) -> Result<&'a str, String> {
        if self.skip("[") {
            return Err("its dtype is structured; save each of its fields as an array".to_owned());
        }
        self.string()
    }

    fn boolean(&mut self) -> Result<bool, String> {
        match (self.skip("True"), self.skip("False")) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            _ => Err(self.unexpected("True or False")),
        }
    }

    /// A tuple of integers: `()`, `(3,)`, `(3, 4)`.
    fn tuple(&mut self) -> Result<Vec<u64>, String> {
        let mut numbers = Vec::new();
        self.expect("(")?;
        while !self.skip(")") {
            if numbers.len() == MAX_RANK {
                return Err(format!("it has more than {MAX_RANK} dimensions"));
            }
            numbers.push(self.number()?);
            if !self.skip(",") {
                self.expect(")")?;
                // `(3)` is a number in Python.
                if numbers.len() == 1 {
                    return Err("its header is malformed: its shape is not a tuple".to_owned());
                }
                break;
            }
        }
        Ok(numbers)
    }

    fn number(&mut self) -> Result<u64, String> {
        self.rest = self.rest.trim_ascii_start();
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let number = digits.parse().map_err(|_| self.unexpected("a length of at most 2^64"))?;
        self.rest = rest;
        Ok(number)
    }

    /// Only white space may follow: headers are padded with it.
    fn end(&mut self) -> Result<(), String> {
        self.rest = self.rest.trim_ascii_start();
        if self.rest.is_empty() { Ok(()) } else { Err(self.unexpected("its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_in_every_form_that_numpy_writes() {
        let of = |text| Header::parse(text).map(|header| (header.datatype, header.shape));
        let written = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }           \n";
        assert_eq!(of(written), Ok(("FP32", vec![3, 4])));
        assert_eq!(of("{'descr': '<i8', 'fortran_order': False, 'shape': (), }\n"), Ok(("INT64", vec![])));
        assert_eq!(of("{\"shape\": (5,), \"fortran_order\": False, \"descr\": \"|b1\"}"), Ok(("BOOL", vec![5])));
        for (name, dtype, datatype) in DTYPES {
            let text = format!("{{'descr': '{name}', 'fortran_order': False, 'shape': (1,)}}");
            assert_eq!(Header::parse(&text), Ok(Header { dtype, datatype, shape: vec![1] }));
        }
    }

    #[test]
    fn headers_that_are_malformed_or_of_other_arrays_are_rejected() {
        let descr = |descr: &str| format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}");
        let shape = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
        for (text, says) in [
            (descr("'>f8'"), "big-endian"),
            (descr("'<c8'"), "\"<c8\" is not one of"),
            (descr("'=f4'"), "is not one of"),
            (descr("''"), "is not one of"),
            (descr("'|O'"), "is not one of"),
            (descr("[('a', '<f4')]"), "structured"),
            (descr("'<\\x66'"), "without escapes"),
            (descr("'<f4"), "malformed"),
            (descr("4"), "a string is expected"),
            (shape("(1)"), "not a tuple"),
            (shape("(-1,)"), "a length"),
            (shape("(1.0,)"), "malformed"),
            (shape("(18446744073709551616,)"), "at most 2^64"),
            (shape("(1,,)"), "a length"),
            (shape("(1, 1, 1, 1, 1, 1, 1, 1, 1)"), "more than 8 dimensions"),
            (shape("[1]"), "`(` is expected"),
            (shape("(1,), 'shape': (1,)"), "twice"),
            (shape("(1,), 'more': 1"), "unknown key \"more\""),
            ("{'descr': '<f4', 'fortran_order': True, 'shape': (1, 2)}".to_owned(), "Fortran order"),
            ("{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}".to_owned(), "True or False"),
            ("{'descr': '<f4', 'shape': (1,)}".to_owned(), "no key \"fortran_order\""),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} 1".to_owned(), "its end"),
            ("{'descr': '<f4' 'fortran_order': False}".to_owned(), "malformed"),
            ("{}".to_owned(), "no key \"descr\""),
            (String::new(), "`{` is expected"),
        ] {
            let error = Header::parse(&text).expect_err(&text);
            assert!(error.contains(says), "{text}: {error}");
        }
    }

    #[test]
    fn a_header_that_is_truncated_or_too_long_is_not_read() {
        let mut version_2 = [MAGIC, &[2, 0], &u32::MAX.to_le_bytes()].concat();
        assert!(header(&mut &version_2[..]).unwrap_err().contains("4294967295 bytes"));
        version_2[8..].copy_from_slice(&10_u32.to_le_bytes());
        for (bytes, says) in [
            (&version_2[..], "ends within its header"),
            (&version_2[..9], "ends within its header"),
            (&version_2[..4], "not a numpy file"),
            (b"\x93NUMPY\x03\x00\x01\x00\x00\x00 ", "format version is 3.0"),
            (b"\x93NUMPY\x01\x00\x01\x00\xff", "not ASCII"),
            (b"PK\x03\x04 an archive", "not a numpy file"),
        ] {
            let error = header(&mut &*bytes).unwrap_err();
            assert!(error.contains(says), "{bytes:?}: {error}");
        }
    }
}
