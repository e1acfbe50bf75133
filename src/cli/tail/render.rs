//! Entries as columns for people.

use serde_json::{Map, Value};

use crate::cli::print::plain;

/// Remembers how wide the columns are, so that lines stay under each other.
#[derive(Debug)]
pub(super) struct Columns {
    zone: usize,
    key: usize,
}

impl Default for Columns {
    fn default() -> Self {
        Self { zone: 6, key: 16 }
    }
}

/// Fields with a column of their own.
const PLACED: [&str; 7] = ["type", "channel", "offset", "id", "timestamp", "key", "price"];

impl Columns {
    /// Time, channel, key, price, and the rest as `name=value`.
    pub(super) fn line(&mut self, text: &str) -> String {
        let Ok(fields) = serde_json::from_str::<Map<String, Value>>(text) else { return text.to_owned() };
        let field = |name: &str| fields.get(name).map(plain).unwrap_or_default();
        let (channel, key) = (field("channel"), field("key"));
        let zone = channel.strip_prefix("zone:").unwrap_or(&channel);
        self.zone = self.zone.max(zone.chars().count()).min(24);
        self.key = self.key.max(key.chars().count()).min(32);
        let timestamp = field("timestamp");
        // Seconds are enough for people: 2021-12-01T05:00:00.000Z.
        let time = timestamp.get(..19).map_or(timestamp.clone(), |time| time.replace('T', " "));
        let rest = fields.iter().filter(|(name, _)| !PLACED.contains(&name.as_str()));
        let rest: Vec<String> = rest.map(|(name, value)| format!("{name}={}", plain(value))).collect();
        let price = match field("type").as_str() {
            "key_removed" => "removed".to_owned(),
            "zone_removed" => "all removed".to_owned(),
            // A quote.
            _ if !fields.contains_key("price") && fields.contains_key("bid") => {
                format!("{}/{}", field("bid"), field("ask"))
            }
            _ => field("price"),
        };
        let (zone_width, key_width, rest) = (self.zone, self.key, rest.join(" "));
        let line = format!("{time:19}  {zone:zone_width$}  {key:key_width$}  {price:>10}  {rest}");
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_line_of_columns() {
        let text = r#"{"type":"price_update","channel":"zone:pjm","offset":1,"id":"x-1","timestamp":"2021-12-01T05:00:00.000Z","key":"WESTERN HUB","price":-41.25,"loss":0.4,"note":"a\u001b[2Jb"}"#;
        let line = Columns::default().line(text);
        assert_eq!(
            line,
            "2021-12-01 05:00:00  pjm     WESTERN HUB           -41.25  loss=0.4 note=a\u{fffd}[2Jb"
        );
        let text = r#"{"type":"price_update","channel":"zone:pjm","offset":2,"id":"x-2","timestamp":"2021-12-01T05:00:00.000Z","key":"A","bid":1.5,"ask":2}"#;
        let line = Columns::default().line(text);
        assert_eq!(line, "2021-12-01 05:00:00  pjm     A                      1.5/2  ask=2 bid=1.5");
        let text = r#"{"type":"key_removed","channel":"zone:pjm","offset":2,"id":"x-2","timestamp":"2021-12-01T05:00:00.000Z","key":"WESTERN HUB"}"#;
        let line = Columns::default().line(text);
        assert_eq!(line, "2021-12-01 05:00:00  pjm     WESTERN HUB          removed");
    }
}
