//! Which numbers and times a setting may have. What else a value may be its type says when it is read.

use std::time::Duration;

use toml::Value;

use super::Span;

/// What a number or a time may be.
pub(super) struct Rule {
    key: &'static str,
    range: Range,
    example: &'static str,
}

enum Range {
    Number {
        least: i64,
        most: i64,
        /// What 0 means, where it is allowed although it is less than `least`.
        zero: Option<&'static str>,
    },
    Time {
        least: Duration,
        most: Duration,
        zero: Option<&'static str>,
    },
}

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);
/// Longer than anything that is waited for, and what `1year` is. What is longer is a mistake in the unit.
const YEAR: Duration = Duration::from_secs(31_557_600);
/// The length of a gRPC message has 32 bits.
const MAX_MESSAGE: i64 = u32::MAX as i64;
/// Far more than a machine can hold of requests and connections.
const MAX_COUNT: i64 = 100_000_000;
/// The most bytes that a setting can say: what a number of TOML can be.
const MAX_BYTES: i64 = i64::MAX;
/// Each is a thread of the operating system.
const MAX_LANES: i64 = 4096;

const fn number(key: &'static str, least: i64, most: i64, example: &'static str) -> Rule {
    Rule { key, range: Range::Number { least, most, zero: None }, example }
}

const fn number_or_zero(key: &'static str, most: i64, zero: &'static str, example: &'static str) -> Rule {
    Rule { key, range: Range::Number { least: 1, most, zero: Some(zero) }, example }
}

const fn time(key: &'static str, least: Duration, example: &'static str) -> Rule {
    Rule { key, range: Range::Time { least, most: YEAR, zero: None }, example }
}

const fn time_or_zero(key: &'static str, least: Duration, zero: &'static str, example: &'static str) -> Rule {
    Rule { key, range: Range::Time { least, most: YEAR, zero: Some(zero) }, example }
}

/// A time that may be as short as one likes.
const fn any_time(key: &'static str, most: Duration, zero: &'static str, example: &'static str) -> Rule {
    Rule { key, range: Range::Time { least: Duration::from_nanos(1), most, zero: Some(zero) }, example }
}

/// Of each setting that is a number or a time.
pub(super) const RULES: &[Rule] = &[
    time("timeout", MILLISECOND, "30s"),
    number("rest.max_request_size", 1, MAX_BYTES, "10485760"),
    number("rest.max_response_size", 1, MAX_BYTES, "67108864"),
    number("grpc.max_request_size", 1, MAX_MESSAGE, "67108864"),
    number("grpc.max_response_size", 1, MAX_MESSAGE, "67108864"),
    number("grpc.max_concurrent_per_stream", 1, MAX_COUNT, "256"),
    number("connections.max", 1, MAX_COUNT, "10000"),
    number_or_zero("connections.max_per_address", MAX_COUNT, "is no limit", "1024"),
    number_or_zero("connections.health_reserve", MAX_COUNT, "keeps none", "16"),
    time("connections.head_timeout", MILLISECOND, "20s"),
    time("connections.idle_timeout", MILLISECOND, "75s"),
    time("connections.write_timeout", MILLISECOND, "30s"),
    time_or_zero("connections.max_age", SECOND, "is no limit", "1h"),
    any_time("connections.max_age_grace", YEAR, "closes them at once", "60s"),
    time_or_zero("tls.reload_interval", Duration::from_millis(10), "is never", "10s"),
    number_or_zero("rate_limit.per_second", u32::MAX as i64, "is no limit", "100"),
    number_or_zero("rate_limit.burst", u32::MAX as i64, "is a second's worth", "20"),
    number_or_zero("cache.max_bytes", MAX_BYTES, "keeps none", "268435456"),
    time_or_zero("cache.ttl", MILLISECOND, "is as long as there is room", "10m"),
    time_or_zero("load_shed.max_wait", MILLISECOND, "rejects none", "5s"),
    number("circuit_breaker.consecutive_failures", 1, u32::MAX as i64, "20"),
    number("circuit_breaker.failure_percent", 1, 100, "50"),
    number("circuit_breaker.agreeing_tenants", 1, u32::MAX as i64, "3"),
    number("retry.attempts", 1, 100, "3"),
    number_or_zero("queue.capacity", MAX_COUNT, "is no queue", "1024"),
    number("queue.max_bytes", 1, MAX_BYTES, "1073741824"),
    number_or_zero("concurrency.limit", MAX_COUNT, "is no limit but the backends' own", "16"),
    number("batch.max_requests", 1, MAX_COUNT, "256"),
    number("batch.max_bytes", 1, MAX_BYTES, "16777216"),
    any_time("batch.max_delay", DAY, "does not wait", "200us"),
    number("batch.capacity", 1, MAX_COUNT, "16384"),
    any_time("drain.notice", DAY, "gives none", "2s"),
    any_time("drain.limit", DAY, "cancels them at once", "30s"),
    number("cpu.workers", 1, MAX_LANES, "8"),
    number_or_zero("cpu.queue", MAX_COUNT, "lets none wait", "512"),
    any_time("cpu.inline", SECOND, "is nothing", "20us"),
    number("cuda.workers", 1, MAX_LANES, "8"),
    number_or_zero("cuda.queue", MAX_COUNT, "lets none wait", "512"),
    any_time("cuda.idle_spin", SECOND, "sleeps at once", "50us"),
    number_or_zero("cuda.copy_threads", MAX_LANES, "is none", "4"),
    any_time("cuda.busy_poll", SECOND, "does not poll", "30us"),
    any_time("cuda.inline", SECOND, "is nothing", "20us"),
    time("cuda.hang_timeout", MILLISECOND, "60s"),
    number_or_zero("cuda.timing_sample_interval", u32::MAX as i64, "is none", "512"),
    number_or_zero("log.max_repeats", i64::MAX, "logs each", "20"),
    number("log.buffer", 4096, 1 << 30, "1048576"),
];

