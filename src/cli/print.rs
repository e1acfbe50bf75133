//! Text for stdout and stderr.

use std::io::{self, Write as _};

use serde_json::Value;

/// Writes a line to stdout and flushes it: whoever reads it may act on it.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Writes a line to stderr, for the user, besides the requested output.
pub(super) fn say(text: &str) {
    // If stderr cannot be written, nobody can be informed.
    drop(writeln!(io::stderr(), "{text}"));
}

/// A value without quotes and without control characters, which a terminal might interpret.
pub(super) fn plain(value: &Value) -> String {
    harmless(&value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// Text without control characters, which a terminal might interpret.
pub(super) fn harmless(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A duration in its two largest units: `2 h 3 min`.
pub(super) fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3_600, "h"), (60, "min"), (1, "s")];
    let first = units.iter().position(|(size, _)| seconds >= *size).unwrap_or(units.len() - 1);
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (size, unit) in units.iter().skip(first).take(2) {
        if rest >= *size || parts.is_empty() {
            parts.push(format!("{} {unit}", rest / size));
        }
        rest %= size;
    }
    parts.join(" ")
}

/// A time without the fraction of its second: 2021-12-01T05:00:00.000Z is 2021-12-01 05:00:00.
pub(super) fn seconds(timestamp: &str) -> String {
    timestamp.get(..19).map_or_else(|| timestamp.to_owned(), |time| time.replace('T', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_its_two_largest_units() {
        for (seconds, expected) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (61, "1 min 1 s"),
            (7_384, "2 h 3 min"),
            (86_401, "1 d"),
            (200_000, "2 d 7 h"),
        ] {
            assert_eq!(duration(seconds), expected);
        }
    }
}
