//! [`Operands`]: the operands of a process, by tenant and name.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use foldhash::HashMap;

use super::budget::{Budget, OperandLimits, OperandReservation};
use super::error::{OperandBudget, OperandError};
use super::memory::OperandMemory;
use super::operand::Operand;
use super::options::{PutOptions, RemoveOptions};
use super::persistence::{OperandDirectoryUsage, Persistence};
use super::placement::{OperandDevices, Placers};
use super::reference::{OperandReference, check_operand_name};
use super::span::PutSpan;
use super::table::{NO_TENANT, Table};
use super::tensor_set::TensorSet;
use super::value::{ErasedValue, OperandValue, from_payload};
use super::vectors::Vectors;
use super::version::{OperandInfo, OperandVersion, digest};
use crate::panics::catch_panic;
use crate::service::{KernelError, Payload, RunContext};
use crate::sync::{ArcSwap, Mutex, MutexGuard};

/// The operands of a process, by tenant and name.
///
/// Clones share the operands. Each [`KernelRegistry`](crate::service::KernelRegistry) has one. Look-ups take no lock; each
/// change copies the table of the tenant's names.
///
/// ```
/// use tower_kernels::service::{Operands, TensorSet};
///
/// let operands = Operands::default();
/// let prices = operands.put("prices", TensorSet::of("close", vec![1.0_f64, 2.0])).unwrap();
/// assert_eq!(prices.version().unwrap().version(), 1);
/// operands.put("prices", TensorSet::of("close", vec![1.5_f64])).unwrap();
/// assert_eq!(operands.get(None, "prices").unwrap().version(), 2);
/// assert!(operands.get(None, "prices@1").is_none(), "replaced");
/// ```
#[derive(Clone)]
pub struct Operands {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) table: ArcSwap<Table>,
    types: arc_swap::ArcSwap<Vec<OperandType>>,
    /// The last version of each tenant, so that no version is used twice. Held by whoever changes the table.
    last_versions: Mutex<HashMap<Arc<str>, u64>>,
    pub(super) budget: Arc<Budget>,
    counts: Counts,
    pub(super) placers: Placers,
    /// The files of the operands, if they are to survive a restart.
    pub(super) persistence: Option<Persistence>,
}

/// What has happened since the start of the process.
#[derive(Default)]
struct Counts {
    stored: AtomicU64,
    removed: AtomicU64,
    rejected: AtomicU64,
    failed: AtomicU64,
    references: AtomicU64,
    /// Microseconds that decoding, checking and making stored values took.
    building: AtomicU64,
}

/// Decodes and checks a payload.
type Decode = fn(Payload, &RunContext<'_>) -> Result<Arc<dyn ErasedValue>, OperandError>;

/// A type of operands that clients can upload.
#[derive(Clone, Copy)]
pub(super) struct OperandType {
    name: &'static str,
    pub(super) decode: Decode,
    schema: fn() -> schemars::Schema,
}

impl OperandType {
    fn of<T: OperandValue>() -> Self {
        Self {
            name: T::TYPE,
            decode: |payload, context| Ok(Arc::new(from_payload::<T>(payload, context)?)),
            schema: || schemars::schema_for!(T::Document),
        }
    }
}

/// The memory that operands take, and what has happened to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperandUsage {
    /// Operands that requests can refer to.
    pub operands: u64,
    /// Versions in memory: those, and versions that were replaced or deleted and that requests still use.
    pub versions: u64,
    /// Bytes of host memory of all versions, and of the tensors of uploads that are being received.
    pub bytes: u64,
    /// Versions that were stored since the start.
    pub stored: u64,
    /// Operands that were removed since the start.
    pub removed: u64,
    /// Values that exceeded a budget since the start, and uploads that were rejected because their tensors would.
    pub rejected: u64,
    /// Values that could not be stored for another reason since the start: an invalid value, a condition that did not hold,
    /// or an upload that was cancelled while it was built.
    pub failed: u64,
    /// References of requests to operands, by name or handle, since the start.
    pub references: u64,
    /// The time that the uploaded values took to decode, check and build since the start.
    pub building: Duration,
    /// The files of the operands; `None` if they do not survive a restart.
    pub directory: Option<OperandDirectoryUsage>,
}

impl Default for Operands {
    fn default() -> Self {
        Self::new(OperandLimits::default())
    }
}

