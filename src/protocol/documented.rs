//! Checks that the tables of codes in `docs/PROTOCOL.md` match the enums.

use std::path::Path;

use super::{CloseCode, ErrorCode, ProblemCode};

/// The expected tables: their heads and their rows.
fn tables() -> [(&'static str, Vec<String>); 3] {
    let errors = ErrorCode::ALL.map(|code| format!("| `{code}` | {} |", code.meaning()));
    let closes = CloseCode::ALL.map(|code| {
        let back = if CloseCode::may_reconnect(code.number()) { "yes" } else { "no" };
        format!("| {} | `{code}` | {back} | {} |", code.number(), code.meaning())
    });
    let mut problems = ProblemCode::ALL;
    problems.sort_by_key(|code| code.status());
    let problems = problems.map(|code| format!("| {} | `{code}` | {} |", code.status(), code.meaning()));
    [
        ("| `code` | meaning |\n| --- | --- |\n", errors.into()),
        ("| code | reason | comes back | when |\n| ---: | --- | --- | --- |\n", closes.into()),
        ("| status | `code` | meaning |\n| ---: | --- | --- |\n", problems.into()),
    ]
}

/// `ZONEWIRE_UPDATE_DOCS=1 cargo test` rewrites the tables.
#[test]
fn the_tables_of_codes_are_those_of_the_enums() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/PROTOCOL.md");
    let found = std::fs::read_to_string(&path).unwrap();
    let mut expected = found.clone();
    for (head, rows) in tables() {
        assert_eq!(found.matches(head).count(), 1, "{head}");
        let begin = expected.find(head).unwrap() + head.len();
        let end = expected[begin..].lines().take_while(|line| line.starts_with('|'));
        let end = begin + end.map(|line| line.len() + 1).sum::<usize>();
        expected.replace_range(begin..end, &(rows.join("\n") + "\n"));
    }
    if std::env::var_os("ZONEWIRE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap();
    } else {
        assert!(
            found == expected,
            "run with ZONEWIRE_UPDATE_DOCS=1 to rewrite the tables of docs/PROTOCOL.md"
        );
    }
}
