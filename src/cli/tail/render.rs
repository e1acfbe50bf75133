//! Entries as columns for people.

use crate::cli::table::{Fields, NumberWidths};

/// Remembers how wide the columns are, so that rows stay aligned.
#[derive(Debug)]
pub(super) struct Columns {
    has_header: bool,
    zone: usize,
    key: usize,
    price: NumberWidths,
}

impl Default for Columns {
    fn default() -> Self {
        Self { has_header: false, zone: 6, key: 16, price: NumberWidths { whole: 7, rest: 3 } }
    }
}

impl Columns {
    /// Time, channel, key, price, and the rest as `name=value`; the first call also returns a header.
    pub(super) fn lines(&mut self, text: &str) -> Vec<String> {
        let Some(fields) = Fields::read(text) else { return vec![text.to_owned()] };
        let (channel, key) = (fields.get("channel"), fields.get("key"));
        let zone = channel.strip_prefix("zone:").unwrap_or(channel);
        self.zone = self.zone.max(zone.chars().count()).min(40);
        self.key = self.key.max(key.chars().count()).min(32);
        let price = match (fields.get("price"), fields.get("bid"), fields.get("ask")) {
            ("", "", _) | ("", _, "") => fields.happening(),
            ("", bid, ask) => format!("{bid}/{ask}"),
            (price, ..) => {
                self.price.fit(price);
                self.price.align(price)
            }
        };
        let price_width = self.price.whole + self.price.rest;
        let shown: &[&str] = if fields.get("price").is_empty() { &["bid", "ask"] } else { &["price"] };
        let (zone_width, key_width, time, rest) = (self.zone, self.key, fields.time(), fields.rest(shown));
        let line = |time: &str, zone: &str, key: &str, price: &str, rest: &str| {
            let line =
                format!("{time:19}  {zone:zone_width$}  {key:key_width$}  {price:>price_width$}  {rest}");
            line.trim_end().to_owned()
        };
        let mut lines = Vec::new();
        if !std::mem::replace(&mut self.has_header, true) {
            lines.push(line("TIME (UTC)", "ZONE", "KEY", "PRICE", "MORE"));
        }
        lines.push(line(&time, zone, key, &price, &rest));
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(fields: &str) -> String {
        format!(
            r#"{{"type":"price_update","channel":"zone:pjm","offset":1,"id":"x-1","timestamp":"2021-12-01T05:00:00.000Z","key":"WESTERN HUB",{fields}}}"#
        )
    }

    #[test]
    fn an_entry_is_one_line_of_columns_under_a_header() {
        let mut columns = Columns::default();
        let first = entry(r#""location":"WESTERN HUB","price":-41.20,"loss":0.40,"note":"a\u001b[2Jb""#);
        assert_eq!(
            columns.lines(&first),
            [
                "TIME (UTC)           ZONE    KEY                    PRICE  MORE",
                "2021-12-01 05:00:00  pjm     WESTERN HUB           -41.20  loss=0.40 note=a\u{fffd}[2Jb"
            ]
        );
        assert_eq!(
            columns.lines(&entry(r#""price":7"#)),
            ["2021-12-01 05:00:00  pjm     WESTERN HUB             7"]
        );
        assert_eq!(
            columns.lines(&entry(r#""bid":39432.99,"ask":39433.62"#)),
            ["2021-12-01 05:00:00  pjm     WESTERN HUB       39432.99/39433.62"]
        );
        let removed = entry(r#""a":1"#).replace("price_update", "key_removed");
        assert_eq!(
            columns.lines(&removed),
            ["2021-12-01 05:00:00  pjm     WESTERN HUB          removed  a=1"]
        );
    }
}
