//! [`Gpu`]: the sensors of a device, read through NVIDIA's management library (NVML), which comes with the driver.
//!
//! The library is loaded at run time. Without it, or where it does not know the device, there are no readings. CUDA and
//! NVML may number devices differently, so the device is found by its PCI address.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use schemars::JsonSchema;
use serde::Serialize;

/// The age up to which the last reading is returned while another thread reads.
const STALE: Duration = Duration::from_secs(10);

/// The sensors of a device. Clones refer to the same device.
#[derive(Clone)]
pub struct Gpu(Arc<Sensors>);

struct Sensors {
    ordinal: u32,
    uuid: String,
    device: Device<'static>,
    /// Held by the thread that reads.
    reading: Mutex<()>,
    last: Mutex<Option<(Instant, GpuReading)>>,
}

/// A reading of a device's sensors. Values that the device or its driver does not provide are absent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct GpuReading {
    /// The ordinal by which the CUDA driver knows the device.
    pub device: u32,
    /// The UUID by which NVIDIA's tools know it.
    pub uuid: String,
    /// The fraction of the last sample period, up to a second, in which a kernel ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization: Option<f64>,
    /// The fraction of the last sample period, up to a second, in which its memory was read or written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_utilization: Option<f64>,
    /// Memory that all processes use, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
    /// The size of its memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<u64>,
    /// The temperature in degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    /// The power draw in watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    /// The power limit in watts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_limit: Option<f64>,
    /// Corrected memory errors since the driver was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_corrected: Option<u64>,
    /// Uncorrectable memory errors since the driver was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_uncorrected: Option<u64>,
    /// Why its clocks are reduced. Idleness is not reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Vec<ThrottleReason>>,
}

/// Why the clocks of a device are reduced, by the names of NVIDIA's DCGM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ThrottleReason {
    /// They are set lower by an administrator.
    ClocksSetting,
    /// The power draw is at its limit.
    SwPowerCap,
    /// The hardware has halved them, because of temperature, power or a power brake.
    HwSlowdown,
    /// They are synchronized with those of other devices.
    SyncBoost,
    /// The software's temperature limit is exceeded.
    SwThermal,
    /// The hardware's temperature limit is exceeded.
    HwThermal,
    /// The power supply has asserted the power brake.
    HwPowerBrake,
    /// The clocks of a display limit them.
    DisplayClocks,
}

impl ThrottleReason {
    /// All reasons.
    pub const ALL: [Self; 8] = [
        Self::ClocksSetting,
        Self::SwPowerCap,
        Self::HwSlowdown,
        Self::SyncBoost,
        Self::SwThermal,
        Self::HwThermal,
        Self::HwPowerBrake,
        Self::DisplayClocks,
    ];

    /// Returns the name in metrics, such as `sw_power_cap`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClocksSetting => "clocks_setting",
            Self::SwPowerCap => "sw_power_cap",
            Self::HwSlowdown => "hw_slowdown",
            Self::SyncBoost => "sync_boost",
            Self::SwThermal => "sw_thermal",
            Self::HwThermal => "hw_thermal",
            Self::HwPowerBrake => "hw_power_brake",
            Self::DisplayClocks => "display_clocks",
        }
    }

    fn flags(self) -> ThrottleReasons {
        match self {
            Self::ClocksSetting => ThrottleReasons::APPLICATIONS_CLOCKS_SETTING,
            Self::SwPowerCap => ThrottleReasons::SW_POWER_CAP,
            Self::HwSlowdown => ThrottleReasons::HW_SLOWDOWN,
            Self::SyncBoost => ThrottleReasons::SYNC_BOOST,
            Self::SwThermal => ThrottleReasons::SW_THERMAL_SLOWDOWN,
            Self::HwThermal => ThrottleReasons::HW_THERMAL_SLOWDOWN,
            Self::HwPowerBrake => ThrottleReasons::HW_POWER_BRAKE_SLOWDOWN,
            Self::DisplayClocks => ThrottleReasons::DISPLAY_CLOCK_SETTING,
        }
    }

    fn from_flags(reasons: ThrottleReasons) -> Vec<Self> {
        Self::ALL.into_iter().filter(|reason| reasons.intersects(reason.flags())).collect()
    }
}

