//! Content negotiation: `Accept` and `Accept-Encoding` (RFC 9110, section 12).

use hyper::header::{HeaderMap, HeaderName};

/// The weight of something, 0 to 1. `names` lists its names from the most specific to the most general; the
/// most specific one in the header counts. `None` if the header names none of them.
pub(super) fn wanted(headers: &HeaderMap, header: &HeaderName, names: &[&str]) -> Option<f32> {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    let entries: Vec<_> = values.flat_map(|value| value.split(',')).map(entry).collect();
    names.iter().find_map(|wanted| {
        let said = entries.iter().filter(|(name, _)| name == wanted).map(|(_, weight)| *weight);
        said.reduce(f32::max)
    })
}

/// A name without its parameters, and its weight. An unreadable weight counts as 0.
fn entry(text: &str) -> (String, f32) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap_or_default().to_ascii_lowercase();
    let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
    let weight = weight.map_or(1.0, |weight| weight.parse().unwrap_or(0.0));
    (name, if (0.0..=1.0).contains(&weight) { weight } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use hyper::header::{ACCEPT_ENCODING, HeaderValue};

    use super::*;

    #[test]
    fn what_is_named_counts_before_what_is_meant() {
        for (said, expected) in [
            (&[][..], None),
            (&[""], None),
            (&["br"], None),
            (&["gzip"], Some(1.0)),
            (&["GZip;Q=0.5"], Some(0.5)),
            (&["br, gzip ; q=0.25"], Some(0.25)),
            (&["br", "gzip"], Some(1.0)),
            (&["*"], Some(1.0)),
            (&["*;q=0.5, gzip;q=0"], Some(0.0)),
            (&["gzip;q=much"], Some(0.0)),
            (&["gzip;q=2"], Some(0.0)),
            (&["gzip;q=-1"], Some(0.0)),
        ] {
            let mut headers = HeaderMap::new();
            for value in said {
                headers.append(ACCEPT_ENCODING, HeaderValue::from_static(value));
            }
            assert_eq!(wanted(&headers, &ACCEPT_ENCODING, &["gzip", "*"]), expected, "{said:?}");
        }
    }
}
