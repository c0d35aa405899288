use std::fmt;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::Denied;

/// The claims of a token. A duplicate name is an error, because a proxy in front may have read the other value.
pub(super) struct Claims(Map<String, Value>);

impl Claims {
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Checks the types of the claims that [RFC 7519](https://www.rfc-editor.org/rfc/rfc7519#section-4.1) defines. The
    /// library ignores some of a wrong type, and accepts a list of issuers, which the RFC does not allow.
    pub(super) fn check_types(&self) -> Result<(), Denied> {
        for name in ["iss", "aud", "exp", "nbf", "iat"] {
            let is_valid = self.get(name).is_none_or(|value| match (name, value) {
                ("iss" | "aud", Value::String(_)) => true,
                ("aud", Value::Array(all)) => all.iter().all(Value::is_string),
                ("exp" | "nbf" | "iat", Value::Number(_)) => true,
                _ => false,
            });
            if !is_valid {
                return Err(Denied::new(format!("token: its {name} cannot be read")));
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueNames;

        impl<'de> Visitor<'de> for UniqueNames {
            type Value = Claims;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object with unique names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
                let mut claims = Map::new();
                while let Some((name, value)) = map.next_entry()? {
                    if claims.insert(name, value).is_some() {
                        return Err(A::Error::custom("duplicate claim"));
                    }
                }
                Ok(Claims(claims))
            }
        }

        deserializer.deserialize_map(UniqueNames)
    }
}
