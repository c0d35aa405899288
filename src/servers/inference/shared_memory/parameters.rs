use super::{RegionAccess, RegionSlice};
use crate::servers::inference::ParameterValue;
use crate::service::InvalidInput;

/// The parameters of an input or output that is in shared memory.
#[derive(Debug, Default)]
pub(crate) struct RegionParameters {
    region: Option<String>,
    byte_size: Option<u64>,
    offset: Option<u64>,
}

impl RegionParameters {
    /// Takes a parameter, and returns whether it is one of these.
    ///
    /// # Errors
    /// It has another type.
    pub(crate) fn take(&mut self, name: &str, value: &ParameterValue) -> Result<bool, InvalidInput> {
        let bytes = |value: &ParameterValue| match *value {
            ParameterValue::Integer(bytes) => u64::try_from(bytes).ok(),
            _ => None,
        };
        let is_valid = match name {
            "shared_memory_region" => {
                if let ParameterValue::Text(region) = value {
                    self.region = Some(region.clone());
                }
                self.region.is_some()
            }
            "shared_memory_byte_size" => {
                self.byte_size = bytes(value);
                self.byte_size.is_some()
            }
            "shared_memory_offset" => {
                self.offset = bytes(value);
                self.offset.is_some()
            }
            _ => return Ok(false),
        };
        let expected = if name == "shared_memory_region" { "a string" } else { "a number of bytes" };
        let error = || InvalidInput::new(format!("parameters.{name}"), format!("it is not {expected}"));
        is_valid.then_some(true).ok_or_else(error)
    }

    /// Returns the part of a region that they name; `None` if there are none of them.
    ///
    /// # Errors
    /// The client can use no shared memory, the region does not exist, or the part is not within it.
    pub(crate) fn slice(self, access: &RegionAccess) -> Result<Option<RegionSlice>, InvalidInput> {
        const REGION: &str = "parameters.shared_memory_region";
        let Self { region, byte_size, offset } = self;
        let Some(region) = region else {
            return match byte_size.or(offset) {
                None => Ok(None),
                Some(_) => Err(InvalidInput::new(REGION, "missing, and another parameter of shared memory is there")),
            };
        };
        let regions = access.as_ref().map_err(|denied| InvalidInput::new(REGION, denied.to_string()))?;
        let byte_size = byte_size.ok_or_else(|| InvalidInput::new("parameters.shared_memory_byte_size", "missing"))?;
        let found = regions.find(&region);
        let found = found.ok_or_else(|| {
            let name = crate::text::prefix(&region, 128);
            InvalidInput::new(REGION, format!("there is no region {name:?}"))
        })?;
        RegionSlice::new(found, offset.unwrap_or(0), byte_size).map(Some)
    }
}
