//! Updates of orders: their stages, and which may follow which.

use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use serde_json::value::RawValue;

use super::payload::{PayloadWriter, check_names, check_readable, fault, read_time, shown};
use super::{InvalidPayload, MISSED_BEFORE, ORDER_ID, OrderedFields, ProblemCode};
use crate::model::{DraftEntry, Entry, EntryKind, Marks};
use crate::support::json::json_fault;

/// The key of every update of an order, which makes the newest one the channel's latest entry.
pub const ORDER_KEY: &str = "order";

/// Fields of the envelope, which an update may not have. (It must have `type`, which is its stage.)
const RESERVED: [&str; 5] = ["channel", "offset", "id", "late", MISSED_BEFORE];

/// Attempts beyond this number count as this one.
const ATTEMPTS_MAX: u32 = 1_000_000;

/// An update that has been parsed and not yet accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderUpdate {
    /// Where this update leaves the order.
    pub standing: Standing,
    /// The entry for the order's channel.
    pub draft: DraftEntry,
}

/// How far an order has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Its stage.
    pub kind: EntryKind,
    /// Its progress, 0 to 100.
    pub progress: u8,
    /// The number of the attempt, from 1.
    pub attempt: u32,
}

impl Standing {
    /// Reads the standing from an update. Fields that an outside producer left out get their lowest value.
    pub fn of(entry: &Entry) -> Self {
        #[derive(serde::Deserialize)]
        struct Fields {
            progress: Option<f64>,
            attempt: Option<u32>,
        }
        let fields: Option<Fields> = serde_json::from_slice(&entry.draft.data).ok();
        let progress = fields.as_ref().and_then(|fields| fields.progress);
        Self {
            kind: entry.draft.kind.clone(),
            // A float becomes the nearest whole number within bounds.
            progress: progress
                .map_or(range(&entry.draft.kind).0, |progress| progress.clamp(0.0, 100.0) as u8),
            attempt: fields.and_then(|fields| fields.attempt).unwrap_or(1).clamp(1, ATTEMPTS_MAX),
        }
    }

    /// Whether `next` may follow `self`. Nothing follows `confirmed` and `failed`, and `failed` may follow
    /// all other stages. Within an attempt, progress never decreases. Only the attempt `anew`, which may be
    /// the current one, may start over, with `routing` or `submitted`.
    ///
    /// # Errors
    /// A description of what is wrong, for people.
    pub fn allows(&self, next: &Self, anew: u32) -> Result<(), String> {
        if self.kind.is_terminal() {
            return Err(format!("the order has ended with `{}`", self.kind.as_str()));
        }
        if next.kind == EntryKind::Failed {
            return Ok(());
        }
        if next.attempt == self.attempt && next.progress >= self.progress {
            return Ok(());
        }
        if next.attempt == anew {
            return match &next.kind {
                EntryKind::Routing | EntryKind::Submitted => Ok(()),
                other => Err(format!(
                    "attempt {anew} begins with `routing` or `submitted`, not with `{}`",
                    other.as_str()
                )),
            };
        }
        if next.attempt == self.attempt {
            return Err(format!(
                "progress must not go back within attempt {}: it was {}, and {} was given",
                self.attempt, self.progress, next.progress
            ));
        }
        Err(format!(
            "`attempt` must still be {}, or {anew} to start over; {} was given",
            self.attempt, next.attempt
        ))
    }
}

/// The least and the greatest progress of a stage.
fn range(kind: &EntryKind) -> (u8, u8) {
    match kind {
        EntryKind::Routing => (10, 30),
        EntryKind::Building => (50, 70),
        EntryKind::Submitted => (75, 90),
        EntryKind::Confirmed => (100, 100),
        EntryKind::Failed
        | EntryKind::PriceUpdate
        | EntryKind::Missed
        | EntryKind::KeyRemoved
        | EntryKind::ZoneRemoved
        | EntryKind::Event(_)
        | EntryKind::RecordUpdate => (0, 0),
        EntryKind::Unknown(_) => (0, 100),
    }
}

