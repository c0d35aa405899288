//! [`CompileCache`]: a cache on disk of the machine code that NVRTC has compiled.
//!
//! The cache is the folder `$TOWER_KERNELS_CACHE`, or else `$XDG_CACHE_HOME/tower-kernels` or `~/.cache/tower-kernels`.
//! `TOWER_KERNELS_CACHE=off` turns it off; an empty value counts as not set. No failure of the cache (a missing folder, a
//! full disk, a damaged file, files of other users) fails a request: the code is compiled instead. The first failure in a
//! process is logged as a warning.
//!
//! The name of a file is a hash of all that its content depends on, and the file begins with a hash of that content. It is
//! written under another name and renamed, so that no process reads a partial file. The least recently used files are
//! removed where the cache would exceed its size.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

/// The most bytes of all files.
const MAX_BYTES: u64 = 256 << 20;
/// The version of the files' layout and names.
const VERSION: &str = "tower-kernels 1";
const HASH: usize = 32;
const SUFFIX: &str = "cubin";

/// A folder of compiled code.
#[derive(Debug)]
pub(super) struct CompileCache {
    folder: PathBuf,
    max_bytes: u64,
    warned: AtomicBool,
}

impl CompileCache {
    /// The cache that the environment of this process names; `None` if it is turned off or there is no home directory.
    pub(super) fn of_process() -> Option<&'static Self> {
        static CACHE: OnceLock<Option<CompileCache>> = OnceLock::new();
        let variable = |name| std::env::var_os(name);
        CACHE
            .get_or_init(|| {
                folder(variable("TOWER_KERNELS_CACHE"), variable("XDG_CACHE_HOME"), variable("HOME"))
                    .map(|folder| Self::new(folder, MAX_BYTES))
            })
            .as_ref()
    }

    fn new(folder: PathBuf, max_bytes: u64) -> Self {
        Self { folder, max_bytes, warned: AtomicBool::new(false) }
    }

    /// Returns the code under `key`, or else the result of `compile`, which is stored.
    ///
    /// # Errors
    /// Errors of `compile`.
    pub(super) fn get_or_compile<E>(
        &self,
        key: &CacheKey,
        compile: impl FnOnce() -> Result<Vec<u8>, E>,
    ) -> Result<Vec<u8>, E> {
        let path = self.folder.join(&key.0).with_extension(SUFFIX);
        if let Err(error) = create_private(&self.folder) {
            self.warn(&self.folder, &error);
            return compile();
        }
        match read(&path) {
            Ok(Some(content)) => return Ok(content),
            Ok(None) => self.warn(&path, &"the file is damaged; it is written again"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.warn(&path, &error),
        }
        let content = compile()?;
        if let Err(error) = self.write(&path, &content) {
            self.warn(&path, &error);
        }
        Ok(content)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.evict(content.len() as u64 + HASH as u64)?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let unfinished = path.with_extension(format!("{}-{number}.tmp", std::process::id()));
        let written = write_file(&unfinished, content).and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            // It may not exist. Otherwise `evict` removes it later.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Removes the least recently used files until `bytes` more fit.
    fn evict(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let ours = [SUFFIX, "tmp"]
                .into_iter()
                .any(|suffix| Path::new(&entry.file_name()).extension() == Some(OsStr::new(suffix)));
            // Without metadata, another process has removed the file.
            if let (true, Ok(metadata)) = (ours, entry.metadata()) {
                files.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut total: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if total + bytes <= self.max_bytes {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => total -= len,
            }
        }
        Ok(())
    }

    fn warn(&self, path: &Path, what: &dyn std::fmt::Display) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(path = %path.display(), "compiled kernels are not cached on disk: {what}");
        }
    }
}

/// The name of a file.
#[derive(Debug)]
pub(super) struct CacheKey(String);

