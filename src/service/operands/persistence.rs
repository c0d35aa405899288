//! Stores operands in a directory, and loads them from there after a restart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::budget::OperandLimits;
use super::directory::{Manifest, OpenOperandsError, OperandDirectory, Scan, StoredValue};
use super::error::OperandError;
use super::memory::OperandMemory;
use super::options::PutOptions;
use super::reference::check_operand_name;
use super::store::{OperandUsage, Operands};
use super::table::Table;
use super::value::ErasedValue;
use super::version::OperandVersion;
use crate::panics::catch_panic;
use crate::service::{Payload, RunContext};

/// The directory of operands, and whether they have been loaded from it.
pub(super) struct Persistence {
    directory: OperandDirectory,
    /// Taken when they are loaded.
    to_load: Mutex<Option<Vec<Manifest>>>,
    is_loading: AtomicBool,
}

/// The files of operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperandDirectoryUsage {
    /// Bytes on the disk.
    pub bytes: u64,
    /// Files and versions that were skipped since the start, as they are damaged, not operands, or exceed a budget. The log
    /// names each.
    pub skipped: u64,
    /// Whether the operands are still being loaded.
    pub loading: bool,
}

impl Operands {
    /// Opens operands that survive a restart in a directory, which no other process may use at the same time. It is created
    /// unless it exists.
    ///
    /// A put is then on the disk before it returns. [`load`](Self::load) reads what is there; until it has ended, no operand
    /// is found, and puts and removals fail with [`OperandError::Loading`].
    ///
    /// ```no_run
    /// use tower_kernels::service::{KernelRegistry, OperandLimits, Operands};
    ///
    /// let operands = Operands::open(OperandLimits::default(), "/var/lib/tower-kernels")?;
    /// let registry = KernelRegistry::with_operands(operands);
    /// // With the kernels, the types of their operands.
    /// tower_kernels::kernels::register_all(&registry)?;
    /// registry.operands().load();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`OpenOperandsError`]: another process uses the directory, or it cannot be read and written.
    pub fn open(limits: OperandLimits, directory: impl AsRef<Path>) -> Result<Self, OpenOperandsError> {
        let (directory, Scan { versions, last_versions }) = OperandDirectory::open(directory.as_ref())?;
        let last_versions = last_versions.into_iter().map(|(tenant, version)| (tenant.into(), version)).collect();
        let (to_load, is_loading) = (Mutex::new(Some(versions)), AtomicBool::new(true));
        let persistence = Persistence { directory, to_load, is_loading };
        Ok(Self::with_persistence(limits, last_versions, Some(persistence)))
    }

    /// Loads the operands of the [directory](Self::open) into memory, with the versions that they had. Does nothing without a
    /// directory, and at the second call.
    ///
    /// It blocks until all are read and checked. Register the types of operands before, and the
    /// [devices](Self::place_on) on which they are placed.
    ///
    /// What is damaged, of a type that is not registered, or exceeds a limit is skipped and logged at level WARN, and its
    /// files stay as they are. Where not all fit, those that were stored last are loaded.
    pub fn load(&self) {
        let Some(persistence) = &self.shared.persistence else { return };
        let Some(manifests) = persistence.to_load.lock().take() else { return };
        let started = Instant::now();
        // Nobody else changes the table while they are loaded, and it is not copied for each of them.
        let mut table = Table::default();
        for manifest in &manifests {
            if let Err(reason) = self.load_version(persistence, manifest, &mut table) {
                persistence.directory.skip_version(manifest, &reason);
            }
        }
        self.shared.table.store(Arc::new(table));
        persistence.is_loading.store(false, Ordering::Release);
        let (OperandUsage { operands, bytes, .. }, skipped) = (self.usage(), persistence.directory.skipped());
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(operands, bytes, skipped, seconds, "loaded the stored operands");
    }