impl OrderUpdate {
    /// Parses an update as producers send it. `now` is its time if it has none of its own.
    ///
    /// Required: `type`, one of `routing`, `building`, `submitted`, `confirmed`, `failed`; `progress`, a
    /// whole number in the stage's range (optional for the last two); for `failed`, `error`, an object with a
    /// text `code` and a text `message`. Optional: `message`, a text; `attempt`, counting from 1;
    /// `timestamp`. All other fields are kept unchanged.
    ///
    /// # Errors
    /// See [`InvalidPayload`].
    pub fn parse(text: &str, now: DateTime<Utc>) -> Result<Self, InvalidPayload> {
        let OrderedFields(fields) = serde_json::from_str(text).map_err(|error: serde_json::Error| {
            if error.is_data() {
                fault(
                    ProblemCode::InvalidUpdate,
                    r#"expected one object such as {"type":"routing","progress":10}"#,
                )
            } else {
                fault(ProblemCode::InvalidJson, format!("not JSON: {}", json_fault(text, &error)))
            }
        })?;
        check_readable(text)?;
        Self::from_fields(&fields, now)
    }

    /// The same from the fields of an object.
    ///
    /// # Errors
    /// See [`InvalidPayload`].
    pub(crate) fn from_fields(
        fields: &[(String, &RawValue)],
        now: DateTime<Utc>,
    ) -> Result<Self, InvalidPayload> {
        check_names(fields, &RESERVED)?;
        let get = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| *value);
        let kind = read_kind(get("type"))?;
        let progress = read_progress(&kind, get("progress"))?;
        let attempt = match get("attempt") {
            None => 1,
            Some(value) => serde_json::from_str(value.get())
                .ok()
                .filter(|attempt| (1..=ATTEMPTS_MAX).contains(attempt))
                .ok_or_else(|| wrong("attempt", "a whole number from 1 on", value))?,
        };
        if let Some(value) = get("message")
            && serde_json::from_str::<String>(value.get()).is_err()
        {
            return Err(wrong("message", "a text", value));
        }
        if kind == EntryKind::Failed {
            check_error(get("error"))?;
        }
        let time = get("timestamp").filter(|value| value.get() != "null").map_or(Ok(now), read_time)?;
        let mut payload = PayloadWriter::default();
        payload.push_number("progress", progress.into());
        for (name, value) in fields {
            // The channel already names the order.
            if !["type", "progress", "timestamp", ORDER_ID].contains(&name.as_str()) {
                payload.push(name, value.get());
            }
        }
        let draft = draft(kind.clone(), time, payload.finish());
        Ok(Self { standing: Standing { kind, progress, attempt }, draft })
    }

    /// An update that the gateway itself creates, with a progress within its stage's range; `write` adds
    /// further fields.
    pub(crate) fn new(
        standing: Standing,
        now: DateTime<Utc>,
        write: impl FnOnce(&mut PayloadWriter),
    ) -> Self {
        let (least, most) = range(&standing.kind);
        let standing = Standing { progress: standing.progress.clamp(least, most), ..standing };
        let mut payload = PayloadWriter::default();
        payload.push_number("progress", standing.progress.into());
        payload.push_number("attempt", standing.attempt);
        write(&mut payload);
        let draft = draft(standing.kind.clone(), now, payload.finish());
        Self { standing, draft }
    }
}

fn draft(kind: EntryKind, time: DateTime<Utc>, data: Bytes) -> DraftEntry {
    DraftEntry { time, kind, key: Some(Arc::from(ORDER_KEY)), data, marks: Marks::default() }
}

fn wrong(name: &str, expected: &str, found: &RawValue) -> InvalidPayload {
    fault(ProblemCode::InvalidUpdate, format!("`{name}` must be {expected}, not {}", shown(found.get())))
}

fn missing(name: &str, expected: &str) -> InvalidPayload {
    fault(ProblemCode::InvalidUpdate, format!("`{name}` is missing: {expected}"))
}

fn read_kind(value: Option<&RawValue>) -> Result<EntryKind, InvalidPayload> {
    const EXPECTED: &str = "one of `routing`, `building`, `submitted`, `confirmed`, `failed`";
    let value = value.ok_or_else(|| missing("type", EXPECTED))?;
    let kind: Option<String> = serde_json::from_str(value.get()).ok();
    let kind = kind.and_then(|kind| kind.parse().ok()).filter(EntryKind::is_stage);
    kind.ok_or_else(|| wrong("type", EXPECTED, value))
}