impl Operands {
    /// Creates an empty set of operands, with the types [`TensorSet`] and [`Vectors`].
    pub fn new(limits: OperandLimits) -> Self {
        Self::with_persistence(limits, HashMap::default(), None)
    }

    pub(super) fn with_persistence(
        limits: OperandLimits,
        last_versions: HashMap<Arc<str>, u64>,
        persistence: Option<Persistence>,
    ) -> Self {
        let shared = Shared {
            table: ArcSwap::default(),
            types: arc_swap::ArcSwap::from_pointee(vec![OperandType::of::<TensorSet>(), OperandType::of::<Vectors>()]),
            last_versions: Mutex::new(last_versions),
            budget: Arc::new(Budget::new(limits)),
            counts: Counts::default(),
            placers: Placers::default(),
            persistence,
        };
        Self { shared: Arc::new(shared) }
    }

    /// Registers a type, so that clients can upload values of it. Another type of the same name is replaced.
    pub fn register<T: OperandValue>(&self) {
        self.shared.types.rcu(|types| {
            let mut types: Vec<_> = types.iter().filter(|known| known.name != T::TYPE).copied().collect();
            types.push(OperandType::of::<T>());
            types
        });
    }

    /// Returns the names of the registered types with the JSON Schemas of their documents.
    pub fn types(&self) -> Vec<(&'static str, schemars::Schema)> {
        self.shared.types.load().iter().map(|known| (known.name, (known.schema)())).collect()
    }

    /// Stores a value as the newest version of an operand without a tenant.
    ///
    /// # Errors
    /// As [`put_with`](Self::put_with).
    pub fn put<T: OperandValue>(&self, name: &str, value: T) -> Result<Operand<T>, OperandError> {
        self.put_with(name, value, &PutOptions::default())
    }

    /// Stores a value as the newest version of an operand. The version that it replaces is freed once no request uses it.
    ///
    /// It blocks while the value is written to a [directory](Self::open), if there is one, and while it is copied to devices
    /// as its [placement](PutOptions::placement) says.
    ///
    /// # Errors
    /// [`OperandError`]: the name is invalid, the condition does not hold, the value exceeds a limit, it cannot be written
    /// to the directory, or there is no memory for it on the devices of its placement. The operand is as it was before.
    pub fn put_with<T: OperandValue>(
        &self,
        name: &str,
        value: T,
        options: &PutOptions,
    ) -> Result<Operand<T>, OperandError> {
        let value = Arc::new(value);
        let context = RunContext::detached();
        let erased: Arc<dyn ErasedValue> = Arc::<T>::clone(&value);
        let reservation = self.reservation(options);
        let put = |_: &PutSpan| self.try_put(name, erased, reservation, options, &context);
        let version = self.count_put(name, T::TYPE, options, put)?;
        Ok(Operand::stored(value, version))
    }

    /// Decodes a payload as a value of the type of this name, and stores it as [`put_with`](Self::put_with) does.
    ///
    /// Decoding and checking a large value takes long, so call it on a thread that may block.
    ///
    /// # Errors
    /// [`OperandError`]: the payload is no valid value of the type; otherwise as `put_with`.
    pub fn put_payload(
        &self,
        name: &str,
        type_name: &str,
        payload: Payload,
        options: &PutOptions,
        context: &RunContext<'_>,
    ) -> Result<Arc<OperandVersion>, OperandError> {
        self.put_received(name, type_name, payload, self.reservation(options), options, context)
    }

    /// As [`put_payload`](Self::put_payload), for a payload whose tensors have been reserved. The reservation becomes that
    /// of the value.
    pub(crate) fn put_received(
        &self,
        name: &str,
        type_name: &str,
        payload: Payload,
        reservation: OperandReservation,
        options: &PutOptions,
        context: &RunContext<'_>,
    ) -> Result<Arc<OperandVersion>, OperandError> {
        self.count_put(name, type_name, options, |span| {
            // Before the work, as well as under the lock.
            self.check_put(name, type_name, options)?;
            let known = self.shared.operand_type(type_name)?;
            let started = Instant::now();
            let value = PutSpan::build(|| catch_panic(|| (known.decode)(payload, context)));
            let value = value.map_err(|panicked| KernelError::Panicked { message: panicked.into_message() })??;
            let building = started.elapsed();
            span.built(building);
            let micros = u64::try_from(building.as_micros()).unwrap_or(u64::MAX);
            self.shared.counts.building.fetch_add(micros, Ordering::Relaxed);
            // The client may have disconnected meanwhile.
            context.check()?;
            self.try_put(name, value, reservation, options, context)
        })
    }

