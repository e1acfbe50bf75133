//! `bench access`: how long it takes, in this process, to identify a client and to decide what it may do.
//!
//! A gateway identifies a client once per handshake and request, and decides once per subscription. This
//! measures both alone.

use std::{
    hint::black_box,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow};
use chrono::Utc;
use clap::Args;
use uuid::Uuid;
use zonewire_access::{
    Access, Action, ApiKey, ApiKeyFile, AuthConfig, Given, Principal, Resource, make_api_key, may,
};

use super::{
    clock::Clock,
    credential::{Credential, Kind},
    handshakes::median,
    report::{AccessReport, NsEach},
};

/// The number of parts of a measurement, of which the median counts.
const PARTS: u32 = 20;

/// Arguments of `bench access`.
#[derive(Debug, Args)]
pub(super) struct AccessArgs {
    /// How many permission questions to ask; a hundredth as many identifications are made
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(2_000..=1_000_000_000))]
    questions: u32,
    /// Write the report as JSON to FILE, or to standard output with `-`.
    #[arg(long, value_name = "FILE")]
    pub(super) json: Option<PathBuf>,
}

/// Runs the measurement.
pub(super) fn run(args: &AccessArgs) -> anyhow::Result<AccessReport> {
    let clock = Clock::start();
    let each = |name: &'static str, rounds: u32, mut act: Box<dyn FnMut()>| {
        let rounds = rounds.div_ceil(PARTS);
        let mut parts: Vec<f64> = (0..PARTS)
            .map(|_| {
                let begun_ns = clock.now_ns();
                (0..rounds).for_each(|_| act());
                clock.now_ns().saturating_sub(begun_ns) as f64 / f64::from(rounds)
            })
            .collect();
        let median = median(&mut parts).unwrap_or(0.0);
        NsEach { what: name, ns: median, ns_least: parts[0], ns_most: parts[parts.len() - 1] }
    };

    let mut who = Vec::new();
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::None);
    let kinds = kinds.map(|kind| (kind, kind.as_str(), false));
    for (kind, name, again) in kinds.chain([(Kind::Hs256, "a token that was verified before", true)]) {
        let credential = Credential::of(kind)?;
        let access = knowing(credential.settings(Path::new("unread"), again), &credential.verifying)?;
        access.authenticate(&credential.shown).context(name)?;
        let ask = move || drop(black_box(access.authenticate(black_box(&credential.shown))));
        who.push(each(name, args.questions / 100, Box::new(ask)));
    }

    let (zone, other) = ("zone:pjm", "zone:elsewhere");
    let one = ["subscribe:zone:*".to_owned()];
    let many: Vec<String> = (0..63).map(|n| format!("subscribe:zone:market-{n}.*")).collect();
    let many = [many, vec![format!("subscribe:{zone}")]].concat();
    let (viewer, many, trader) = (somebody(&one)?, somebody(&many)?, somebody(&["order".to_owned()])?);
    let order = trader.owner().context("a key has an owner")?.name(Uuid::new_v4());
    let mut what = Vec::new();
    for (name, principal, channel) in [
        ("nobody is asked", Principal::unchecked(), zone.to_owned()),
        ("a zone, by one right", viewer, zone.to_owned()),
        ("a zone, by the last of 64 rights", many.clone(), zone.to_owned()),
        ("a zone, refused after 64 rights", many, other.to_owned()),
        ("an order of one's own", trader, format!("order:{order}")),
    ] {
        let ask = move || {
            let resource = Resource::Channel(black_box(&channel));
            let _answer = black_box(may(black_box(&principal), Action::Subscribe, resource));
        };
        what.push(each(name, args.questions, Box::new(ask)));
    }
    Ok(AccessReport { kind: "access", questions: args.questions, authenticate: who, may_subscribe: what })
}

/// An access state that has loaded this text from the only key source in its settings.
fn knowing(settings: AuthConfig, text: &str) -> anyhow::Result<Access> {
    let access = Access::new(settings).map_err(|wrong| anyhow!("{wrong:?}"))?;
    let now = Utc::now().timestamp();
    for due in access.due(now) {
        if let Given::Problem { problem, .. } = access.given(&due, Ok((text.to_owned(), None)), now) {
            return Err(anyhow!(problem));
        }
    }
    Ok(access)
}

/// A principal with these rights.
fn somebody(rights: &[String]) -> anyhow::Result<Arc<Principal>> {
    let (key, kept) = make_api_key(ApiKey {
        name: String::new(),
        sha256: String::new(),
        subject: "alice".to_owned(),
        roles: Vec::new(),
        rights: rights.to_vec(),
        tenant: None,
        created_at: Utc::now().timestamp(),
        expires_at: None,
    });
    let settings = AuthConfig { keys_file: Some("unread".into()), ..AuthConfig::default() };
    Ok(knowing(settings, &ApiKeyFile { keys: vec![kept] }.to_toml())?.authenticate(&key)?)
}
