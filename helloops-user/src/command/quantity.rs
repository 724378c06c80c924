//! Numbers as people read them: three significant digits, a unit, and thousands apart.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Nanoseconds as `850 ns`, `1.24 ms`, `12.4 s` or `2.08 h`.
pub fn nanoseconds(value: u64) -> String {
    if value < 1_000 {
        return format!("{value} ns");
    }
    let value = value as f64;
    let units = [
        (1e3, "µs"),
        (1e6, "ms"),
        (1e9, "s"),
        (60e9, "min"),
        (3_600e9, "h"),
    ];
    let mut shown = String::new();
    for (index, (unit, name)) in units.into_iter().enumerate() {
        shown = format!("{} {name}", three_digits(value / unit));
        let next = units
            .get(index + 1)
            .map_or(f64::INFINITY, |(next, _)| next / unit);
        // What rounds up to the next unit is shown in that one.
        if value / unit < next - if next < 100.0 { 0.05 } else { 0.5 } {
            break;
        }
    }
    shown
}

/// A time span in the same way.
pub fn duration(value: Duration) -> String {
    nanoseconds(u64::try_from(value.as_nanos()).unwrap_or(u64::MAX))
}

/// A number with its thousands apart, such as `1,234,567`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number with what it counts, such as `1 fault` or `2 faults`.
pub fn number_of(value: u64, thing: &str) -> String {
    let plural = if value == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", count(value))
}

/// So many per second, such as `0.25`, `47` or `12,345`.
pub fn rate(value: f64) -> String {
    if value >= 99.5 {
        count(value.round() as u64)
    } else {
        three_digits(value)
    }
}

/// A place in a sequence, such as `1st` or `12th`.
pub fn ordinal(value: u64) -> String {
    let suffix = match (value % 10, value % 100) {
        (1, last) if last != 11 => "st",
        (2, last) if last != 12 => "nd",
        (3, last) if last != 13 => "rd",
        _ => "th",
    };
    format!("{}{suffix}", count(value))
}

/// A time in the local time zone, to the millisecond.
pub fn time(value: Timestamp) -> String {
    value
        .to_zoned(TimeZone::system())
        .strftime("%Y-%m-%d %H:%M:%S%.3f")
        .to_string()
}

fn three_digits(value: f64) -> String {
    if value < 9.995 {
        format!("{value:.2}")
    } else if value < 99.95 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_have_three_digits_and_the_fitting_unit() {
        for (value, text) in [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (1_240_000, "1.24 ms"),
            (99_949, "99.9 µs"),
            (99_950, "100 µs"),
            (999_499, "999 µs"),
            (999_500, "1.00 ms"),
            (59_900_000_000, "59.9 s"),
            (59_949_000_000, "59.9 s"),
            (59_960_000_000, "1.00 min"),
            (7_488_000_000_000, "2.08 h"),
        ] {
            assert_eq!(nanoseconds(value), text, "{value}");
        }
    }

    #[test]
    fn numbers_are_easy_to_read() {
        assert_eq!(
            [0, 999, 1_000, 1_234_567].map(count),
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [1, 2, 3, 11, 12, 21, 113].map(ordinal),
            ["1st", "2nd", "3rd", "11th", "12th", "21st", "113th"]
        );
        assert_eq!(
            [0.25, 12.34, 99.7, 12_345.6].map(rate),
            ["0.25", "12.3", "100", "12,346"]
        );
        assert_eq!(number_of(1, "fault"), "1 fault");
    }

    proptest! {
        #[test]
        fn every_time_can_be_shown(value: u64) {
            let shown = nanoseconds(value);
            prop_assert!(shown.len() <= 10, "{shown}");
            prop_assert!(!shown.starts_with("1000 "), "{shown}");
        }
    }
}