/// The library, if it is installed. It is loaded once in a process, and never unloaded because handles refer to it.
fn library() -> Option<&'static Nvml> {
    static LIBRARY: OnceLock<Option<Nvml>> = OnceLock::new();
    let load = || {
        Nvml::init()
            .inspect_err(|error| tracing::debug!(%error, "NVML cannot be loaded: the sensors of GPUs are not read"))
            .ok()
    };
    LIBRARY.get_or_init(load).as_ref()
}

impl Gpu {
    /// The sensors of the device with this PCI address, if NVML knows it.
    pub(crate) fn find(ordinal: u32, pci_bus_id: &str) -> Option<Self> {
        let known = |nvml: &'static Nvml| {
            let device = nvml.device_by_pci_bus_id(pci_bus_id)?;
            let uuid = device.uuid()?;
            Ok::<_, NvmlError>(Sensors { ordinal, uuid, device, reading: Mutex::default(), last: Mutex::default() })
        };
        let sensors = known(library()?)
            .inspect_err(|error| tracing::debug!(ordinal, pci_bus_id, %error, "NVML does not know the CUDA device"));
        sensors.ok().map(|sensors| Self(Arc::new(sensors)))
    }

    /// Returns the version of the driver, such as `580.159.04`.
    #[cfg(all(feature = "isolation", target_os = "linux"))]
    pub(crate) fn driver_version(&self) -> Option<String> {
        self.0.device.nvml().sys_driver_version().ok()
    }

    /// Reads the sensors. This blocks for some milliseconds, or for much longer if the device is failing, so call it on a
    /// blocking thread.
    ///
    /// While another thread reads, returns the last reading if it is at most 10 s old. Returns `None` if nothing can be
    /// read.
    pub fn read(&self) -> Option<GpuReading> {
        let Self(sensors) = self;
        let last = || sensors.last.lock().unwrap_or_else(PoisonError::into_inner);
        let _reading = match sensors.reading.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(guard)) => guard.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let (at, reading) = last().clone()?;
                return (at.elapsed() < STALE).then_some(reading);
            }
        };
        let reading = sensors.read();
        let has_values = reading != sensors.empty_reading();
        *last() = has_values.then(|| (Instant::now(), reading.clone()));
        has_values.then_some(reading)
    }
}

impl Sensors {
    fn empty_reading(&self) -> GpuReading {
        GpuReading { device: self.ordinal, uuid: self.uuid.clone(), ..GpuReading::default() }
    }

    /// Leaves out what cannot be read: most errors mean that the device has no such sensor.
    fn read(&self) -> GpuReading {
        let device = &self.device;
        let (utilization, memory) = (device.utilization_rates().ok(), device.memory_info().ok());
        let watts = |milliwatts: u32| f64::from(milliwatts) / 1e3;
        let share = |percent: u32| f64::from(percent) / 1e2;
        let errors = |kind| device.total_ecc_errors(kind, EccCounter::Volatile).ok();
        GpuReading {
            utilization: utilization.as_ref().map(|rates| share(rates.gpu)),
            memory_utilization: utilization.as_ref().map(|rates| share(rates.memory)),
            memory_used: memory.as_ref().map(|memory| memory.used),
            memory_total: memory.as_ref().map(|memory| memory.total),
            temperature: device.temperature(TemperatureSensor::Gpu).ok(),
            power: device.power_usage().ok().map(watts),
            power_limit: device.enforced_power_limit().ok().map(watts),
            ecc_corrected: errors(MemoryError::Corrected),
            ecc_uncorrected: errors(MemoryError::Uncorrected),
            throttled: device.current_throttle_reasons().ok().map(ThrottleReason::from_flags),
            ..self.empty_reading()
        }
    }
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gpu").field("device", &self.0.ordinal).field("uuid", &self.0.uuid).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_library_or_the_device_there_are_no_sensors() {
        // No bus has this address, whatever machine this runs on.
        assert!(Gpu::find(0, "FFFF:FF:1F.7").is_none());
        assert!(Gpu::find(0, "not a place").is_none());
    }

    #[test]
    fn reasons_are_distinguished_and_idleness_is_none() {
        use ThrottleReasons as Flags;
        assert_eq!(ThrottleReason::from_flags(Flags::GPU_IDLE), []);
        let hot = Flags::HW_SLOWDOWN | Flags::HW_THERMAL_SLOWDOWN | Flags::GPU_IDLE;
        assert_eq!(ThrottleReason::from_flags(hot), [ThrottleReason::HwSlowdown, ThrottleReason::HwThermal]);
        for reason in ThrottleReason::ALL {
            assert_eq!(ThrottleReason::from_flags(reason.flags()), [reason]);
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
