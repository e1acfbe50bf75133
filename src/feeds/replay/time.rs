//! Times as files write them.

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};

use crate::protocol::{time_of_number, time_of_text};

const LOCAL_FORMATS: [&str; 3] = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M"];

/// Reads what a `timestamp` over HTTP may be, the same without a zone (then UTC), or a day.
pub(super) fn parse_time(text: &str) -> Option<DateTime<Utc>> {
    if let Some(time) = time_of_text(text).or_else(|| time_of_number(text)) {
        return Some(time);
    }
    let local = LOCAL_FORMATS.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    let day = || Some(text.parse::<NaiveDate>().ok()?.and_time(NaiveTime::MIN));
    local.or_else(day).map(|time| time.and_utc())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_instant_in_many_forms() {
        for text in [
            "2021-01-08T00:00:00Z",
            "2021-01-08T01:00:00+01:00",
            "2021-01-08 00:00:00",
            "2021-01-08T00:00:00.000",
            "2021-01-08 00:00",
            "2021-01-08",
            "1610064000",
            "1610064000.25",
            "1610064000000",
            "1610064000000000",
            "1610064000000000000",
        ] {
            assert_eq!(parse_time(text).map(|time| time.timestamp()), Some(1_610_064_000), "{text}");
        }
        for text in ["", "soon", "2021-13-01", "08/01/2021"] {
            assert_eq!(parse_time(text), None, "{text}");
        }
    }
}
