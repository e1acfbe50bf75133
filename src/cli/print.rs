//! Text for stdout and stderr.

use std::io::{self, Write as _};

use serde_json::Value;

/// Writes a line to stdout, at once: whoever reads it may act on it.
pub(super) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()
}

/// Tells the user something that is not what was asked for.
pub(super) fn say(text: &str) {
    // Where nobody reads stderr there is nobody to tell.
    drop(writeln!(io::stderr(), "{text}"));
}

/// A value without quotes and without control characters, which a terminal might obey.
pub(super) fn plain(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A time without the fraction of its second: 2021-12-01T05:00:00.000Z is 2021-12-01 05:00:00.
pub(super) fn seconds(timestamp: &str) -> String {
    timestamp.get(..19).map_or_else(|| timestamp.to_owned(), |time| time.replace('T', " "))
}
