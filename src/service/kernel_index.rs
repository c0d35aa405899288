//! [`KernelIndex`]: the kernels of a registry by name, as an immutable version.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::registry::{RegisterError, RegisteredKernel};

/// Names come from the program and not from clients, so the hash needs no secret key.
type ByName = HashMap<Cow<'static, str>, RegisteredKernel, BuildHasherDefault<NameHasher>>;

/// Hashes names with [XXH3](https://xxhash.com).
#[derive(Default)]
pub(super) struct NameHasher(u64);

impl Hasher for NameHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    // `str` writes a terminator, which XXH3 does not need: the length is a part of its hash.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

/// An immutable version of a registry's kernels. The next version shares most of its entries with this one, so that
/// registering many kernels does not take quadratic time.
#[derive(Default)]
pub(super) struct KernelIndex {
    /// Most of the kernels.
    settled: Arc<ByName>,
    /// The kernels registered last, which are copied for each version. They are moved to `settled` once they are more than
    /// the square root of all.
    recent: ByName,
    len: usize,
    /// Computed on first use.
    sorted: OnceLock<Vec<RegisteredKernel>>,
}

impl KernelIndex {
    /// How many kernels may be recent however few are settled.
    const MAX_RECENT: usize = 32;

    /// Returns the kernel with this id or alias.
    pub(super) fn get(&self, name: &str) -> Option<&RegisteredKernel> {
        self.settled.get(name).or_else(|| self.recent.get(name))
    }

    /// Returns all kernels, sorted by id.
    pub(super) fn sorted(&self) -> &[RegisteredKernel] {
        self.sorted.get_or_init(|| {
            let named = self.settled.iter().chain(&self.recent);
            let mut kernels: Vec<_> =
                named.filter(|(name, kernel)| **name == kernel.info().id).map(|(_, kernel)| kernel.clone()).collect();
            kernels.sort_unstable_by(|a, b| a.info().id.cmp(&b.info().id));
            kernels
        })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Returns the next version, with `kernel` added under its id and its aliases.
    pub(super) fn with(&self, kernel: &RegisteredKernel) -> Result<Self, RegisterError> {
        let mut recent = self.recent.clone();
        let info = kernel.info();
        for name in std::iter::once(&info.id).chain(&info.aliases) {
            if !is_name(name) {
                return Err(RegisterError::Name { name: name.to_string() });
            }
            if self.settled.contains_key(name) || recent.insert(name.clone(), kernel.clone()).is_some() {
                return Err(RegisterError::Taken { name: name.to_string() });
            }
        }
        let mut settled = Arc::clone(&self.settled);
        if recent.len() > Self::MAX_RECENT && recent.len().pow(2) > settled.len() {
            Arc::make_mut(&mut settled).extend(std::mem::take(&mut recent));
        }
        Ok(Self { settled, recent, len: self.len + 1, sorted: OnceLock::new() })
    }
}

/// Returns whether `name` fits into URLs, metrics and file names.
fn is_name(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
    };
    name.len() <= 128 && name.split('/').all(word)
}