impl CacheKey {
    /// A hash of all that the content depends on, in order.
    pub(super) fn new(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in [VERSION.as_bytes()].iter().chain(parts) {
            // The length distinguishes `ab`, `c` from `a`, `bc`.
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn folder(
    own: Option<std::ffi::OsString>,
    xdg: Option<std::ffi::OsString>,
    home: Option<std::ffi::OsString>,
) -> Option<PathBuf> {
    match own {
        Some(own) if own == "off" => return None,
        Some(own) if !own.is_empty() => return Some(own.into()),
        Some(_) | None => {}
    }
    // The XDG base directory specification has relative paths ignored.
    let absolute = |path: std::ffi::OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let caches = xdg.and_then(absolute).or_else(|| home.and_then(absolute).map(|home| home.join(".cache")));
    caches.map(|caches| caches.join("tower-kernels"))
}

/// Reads the content of a file, and updates its modification time, by which files are evicted. `None` if the file is
/// damaged.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let Some((hash, content)) = bytes.split_at_checked(HASH) else { return Ok(None) };
    if Sha256::digest(content)[..] != *hash {
        return Ok(None);
    }
    // It fails on a read-only disk, where nothing is evicted either.
    let _ = OpenOptions::new().write(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    Ok(Some(bytes.split_off(HASH)))
}

fn write_file(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(&Sha256::digest(content))?;
    file.write_all(content)
}

/// Creates the folder with access for this user only, if it does not exist. Whoever can write to it can run code on the
/// device, so a folder that others can write to is an error.
fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let metadata = fs::metadata(folder)?;
        // The owner of `/proc/self` is this process's user. Without a `/proc` only the mode is checked.
        let user = fs::metadata("/proc/self").map_or(metadata.uid(), |process| process.uid());
        if metadata.mode() & 0o022 != 0 || ![0, user].contains(&metadata.uid()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "other users can write to it"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::convert::Infallible;

    /// A folder of its own, removed at the end.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("tower-kernels-cache-{}-{name}", std::process::id()));
            Self(folder)
        }

        fn cache(&self, most: u64) -> CompileCache {
            CompileCache::new(self.0.join("cache"), most)
        }

        fn files(&self) -> Vec<PathBuf> {
            let mut files: Vec<_> =
                fs::read_dir(self.0.join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect();
            files.sort();
            files
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn key(text: &str) -> CacheKey {
        CacheKey::new(&[text.as_bytes()])
    }

    /// The content under `key`, and whether it was made for this.
    fn get(cache: &CompileCache, name: &str, content: &[u8]) -> (Vec<u8>, bool) {
        let made = Cell::new(false);
        let make = || {
            made.set(true);
            Ok::<_, Infallible>(content.to_vec())
        };
        let Ok(content) = cache.get_or_compile(&key(name), make);
        (content, made.get())
    }

    #[test]
    fn what_was_made_once_is_read_by_the_next_process() {
        let folder = Folder::new("again");
        assert_eq!(get(&folder.cache(1 << 20), "a", b"code"), (b"code".to_vec(), true));
        assert_eq!(get(&folder.cache(1 << 20), "a", b"other"), (b"code".to_vec(), false));
        assert_eq!(get(&folder.cache(1 << 20), "b", b"other"), (b"other".to_vec(), true));
        assert!(folder.files().iter().all(|path| path.extension() == Some(OsStr::new(SUFFIX))), "{:?}", folder.files());
    }

    #[test]
    fn a_damaged_file_is_made_anew_and_replaced() {
        let folder = Folder::new("damaged");
        get(&folder.cache(1 << 20), "a", b"code");
        let path = folder.files().remove(0);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        flipped[HASH] ^= 1;
        for damaged in [&b""[..], &whole[..HASH - 1], &whole[..HASH + 1], &flipped] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(get(&folder.cache(1 << 20), "a", b"code"), (b"code".to_vec(), true));
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let folder = Folder::new("bounded");
        let cache = folder.cache(3 * (HASH as u64 + 100));
        let old = SystemTime::now() - std::time::Duration::from_secs(1000);
        for (age, name) in ["a", "b", "c"].into_iter().enumerate() {
            get(&cache, name, &[1; 100]);
            let file =
                OpenOptions::new().write(true).open(cache.folder.join(key(name).0).with_extension(SUFFIX)).unwrap();
            file.set_modified(old + std::time::Duration::from_secs(age as u64)).unwrap();
        }
        assert!(!get(&cache, "a", &[]).1, "it is there, and was used last now");
        get(&cache, "d", &[1; 100]);
        assert_eq!(
            ["a", "b", "c", "d"].map(|name| cache.folder.join(key(name).0).with_extension(SUFFIX).exists()),
            [true, false, true, true]
        );
    }

    #[test]
    fn a_folder_that_cannot_be_made_costs_no_request() {
        let folder = Folder::new("nowhere");
        fs::create_dir_all(&folder.0).unwrap();
        fs::write(folder.0.join("cache"), "a file").unwrap();
        let cache = folder.cache(1 << 20);
        for _ in 0..2 {
            assert_eq!(get(&cache, "a", b"code"), (b"code".to_vec(), true));
        }
        assert!(cache.warned.load(Ordering::Relaxed));
    }

    #[test]
    fn a_failure_to_make_is_the_callers_and_keeps_nothing() {
        let folder = Folder::new("failure");
        let cache = folder.cache(1 << 20);
        assert_eq!(cache.get_or_compile(&key("a"), || Err("no")), Err("no"));
        assert!(folder.files().is_empty());
    }

    #[cfg(unix)]
    #[test]
    fn the_folder_is_private_and_one_that_others_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let folder = Folder::new("private");
        let cache = folder.cache(1 << 20);
        get(&cache, "a", b"code");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&cache.folder), mode(&folder.files()[0])), (0o700, 0o600));
        fs::set_permissions(&cache.folder, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(get(&cache, "a", b"code").1, "what lies there may be anybody's");
    }

    #[test]
    fn the_environment_says_where() {
        let folder = |own: Option<&str>, xdg: Option<&str>, home: Option<&str>| {
            folder(own.map(Into::into), xdg.map(Into::into), home.map(Into::into))
        };
        assert_eq!(folder(Some("/own"), Some("/xdg"), Some("/home/me")), Some("/own".into()));
        assert_eq!(folder(Some("off"), Some("/xdg"), Some("/home/me")), None);
        assert_eq!(folder(Some(""), Some("/xdg"), Some("/home/me")), Some("/xdg/tower-kernels".into()));
        assert_eq!(folder(None, Some("/xdg"), Some("/home/me")), Some("/xdg/tower-kernels".into()));
        assert_eq!(folder(None, Some("relative"), Some("/home/me")), Some("/home/me/.cache/tower-kernels".into()));
        assert_eq!(folder(None, None, None), None);
    }

    #[test]
    fn keys_tell_where_parts_end() {
        assert_ne!(CacheKey::new(&[b"ab", b"c"]).0, CacheKey::new(&[b"a", b"bc"]).0);
        assert_eq!(key("a").0, key("a").0);
    }
}
