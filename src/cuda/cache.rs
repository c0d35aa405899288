//! Machine code that NVRTC has made, kept on disk for the next process.
//!
//! The cache is a folder below `$TOWER_KERNELS_CACHE`, or else `$XDG_CACHE_HOME/tower-kernels` or
//! `~/.cache/tower-kernels`; `TOWER_KERNELS_CACHE=off` turns it off, and an empty one is not set. It only saves time: whatever is wrong with it
//! (no folder, a full disk, a damaged file, files of others) costs a compilation and never a request. The first thing that
//! goes wrong is told as a warning, once in a process.
//!
//! A file is named by a hash of all that its content depends on, and begins with a hash of that content. It is written
//! under another name and renamed, so that nobody reads half a file. Files that have not been used for longest go first
//! where all together are too many bytes.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::SystemTime;

use sha2::{Digest, Sha256};

/// What all files together may take.
const MOST_BYTES: u64 = 256 << 20;
/// Of a file's layout and of what its name depends on.
const VERSION: &str = "tower-kernels 1";
const HASH: usize = 32;
const SUFFIX: &str = "cubin";

/// Where compiled code is kept.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    most: u64,
    warned: AtomicBool,
}

impl Cache {
    /// The cache of this process, as its environment has it; `None` where it is turned off or nowhere to be.
    pub(crate) fn of_process() -> Option<&'static Self> {
        static CACHE: OnceLock<Option<Cache>> = OnceLock::new();
        let variable = |name| std::env::var_os(name);
        CACHE
            .get_or_init(|| {
                folder(variable("TOWER_KERNELS_CACHE"), variable("XDG_CACHE_HOME"), variable("HOME"))
                    .map(|folder| Self::new(folder, MOST_BYTES))
            })
            .as_ref()
    }

    fn new(folder: PathBuf, most: u64) -> Self {
        Self { folder, most, warned: AtomicBool::new(false) }
    }

    /// What is kept under `key`, or else what `make` gives, which is kept from then on.
    ///
    /// # Errors
    /// Those of `make` alone.
    pub(crate) fn get_or_make<E>(&self, key: &Key, make: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        let path = self.folder.join(&key.0).with_extension(SUFFIX);
        if let Err(error) = create_private(&self.folder) {
            self.warn(&self.folder, &error);
            return make();
        }
        match read(&path) {
            Ok(Some(content)) => return Ok(content),
            Ok(None) => self.warn(&path, &"its content is not what was written; it is made anew"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.warn(&path, &error),
        }
        let content = make()?;
        if let Err(error) = self.write(&path, &content) {
            self.warn(&path, &error);
        }
        Ok(content)
    }

    fn write(&self, path: &Path, content: &[u8]) -> io::Result<()> {
        self.make_room(content.len() as u64 + HASH as u64)?;
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let turn = NEXT.fetch_add(1, Ordering::Relaxed);
        let unfinished = path.with_extension(format!("{}-{turn}.tmp", std::process::id()));
        let written = write_file(&unfinished, content).and_then(|()| fs::rename(&unfinished, path));
        if written.is_err() {
            // Where nothing was written there is nothing to remove, and what cannot be removed `make_room` will find.
            let _ = fs::remove_file(&unfinished);
        }
        written
    }

    /// Removes the files that have not been used for longest until `bytes` more fit.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let ours = [SUFFIX, "tmp"]
                .into_iter()
                .any(|suffix| Path::new(&entry.file_name()).extension() == Some(OsStr::new(suffix)));
            // Another process may have removed it meanwhile.
            if let (true, Ok(metadata)) = (ours, entry.metadata()) {
                files.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), entry.path()));
            }
        }
        files.sort();
        let mut held: u64 = files.iter().map(|(_, len, _)| len).sum();
        for (_, len, path) in files {
            if held + bytes <= self.most {
                break;
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => held -= len,
            }
        }
        Ok(())
    }

    fn warn(&self, path: &Path, what: &dyn std::fmt::Display) {
        if !self.warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(path = %path.display(), "compiled kernels are not kept on disk: {what}");
        }
    }
}

/// What a file is named by.
#[derive(Debug)]
pub(crate) struct Key(String);

impl Key {
    /// Of all that the content depends on, in order.
    pub(crate) fn of(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        for part in [VERSION.as_bytes()].iter().chain(parts) {
            // The length keeps `ab`, `c` from `a`, `bc`.
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
    // A relative path is none, as the XDG base directory specification has it.
    let absolute = |path: std::ffi::OsString| Some(PathBuf::from(path)).filter(|path| path.is_absolute());
    let caches = xdg.and_then(absolute).or_else(|| home.and_then(absolute).map(|home| home.join(".cache")));
    caches.map(|caches| caches.join("tower-kernels"))
}

/// The content, if it is what was written. Reading it counts as use.
fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    let mut file = File::open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let Some((hash, content)) = bytes.split_at_checked(HASH) else { return Ok(None) };
    if Sha256::digest(content)[..] != *hash {
        return Ok(None);
    }
    // On a read-only disk the order of use is lost, and nothing else.
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

/// The folder, made if it is not there, for nobody but this user. Whoever can write to it can have code run on the
/// device, so one that others can write to is refused.
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
        // The owner of `/proc/self` is this process's user; where there is no such thing only the mode is looked at.
        let user = fs::metadata("/proc/self").map_or(metadata.uid(), |process| process.uid());
        if metadata.mode() & 0o022 != 0 || ![0, user].contains(&metadata.uid()) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "others can write to it"));
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

        fn cache(&self, most: u64) -> Cache {
            Cache::new(self.0.join("cache"), most)
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

    fn key(text: &str) -> Key {
        Key::of(&[text.as_bytes()])
    }

    /// The content under `key`, and whether it was made for this.
    fn get(cache: &Cache, name: &str, content: &[u8]) -> (Vec<u8>, bool) {
        let made = Cell::new(false);
        let make = || {
            made.set(true);
            Ok::<_, Infallible>(content.to_vec())
        };
        let Ok(content) = cache.get_or_make(&key(name), make);
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
        assert_eq!(cache.get_or_make(&key("a"), || Err("no")), Err("no"));
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
        assert_ne!(Key::of(&[b"ab", b"c"]).0, Key::of(&[b"a", b"bc"]).0);
        assert_eq!(key("a").0, key("a").0);
    }
}
