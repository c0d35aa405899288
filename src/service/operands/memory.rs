//! [`OperandMemory`]: the value of an operand, with the memory that it is charged for and its copies on devices.

use std::fmt;
use std::sync::Arc;
#[cfg(feature = "cuda")]
use std::sync::{Mutex, PoisonError};

use super::budget::Charge;
use super::placement::Placement;
use super::value::ErasedValue;
#[cfg(feature = "cuda")]
use crate::cuda::{ArraySource, HostArrays};

/// The value of an operand in host memory, and the copies of it on devices, which live as long as this.
pub struct OperandMemory {
    // Dropped in this order: devices make no copies of memory that is freed, and it counts as used until then.
    #[cfg(feature = "cuda")]
    host_arrays: Option<HostArrays>,
    #[cfg(feature = "cuda")]
    derived_arrays: Mutex<DerivedArrays>,
    value: Arc<dyn ErasedValue>,
    charge: Charge,
    placement: Placement,
}

impl OperandMemory {
    /// Registers the arrays of a value, so that devices find them.
    pub(super) fn new(value: Arc<dyn ErasedValue>, charge: Charge, placement: Placement) -> Self {
        #[cfg(feature = "cuda")]
        let register = || HostArrays::register(Arc::new(ValueArrays { value: Arc::clone(&value), skip: 0 }));
        Self {
            #[cfg(feature = "cuda")]
            host_arrays: (placement != Placement::HostOnly).then(register),
            #[cfg(feature = "cuda")]
            derived_arrays: Mutex::new(DerivedArrays { known: value.arrays().len(), registered: Vec::new() }),
            value,
            charge,
            placement,
        }
    }

    /// Returns the size of the value's arrays in host memory, in bytes.
    pub fn bytes(&self) -> u64 {
        self.charge.bytes()
    }

    /// Returns on which devices it is.
    pub fn placement(&self) -> Placement {
        self.placement
    }

    pub(super) fn value(&self) -> &Arc<dyn ErasedValue> {
        &self.value
    }

    /// Returns the ordinals of the devices that have copies of all arrays now. Arrays below 4 KiB have none.
    pub fn devices(&self) -> Vec<u32> {
        #[cfg(feature = "cuda")]
        return self.host_arrays().map_or_else(Vec::new, HostArrays::devices);
        #[cfg(not(feature = "cuda"))]
        Vec::new()
    }

    /// Returns the arrays as devices find them; `None` where no device gets copies.
    #[cfg(feature = "cuda")]
    pub(crate) fn host_arrays(&self) -> Option<&HostArrays> {
        self.host_arrays.as_ref()
    }

    /// Lets devices find the arrays that the value has made since the last call. The run that made them uploads them for
    /// itself; the next has copies.
    #[cfg(feature = "cuda")]
    pub(super) fn register_derived_arrays(&self) {
        if self.host_arrays.is_none() {
            return;
        }
        let len = self.value.arrays().len();
        let mut derived = self.derived_arrays.lock().unwrap_or_else(PoisonError::into_inner);
        if len > derived.known {
            let source = ValueArrays { value: Arc::clone(&self.value), skip: derived.known };
            derived.registered.push(HostArrays::register(Arc::new(source)));
            derived.known = len;
        }
    }
}

impl fmt::Debug for OperandMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperandMemory")
            .field("type", &self.value.type_name())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// Arrays that the value made after it was stored, such as the predecessors of a graph.
#[cfg(feature = "cuda")]
struct DerivedArrays {
    /// The number of the value's arrays that are registered.
    known: usize,
    registered: Vec<HostArrays>,
}

/// The arrays of a value after the first `skip`.
#[cfg(feature = "cuda")]
struct ValueArrays {
    value: Arc<dyn ErasedValue>,
    skip: usize,
}

#[cfg(feature = "cuda")]
impl ArraySource for ValueArrays {
    fn arrays(&self) -> Vec<&[u8]> {
        self.value.arrays().into_iter().skip(self.skip).map(|array| array.bytes).collect()
    }
}
