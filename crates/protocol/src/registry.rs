//! HTTP bodies of registries.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::stats::RegistryView;
use crate::{BackendState, Open};

/// `GET /api/providers` and `/api/active-orders`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS), ts(optional_fields))]
pub struct RecordList {
    /// The records, as they were written.
    #[cfg_attr(feature = "schema", schemars(schema_with = "objects"))]
    #[cfg_attr(feature = "schema", ts(type = "Array<Record<string, unknown>>"))]
    pub records: Vec<Box<RawValue>>,
    /// The version of each, for `If-Match`.
    pub versions: Vec<String>,
    /// How many records match the filter.
    pub total: usize,
    /// If present, there are more: repeat the request with `after=` this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// `healthy` if records written at other gateways are known here.
    pub state: Open<BackendState>,
}

/// `PUT` and `DELETE` of `/api/providers` and of `/api/active-orders`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct RecordsSet {
    /// How many records there are now.
    pub records: usize,
    /// How many there were before.
    pub before: usize,
}

/// `GET /api/registry`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct RegistryStatus {
    /// The node that answers.
    pub node: String,
    /// Online providers.
    pub providers: RegistryView,
    /// Orders in progress.
    pub active_orders: RegistryView,
}

/// `POST /api/registry/sync`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct RegistrySync {
    /// For each registry, what its Redis key held.
    pub synced: Vec<RegistrySynced>,
}

/// What the Redis key of a registry held.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema, ts_rs::TS))]
pub struct RegistrySynced {
    /// `providers` or `active-orders`.
    pub registry: String,
    /// Records in the key.
    pub found: usize,
    /// How many of them were applied.
    pub taken: usize,
    /// How many of them are not valid records.
    pub invalid: usize,
}

#[cfg(feature = "schema")]
fn objects(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "array", "items": { "type": "object", "additionalProperties": true } })
}
