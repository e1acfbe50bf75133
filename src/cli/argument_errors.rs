//! Translates errors of libraries about arguments into plain words.

use std::error::Error;
use std::num::{IntErrorKind, ParseFloatError, ParseIntError};
use std::str::ParseBoolError;

/// Plain words for an error of a standard parser or of clap's ranges; `None` for errors that are plain
/// already.
pub(super) fn of_argument(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(error) = error.downcast_ref::<ParseIntError>() {
        let words = match error.kind() {
            IntErrorKind::Zero => "expected a whole number, 1 or more",
            IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "expected a smaller whole number",
            _ => "expected a whole number",
        };
        return Some(words.to_owned());
    }
    if error.is::<ParseFloatError>() {
        return Some("expected a number such as 1.5".to_owned());
    }
    if error.is::<ParseBoolError>() {
        return Some("expected true or false".to_owned());
    }
    // clap's errors for ranges have no type of their own: `0 is not in 1..=9`.
    let text = error.to_string();
    let (_, range) = text.split_once(" is not in ")?;
    let (first, last) = range.split_once("..")?;
    Some(match last.trim_start_matches('=') {
        "" => format!("expected a whole number, {first} or more"),
        last => format!("expected a whole number from {first} to {last}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_asked_for_in_plain_words() {
        let of = |error: Box<dyn Error>| of_argument(&*error);
        let range = |text: &str| Box::<dyn Error>::from(text);
        for (error, expected) in [
            ("x".parse::<u32>().unwrap_err().into(), Some("expected a whole number")),
            (
                "0".parse::<std::num::NonZeroU32>().unwrap_err().into(),
                Some("expected a whole number, 1 or more"),
            ),
            ("300".parse::<u8>().unwrap_err().into(), Some("expected a smaller whole number")),
            ("x".parse::<f64>().unwrap_err().into(), Some("expected a number such as 1.5")),
            ("x".parse::<bool>().unwrap_err().into(), Some("expected true or false")),
            (range("0 is not in 1..=9"), Some("expected a whole number from 1 to 9")),
            (range("0 is not in 1.."), Some("expected a whole number, 1 or more")),
            ("its own words".into(), None),
        ] as [(Box<dyn Error>, _); 8]
        {
            assert_eq!(of(error).as_deref(), expected);
        }
    }
}
