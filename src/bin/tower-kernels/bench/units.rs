//! Parses and formats times and sizes.

use std::time::Duration;

/// Parses `250us`, `100ms`, `1.5s`, `2m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        _ => return Err("must be a number and one of us, ms, s, m, h, such as 10s".to_owned()),
    };
    let number: f64 = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
    Duration::try_from_secs_f64(number * scale).map_err(|error| error.to_string())
}

/// Three digits and a unit: `9.51 us`.
pub(super) fn time(nanos: f64) -> String {
    match nanos {
        n if n < 1e3 => format!("{n:.0} ns"),
        n if n < 1e6 => format!("{} us", digits(n / 1e3)),
        n if n < 1e9 => format!("{} ms", digits(n / 1e6)),
        n => format!("{} s", digits(n / 1e9)),
    }
}

/// `1.21 MB`, of 1 000 000 bytes.
pub(super) fn bytes(count: f64) -> String {
    match count {
        n if n < 1e3 => format!("{n:.0} B"),
        n if n < 1e6 => format!("{} kB", digits(n / 1e3)),
        n if n < 1e9 => format!("{} MB", digits(n / 1e6)),
        n => format!("{} GB", digits(n / 1e9)),
    }
}

/// Three digits of a number from 1 to 1000.
fn digits(number: f64) -> String {
    let decimals = match number {
        n if n < 9.995 => 2,
        n if n < 99.95 => 1,
        _ => 0,
    };
    format!("{number:.decimals$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_unit() {
        for (text, millis) in [("10s", 10_000), ("1.5s", 1_500), ("100ms", 100), ("2m", 120_000), ("1h", 3_600_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("250us"), Ok(Duration::from_micros(250)));
        for text in ["", "10", "s", "-1s", "1d", "1 000s", "infs", "NaNs", "1e400s"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn three_digits_are_shown_of_whatever_size() {
        let shown = [0.0, 999.0, 9_510.0, 99_960.0, 1.0e6, 31_400_000.0, 2.5e9].map(time);
        assert_eq!(shown, ["0 ns", "999 ns", "9.51 us", "100 us", "1.00 ms", "31.4 ms", "2.50 s"]);
        assert_eq!([74.0, 1_210_000.0].map(bytes), ["74 B", "1.21 MB"]);
    }
}
