//! Parses times as publishers write them.

use chrono::{DateTime, Utc};

/// The last millisecond of the year 9999: times past it have no RFC 3339 form.
const TIME_MS_MAX: i64 = 253_402_300_799_999;

/// The valid forms of a time, for people.
pub(crate) const TIME_EXPECTED: &str =
    "RFC 3339 (2021-01-08T00:00:00.278Z), or seconds, milliseconds, microseconds or nanoseconds since 1970";

/// Parses RFC 3339, from 1970 up to the year 9999. Digits beyond milliseconds are cut off, and a leap second
/// becomes the second after it.
pub(crate) fn time_of_text(text: &str) -> Option<DateTime<Utc>> {
    let time = DateTime::parse_from_rfc3339(text).ok()?;
    DateTime::from_timestamp_millis(time.timestamp_millis()).filter(is_told)
}

/// Parses a decimal number since 1970. Its size determines the unit: below 10^11 it is seconds (up to the
/// year 5138), below 10^14 milliseconds (from March 1973), below 10^17 microseconds, and from there on
/// nanoseconds (up to 2262). It may have a fraction and an exponent, as floats do. Digits beyond milliseconds
/// are cut off.
pub(crate) fn time_of_number(text: &str) -> Option<DateTime<Utc>> {
    if text.contains(['e', 'E']) {
        let number: f64 = text.parse().ok().filter(|number: &f64| number.abs() < 1e19)?;
        return time_of_number(&format!("{number:.6}"));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let is_digits = |digits: &str| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let number: i64 = whole.parse().ok()?;
    let ms = match number {
        0..=99_999_999_999 => {
            let thousandths: String = fraction.chars().chain("000".chars()).take(3).collect();
            number * 1_000 + thousandths.parse::<i64>().ok()?
        }
        100_000_000_000..=99_999_999_999_999 => number,
        100_000_000_000_000..=99_999_999_999_999_999 => number / 1_000,
        _ => number / 1_000_000,
    };
    DateTime::from_timestamp_millis(ms).filter(is_told)
}

fn is_told(time: &DateTime<Utc>) -> bool {
    (0..=TIME_MS_MAX).contains(&time.timestamp_millis())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_of_a_number_tells_its_unit() {
        for (text, ms) in [
            ("0", 0),
            ("1795883000", 1_795_883_000_000),
            ("1795883000.5", 1_795_883_000_500),
            ("1795883000.1239", 1_795_883_000_123),
            ("1.795883e9", 1_795_883_000_000),
            ("1795883000278", 1_795_883_000_278),
            ("1795883000278.9", 1_795_883_000_278),
            ("1.795883000278E+12", 1_795_883_000_278),
            ("1795883000278999", 1_795_883_000_278),
            ("1795883000278999999", 1_795_883_000_278),
            ("99999999999", 99_999_999_999_000),
            ("100000000000", 100_000_000_000),
            ("99999999999999", 99_999_999_999_999),
            ("100000000000000", 100_000_000_000),
            ("100000000000000000", 100_000_000_000),
        ] {
            assert_eq!(time_of_number(text).map(|time| time.timestamp_millis()), Some(ms), "{text}");
        }
        for text in ["", "-1", "-0.5", "1.", ".5", "1e999", "1e-x", "9223372036854775808", "+1", "1 "] {
            assert_eq!(time_of_number(text), None, "{text}");
        }
    }

    #[test]
    fn text_is_rfc_3339_between_1970_and_9999() {
        let time = time_of_text("2021-01-08T01:00:00.278+01:00").map(|time| time.timestamp_millis());
        assert_eq!(time, Some(1_610_064_000_278));
        // As it is stored and sent: milliseconds, and no leap seconds, since few parsers know them.
        for (text, told) in [
            ("2021-01-08T00:00:00.2789999Z", "2021-01-08T00:00:00.278Z"),
            ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00.500Z"),
        ] {
            assert_eq!(time_of_text(text), DateTime::parse_from_rfc3339(told).ok().map(|time| time.to_utc()));
        }
        for text in ["1969-12-31T23:59:59Z", "2021-01-08", "soon", "", "9999-12-31T23:59:59-01:00"] {
            assert_eq!(time_of_text(text), None, "{text}");
        }
    }
}
