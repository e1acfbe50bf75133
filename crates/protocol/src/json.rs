//! What JSON has to satisfy beyond its grammar, so that everyone who receives it from the gateway can read
//! it.
//!
//! Values are passed on as they were written, and other parsers are stricter than the grammar: they limit
//! the depth of nesting, and refuse lone surrogates and numbers that no double holds.

use serde::de::IgnoredAny;
use serde_json::error::Category;

/// How deep arrays and objects may be nested, including the outermost one.
pub const JSON_DEPTH_MAX: usize = 32;

/// JSON that some parsers cannot read: what is wrong, and at which byte of the text (from 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnreadableJson {
    /// An array or object nested deeper than [`JSON_DEPTH_MAX`].
    #[error("nested deeper than {JSON_DEPTH_MAX} levels at byte {0}; write it flatter")]
    TooDeep(usize),
    /// Half of a surrogate pair, which is no character.
    #[error(
        "lone surrogate at byte {0}: `\\ud800` to `\\udfff` are halves of one character and stand in pairs, such as `\\ud83d\\ude00`"
    )]
    LoneSurrogate(usize),
    /// A number that no double holds.
    #[error("number too large at byte {0}: numbers go up to 1.7e308; write it as a text")]
    TooLarge(usize),
}

/// Looks for what other JSON parsers refuse, in one pass and without recursion. Text that is not JSON at
/// all passes, because its parser reports that better.
///
/// # Errors
/// The first such fault.
pub fn check_json(text: &str) -> Result<(), UnreadableJson> {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0_usize);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return Err(UnreadableJson::TooDeep(at));
                }
                at += 1;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b'"' => at = end_of_text(bytes, at + 1)?,
            b'0'..=b'9' => at = end_of_number(text, at)?,
            _ => at += 1,
        }
    }
    Ok(())
}

/// Says in plain words why a text is not JSON, or not the JSON that was expected.
pub fn json_fault(text: &str, error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    let found = text.lines().nth(line.saturating_sub(1));
    let found = found.and_then(|found| found.get(column.saturating_sub(1)..)?.chars().next());
    let place = match (text.trim().contains('\n'), column) {
        (true, _) => format!("in line {line}, at character {column}"),
        (false, _) => format!("at character {column}"),
    };
    match (error.classify(), found) {
        _ if text.trim().is_empty() => "it is empty".to_owned(),
        (Category::Eof, _) => "it ends too early".to_owned(),
        (Category::Syntax, Some(found)) => format!("{found:?} is unexpected {place}"),
        (Category::Syntax | Category::Io, _) => format!("it stops making sense {place}"),
        (Category::Data, _) => short(&shape_fault(&error.to_string())),
    }
}

/// The text may be long and contain control characters, neither of which belongs in an error.
fn short(fault: &str) -> String {
    const CHARS_MAX: usize = 300;
    let plain = |c: char| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c };
    let mut short: String = fault.chars().take(CHARS_MAX).map(plain).collect();
    if fault.chars().nth(CHARS_MAX).is_some() {
        short.push('…');
    }
    short
}

/// Says what is wrong with JSON of an unexpected shape: the parser's words without Rust's type names.
fn shape_fault(text: &str) -> String {
    let text = text.rsplit_once(" at line ").map_or(text, |(text, _)| text);
    if let Some(field) = text.strip_prefix("missing field ") {
        return format!("{field} is missing");
    }
    if let Some(field) = text.strip_prefix("unknown field ") {
        return format!("there is no field {}", field.replacen(", expected", "; expected", 1));
    }
    let mistaken = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    let Some((found, expected)) = mistaken.and_then(|text| text.split_once(", expected ")) else {
        return text.to_owned();
    };
    let expected = match expected {
        "a string" => "text",
        "a map" => "an object",
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "f32" | "f64" => "a number",
        number if is_whole(number) => "a whole number",
        table if table.starts_with("struct ") => "an object",
        other => other,
    };
    format!("expected {expected}, found {}", found.replace("map", "an object").replace("sequence", "a list"))
}

/// Whether this is the name of an integer type in Rust.
fn is_whole(name: &str) -> bool {
    let name = name.strip_prefix("a nonzero ").unwrap_or(name);
    ["u8", "u16", "u32", "u64", "usize", "i8", "i16", "i32", "i64", "isize"].contains(&name)
}