    /// Creates an empty reservation of memory, for an operand that is to be stored with these options.
    pub(crate) fn reservation(&self, options: &PutOptions) -> OperandReservation {
        self.shared.budget.reservation(options.tenant.clone().unwrap_or_else(|| NO_TENANT.into()))
    }

    /// Checks what can be checked of a [`put_payload`](Self::put_payload) without the payload.
    ///
    /// # Errors
    /// [`OperandError`]: the name or the type is invalid, or the condition does not hold.
    pub fn check_put(&self, name: &str, type_name: &str, options: &PutOptions) -> Result<(), OperandError> {
        self.check_loaded()?;
        check_operand_name(name)?;
        self.shared.operand_type(type_name)?;
        options.condition.check(self.shared.own(options.tenant.as_deref(), name).as_ref())
    }

    /// Runs `put` in a span, and counts it by its result.
    fn count_put(
        &self,
        name: &str,
        type_name: &str,
        options: &PutOptions,
        put: impl FnOnce(&PutSpan) -> Result<Arc<OperandVersion>, OperandError>,
    ) -> Result<Arc<OperandVersion>, OperandError> {
        let result = PutSpan::record(name, type_name, options, put);
        let counts = &self.shared.counts;
        let count = match &result {
            Ok(_) => &counts.stored,
            // The budget of the host counts them, those of uploads that were rejected before their end as well.
            Err(OperandError::OverBudget { budget: OperandBudget::Host | OperandBudget::Tenant, .. }) => return result,
            Err(OperandError::OverBudget { .. } | OperandError::TooMany { .. } | OperandError::DiskFull { .. }) => {
                &counts.rejected
            }
            Err(_) => &counts.failed,
        };
        count.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn try_put(
        &self,
        name: &str,
        value: Arc<dyn ErasedValue>,
        reservation: OperandReservation,
        options: &PutOptions,
        context: &RunContext<'_>,
    ) -> Result<Arc<OperandVersion>, OperandError> {
        self.check_loaded()?;
        check_operand_name(name)?;
        let shared = &*self.shared;
        let tenant: Arc<str> = options.tenant.clone().unwrap_or_else(|| NO_TENANT.into());
        shared.check_put(&shared.table.load(), &tenant, name, options)?;
        reservation.resize(value.bytes())?;
        let digest = digest(&*value);
        let stored = match &shared.persistence {
            Some(persistence) => Some(persistence.write_value(&*value)?),
            None => None,
        };
        let memory = OperandMemory::new(value, reservation.into_charge(), options.placement);
        shared.placers.place(&memory)?;
        context.check()?;
        let mut last_versions = shared.lock();
        // Another operand may have been stored meanwhile.
        let mut table = Table::clone(&shared.table.load());
        shared.check_put(&table, &tenant, name, options)?;
        let number = last_versions.get(&tenant).map_or(1, |last| last + 1);
        let identity = (name.into(), number);
        let version = OperandVersion::new(memory, digest, identity, options.public, SystemTime::now());
        let version = Arc::new(version);
        if let Some(stored) = stored {
            stored.commit(&version, &tenant)?;
        }
        table.insert(&tenant, &version);
        shared.table.store(Arc::new(table));
        last_versions.insert(tenant, number);
        Ok(version)
    }

    /// Has `devices` place operands that are stored from now on, as long as they are there.
    /// [`Local::load_kernels`](crate::backends::Local::load_kernels) does it for those of a machine.
    pub fn place_on(&self, devices: &Weak<dyn OperandDevices>) {
        self.shared.placers.add(devices);
    }

    /// Returns the version that a reference names: an operand of the tenant, else a public one.
    pub fn get(&self, tenant: Option<&str>, reference: &str) -> Option<Arc<OperandVersion>> {
        self.shared.table.load().find(tenant, reference).cloned()
    }

    /// Returns the operands that a tenant may use, sorted by name: its own, and public ones.
    pub fn list(&self, tenant: Option<&str>) -> Vec<OperandInfo> {
        let table = self.shared.table.load();
        let own = table.own(tenant.unwrap_or(NO_TENANT));
        let others = table.public().iter().filter(|(name, _)| own.is_none_or(|own| !own.contains_key(*name)));
        let all = own.iter().flat_map(|own| own.iter()).chain(others);
        let mut all: Vec<OperandInfo> = all.map(|(_, version)| version.info()).collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Removes an operand of the tenant. Its memory is freed once no request uses it.
    ///
    /// It blocks while its files are removed from a [directory](Self::open), if there is one.
    ///
    /// # Errors
    /// [`OperandError::NotFound`] and [`OperandError::ConditionFailed`]; with a directory, [`OperandError::Loading`] and
    /// [`OperandError::Directory`].
    pub fn remove(&self, reference: &str, options: &RemoveOptions) -> Result<Arc<OperandVersion>, OperandError> {
        let parsed = OperandReference::parse(reference)?;
        let _last_versions = self.shared.lock();
        self.check_loaded()?;
        let tenant = options.tenant.as_deref();
        let found = self.shared.own(tenant, parsed.name);
        let found = found.filter(|found| parsed.version.is_none_or(|version| version == found.version()));
        let Some(found) = found else { return Err(OperandError::NotFound { reference: reference.to_owned() }) };
        options.condition.check(Some(&found))?;
        let tenant = tenant.unwrap_or(NO_TENANT);
        if let Some(persistence) = &self.shared.persistence {
            persistence.remove(tenant, parsed.name)?;
        }
        let mut table = Table::clone(&self.shared.table.load());
        table.remove(tenant, parsed.name);
        self.shared.table.store(Arc::new(table));
        self.shared.counts.removed.fetch_add(1, Ordering::Relaxed);
        Ok(found)
    }

    /// Returns whether there are no operands.
    pub fn is_empty(&self) -> bool {
        self.shared.table.load().len() == 0
    }

    /// Returns the limits.
    pub fn limits(&self) -> &OperandLimits {
        self.shared.budget.limits()
    }

    pub(super) fn count_references(&self, count: usize) {
        self.shared.counts.references.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Returns the memory in use, and counts since the start of the process.
    pub fn usage(&self) -> OperandUsage {
        let counts = &self.shared.counts;
        OperandUsage {
            operands: self.shared.table.load().len() as u64,
            versions: self.shared.budget.versions(),
            bytes: self.shared.budget.bytes(),
            stored: counts.stored.load(Ordering::Relaxed),
            removed: counts.removed.load(Ordering::Relaxed),
            rejected: counts.rejected.load(Ordering::Relaxed) + self.shared.budget.rejected(),
            failed: counts.failed.load(Ordering::Relaxed),
            references: counts.references.load(Ordering::Relaxed),
            building: Duration::from_micros(counts.building.load(Ordering::Relaxed)),
            directory: self.shared.persistence.as_ref().map(Persistence::usage),
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, u64>> {
        self.last_versions.lock()
    }

    /// Checks the condition, the name of a public operand, and the number of operands.
    pub(super) fn check_put(
        &self,
        table: &Table,
        tenant: &Arc<str>,
        name: &str,
        options: &PutOptions,
    ) -> Result<(), OperandError> {
        let names = table.own(tenant);
        let current = names.and_then(|names| names.get(name));
        options.condition.check(current)?;
        if options.public
            && table.public().get(name).is_some_and(|public| !current.is_some_and(|c| Arc::ptr_eq(c, public)))
        {
            return Err(OperandError::NameTaken);
        }
        if current.is_none() {
            let limits = self.budget.limits();
            for (len, max) in [
                (table.len(), limits.max_operands),
                (names.map_or(0, |names| names.len()), limits.max_operands_per_tenant),
            ] {
                if len >= max {
                    return Err(OperandError::TooMany { max });
                }
            }
        }
        Ok(())
    }

    pub(super) fn operand_type(&self, name: &str) -> Result<OperandType, OperandError> {
        let types = self.types.load();
        let found = types.iter().find(|known| known.name == name).copied();
        found.ok_or_else(|| OperandError::UnknownType { known: types.iter().map(|known| known.name).collect() })
    }

    fn own(&self, tenant: Option<&str>, name: &str) -> Option<Arc<OperandVersion>> {
        self.table.load().own(tenant.unwrap_or(NO_TENANT))?.get(name).cloned()
    }
}

impl fmt::Debug for Operands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operands").field("usage", &self.usage()).finish_non_exhaustive()
    }
}