fn read_progress(kind: &EntryKind, value: Option<&RawValue>) -> Result<u8, InvalidPayload> {
    let (least, most) = range(kind);
    let expected = || {
        if least == most { least.to_string() } else { format!("a whole number from {least} to {most}") }
    };
    let Some(value) = value else {
        if kind.is_terminal() {
            return Ok(least);
        }
        return Err(missing("progress", &format!("in `{}` it is {}", kind.as_str(), expected())));
    };
    let progress: Option<u8> = serde_json::from_str(value.get()).ok();
    progress
        .filter(|progress| (least..=most).contains(progress))
        .ok_or_else(|| wrong("progress", &format!("{} in `{}`", expected(), kind.as_str()), value))
}

/// Checks for `{"code":"…","message":"…"}`; further fields are allowed.
fn check_error(value: Option<&RawValue>) -> Result<(), InvalidPayload> {
    const EXPECTED: &str = r#"an object such as {"code":"no_liquidity","message":"no pool has enough"}"#;
    #[derive(serde::Deserialize)]
    struct Error {
        code: String,
        #[serde(rename = "message")]
        _message: String,
    }
    let value = value.ok_or_else(|| missing("error", EXPECTED))?;
    let error: Option<Error> = serde_json::from_str(value.get()).ok();
    match error {
        Some(error) if !error.code.is_empty() => Ok(()),
        _ => Err(wrong("error", EXPECTED, value)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<OrderUpdate, InvalidPayload> {
        OrderUpdate::parse(text, DateTime::from_timestamp_millis(5).unwrap())
    }

    #[test]
    fn an_update_keeps_its_fields_and_has_its_progress_first() {
        let update = parse(
            r#"{ "type": "routing", "orderId": "x", "quotesFetched": 2, "progress": 20, "message": "a b", "timestamp": 1610064000.007 }"#,
        )
        .unwrap();
        assert_eq!(update.standing, Standing { kind: EntryKind::Routing, progress: 20, attempt: 1 });
        assert_eq!(update.draft.data, r#"{"progress":20,"quotesFetched":2,"message":"a b"}"#);
        assert_eq!(update.draft.time.timestamp_millis(), 1_610_064_000_007);
        assert_eq!(update.draft.key.as_deref(), Some(ORDER_KEY));
    }

    #[test]
    fn terminal_updates_need_no_progress() {
        assert_eq!(parse(r#"{"type":"confirmed"}"#).unwrap().standing.progress, 100);
        let failed = parse(r#"{"type":"failed","error":{"code":"x","message":"y","more":1},"attempt":3}"#);
        let failed = failed.unwrap();
        assert_eq!((failed.standing.progress, failed.standing.attempt), (0, 3));
        assert_eq!(failed.draft.time.timestamp_millis(), 5);
    }

    #[test]
    fn each_fault_says_what_would_be_right() {
        for (text, code, part) in [
            ("", "invalid_json", "not JSON"),
            ("[]", "invalid_update", "one object"),
            (r#"{"type":"routing","progress":10,"n":"\udfff"}"#, "invalid_json", "lone surrogate at byte 37"),
            ("{}", "invalid_update", "`type` is missing"),
            (r#"{"type":"price_update","progress":1}"#, "invalid_update", "one of `routing`"),
            (r#"{"type":"key_removed","progress":1}"#, "invalid_update", "one of `routing`"),
            (r#"{"type":7}"#, "invalid_update", "one of `routing`"),
            (r#"{"type":"routing"}"#, "invalid_update", "from 10 to 30"),
            (r#"{"type":"routing","progress":31}"#, "invalid_update", "from 10 to 30"),
            (r#"{"type":"building","progress":"50"}"#, "invalid_update", "from 50 to 70"),
            (r#"{"type":"submitted","progress":74}"#, "invalid_update", "from 75 to 90"),
            (r#"{"type":"confirmed","progress":99}"#, "invalid_update", "100"),
            (r#"{"type":"failed"}"#, "invalid_update", "`error` is missing"),
            (r#"{"type":"failed","error":"x"}"#, "invalid_update", "an object"),
            (r#"{"type":"routing","progress":10,"attempt":0}"#, "invalid_update", "from 1 on"),
            (r#"{"type":"routing","progress":10,"message":1}"#, "invalid_update", "a text"),
            (r#"{"type":"routing","progress":10,"id":"1"}"#, "reserved_field", "`id`"),
            (r#"{"type":"routing","progress":10,"progress":11}"#, "duplicate_field", "`progress`"),
            (r#"{"type":"routing","progress":10,"timestamp":"soon"}"#, "invalid_timestamp", "RFC 3339"),
        ] {
            let fault = parse(text).unwrap_err();
            assert_eq!(fault.code.as_str(), code, "{text}");
            assert!(fault.detail.contains(part), "{text}: {}", fault.detail);
        }
    }

    #[test]
    fn updates_of_outside_producers_are_read_within_bounds() {
        use crate::model::{EntryId, NodeId};
        let standing = |data: &'static str| {
            let id = EntryId { producer: NodeId::random(), seq: 1 };
            let time = DateTime::from_timestamp_millis(0).unwrap();
            Standing::of(&Entry { offset: 1, id, draft: draft(EntryKind::Building, time, Bytes::from(data)) })
        };
        let at = |progress, attempt| Standing { kind: EntryKind::Building, progress, attempt };
        assert_eq!(standing(r#"{"progress":1e9,"attempt":4294967295}"#), at(100, ATTEMPTS_MAX));
        assert_eq!(standing(r#"{"progress":-1,"attempt":0}"#), at(0, 1));
        assert_eq!(standing(r#"{"progress":"x"}"#), at(50, 1));
        assert_eq!(standing("{}"), at(50, 1));
    }

    #[test]
    fn stages_go_forward_and_attempts_start_over() {
        use EntryKind::{Building, Confirmed, Failed, Routing, Submitted};
        let at = |kind, progress, attempt| Standing { kind, progress, attempt };
        for (from, to, allowed) in [
            (at(Routing, 20, 1), at(Routing, 20, 1), true),
            (at(Routing, 20, 1), at(Routing, 19, 1), false),
            (at(Routing, 20, 1), at(Submitted, 75, 1), true),
            (at(Submitted, 90, 1), at(Building, 50, 1), false),
            (at(Submitted, 90, 1), at(Routing, 10, 2), true),
            (at(Submitted, 90, 1), at(Submitted, 75, 2), true),
            (at(Submitted, 90, 1), at(Building, 50, 2), false),
            (at(Submitted, 90, 1), at(Routing, 10, 3), false),
            (at(Submitted, 90, 2), at(Routing, 10, 1), false),
            (at(Submitted, 90, 2), at(Failed, 0, 1), true),
            (at(Submitted, 90, 2), at(Confirmed, 100, 2), true),
            (at(Confirmed, 100, 1), at(Failed, 0, 1), false),
            (at(Failed, 0, 1), at(Routing, 10, 2), false),
        ] {
            assert_eq!(from.allows(&to, from.attempt + 1).is_ok(), allowed, "{from:?} {to:?}");
        }
    }

    #[test]
    fn an_attempt_that_was_given_back_starts_over() {
        use EntryKind::{Building, Failed, Routing, Submitted};
        let at = |kind, progress, attempt| Standing { kind, progress, attempt };
        for (from, to, anew, allowed) in [
            (at(Building, 60, 1), at(Routing, 10, 1), 1, true),
            (at(Submitted, 90, 1), at(Submitted, 75, 1), 1, true),
            (at(Building, 60, 1), at(Building, 60, 1), 1, true),
            (at(Building, 60, 1), at(Building, 50, 1), 1, false),
            (at(Building, 60, 1), at(Routing, 10, 2), 1, false),
            // Attempts that failed before their first report are not visible.
            (at(Building, 60, 1), at(Routing, 10, 3), 3, true),
            (at(Building, 60, 1), at(Routing, 10, 2), 3, false),
            (at(Failed, 0, 1), at(Routing, 10, 1), 1, false),
        ] {
            assert_eq!(from.allows(&to, anew).is_ok(), allowed, "{from:?} {to:?} {anew}");
        }
    }
}