    /// Returns whether operands are in a directory and not all of them have been [loaded](Self::load).
    pub fn is_loading(&self) -> bool {
        self.shared.persistence.as_ref().is_some_and(|persistence| persistence.is_loading.load(Ordering::Acquire))
    }

    /// Returns whether changes are written to a directory, and therefore block.
    #[cfg(any(feature = "actix", feature = "axum", feature = "grpc", feature = "hyper"))]
    pub(crate) fn is_persistent(&self) -> bool {
        self.shared.persistence.is_some()
    }

    pub(super) fn check_loaded(&self) -> Result<(), OperandError> {
        if self.is_loading() { Err(OperandError::Loading) } else { Ok(()) }
    }

    /// Loads one version into the table.
    ///
    /// # Errors
    /// Why it is skipped.
    fn load_version(&self, persistence: &Persistence, manifest: &Manifest, table: &mut Table) -> Result<(), String> {
        let shared = &*self.shared;
        let Manifest { name, version, bytes, .. } = manifest;
        let say = |error: OperandError| error.to_string();
        check_operand_name(name).map_err(|error| error.to_string())?;
        let operand_type = shared.operand_type(&manifest.r#type).map_err(say)?;
        let tenant: Arc<str> = manifest.tenant.as_str().into();
        let options = PutOptions { public: manifest.public, placement: manifest.placement, ..PutOptions::default() };
        shared.check_put(table, &tenant, name, &options).map_err(say)?;
        // Before anything is read, so that the budgets hold.
        let reservation = shared.budget.reservation(Arc::clone(&tenant));
        reservation.grow(*bytes).map_err(say)?;
        let tensors = persistence.directory.read(manifest)?;
        let context = RunContext::detached();
        let value = catch_panic(|| (operand_type.decode)(Payload::Tensors(tensors), &context));
        let value = value.map_err(|panicked| format!("making the value panicked: {panicked}"))?.map_err(say)?;
        // Another version of the program may need more memory for it.
        reservation.resize(value.bytes()).map_err(say)?;
        let memory = OperandMemory::new(value, reservation.into_charge(), options.placement);
        if let Err(error) = shared.placers.place(&memory) {
            tracing::warn!(operand = name, version, %error, "a stored operand is on no device until a request uses it");
        }
        let identity = (name.as_str().into(), *version);
        let loaded = OperandVersion::new(memory, manifest.digest, identity, options.public, manifest.created());
        table.insert(&tenant, &Arc::new(loaded));
        Ok(())
    }
}

impl Persistence {
    /// Writes a value to the disk; it is removed unless it is committed.
    pub(super) fn write_value(&self, value: &dyn ErasedValue) -> Result<ValueOnDisk<'_>, OperandError> {
        let directory = &self.directory;
        Ok(ValueOnDisk { directory, value: directory.write_value(value.type_name(), &value.to_tensors())? })
    }

    /// Removes the files of an operand.
    pub(super) fn remove(&self, tenant: &str, name: &str) -> Result<(), OperandError> {
        self.directory.remove(tenant, name).map_err(|error| OperandError::Directory(Arc::new(error)))
    }

    pub(super) fn usage(&self) -> OperandDirectoryUsage {
        OperandDirectoryUsage {
            bytes: self.directory.bytes(),
            skipped: self.directory.skipped(),
            loading: self.is_loading.load(Ordering::Acquire),
        }
    }
}

/// A value that was written to the disk, of which there is no version yet.
pub(super) struct ValueOnDisk<'a> {
    directory: &'a OperandDirectory,
    value: StoredValue<'a>,
}

impl ValueOnDisk<'_> {
    /// Writes the version to the disk. The caller holds the lock of the store.
    pub(super) fn commit(self, version: &OperandVersion, tenant: &str) -> Result<(), OperandError> {
        let manifest = self.value.manifest(version, tenant);
        Ok(self.directory.commit(self.value, &manifest)?)
    }
}
