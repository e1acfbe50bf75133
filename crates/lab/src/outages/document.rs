//! Results in a document, between two markers.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};

const BEGIN: &str = "<!-- outages:begin -->";
const END: &str = "<!-- outages:end -->";

/// Writes the part of a document between its markers anew; makes the document where there is none.
pub(super) fn write_between_markers(path: &Path, part: &str) -> anyhow::Result<()> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("{BEGIN}\n{END}\n"),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let text = put_between(&text, part).with_context(|| format!("{} is left as it is", path.display()))?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn put_between(text: &str, part: &str) -> anyhow::Result<String> {
    let (Some((head, rest)), 1, 1) =
        (text.split_once(BEGIN), text.matches(BEGIN).count(), text.matches(END).count())
    else {
        bail!("it has no place for the results: {BEGIN} and {END}");
    };
    let Some((_, tail)) = rest.split_once(END) else { bail!("{END} comes before {BEGIN}") };
    Ok(format!("{head}{BEGIN}\n{part}\n{END}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_go_between_the_markers_and_nowhere_else() {
        let text = format!("a\n{BEGIN}\nold\n{END}\nb\n");
        assert_eq!(put_between(&text, "new").unwrap(), format!("a\n{BEGIN}\nnew\n{END}\nb\n"));
        for text in ["", "a", BEGIN, END, &format!("{END}{BEGIN}"), &format!("{BEGIN}{BEGIN}{END}")] {
            assert!(put_between(text, "new").is_err(), "{text}");
        }
    }
}
