//! [`Kernels`]: one version of what a registry holds.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, OnceLock};

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::registry::{RegisterError, RegisteredKernel};

/// The names are the program's own: whoever asks for one adds none, so the hash needs no secret and can be a quick one.
type ByName = HashMap<Cow<'static, str>, RegisteredKernel, BuildHasherDefault<NameHasher>>;

/// [XXH3](https://xxhash.com) of names, which come in one piece.
#[derive(Default)]
pub(super) struct NameHasher(u64);

impl Hasher for NameHasher {
    #[inline]
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// The end of the name, whose length is a part of its hash.
    #[inline]
    fn write_u8(&mut self, _: u8) {}

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

/// The kernels at one time. The next version is made from this one and shares what it can with it, so that to register
/// many kernels does not cost their square.
#[derive(Default)]
pub(super) struct Kernels {
    /// Most of them.
    settled: Arc<ByName>,
    /// Those registered last, about the square root of all: copied with each version, and settled when they are more.
    recent: ByName,
    len: usize,
    /// Made when first asked for.
    sorted: OnceLock<Vec<RegisteredKernel>>,
}

impl Kernels {
    /// How many may be recent, however few are settled.
    const RECENT: usize = 32;

    /// The kernel of this id or alias.
    pub(super) fn get(&self, name: &str) -> Option<&RegisteredKernel> {
        self.settled.get(name).or_else(|| self.recent.get(name))
    }

    /// All kernels, by id.
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

    /// The version after this one: with a kernel more, under its id and its aliases.
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
        if recent.len() > Self::RECENT && recent.len().pow(2) > settled.len() {
            Arc::make_mut(&mut settled).extend(std::mem::take(&mut recent));
        }
        Ok(Self { settled, recent, len: self.len + 1, sorted: OnceLock::new() })
    }
}

/// Ids go into URLs, metrics and file names.
fn is_name(name: &str) -> bool {
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
    };
    name.len() <= 128 && name.split('/').all(word)
}
