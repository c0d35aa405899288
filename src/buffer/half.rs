//! [`F16`] and [`Bf16`]: the 16-bit floating-point formats, as array elements.

use std::borrow::Cow;
use std::fmt;

use bytemuck::{Pod, Zeroable};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

macro_rules! half_float {
    ($(#[$doc:meta])* $name:ident $of:path) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, PartialOrd, Pod, Zeroable)]
        #[repr(transparent)]
        pub struct $name($of);

        impl $name {
            /// Rounds to the nearest number of this format, ties to even. Numbers beyond its range become infinite.
            pub fn from_f32(value: f32) -> Self {
                Self(<$of>::from_f32(value))
            }

            /// Converts to single precision, which is exact.
            pub fn to_f32(self) -> f32 {
                self.0.to_f32()
            }

            /// Creates a number from its bits.
            pub const fn from_bits(bits: u16) -> Self {
                Self(<$of>::from_bits(bits))
            }

            /// Returns the bits.
            pub const fn to_bits(self) -> u16 {
                self.0.to_bits()
            }

            /// Returns whether it is neither infinite nor NaN.
            pub const fn is_finite(self) -> bool {
                self.0.is_finite()
            }
        }

        impl From<$name> for f32 {
            fn from(value: $name) -> Self {
                value.to_f32()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.to_f32(), f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.to_f32(), f)
            }
        }

        /// Serializes as the number in single precision.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_f32(self.to_f32())
            }
        }

        /// Reads a number in single precision, and rounds it.
        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                f32::deserialize(deserializer).map(Self::from_f32)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(generator: &mut SchemaGenerator) -> Schema {
                f32::json_schema(generator)
            }
        }
    };
}

half_float! {
    /// IEEE 754 binary16: 5 bits of exponent and 10 of fraction, up to 65 504.
    F16 half::f16
}

half_float! {
    /// bfloat16: 8 bits of exponent, as in single precision, and 7 of fraction.
    Bf16 half::bf16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_rounded_to_the_nearest_and_written_as_they_are() {
        for (value, f16, bf16) in [
            (0.0, 0.0, 0.0),
            (-1.5, -1.5, -1.5),
            (65_504.0, 65_504.0, 65_536.0),
            (2049.0, 2048.0, 2048.0),
            (65_520.0, f32::INFINITY, 65_536.0),
            (6e-8, 2_f32.powi(-24), 6e-8),
            (3e38, f32::INFINITY, 3e38),
            (f32::MAX, f32::INFINITY, f32::INFINITY),
        ] {
            assert_eq!(F16::from_f32(value).to_f32(), f16, "{value}");
            let found = Bf16::from_f32(value).to_f32();
            assert!(found == bf16 || (found - bf16).abs() <= bf16.abs() / 256.0, "{value}: {found}");
        }
        assert!(!F16::from_f32(f32::NAN).is_finite() && !Bf16::from_f32(f32::INFINITY).is_finite());
        assert_eq!((F16::from_bits(0x3c00).to_f32(), Bf16::from_bits(0x3f80).to_f32()), (1.0, 1.0));
        assert_eq!(serde_json::to_string(&[F16::from_f32(0.5), F16::from_f32(f32::NAN)]).unwrap(), "[0.5,null]");
        assert_eq!(serde_json::from_str::<[Bf16; 2]>("[1, 257]").unwrap().map(Bf16::to_f32), [1.0, 256.0]);
    }
}
