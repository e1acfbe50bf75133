//! Decimal numbers that keep their digits.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

/// How many digits after the point count in comparisons. Some exchanges calculate in binary floating point, and
/// this covers every double from about 0.000001 on as they print it. An `i128` then has 16 digits left before the
/// point.
const SCALE: i32 = 22;

/// A number as the exchange wrote it, as text or as a JSON number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Decimal<'a> {
    text: &'a str,
    /// In units of 10^-22.
    value: i128,
}

impl<'a> Decimal<'a> {
    /// `None` for text that is not a number, or not one that a market could have.
    pub(super) fn read(text: &'a str) -> Option<Self> {
        if text.len() > 48 {
            return None;
        }
        let (mantissa, exponent) = match text.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
            None => (text, 0),
        };
        let (is_negative, digits) = mantissa.strip_prefix('-').map_or((false, mantissa), |rest| (true, rest));
        let (whole, fraction) = match digits.split_once('.') {
            Some((_, "")) => return None,
            Some((whole, fraction)) => (whole, fraction),
            None => (digits, ""),
        };
        // Leading zeros follow the rules of JSON, since the number may be written without quotes.
        if whole.is_empty() || (whole.len() > 1 && whole.starts_with('0')) {
            return None;
        }
        let mut value: i128 = 0;
        for digit in whole.bytes().chain(fraction.bytes()) {
            let digit = digit.is_ascii_digit().then(|| i128::from(digit - b'0'))?;
            value = value.checked_mul(10)?.checked_add(digit)?;
        }
        let shift = SCALE.checked_add(exponent)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
        let value = match shift {
            _ if value == 0 => 0,
            0.. => value.checked_mul(10_i128.checked_pow(shift.unsigned_abs())?)?,
            // Digits beyond the scale are refused: prices that differ only there would count as equal.
            _ => {
                let unit = 10_i128.checked_pow(shift.unsigned_abs())?;
                (value % unit == 0).then_some(value / unit)?
            }
        };
        Some(Self { text, value: if is_negative { -value } else { value } })
    }

    pub(super) fn text(self) -> &'a str {
        self.text
    }

    pub(super) fn value(self) -> i128 {
        self.value
    }

    pub(super) fn is_zero(self) -> bool {
        self.value == 0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Decimal<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = <&'a RawValue>::deserialize(deserializer)?.get();
        let text = raw.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(raw);
        Self::read(text).ok_or_else(|| serde::de::Error::custom("expected a decimal number"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_compare_by_value_and_keep_their_digits() {
        for (a, b) in
            [("1", "1.000"), ("0.10", "0.1"), ("1e-8", "0.00000001"), ("-0", "0"), ("2.5e3", "2500")]
        {
            let (a, b) = (Decimal::read(a).unwrap(), Decimal::read(b).unwrap());
            assert_eq!(a.value(), b.value());
            assert_ne!(a.text(), b.text());
        }
        // The double that results when an exchange calculates with 0.000311, as it is printed.
        let (a, b) = (Decimal::read("0.00031099999999999997").unwrap(), Decimal::read("0.000311").unwrap());
        assert!(a.value() < b.value() && a.text() == "0.00031099999999999997");
        assert!(Decimal::read("9999999999999999.5").is_some());
        assert!(Decimal::read("-0.001").unwrap().value() < 0);
        assert!(Decimal::read("105944.20").unwrap().value() < Decimal::read("105944.3").unwrap().value());
        let read: Vec<Decimal<'_>> = serde_json::from_str(r#"["0.0024", 105944.20, "0"]"#).unwrap();
        assert_eq!(
            read.iter().map(|decimal| decimal.text()).collect::<Vec<_>>(),
            ["0.0024", "105944.20", "0"]
        );
        assert!(read[2].is_zero());
    }

    #[test]
    fn text_that_no_market_would_send_is_refused() {
        let long = "1".repeat(60);
        for text in
            ["", "-", ".5", "5.", "01", "1_0", "1,5", "NaN", "0x1", "1e99", "1e-30", "--1", "1 ", &long]
        {
            assert_eq!(Decimal::read(text), None, "{text:?}");
        }
        for json in ["true", "null", "[1]", r#""a""#, r#"" 1""#] {
            assert!(serde_json::from_str::<Decimal<'_>>(json).is_err(), "{json}");
        }
    }
}
