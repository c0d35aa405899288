//! [`PutOptions`] and [`RemoveOptions`]: how an operand is stored and removed.

use std::sync::Arc;

use super::error::OperandError;
use super::placement::Placement;
use super::version::OperandVersion;

/// The condition under which an operand is stored or removed, as of HTTP's `If-Match` and `If-None-Match`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PutCondition {
    /// None.
    #[default]
    Always,
    /// There is no operand of this name.
    IfAbsent,
    /// There is one.
    IfPresent,
    /// The newest version has one of these [entity tags](OperandVersion::tag).
    IfMatch(Vec<String>),
}

impl PutCondition {
    pub(super) fn check(&self, current: Option<&Arc<OperandVersion>>) -> Result<(), OperandError> {
        let holds = match self {
            Self::Always => true,
            Self::IfAbsent => current.is_none(),
            Self::IfPresent => current.is_some(),
            Self::IfMatch(tags) => current.is_some_and(|current| tags.iter().any(|tag| tag == current.tag())),
        };
        if holds {
            Ok(())
        } else {
            Err(OperandError::ConditionFailed { found: current.map(|current| current.tag().to_owned()) })
        }
    }
}

/// How an operand is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PutOptions {
    /// The tenant whose operand it is.
    pub tenant: Option<Arc<str>>,
    /// Whether other tenants may use it.
    pub public: bool,
    /// The condition under which it is stored.
    pub condition: PutCondition,
    /// On which devices it is.
    pub placement: Placement,
}

/// How an operand is removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoveOptions {
    /// The tenant whose operand it is.
    pub tenant: Option<Arc<str>>,
    /// The condition under which it is removed.
    pub condition: PutCondition,
}