/// Whether the bytes are exactly one JSON object that every parser can read.
pub fn is_readable_object(bytes: &[u8]) -> bool {
    // `IgnoredAny` checks the grammar only, not whether strings are valid UTF-8.
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    text.starts_with('{') && check_json(text).is_ok() && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Where the string that begins at `at` ends, including the quotation mark.
fn end_of_text(bytes: &[u8], mut at: usize) -> Result<usize, UnreadableJson> {
    while let Some(found) = memchr::memchr2(b'"', b'\\', &bytes[at..]) {
        at += found;
        if bytes[at] == b'"' {
            return Ok(at + 1);
        }
        match escaped_unit(bytes, at) {
            Some(0xd800..=0xdbff) if matches!(escaped_unit(bytes, at + 6), Some(0xdc00..=0xdfff)) => at += 12,
            Some(0xd800..=0xdfff) => return Err(UnreadableJson::LoneSurrogate(at)),
            Some(_) => at += 6,
            None => at = (at + 2).min(bytes.len()),
        }
    }
    Ok(bytes.len())
}

/// The UTF-16 unit that `\uXXXX` at this index stands for.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    digits.iter().try_fold(0, |unit, digit| Some(unit * 16 + char::from(*digit).to_digit(16)?))
}

/// Where the number that begins at `at` ends.
fn end_of_number(text: &str, at: usize) -> Result<usize, UnreadableJson> {
    /// A number with up to this many digits and no exponent certainly fits.
    const CERTAIN: usize = 300;
    let is_part = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    let rest = &text.as_bytes()[at..];
    let end = rest.iter().position(|byte| !is_part(byte)).unwrap_or(rest.len());
    let number = &text[at..at + end];
    if (end > CERTAIN || number.contains(['e', 'E'])) && number.parse().is_ok_and(f64::is_infinite) {
        return Err(UnreadableJson::TooLarge(at));
    }
    Ok(at + end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nested(depth: usize) -> String {
        format!("{}1{}", "[".repeat(depth), "]".repeat(depth))
    }

    #[test]
    fn depth_is_bounded_and_width_is_not() {
        assert_eq!(check_json(&nested(32)), Ok(()));
        assert_eq!(check_json(&nested(33)), Err(UnreadableJson::TooDeep(32)));
        assert_eq!(check_json(&nested(1_000_000)), Err(UnreadableJson::TooDeep(32)));
        assert_eq!(check_json(&format!("[{}1]", "[[]],".repeat(10_000))), Ok(()));
        let mixed = format!("{}1{}", r#"{"a":["#.repeat(17), "]}".repeat(17));
        assert_eq!(check_json(&mixed), Err(UnreadableJson::TooDeep(16 * 6)));
        assert_eq!(check_json(&format!(r#"{{"a":"{}\"{}"}}"#, "[".repeat(99), "{".repeat(99))), Ok(()));
    }

    #[test]
    fn halves_of_characters_are_refused_where_they_stand() {
        for (text, place) in [
            (r#"{"n":"\ud800"}"#, Some(6)),
            (r#"{"n":"\udc00\ud800"}"#, Some(6)),
            (r#"{"n":"x\uD83d"}"#, Some(7)),
            (r#"{"n":"\ud83dde00"}"#, Some(6)),
            (r#"{"n":"\ud83d\ud83d\ude00"}"#, Some(6)),
            (r#"{"n":"\ud83d\n"}"#, Some(6)),
            (r#"{"\udfff":1}"#, Some(2)),
            (r#"{"n":"\ud83d\ude00 \u00e9 \\ud800 \" \ue000"}"#, None),
            (r#"{"n":"\\\ud800"}"#, Some(8)),
        ] {
            let expected = place.map_or(Ok(()), |at| Err(UnreadableJson::LoneSurrogate(at)));
            assert_eq!(check_json(text), expected, "{text}");
            let strict = serde_json::from_str::<serde_json::Value>(text);
            assert_eq!(strict.is_ok(), expected.is_ok(), "serde judges so too: {text}");
        }
    }

    #[test]
    fn numbers_beyond_a_double_are_refused() {
        let long = format!("[1{}]", "0".repeat(308));
        assert_eq!(check_json(&long), Ok(()));
        for (text, place) in [("[1e309]", 1), ("[-1.5E+999]", 2), (r#"{"a":[0,2e308]}"#, 8)] {
            assert_eq!(check_json(text), Err(UnreadableJson::TooLarge(place)), "{text}");
        }
        assert_eq!(check_json(&format!("[1{}]", "0".repeat(309))), Err(UnreadableJson::TooLarge(1)));
        assert_eq!(check_json("[1e308,-0.1e-999,12345678901234567890123]"), Ok(()));
    }

    #[test]
    fn an_object_is_whole_and_readable_or_it_is_none() {
        for good in ["{}", r#"{"a":1}"#, "{ }", "{\"a\": [1, {\"b\":null}]}\n", r#"{"ü":"\ud83d\ude00"}"#] {
            assert!(is_readable_object(good.as_bytes()), "{good}");
        }
        let deep = format!(r#"{{"a":{}}}"#, nested(32));
        for bad in [
            "",
            "{",
            "}",
            "null",
            "1",
            "[]",
            "\"{}\"",
            " {}",
            "{}{}",
            "{},",
            r#"{"a":1"#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":1,}"#,
            r#"{a:1}"#,
            r#"{"a":01}"#,
            r#"{"a":"\x"}"#,
            "{\"a\":\"\u{1}\"}",
            r#"{"a":"\ud800"}"#,
            r#"{"a":1e999}"#,
            deep.as_str(),
        ] {
            assert!(!is_readable_object(bad.as_bytes()), "{bad}");
        }
        assert!(!is_readable_object(b"{\"a\":\"\xff\"}"));
    }

    #[test]
    fn what_is_no_json_is_said_in_plain_words() {
        for (text, expected) in [
            ("", "it is empty"),
            (" \n", "it is empty"),
            ("{\"a\":1", "it ends too early"),
            ("nope", "'o' is unexpected at character 2"),
            ("{a:1}", "'a' is unexpected at character 2"),
            ("{\n  \"a\": 1,\n}", "'}' is unexpected in line 3, at character 1"),
            ("{} x", "'x' is unexpected at character 4"),
            ("[1]", "expected an object, found a list"),
            ("{\"a\":\"x\"}", "expected a whole number, found string \"x\""),
            ("{\"a\":-1}", "expected a whole number, found integer `-1`"),
        ] {
            let error = serde_json::from_str::<std::collections::BTreeMap<String, u8>>(text).unwrap_err();
            assert_eq!(json_fault(text, &error), expected, "{text:?}");
        }
    }

    #[test]
    fn what_was_found_is_told_in_short() {
        let told = |text: &str| {
            let error = serde_json::from_str::<std::collections::BTreeMap<String, u8>>(text).unwrap_err();
            json_fault(text, &error)
        };
        let long = told(&format!(r#"{{"a":"{}"}}"#, "x".repeat(100_000)));
        assert_eq!(long, format!("expected a whole number, found string \"{}…", "x".repeat(261)));
        assert_eq!(told(r#"{"a":"\u001b"}"#), "expected a whole number, found string \"\\u{1b}\"");
        assert_eq!(short("a field \u{1b}[31m"), "a field \u{fffd}[31m");
    }

    #[test]
    fn a_field_that_is_missing_or_unknown_is_named() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Claim {
            #[expect(dead_code, reason = "it is only read")]
            worker: String,
        }
        for (text, expected) in [
            ("{}", "`worker` is missing"),
            (r#"{"worker":"w","limt":1}"#, "there is no field `limt`; expected `worker`"),
            (r#"{"worker":5}"#, "expected text, found integer `5`"),
            ("5", "expected an object, found integer `5`"),
        ] {
            let error = serde_json::from_str::<Claim>(text).unwrap_err();
            assert_eq!(json_fault(text, &error), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_a_panic(text in r#"[\[\]{}"\\udU8cf0-9eE.+é -]{0,60}"#) {
            let judged = check_json(&text);
            if serde_json::from_str::<serde_json::Value>(&text).is_ok() {
                prop_assert_eq!(judged, Ok(()));
            }
        }
    }
}
