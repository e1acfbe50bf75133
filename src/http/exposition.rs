//! The text formats of `/metrics`: OpenMetrics 1.0, and its predecessor (0.0.4), which most tools read.

use std::fmt::Write as _;

use hyper::header::{ACCEPT, HeaderMap, HeaderValue};

use super::accepts::wanted;

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exposition {
    Classic,
    OpenMetrics,
}

impl Exposition {
    /// OpenMetrics if `Accept` gives it, or `application/*`, at least the weight of plain text, as Prometheus
    /// does.
    pub(crate) fn asked_for(headers: &HeaderMap) -> Self {
        let open = wanted(headers, &ACCEPT, &["application/openmetrics-text", "application/*"]);
        let classic = wanted(headers, &ACCEPT, &["text/plain", "text/*", "*/*"]);
        match open {
            Some(open) if open > 0.0 && open >= classic.unwrap_or(0.0) => Self::OpenMetrics,
            _ => Self::Classic,
        }
    }

    pub(crate) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }

    /// Converts OpenMetrics text to this format.
    pub(crate) fn of(self, open_metrics: String) -> String {
        match self {
            Self::Classic => classic(&open_metrics),
            Self::OpenMetrics => open_metrics,
        }
    }
}

/// The samples are the same in both formats. In the classic one, a counter's family has the name of its
/// samples, there are no units, and there is no end marker.
fn classic(open_metrics: &str) -> String {
    let mut out = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        let word = |rest: &'_ str| rest.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = word(rest);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(word) {
            let name = if kind == "counter" { format!("{name}_total") } else { name };
            let kind = if kind == "unknown" { "untyped" } else { &kind };
            // Writing to a string cannot fail.
            if let Some((_, text)) = help.take() {
                let _written = writeln!(out, "# HELP {name} {text}");
            }
            let _written = writeln!(out, "# TYPE {name} {kind}");
        } else if !line.starts_with('#') {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_metrics_has_to_be_asked_for() {
        use Exposition::{Classic, OpenMetrics};
        for (accept, expected) in [
            (None, Classic),
            (Some("*/*"), Classic),
            (Some("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"), Classic),
            (Some("text/plain;version=0.0.4"), Classic),
            (Some("application/openmetrics-text"), OpenMetrics),
            (Some("application/openmetrics-text, */*"), OpenMetrics),
            (Some("application/openmetrics-text;q=0, */*"), Classic),
            (Some("application/openmetrics-text;q=0.5, text/plain"), Classic),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                     text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                ),
                OpenMetrics,
            ),
        ] {
            let mut headers = HeaderMap::new();
            headers.extend(accept.map(|accept| (ACCEPT, HeaderValue::from_static(accept))));
            assert_eq!(Exposition::asked_for(&headers), expected, "{accept:?}");
        }
    }

    #[test]
    fn the_classic_format_names_families_as_their_samples() {
        let open = "# HELP z_up Time.\n# TYPE z_up_seconds gauge\n# UNIT z_up_seconds seconds\nz_up_seconds 1\n\
                    # HELP z_sent Messages.\n# TYPE z_sent counter\nz_sent_total 2\nz_sent_total{a=\"b\"} 3\n# EOF\n";
        let classic = "# HELP z_up_seconds Time.\n# TYPE z_up_seconds gauge\nz_up_seconds 1\n\
                       # HELP z_sent_total Messages.\n# TYPE z_sent_total counter\nz_sent_total 2\n\
                       z_sent_total{a=\"b\"} 3\n";
        assert_eq!(Exposition::Classic.of(open.to_owned()), classic);
    }
}
