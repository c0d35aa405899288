//! [`MappedMemory`]: device memory that becomes read-only, and that other processes can map.

use std::ptr;
use std::sync::Arc;

use cudarc::driver::sys::{
    CUdevice, CUdevice_attribute, CUdeviceptr, CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationHandleType,
    CUmemAllocationProp, CUmemAllocationProp_st__bindgen_ty_1, CUmemAllocationType, CUmemGenericAllocationHandle,
    CUmemLocation, CUmemLocationType,
};

use crate::cuda::CudaError;
use crate::cuda::device::{DeviceHealth, attribute};
use crate::cuda::driver::Driver;

/// Allocates [`MappedMemory`] on one device.
#[derive(Clone, Debug)]
pub(in crate::cuda) struct Allocator {
    driver: &'static Driver,
    device: CUdevice,
    /// Whether other processes can import the memory.
    exportable: bool,
    granularity: usize,
    health: Arc<DeviceHealth>,
}

impl Allocator {
    /// Creates the allocator of a device; `None` if the device cannot map memory, as some virtual GPUs cannot.
    pub(in crate::cuda) fn new(
        driver: &'static Driver,
        device: CUdevice,
        health: Arc<DeviceHealth>,
    ) -> Result<Option<Self>, CudaError> {
        let has = |which| attribute(driver, device, which).map(|value| value != 0);
        if !has(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_VIRTUAL_ADDRESS_MANAGEMENT_SUPPORTED)? {
            return Ok(None);
        }
        let exportable = has(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED)?;
        let mut this = Self { driver, device, exportable, granularity: 0, health };
        let properties = this.properties();
        // 0 is CU_MEM_ALLOC_GRANULARITY_MINIMUM.
        // SAFETY: both pointers are to locals that live across the call.
        let code =
            unsafe { (driver.cuMemGetAllocationGranularity)(&raw mut this.granularity, &raw const properties, 0) };
        CudaError::check("cuMemGetAllocationGranularity", code)?;
        Ok(Some(this))
    }

    /// The size of an allocation for `bytes`.
    pub(super) fn rounded(&self, bytes: usize) -> usize {
        bytes.next_multiple_of(self.granularity)
    }

    fn location(&self) -> CUmemLocation {
        CUmemLocation { type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: self.device }
    }

    fn properties(&self) -> CUmemAllocationProp {
        let handle_types = if self.exportable {
            CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
        } else {
            CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE
        };
        CUmemAllocationProp {
            type_: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
            requestedHandleTypes: handle_types,
            location: self.location(),
            win32HandleMetaData: ptr::null_mut(),
            allocFlags: CUmemAllocationProp_st__bindgen_ty_1 {
                compressionType: 0,
                gpuDirectRDMACapable: 0,
                usage: 0,
                reserved: [0; 4],
            },
        }
    }

    /// Allocates `bytes`, a [rounded](Self::rounded) size, which the device may read and write.
    ///
    /// # Errors
    /// Errors of the driver.
    pub(super) fn allocate(&self, bytes: usize) -> Result<MappedMemory, CudaError> {
        let driver = self.driver;
        let properties = self.properties();
        let mut memory = MappedMemory { allocator: self.clone(), handle: None, address: 0, bytes, mapped: false };
        let mut handle = 0;
        // SAFETY: both pointers are to locals that live across the call.
        let code = unsafe { (driver.cuMemCreate)(&raw mut handle, bytes, &raw const properties, 0) };
        CudaError::check("cuMemCreate", code)?;
        memory.handle = Some(handle);
        // SAFETY: the pointer is to a field of a local.
        let code = unsafe { (driver.cuMemAddressReserve)(&raw mut memory.address, bytes, 0, 0, 0) };
        CudaError::check("cuMemAddressReserve", code)?;
        // SAFETY: the range was reserved above and nothing is mapped there; the handle has the same size.
        CudaError::check("cuMemMap", unsafe { (driver.cuMemMap)(memory.address, bytes, 0, handle, 0) })?;
        memory.mapped = true;
        memory.set_access(CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE)?;
        Ok(memory)
    }
}

/// An allocation of device memory in an address range of its own.
#[derive(Debug)]
pub(super) struct MappedMemory {
    allocator: Allocator,
    /// `None` while it is not allocated.
    handle: Option<CUmemGenericAllocationHandle>,
    /// 0 while no addresses are reserved.
    address: CUdeviceptr,
    bytes: usize,
    mapped: bool,
}

impl MappedMemory {
    pub(super) fn address(&self) -> CUdeviceptr {
        self.address
    }

    /// Has every store of a kernel into it fault. No queued work may write to it.
    pub(super) fn make_read_only(&self) -> Result<(), CudaError> {
        self.set_access(CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READ)
    }

    fn set_access(&self, flags: CUmemAccess_flags) -> Result<(), CudaError> {
        let access = CUmemAccessDesc { location: self.allocator.location(), flags };
        // SAFETY: the range is mapped; the pointer is to one local that lives across the call.
        let code = unsafe { (self.allocator.driver.cuMemSetAccess)(self.address, self.bytes, &raw const access, 1) };
        CudaError::check("cuMemSetAccess", code)
    }
}

impl Drop for MappedMemory {
    fn drop(&mut self) {
        // A hung device may still read it, and the driver would wait for the device.
        if self.allocator.health.is_hung() {
            return;
        }
        let driver = self.allocator.driver;
        // SAFETY: each is undone once, in the reverse order; no run uses the memory any more. They fail only where the device
        // is lost or the process is ending.
        unsafe {
            if self.mapped {
                (driver.cuMemUnmap)(self.address, self.bytes);
            }
            if self.address != 0 {
                (driver.cuMemAddressFree)(self.address, self.bytes);
            }
            if let Some(handle) = self.handle {
                (driver.cuMemRelease)(handle);
            }
        }
    }
}
