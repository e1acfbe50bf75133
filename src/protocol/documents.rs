//! Machine-readable descriptions of the protocol. They are derived from the types and checked in, and a test
//! compares, so that building the gateway does not need the generators.

/// JSON Schemas of all messages and bodies.
pub(crate) const JSON_SCHEMA: &str = include_str!("../../docs/schema/zonewire.schema.json");

/// The same as TypeScript types.
pub(crate) const TYPESCRIPT: &str = include_str!("../../docs/schema/zonewire.ts");

/// The HTTP API, as OpenAPI 3.1.
pub(crate) const OPENAPI: &str = include_str!("../../docs/schema/openapi.json");

/// The WebSockets, as AsyncAPI 3.
pub(crate) const ASYNCAPI: &str = include_str!("../../docs/schema/asyncapi.json");

/// Compares a document with the one under `docs/schema`, or rewrites that.
#[cfg(test)]
pub(crate) fn check(file: &str, expected: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/schema").join(file);
    if std::env::var_os("ZONEWIRE_UPDATE_DOCS").is_some() {
        std::fs::write(&path, expected).unwrap();
        return;
    }
    let found = std::fs::read_to_string(&path).unwrap();
    assert!(found == expected, "run with ZONEWIRE_UPDATE_DOCS=1 to rewrite docs/schema/{file}");
}

/// JSON in the form in which it is checked in.
#[cfg(test)]
pub(crate) fn pretty(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use zonewire_protocol::{schema, ts};

    use super::*;

    #[test]
    fn each_type_that_is_named_in_typescript_is_declared_there() {
        let text = ts::declarations();
        // Every part but the first begins with a comment; drop it up to its end.
        let parts = text.split("/*").map(|part| part.split_once("*/").map_or(part, |(_, code)| code));
        let code = parts.collect::<String>();
        let code = code.lines().filter(|line| !line.starts_with("//")).collect::<Vec<_>>().join("\n");
        // Text within quotes names no type.
        let code = code.split('"').step_by(2).collect::<String>();
        let words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        let named: BTreeSet<&str> =
            words.filter(|word| word.starts_with(|c: char| c.is_ascii_uppercase())).collect();
        let is_declared = |word: &&str| {
            ["Array", "Record"].contains(word)
                || code.contains(&format!("export type {word} "))
                || code.contains(&format!("export type {word}<"))
        };
        assert!(named.len() > 100, "{named:?}");
        assert_eq!(named.into_iter().filter(|word| !is_declared(word)).collect::<Vec<_>>(), [""; 0]);
    }

    #[test]
    fn the_documents_match_the_types() {
        check("zonewire.schema.json", &pretty(&schema::json_schema()));
        check("zonewire.ts", &ts::declarations());
        check("asyncapi.json", &pretty(&schema::asyncapi(env!("CARGO_PKG_VERSION"))));
    }
}
