use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::Denied;

/// The claims of a token whose signature is right. A name that is there twice is an error: a proxy in front may have taken
/// the other one.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Whether the claims that [RFC 7519](https://www.rfc-editor.org/rfc/rfc7519#section-4.1) defines are of the types that
    /// it says. The library passes over some that it cannot read, and takes a list of issuers, of which the RFC knows none.
    pub(super) fn check_types(&self) -> Result<(), Denied> {
        let is_audience = |value: &Value| match value {
            Value::String(_) => true,
            Value::Array(all) => all.iter().all(Value::is_string),
            _ => false,
        };
        for (name, is_right) in [
            ("iss", &Value::is_string as &dyn Fn(&Value) -> bool),
            ("aud", &is_audience),
            ("exp", &Value::is_number),
            ("nbf", &Value::is_number),
            ("iat", &Value::is_number),
        ] {
            if self.get(name).is_some_and(|value| !is_right(value)) {
                return Err(Denied::new(format!("token: its {name} cannot be read")));
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EachOnce;

        impl<'de> Visitor<'de> for EachOnce {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("claims")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = map.next_entry()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("a claim is there twice"));
                    }
                }
                Ok(Claims(claims))
            }
        }

        deserializer.deserialize_map(EachOnce)
    }
}