/// What is wrong with a number or a time that this setting is to have; other settings have no rule.
pub(super) fn check(key: &str, value: &Value) -> Result<(), String> {
    let Some(rule) = rule(key) else { return Ok(()) };
    match (&rule.range, value) {
        (Range::Number { least, most, zero }, Value::Integer(number)) => {
            let holds = (least..=most).contains(&number) || (*number == 0 && zero.is_some());
            holds.then_some(()).ok_or_else(|| rule.broken(value))
        }
        (Range::Number { .. }, _) => Err(rule.broken(value)),
        (Range::Time { least, most, zero }, Value::String(text)) => {
            let Span(time) = text.parse()?;
            let holds = (least..=most).contains(&&time) || (time.is_zero() && zero.is_some());
            holds.then_some(()).ok_or_else(|| rule.broken(value))
        }
        (Range::Time { .. }, _) => {
            Err(format!("{value} is not a time; write it with a unit and in quotes, for example \"{}\"", rule.example))
        }
    }
}

pub(super) fn rule(key: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.key == key)
}

impl Rule {
    fn broken(&self, value: &Value) -> String {
        let (kind, range, zero) = match &self.range {
            Range::Number { least, most: i64::MAX, zero } => ("whole number", format!("of at least {least}"), zero),
            Range::Number { least, most, zero } => ("whole number", format!("from {least} to {most}"), zero),
            Range::Time { least, most, zero } => ("time", format!("from {} to {}", Span(*least), Span(*most)), zero),
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
    fn every_number_and_every_time_has_a_rule_that_its_default_and_its_example_keep() {
        let defaults = Value::try_from(super::super::Config::default()).unwrap();
        for setting in SETTINGS.iter().filter(|setting| setting.is_number() || setting.is_time()) {
            let rule = rule(setting.key).unwrap_or_else(|| panic!("{} has no rule", setting.key));
            let default = super::super::settings::lookup(&defaults, setting.key).unwrap();
            assert_eq!(check(setting.key, default), Ok(()), "the default of {}", setting.key);
            let example = setting.value(rule.example);
            assert_eq!(check(setting.key, &example), Ok(()), "the example of {}", setting.key);
        }
        for rule in RULES {
            assert!(SETTINGS.iter().any(|setting| setting.key == rule.key), "{} is no setting", rule.key);
        }
    }
}
