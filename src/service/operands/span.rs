//! [`PutSpan`]: the span of storing an operand.

use std::sync::Arc;
use std::time::Duration;

use tracing::Span;
use tracing::field::{Empty, debug};

use super::error::OperandError;
use super::options::PutOptions;
use super::version::OperandVersion;
use crate::error::Classify;
use crate::request::limits::name_prefix;

const TARGET: &str = "tower_kernels::service::operands";

/// The span `put_operand`, a child of the request's.
///
/// | field | when | what |
/// |---|---|---|
/// | `operand.name`, `operand.type` | always | at most 128 bytes of each |
/// | `operand.placement` | always | on which devices it is to be |
/// | `operand.build_duration` | it was uploaded | seconds that decoding, checking and building took |
/// | `operand.version`, `operand.bytes` | it was stored | the version and its size in host memory |
/// | `operand.devices` | the same | ordinals of the devices that have copies of it |
/// | `error.type` | it failed | the [code](crate::error::ErrorKind::code) |
pub(super) struct PutSpan(Span);

impl PutSpan {
    /// Runs `put` in a new span, and records what comes of it.
    pub(super) fn record(
        name: &str,
        type_name: &str,
        options: &PutOptions,
        put: impl FnOnce(&Self) -> Result<Arc<OperandVersion>, OperandError>,
    ) -> Result<Arc<OperandVersion>, OperandError> {
        let span = Self(tracing::info_span!(
            target: TARGET,
            "put_operand",
            operand.name = name_prefix(name),
            operand.type = name_prefix(type_name),
            operand.placement = options.placement.as_str(),
            operand.build_duration = Empty,
            operand.version = Empty,
            operand.bytes = Empty,
            operand.devices = Empty,
            error.type = Empty,
        ));
        let result = span.0.in_scope(|| put(&span));
        if !span.0.is_disabled() {
            span.end(&result);
        }
        result
    }

    /// Runs `build`, which decodes, checks and builds the value, in a span of its own.
    pub(super) fn build<T>(build: impl FnOnce() -> T) -> T {
        tracing::info_span!(target: TARGET, "build_operand").in_scope(build)
    }

    /// Records how long it took to decode, check and build the value.
    pub(super) fn built(&self, duration: Duration) {
        self.0.record("operand.build_duration", duration.as_secs_f64());
    }

    fn end(&self, result: &Result<Arc<OperandVersion>, OperandError>) {
        match result {
            Ok(version) => {
                self.0.record("operand.version", version.version());
                self.0.record("operand.bytes", version.bytes());
                self.0.record("operand.devices", debug(version.devices()));
            }
            Err(error) => {
                self.0.record("error.type", error.kind().code());
            }
        }
    }
}
