//! What the device's own sensors say, through NVIDIA's management library (NVML), which comes with the driver.
//!
//! It is loaded at run time. Where it is not there, or does not know the device, there are no sensors and nothing else is
//! different. CUDA and NVML may number devices differently, so the device is found by where it sits on the bus.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{EccCounter, MemoryError, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use schemars::JsonSchema;
use serde::Serialize;

/// For how long a reading stands in for one that is still under way.
const STALE: Duration = Duration::from_secs(10);

/// The sensors of a device. Clones read the same.
#[derive(Clone)]
pub struct Gpu(Arc<Sensors>);

struct Sensors {
    ordinal: u32,
    uuid: String,
    device: Device<'static>,
    /// Held by the one that reads.
    reading: Mutex<()>,
    last: Mutex<Option<(Instant, GpuReading)>>,
}

/// What the sensors of a device say; absent is what this device, or this driver, does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
#[non_exhaustive]
pub struct GpuReading {
    /// The CUDA driver's number of the device.
    pub device: u32,
    /// The name by which NVIDIA's tools know it.
    pub uuid: String,
    /// The share of the last moments, up to a second, in which a kernel ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub utilization: Option<f64>,
    /// The share of the last moments, up to a second, in which its memory was read or written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_utilization: Option<f64>,
    /// Memory that is taken, by whichever process, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_used: Option<u64>,
    /// Its memory in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<u64>,
    /// Degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<u32>,
    /// Watts drawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    /// Watts that it may draw.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power_limit: Option<f64>,
    /// Errors of its memory that were put right, since its driver was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_corrected: Option<u64>,
    /// Errors of its memory that could not be put right, since its driver was loaded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ecc_uncorrected: Option<u64>,
    /// Why its clocks are lower than they could be. To be idle is none of the reasons.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Vec<ThrottleReason>>,
}

/// Why a device's clocks are lower than they could be, in the terms of NVIDIA's DCGM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ThrottleReason {
    /// Somebody has set them lower.
    ClocksSetting,
    /// It draws as much power as it may.
    SwPowerCap,
    /// The hardware has halved them: heat, power or a power brake.
    HwSlowdown,
    /// It keeps in step with others.
    SyncBoost,
    /// It is too hot.
    SwThermal,
    /// It is much too hot.
    HwThermal,
    /// The power supply has asked for it.
    HwPowerBrake,
    /// A display needs them.
    DisplayClocks,
}

impl ThrottleReason {
    /// All of them.
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

    /// As it is called in metrics, such as `sw_power_cap`.
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

    fn within(reasons: ThrottleReasons) -> Vec<Self> {
        Self::ALL.into_iter().filter(|reason| reasons.intersects(reason.flags())).collect()
    }
}

/// The library, if it is there, which is found out once in a process. It is never shut down: handles refer to it.
fn library() -> Option<&'static Nvml> {
    static LIBRARY: OnceLock<Option<Nvml>> = OnceLock::new();
    let load = || {
        Nvml::init()
            .inspect_err(|error| tracing::debug!(%error, "NVML is not there: no figures of the GPU's sensors"))
            .ok()
    };
    LIBRARY.get_or_init(load).as_ref()
}

impl Gpu {
    /// The sensors of the device that sits at `pci_bus_id`.
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

    /// What the sensors say now. It takes up to some milliseconds, and where a device has gone it may take much longer, so
    /// it is not for async threads.
    ///
    /// While another thread reads, its last reading is given if that is not older than 10 s. `None` where nothing can be
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
        let says_something = reading != sensors.nothing();
        *last() = says_something.then(|| (Instant::now(), reading.clone()));
        says_something.then_some(reading)
    }
}

impl Sensors {
    fn nothing(&self) -> GpuReading {
        GpuReading { device: self.ordinal, uuid: self.uuid.clone(), ..GpuReading::default() }
    }

    /// What cannot be read is left out: to be without a sensor is the usual case of an error.
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
            throttled: device.current_throttle_reasons().ok().map(ThrottleReason::within),
            ..self.nothing()
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
        // No bus has such a place, whatever machine this runs on.
        assert!(Gpu::find(0, "FFFF:FF:1F.7").is_none());
        assert!(Gpu::find(0, "not a place").is_none());
    }

    #[test]
    fn reasons_are_told_apart_and_to_be_idle_is_none() {
        use ThrottleReasons as Flags;
        assert_eq!(ThrottleReason::within(Flags::GPU_IDLE), []);
        let hot = Flags::HW_SLOWDOWN | Flags::HW_THERMAL_SLOWDOWN | Flags::GPU_IDLE;
        assert_eq!(ThrottleReason::within(hot), [ThrottleReason::HwSlowdown, ThrottleReason::HwThermal]);
        for reason in ThrottleReason::ALL {
            assert_eq!(ThrottleReason::within(reason.flags()), [reason]);
            assert_eq!(serde_json::to_value(reason).unwrap(), reason.as_str());
        }
    }
}
