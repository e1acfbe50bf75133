//! Parses times as files write them.

use std::fmt;
use std::str::FromStr;

use chrono::format::{Item, Parsed, StrftimeItems, parse};
use chrono::{DateTime, FixedOffset, LocalResult, NaiveDate, NaiveDateTime, NaiveTime, TimeZone as _, Utc};
use chrono_tz::Tz;

use crate::protocol::{TIME_EXPECTED, time_of_number, time_of_text};

const LOCAL_FORMATS: [&str; 3] = ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M"];

/// The format of a file's times, as for `strptime`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeFormat(String);

text_in_settings!(TimeFormat);

impl FromStr for TimeFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const FORM: &str = "expected a form as strptime has it, such as %m/%d/%Y %H:%M";
        if StrftimeItems::new(text).any(|item| matches!(item, Item::Error)) {
            return Err(FORM.to_owned());
        }
        let format = Self(text.to_owned());
        let example = DateTime::from_timestamp_millis(1_610_064_000_278).unwrap_or_default();
        match format.read(&example.format(text).to_string()) {
            Some(_) => Ok(format),
            None => Err(format!("{FORM}; this one does not contain a whole date")),
        }
    }
}

impl fmt::Display for TimeFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TimeFormat {
    fn read(&self, text: &str) -> Option<Written> {
        let mut parsed = Parsed::new();
        parse(&mut parsed, text, StrftimeItems::new(&self.0)).ok()?;
        if parsed.timestamp().is_some() {
            return Some(Written::Instant(parsed.to_naive_datetime_with_offset(0).ok()?.and_utc()));
        }
        let date = parsed.to_naive_date().ok()?;
        let time = if parsed.hour_div_12().is_none() && parsed.hour_mod_12().is_none() {
            NaiveTime::MIN
        } else {
            if parsed.minute().is_none() {
                parsed.set_minute(0).ok()?;
            }
            parsed.to_naive_time().ok()?
        };
        let local = date.and_time(time);
        match parsed.to_fixed_offset() {
            Ok(offset) => Some(Written::Instant(offset.from_local_datetime(&local).single()?.to_utc())),
            Err(_) => Some(Written::Local(local)),
        }
    }
}

/// The time zone of times that do not state their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimeZone {
    /// A named one, such as `America/New_York`.
    Named(Tz),
    /// One with a fixed distance from UTC.
    Fixed(FixedOffset),
}

impl Default for TimeZone {
    fn default() -> Self {
        Self::Named(Tz::UTC)
    }
}

impl FromStr for TimeZone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = || text.parse().ok().map(Self::Named);
        let fixed = || text.starts_with(['+', '-']).then(|| text.parse().ok().map(Self::Fixed)).flatten();
        named().or_else(fixed).ok_or_else(|| {
            "expected a time zone such as America/New_York, UTC or -05:00 (case matters)".to_owned()
        })
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(zone) => f.write_str(zone.name()),
            Self::Fixed(offset) => offset.fmt(f),
        }
    }
}

text_in_settings!(TimeZone);

impl TimeZone {
    fn instants(self, local: &NaiveDateTime) -> LocalResult<DateTime<Utc>> {
        match self {
            Self::Named(zone) => zone.from_local_datetime(local).map(|time| time.to_utc()),
            Self::Fixed(offset) => offset.from_local_datetime(local).map(|time| time.to_utc()),
        }
    }
}

/// A time as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Instant(DateTime<Utc>),
    /// Without a time zone.
    Local(NaiveDateTime),
}

/// Reads the times of one file, in order.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    pub(super) format: Option<TimeFormat>,
    pub(super) zone: TimeZone,
    /// The previous time among those without a time zone.
    last: Option<DateTime<Utc>>,
}

impl Times {
    pub(super) fn new(format: Option<TimeFormat>, zone: TimeZone) -> Self {
        Self { format, zone, last: None }
    }

    /// Reads a time in the configured format; without one, in any form that `timestamp` may have over HTTP,
    /// the same without a time zone, or a date.
    ///
    /// In an hour that occurs twice, when clocks are set back, times belong to the first pass until they
    /// would go back.
    ///
    /// # Errors
    /// A description of the expected form.
    pub(super) fn read(&mut self, text: &str) -> Result<DateTime<Utc>, String> {
        let local = match self.written(text) {
            Some(Written::Instant(time)) => return Ok(time),
            Some(Written::Local(local)) => local,
            None => return Err(self.unreadable(text)),
        };
        let time = match self.zone.instants(&local) {
            LocalResult::Single(time) => time,
            LocalResult::Ambiguous(first, _) if self.last.is_none_or(|last| first >= last) => first,
            LocalResult::Ambiguous(_, second) => second,
            LocalResult::None => {
                let zone = self.zone;
                return Err(format!("{} was skipped by the clocks of {zone}", super::payload::shown(text)));
            }
        };
        self.last = Some(time);
        Ok(time)
    }

    fn written(&self, text: &str) -> Option<Written> {
        if let Some(format) = &self.format {
            return format.read(text);
        }
        if let Some(time) = time_of_text(text).or_else(|| time_of_number(text)) {
            return Some(Written::Instant(time));
        }
        let local = LOCAL_FORMATS.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
        let day = || Some(text.parse::<NaiveDate>().ok()?.and_time(NaiveTime::MIN));
        local.or_else(day).map(Written::Local)
    }

