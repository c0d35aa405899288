//! The allowed ranges of numbers and times. Other values are checked by their types when they are parsed.

use std::time::Duration;

use toml::Value;

use super::Span;

/// The range of a number or a time.
pub(super) struct Range {
    key: &'static str,
    bounds: Bounds,
    example: &'static str,
}

enum Bounds {
    Number {
        min: i64,
        max: i64,
        /// What 0 means, if it is allowed although it is less than `min`.
        zero: Option<&'static str>,
    },
    Time {
        min: Duration,
        max: Duration,
        zero: Option<&'static str>,
    },
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// `1year`. A longer time is a mistake in the unit.
const YEAR: Duration = Duration::from_secs(31_557_600);
/// The length of a gRPC message has 32 bits.
const MAX_MESSAGE: i64 = u32::MAX as i64;
/// Far more requests or connections than a machine can hold.
const MAX_COUNT: i64 = 100_000_000;
/// The largest integer of TOML.
const MAX_BYTES: i64 = i64::MAX;
/// Each worker is a thread of the operating system.
const MAX_WORKERS: i64 = 4096;

const fn number(key: &'static str, min: i64, max: i64, example: &'static str) -> Range {
    Range { key, bounds: Bounds::Number { min, max, zero: None }, example }
}

const fn number_or_zero(key: &'static str, max: i64, zero: &'static str, example: &'static str) -> Range {
    Range { key, bounds: Bounds::Number { min: 1, max, zero: Some(zero) }, example }
}

const fn time(key: &'static str, min: Duration, example: &'static str) -> Range {
    Range { key, bounds: Bounds::Time { min, max: YEAR, zero: None }, example }
}

const fn time_or_zero(key: &'static str, min: Duration, zero: &'static str, example: &'static str) -> Range {
    Range { key, bounds: Bounds::Time { min, max: YEAR, zero: Some(zero) }, example }
}

/// A time without a lower bound.
const fn any_time(key: &'static str, max: Duration, zero: &'static str, example: &'static str) -> Range {
    Range { key, bounds: Bounds::Time { min: Duration::from_nanos(1), max, zero: Some(zero) }, example }
}

/// The range of each setting that is a number or a time.
pub(super) const RANGES: &[Range] = &[
    time("timeout", MILLISECOND, "30s"),
    number("rest.max_request_size", 1, MAX_BYTES, "10485760"),
    number("rest.max_response_size", 1, MAX_BYTES, "67108864"),
    number("grpc.max_request_size", 1, MAX_MESSAGE, "67108864"),
    number("grpc.max_response_size", 1, MAX_MESSAGE, "67108864"),
    number("grpc.max_concurrent_per_stream", 1, MAX_COUNT, "256"),
    number_or_zero("operands.max_bytes_per_tenant", MAX_BYTES, "is no limit but operands.max_bytes", "1073741824"),
    number("operands.max_operands", 1, MAX_COUNT, "100000"),
    number_or_zero("operands.max_operands_per_tenant", MAX_COUNT, "is no limit but operands.max_operands", "1000"),
    number("operands.max_upload", 1, MAX_BYTES, "17179869184"),
    time("operands.upload_timeout", MILLISECOND, "10m"),
    number("connections.max", 1, MAX_COUNT, "10000"),
    number_or_zero("connections.max_per_address", MAX_COUNT, "is no limit", "1024"),
    number_or_zero("connections.health_reserve", MAX_COUNT, "is no reserve", "16"),
    time("connections.head_timeout", MILLISECOND, "20s"),
    time("connections.idle_timeout", MILLISECOND, "75s"),
    time("connections.write_timeout", MILLISECOND, "30s"),
    time_or_zero("connections.max_age", SECOND, "is no limit", "1h"),
    any_time("connections.max_age_grace", YEAR, "closes them at once", "60s"),
    time_or_zero("tls.reload_interval", Duration::from_millis(10), "is never", "10s"),
    number_or_zero("rate_limit.per_second", u32::MAX as i64, "is no limit", "100"),
    number_or_zero("rate_limit.burst", u32::MAX as i64, "is the number of requests of one second", "20"),
    number_or_zero("cache.max_bytes", MAX_BYTES, "is no cache", "268435456"),
    time_or_zero("cache.ttl", MILLISECOND, "is no limit", "10m"),
    time_or_zero("load_shed.max_wait", MILLISECOND, "rejects none", "5s"),
    number("circuit_breaker.consecutive_failures", 1, u32::MAX as i64, "20"),
    number("circuit_breaker.failure_percent", 1, 100, "50"),
    number("circuit_breaker.agreeing_tenants", 1, u32::MAX as i64, "3"),
    number("retry.attempts", 1, 100, "3"),
    number_or_zero("queue.capacity", MAX_COUNT, "is no queue", "1024"),
    number("queue.max_bytes", 1, MAX_BYTES, "1073741824"),
    number_or_zero("concurrency.limit", MAX_COUNT, "is the limit of the backends", "16"),
    number("batch.max_requests", 1, MAX_COUNT, "256"),
    number("batch.max_bytes", 1, MAX_BYTES, "16777216"),
    any_time("batch.max_delay", DAY, "does not wait", "200us"),
    number("batch.capacity", 1, MAX_COUNT, "16384"),
    any_time("drain.notice", DAY, "is no notice", "2s"),
    any_time("drain.limit", DAY, "cancels them at once", "30s"),
    number("cpu.workers", 1, MAX_WORKERS, "8"),
    number_or_zero("cpu.queue", MAX_COUNT, "is no queue", "512"),
    any_time("cpu.inline", SECOND, "runs none there", "20us"),
    number("cuda.workers", 1, MAX_WORKERS, "8"),
    number_or_zero("cuda.queue", MAX_COUNT, "is no queue", "512"),
    any_time("cuda.idle_spin", SECOND, "sleeps at once", "50us"),
    number_or_zero("cuda.copy_threads", MAX_WORKERS, "is none", "4"),
    any_time("cuda.busy_poll", SECOND, "does not poll", "30us"),
    any_time("cuda.inline", SECOND, "decodes none there", "20us"),
    time("cuda.hang_timeout", MILLISECOND, "60s"),
    number_or_zero("cuda.timing_sample_interval", u32::MAX as i64, "is none", "512"),
    number_or_zero("isolation.max_faults", u32::MAX as i64, "quarantines none", "3"),
    time("isolation.quarantine", MILLISECOND, "60s"),
    time("isolation.hang_timeout", MILLISECOND, "10s"),
    time("isolation.start_timeout", MILLISECOND, "60s"),
    number("isolation.shared_memory", 1, MAX_BYTES, "4294967296"),
    number_or_zero("log.max_repeats", i64::MAX, "is no limit", "20"),
    number("log.buffer", 4096, 1 << 30, "1048576"),
];

/// Checks a number or a time against the range of its setting. Other settings have none.
///
/// # Errors
/// The value and what is allowed.
pub(super) fn check(key: &str, value: &Value) -> Result<(), String> {
    let Some(range) = range(key) else { return Ok(()) };
    match (&range.bounds, value) {
        (Bounds::Number { min, max, zero }, Value::Integer(number)) => {
            let holds = (min..=max).contains(&number) || (*number == 0 && zero.is_some());
            holds.then_some(()).ok_or_else(|| range.error(value))
        }
        (Bounds::Number { .. }, _) => Err(range.error(value)),
        (Bounds::Time { min, max, zero }, Value::String(text)) => {
            let Span(time) = text.parse()?;
            let holds = (min..=max).contains(&&time) || (time.is_zero() && zero.is_some());
            holds.then_some(()).ok_or_else(|| range.error(value))
        }
        (Bounds::Time { .. }, _) => {
            Err(format!("{value} is not a time; write it with a unit and in quotes, for example \"{}\"", range.example))
        }
    }
}

fn range(key: &str) -> Option<&'static Range> {
    RANGES.iter().find(|range| range.key == key)
}

