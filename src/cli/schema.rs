//! `schema`: prints the description of the protocol.

use std::io::{self, Write as _};

use crate::protocol::documents::{ASYNCAPI, JSON_SCHEMA, OPENAPI, TYPESCRIPT};

pub(super) const EXAMPLES: &str = "\
Examples:
  zonewire schema ts > zonewire.ts
  zonewire schema openapi | jq '.paths | keys'

A running gateway serves the last two at /openapi.json and /asyncapi.json.";

#[derive(Debug, clap::Args)]
pub(super) struct SchemaArgs {
    /// The format
    #[arg(value_enum, default_value = "json")]
    form: Form,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Form {
    /// JSON Schema of all messages and bodies
    Json,
    /// The same as TypeScript types
    Ts,
    /// The HTTP API as OpenAPI 3.1
    Openapi,
    /// The WebSockets as AsyncAPI 3
    Asyncapi,
}

pub(super) fn run(args: &SchemaArgs) -> anyhow::Result<()> {
    let text = match args.form {
        Form::Json => JSON_SCHEMA,
        Form::Ts => TYPESCRIPT,
        Form::Openapi => OPENAPI,
        Form::Asyncapi => ASYNCAPI,
    };
    io::stdout().lock().write_all(text.as_bytes())?;
    Ok(())
}
