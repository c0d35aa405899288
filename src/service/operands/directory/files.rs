//! Files that are complete or not there: written under a temporary name, synced to the disk, and renamed.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A SHA-256, written in 64 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(super) struct Sha256Hash([u8; 32]);

impl Sha256Hash {
    /// Hashes texts, each with its length before it.
    pub(super) fn of_texts(texts: &[&str]) -> Self {
        let mut hasher = Sha256::new();
        for text in texts {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        hasher.into()
    }

    pub(super) fn of_bytes(bytes: &[u8]) -> Self {
        Sha256::new_with_prefix(bytes).into()
    }
}

impl From<Sha256> for Sha256Hash {
    fn from(hasher: Sha256) -> Self {
        Self(hasher.finalize().into())
    }
}

impl fmt::Display for Sha256Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Sha256Hash {
    type Err = &'static str;

    /// Reads what `Display` writes and nothing else, so that each hash is the name of one file.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const NOT_A_HASH: &str = "not a SHA-256 in 64 lower-case hexadecimal digits";
        let digits = text.as_bytes();
        let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if digits.len() != 64 || !digits.iter().all(is_digit) {
            return Err(NOT_A_HASH);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(0..) {
            *byte = u8::from_str_radix(&text[2 * pair..2 * pair + 2], 16).map_err(|_| NOT_A_HASH)?;
        }
        Ok(Self(hash))
    }
}

impl TryFrom<String> for Sha256Hash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Sha256Hash> for String {
    fn from(hash: Sha256Hash) -> Self {
        hash.to_string()
    }
}

/// The extension of files that are being written.
const TEMPORARY: &str = "partial";

/// Returns whether a name is one that a [`TemporaryFile`] has.
pub(super) fn is_temporary(name: &str) -> bool {
    let number = name.strip_suffix(TEMPORARY).and_then(|name| name.strip_suffix('.'));
    number.is_some_and(|number| number.len() == 16 && number.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A file under a temporary name, which is removed when this is dropped.
#[derive(Debug)]
pub(super) struct TemporaryFile {
    file: File,
    path: PathBuf,
}

impl TemporaryFile {
    /// Creates an empty file in a directory, which only its owner can read.
    pub(super) fn create(directory: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let path = directory.join(format!("{:016x}.{TEMPORARY}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let file = private_file().write(true).create_new(true).open(&path)?;
        Ok(Self { file, path })
    }

    /// Writes the content to the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// Gives a [synced](Self::sync) file its final name, in place of a file that has it. The name is on the disk once the
    /// directory is [synced](sync_directory).
    pub(super) fn rename(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)
    }
}

impl Write for TemporaryFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        match fs::remove_file(&self.path) {
            Ok(()) => {}
            // It was renamed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %self.path.display(), %error, "cannot remove a temporary file"),
        }
    }
}

/// Options for files that only their owner can read.
pub(super) fn private_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Creates a directory that only its owner can enter, unless it exists, and writes its name to the disk.
pub(super) fn create_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    builder.recursive(true).create(path)?;
    for created in missing {
        match created.parent() {
            // The working directory, of a relative path.
            Some(parent) if parent.as_os_str().is_empty() => sync_directory(Path::new("."))?,
            Some(parent) => sync_directory(parent)?,
            None => {}
        }
    }
    Ok(())
}

/// Returns whether users other than the owner can change the files of a directory.
pub(super) fn is_writable_by_others(directory: &Path) -> io::Result<bool> {
    #[cfg(unix)]
    return Ok(std::os::unix::fs::PermissionsExt::mode(&fs::metadata(directory)?.permissions()) & 0o022 != 0);
    #[cfg(not(unix))]
    fs::metadata(directory).map(|_| false)
}

/// Writes the names of a directory to the disk.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    #[cfg(unix)]
    return File::open(path)?.sync_all();
    // Other systems cannot open directories, and journal their names.
    #[cfg(not(unix))]
    fs::metadata(path).map(drop)
}

/// Removes a file, unless it is not there.
pub(super) fn remove_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_what_sha256sum_prints_and_is_read_in_that_form_only() {
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let hash = Sha256Hash::of_bytes(b"abc");
        assert_eq!((hash.to_string(), text.parse()), (text.to_owned(), Ok(hash)));
        for text in ["", &text[1..], &text.to_uppercase(), &text.replace('b', "é"), &text.replace('b', "+")] {
            assert!(text.parse::<Sha256Hash>().is_err(), "{text}");
        }
        assert_ne!(Sha256Hash::of_texts(&["ab", "c"]), Sha256Hash::of_texts(&["a", "bc"]));
    }

    #[test]
    fn only_names_of_temporary_files_are_taken_for_them() {
        assert!(is_temporary("00000000000000ff.partial"));
        for name in ["partial", ".partial", "ff.partial", "00000000000000fg.partial", "00000000000000ffpartial"] {
            assert!(!is_temporary(name), "{name}");
        }
    }
}