impl Range {
    fn error(&self, value: &Value) -> String {
        let (kind, range, zero) = match &self.bounds {
            Bounds::Number { min, max: i64::MAX, zero } => ("whole number", format!("of at least {min}"), zero),
            Bounds::Number { min, max, zero } => ("whole number", format!("from {min} to {max}"), zero),
            Bounds::Time { min, max, zero } => ("time", format!("from {} to {}", Span(*min), Span(*max)), zero),
        };
        let zero = zero.map(|means| format!(", or 0, which {means}")).unwrap_or_default();
        format!("{value} is not a {kind} {range}{zero}; use for example {}", self.example)
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::SETTINGS;
    use super::*;

    #[test]
    fn every_number_and_time_has_a_range_that_contains_its_default_and_its_example() {
        let defaults = Value::try_from(super::super::Config::default()).unwrap();
        for setting in SETTINGS.iter().filter(|setting| setting.is_number() || setting.is_time()) {
            let range = range(setting.key).unwrap_or_else(|| panic!("{} has no range", setting.key));
            let default = super::super::settings::lookup(&defaults, setting.key).unwrap();
            assert_eq!(check(setting.key, default), Ok(()), "the default of {}", setting.key);
            let example = setting.value(range.example);
            assert_eq!(check(setting.key, &example), Ok(()), "the example of {}", setting.key);
        }
        for range in RANGES {
            assert!(SETTINGS.iter().any(|setting| setting.key == range.key), "{} is not a setting", range.key);
        }
    }
}