    fn unreadable(&self, text: &str) -> String {
        let text = super::payload::shown(text);
        match &self.format {
            Some(format) => format!("{text} is not a time in the form {format}"),
            None => format!(
                "{text} is not a time that can be read: expected {TIME_EXPECTED}; or, in {}, \
                 2021-01-08 00:00:00 or 2021-01-08; for any other form say --time-format, such as \
                 %m/%d/%Y %H:%M",
                self.zone
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(format: &str, zone: &str, text: &str, expected: &str) {
        let format = if format.is_empty() { None } else { Some(format.parse().unwrap()) };
        let mut times = Times::new(format, zone.parse().unwrap());
        let time = times.read(text).map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true));
        assert_eq!(time.as_deref(), Ok(expected), "{text}");
    }

    #[test]
    fn an_instant_can_be_written_in_many_forms() {
        for text in [
            "2021-01-08T00:00:00Z",
            "2021-01-08T01:00:00+01:00",
            "2021-01-08 00:00:00",
            "2021-01-08T00:00:00.000",
            "2021-01-08 00:00",
            "2021-01-08",
            "1610064000",
            "1610064000.0",
            "1610064000000",
            "1610064000000000",
            "1610064000000000000",
        ] {
            check("", "UTC", text, "2021-01-08T00:00:00.000Z");
        }
        for text in ["", "soon", "2021-13-01", "08/01/2021"] {
            assert!(Times::default().read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn seconds_with_a_fraction_keep_their_milliseconds() {
        for (text, expected) in [
            ("1610064000.123456", "2021-01-08T00:00:00.123Z"),
            ("1610064000.6234", "2021-01-08T00:00:00.623Z"),
            ("1.610064000123456e9", "2021-01-08T00:00:00.123Z"),
            ("1610064000123.456", "2021-01-08T00:00:00.123Z"),
        ] {
            check("", "America/New_York", text, expected);
        }
    }

    #[test]
    fn a_form_and_a_zone_may_be_given() {
        let us = "%m/%d/%Y %H:%M";
        check(us, "UTC", "01/02/2026 00:05", "2026-01-02T00:05:00.000Z");
        check(us, "America/New_York", "01/02/2026 00:05", "2026-01-02T05:05:00.000Z");
        check(us, "America/New_York", "07/02/2026 00:05", "2026-07-02T04:05:00.000Z");
        check(us, "-05:00", "07/02/2026 00:05", "2026-07-02T05:05:00.000Z");
        check("%d.%m.%y", "Europe/Berlin", "08.01.21", "2021-01-07T23:00:00.000Z");
        check("%Y%m%d %H", "UTC", "20210108 07", "2021-01-08T07:00:00.000Z");
        check("%I:%M:%S %p %m/%d/%Y", "UTC", "1:02:03 PM 1/8/2021", "2021-01-08T13:02:03.000Z");
        check("%d/%m/%Y %H:%M:%S%.f", "UTC", "08/01/2021 00:00:00.25", "2021-01-08T00:00:00.250Z");
        // A time that states its zone is not affected by the configured one.
        check("%d/%m/%Y %H:%M %z", "Asia/Tokyo", "08/01/2021 01:00 +0100", "2021-01-08T00:00:00.000Z");
        check("%s", "Asia/Tokyo", "1610064000", "2021-01-08T00:00:00.000Z");
        check("", "Asia/Tokyo", "2021-01-08 09:00", "2021-01-08T00:00:00.000Z");
        check("", "Asia/Tokyo", "2021-01-08T00:00:00Z", "2021-01-08T00:00:00.000Z");
    }

    #[test]
    fn an_hour_that_occurs_twice_is_resolved_by_the_order_of_the_file() {
        let mut times = Times::new(None, "America/New_York".parse().unwrap());
        let mut read = |text: &str| times.read(text).unwrap().format("%d %H:%M").to_string();
        let day = ["2026-11-01 00:55", "2026-11-01 01:00", "2026-11-01 01:55"].map(&mut read);
        assert_eq!(day, ["01 04:55", "01 05:00", "01 05:55"]);
        let again = ["2026-11-01 01:00", "2026-11-01 01:55", "2026-11-01 02:00"].map(&mut read);
        assert_eq!(again, ["01 06:00", "01 06:55", "01 07:00"]);
        // Prices of another key on the same day.
        let other = ["2026-11-01 00:55", "2026-11-01 01:00"].map(&mut read);
        assert_eq!(other, ["01 04:55", "01 05:00"]);
    }

    #[test]
    fn an_error_says_which_times_can_be_read() {
        let error = Times::default().read("01/02/2026 00:05").unwrap_err();
        assert!(error.contains("say --time-format, such as %m/%d/%Y %H:%M"), "{error}");
        let mut times = Times::new(Some("%m/%d/%Y".parse().unwrap()), "America/New_York".parse().unwrap());
        assert_eq!(
            times.read("13/01/2026").unwrap_err(),
            "\"13/01/2026\" is not a time in the form %m/%d/%Y"
        );
        times.format = None;
        assert_eq!(
            times.read("2026-03-08 02:30").unwrap_err(),
            "\"2026-03-08 02:30\" was skipped by the clocks of America/New_York"
        );
        for bad in ["%Q", "%H:%M", "noon", ""] {
            assert!(bad.parse::<TimeFormat>().is_err(), "{bad:?}");
        }
        for bad in ["", "Mars", "EST5", "5", "+99:00", "america/new_york"] {
            assert!(bad.parse::<TimeZone>().is_err(), "{bad:?}");
        }
        for good in ["UTC", "America/New_York", "+01:00", "-0530"] {
            let zone: TimeZone = good.parse().unwrap();
            assert_eq!(zone.to_string().parse(), Ok(zone), "{good}");
        }
    }
}
