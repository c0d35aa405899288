//! Which devices there are, and their properties.

use std::ffi::{CStr, c_char};

use cudarc::driver::sys::{CUdevice, CUdevice_attribute};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cuda::driver::Driver;
use crate::cuda::{CudaError, Unavailable};

/// The properties of a CUDA device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// The ordinal by which the driver knows it.
    pub ordinal: u32,
    /// The product name, such as `NVIDIA H200`.
    pub name: String,
    /// The size of its memory in bytes.
    pub memory: u64,
    /// The compute capability: major, minor.
    pub compute_capability: (u32, u32),
    /// The number of streaming multiprocessors.
    pub multiprocessors: u32,
}

/// The peak memory bandwidth and arithmetic throughput of a device, for a roofline model.
///
/// Bandwidth is the memory's clock times two transfers times the width of its bus. Throughput is the multiprocessors'
/// clock times their number times their single-precision lanes times two, as a fused multiply-add is two operations. These
/// are the figures of NVIDIA's data sheets (an H200: 4.9 TB/s and 67 TFLOP/s). The peak of double precision, and of
/// operations other than additions and multiplications, is lower.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[non_exhaustive]
pub struct Peak {
    /// Bytes a second between the device and its memory.
    pub bytes_per_second: f64,
    /// Single-precision operations a second.
    pub operations_per_second: f64,
}

impl Peak {
    /// The peak for clocks in kHz and a bus width in bits. `None` where the driver returns 0, as it does for a device that
    /// shares the host's memory.
    fn new(info: &DeviceInfo, clock: u32, memory_clock: u32, bus_width: u32) -> Option<Self> {
        // From the table of arithmetic throughput in the CUDA programming guide: 32-bit additions and multiplications.
        let lanes: u32 = match info.compute_capability {
            (7, _) | (8, 0) => 64,
            _ => 128,
        };
        let [clock, memory_clock] = [clock, memory_clock].map(|clock| f64::from(clock) * 1e3);
        let peak = Self {
            bytes_per_second: 2.0 * memory_clock * f64::from(bus_width) / 8.0,
            operations_per_second: 2.0 * clock * f64::from(lanes * info.multiprocessors),
        };
        (peak.bytes_per_second > 0.0 && peak.operations_per_second > 0.0).then_some(peak)
    }
}

/// Lists the devices of this machine, without opening them.
///
/// The first call loads the driver's library, which can take a few hundred milliseconds.
///
/// # Errors
/// Why CUDA is not available.
pub fn devices() -> Result<Vec<DeviceInfo>, Unavailable> {
    let driver = Driver::get()?;
    let count = count(driver)?;
    (0..count).map(|ordinal| Ok(find(driver, ordinal)?.1)).collect()
}

/// The number of devices.
pub(super) fn count(driver: &Driver) -> Result<u32, CudaError> {
    let mut count = 0;
    // SAFETY: `count` lives across the call.
    CudaError::check("cuDeviceGetCount", unsafe { (driver.cuDeviceGetCount)(&raw mut count) })?;
    Ok(count.unsigned_abs())
}

/// The handle and the properties of the device with this ordinal.
pub(super) fn find(driver: &Driver, ordinal: u32) -> Result<(CUdevice, DeviceInfo), CudaError> {
    let mut device = 0;
    let mut memory = 0_usize;
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: every pointer is to a local that lives across the call, and the name's length is the array's. The driver
    // terminates the name with a zero.
    let name = unsafe {
        CudaError::check("cuDeviceGet", (driver.cuDeviceGet)(&raw mut device, ordinal.cast_signed()))?;
        CudaError::check("cuDeviceTotalMem", (driver.cuDeviceTotalMem_v2)(&raw mut memory, device))?;
        CudaError::check("cuDeviceGetName", (driver.cuDeviceGetName)(name.as_mut_ptr(), 255, device))?;
        CStr::from_ptr(name.as_ptr()).to_string_lossy().into_owned()
    };
    let attribute = |which| attribute(driver, device, which);
    let info = DeviceInfo {
        ordinal,
        name,
        memory: memory as u64,
        compute_capability: (
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
    };
    Ok((device, info))
}

pub(in crate::cuda) fn attribute(
    driver: &Driver,
    device: CUdevice,
    which: CUdevice_attribute,
) -> Result<u32, CudaError> {
    let mut value = 0;
    // SAFETY: `value` lives across the call.
    let code = unsafe { (driver.cuDeviceGetAttribute)(&raw mut value, which as u32, device) };
    CudaError::check("cuDeviceGetAttribute", code).map(|()| value.unsigned_abs())
}

/// The peak of the device, if the driver knows its clocks.
pub(super) fn peak(driver: &Driver, device: CUdevice, info: &DeviceInfo) -> Result<Option<Peak>, CudaError> {
    let attribute = |which| attribute(driver, device, which);
    let clock = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?;
    let memory_clock = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE)?;
    let bus_width = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH)?;
    Ok(Peak::new(info, clock, memory_clock, bus_width))
}

/// The PCI address of the device, such as `0000:1B:00.0`, by which other libraries identify it. Their ordinals may differ.
pub(super) fn pci_bus_id(driver: &Driver, device: CUdevice) -> Result<String, CudaError> {
    let mut id: [c_char; 32] = [0; 32];
    // SAFETY: the length is the array's. The driver terminates the text with a zero, and the last byte is zero anyway.
    unsafe {
        CudaError::check("cuDeviceGetPCIBusId", (driver.cuDeviceGetPCIBusId)(id.as_mut_ptr(), 31, device))?;
        Ok(CStr::from_ptr(id.as_ptr()).to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::{DeviceInfo, Peak};

    #[test]
    fn the_peak_is_that_of_the_data_sheet_and_unknown_where_a_clock_is() {
        let h200 = DeviceInfo {
            ordinal: 0,
            name: "NVIDIA H200".into(),
            memory: 1,
            compute_capability: (9, 0),
            multiprocessors: 132,
        };
        let peak = Peak::new(&h200, 1_980_000, 3_201_000, 6144).unwrap();
        assert!((peak.bytes_per_second / 4.917e12 - 1.0).abs() < 1e-3, "{peak:?}");
        assert!((peak.operations_per_second / 66.9e12 - 1.0).abs() < 1e-3, "{peak:?}");
        assert_eq!(Peak::new(&h200, 1_980_000, 0, 6144), None);
        assert_eq!(Peak::new(&h200, 0, 3_201_000, 6144), None);
    }
}
