//! Finds out what is in a directory of operands when it is opened.

use std::cmp::Reverse;
use std::fs;
use std::io;

use foldhash::{HashMap, HashSet};

use super::files::{Sha256Hash, is_temporary, remove_if_present};
use super::record::{self, Manifest, Record, TenantRecord};
use super::{CONTENT, LOCK, OperandDirectory, StoredVersion};

/// What is in a directory of operands.
#[derive(Debug, Default)]
pub(in crate::service::operands) struct Scan {
    /// The newest version of each operand; first the one that was stored last.
    pub(in crate::service::operands) versions: Vec<Manifest>,
    /// The highest version of each tenant.
    pub(in crate::service::operands) last_versions: HashMap<String, u64>,
}

/// The files of a directory, by kind.
#[derive(Default)]
struct Files {
    manifests: Vec<Manifest>,
    tenants: Vec<TenantRecord>,
    contents: HashMap<Sha256Hash, u64>,
    /// Whether there is a version of which nothing is known.
    any_unreadable: bool,
}

impl OperandDirectory {
    /// Reads the records, and removes what a crash has left. Values are not read.
    pub(super) fn scan(&self) -> io::Result<Scan> {
        let mut files = Files::default();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            match entry.file_type()? {
                kind if kind.is_file() => self.scan_file(&name, &mut files)?,
                // Volumes have some of their own, such as `lost+found`.
                kind if kind.is_dir() => {}
                _ => self.skip(&name, "it is not a regular file"),
            }
        }
        let mut last_versions: HashMap<String, u64> = HashMap::default();
        let tenants = files.tenants.iter().map(|record| (&record.tenant, record.last_version));
        let versions = files.manifests.iter().map(|manifest| (&manifest.tenant, manifest.version));
        for (tenant, version) in tenants.chain(versions) {
            let last = last_versions.entry(tenant.clone()).or_default();
            *last = version.max(*last);
        }
        let mut versions = self.newest(files.manifests);
        self.remove_unreferenced(&versions, &files.contents, files.any_unreadable);
        let mut state = self.state.lock();
        for Manifest { tenant, name, version, content, .. } in &versions {
            state.add_reference(*content, files.contents.get(content).copied().unwrap_or_default());
            let stored = StoredVersion { version: *version, content: *content };
            state.versions.insert((tenant.clone(), name.clone()), stored);
        }
        let order = |manifest: &Manifest| (manifest.created_ms, manifest.version);
        versions.sort_by_key(|manifest| Reverse(order(manifest)));
        Ok(Scan { versions, last_versions })
    }

    fn scan_file(&self, name: &str, files: &mut Files) -> io::Result<()> {
        let path = self.path.join(name);
        let (stem, extension) = name.rsplit_once('.').unwrap_or((name, ""));
        match (extension, stem.parse::<Sha256Hash>()) {
            _ if name == LOCK => {}
            _ if is_temporary(name) => {
                tracing::info!(directory = %self.path.display(), file = name, "removing a file that was not completed");
                remove_if_present(&path)?;
            }
            (CONTENT, Ok(hash)) => {
                files.contents.insert(hash, fs::metadata(&path)?.len());
            }
            (Manifest::KIND, Ok(_)) => match record::read(&path) {
                Ok(manifest) => files.manifests.push(manifest),
                Err(reason) => {
                    files.any_unreadable = true;
                    self.skip(name, &reason);
                }
            },
            (TenantRecord::KIND, Ok(_)) => match record::read(&path) {
                Ok(record) => files.tenants.push(record),
                Err(reason) => self.skip(name, &reason),
            },
            _ => self.skip(name, "it is not one of this program's files"),
        }
        Ok(())
    }

    /// Returns the newest version of each operand, and removes the records of those that it had replaced when the process
    /// ended.
    fn newest(&self, mut manifests: Vec<Manifest>) -> Vec<Manifest> {
        manifests.sort_by(|a, b| (&a.tenant, &a.name, b.version).cmp(&(&b.tenant, &b.name, a.version)));
        let mut newest: Vec<Manifest> = Vec::with_capacity(manifests.len());
        for manifest in manifests {
            match newest.last() {
                Some(last) if (&last.tenant, &last.name) == (&manifest.tenant, &manifest.name) => {
                    self.remove_record(&manifest.tenant, &manifest.name, manifest.version);
                }
                _ => newest.push(manifest),
            }
        }
        newest
    }

    /// Removes values that no version has: a put or a removal was not completed. If a version is unreadable, they may be
    /// that one's, and stay.
    fn remove_unreferenced(&self, versions: &[Manifest], contents: &HashMap<Sha256Hash, u64>, any_unreadable: bool) {
        let referenced: HashSet<Sha256Hash> = versions.iter().map(|manifest| manifest.content).collect();
        for hash in contents.keys().filter(|hash| !referenced.contains(*hash)) {
            let name = format!("{hash}.{CONTENT}");
            if any_unreadable {
                self.skip(&name, "no version that can be read has this value");
            } else {
                tracing::info!(directory = %self.path.display(), file = name, "removing a value that no version has");
                self.remove_unused(&name);
            }
        }
    }
}
