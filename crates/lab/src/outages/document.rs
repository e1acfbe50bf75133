//! Writes results into a document, between two markers.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

/// The markers for the results of this name.
fn markers(name: &str) -> [String; 2] {
    ["begin", "end"].map(|end| format!("<!-- {name}:{end} -->"))
}

/// Replaces the part of a document between the markers of a name; creates the document if there is none.
pub(super) fn write_between_markers(path: &Path, name: &str, part: &str) -> anyhow::Result<()> {
    let markers = markers(name);
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{}\n", markers.join("\n")),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let text =
        put_between(&text, &markers, part).with_context(|| format!("{} is left as it is", path.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn put_between(text: &str, [begin, end]: &[String; 2], part: &str) -> anyhow::Result<String> {
    let (Some((head, rest)), 1, 1) =
        (text.split_once(begin), text.matches(begin).count(), text.matches(end).count())
    else {
        bail!("it has no place for the results: {begin} and {end}");
    };
    let Some((_, tail)) = rest.split_once(end) else { bail!("{end} comes before {begin}") };
    Ok(format!("{head}{begin}\n{part}\n{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_go_between_the_markers_and_nowhere_else() {
        let markers = markers("x");
        let [begin, end] = &markers;
        let text = format!("a\n{begin}\nold\n{end}\nb\n");
        assert_eq!(put_between(&text, &markers, "new").unwrap(), format!("a\n{begin}\nnew\n{end}\nb\n"));
        for text in ["", "a", begin, end, &format!("{end}{begin}"), &format!("{begin}{begin}{end}")] {
            assert!(put_between(text, &markers, "new").is_err(), "{text}");
        }
    }
}
