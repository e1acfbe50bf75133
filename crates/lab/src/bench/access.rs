//! `bench access`: how long it takes, in this process, to identify a client and to decide what it may do.
//!
//! A gateway identifies a client once per handshake and request, and decides once per subscription. This
//! measures both alone.

use std::{hint::black_box, path::Path, sync::Arc};

use anyhow::{Context, anyhow};
use chrono::Utc;
use clap::{Args, ValueEnum as _};
use uuid::Uuid;
use zonewire_access::{Access, Action, AuthConfig, Given, Principal, Resource, may};

use super::{
    credential::{Credential, Kind},
    report::{AccessReport, NsEach},
};
use crate::identity::api_key;

#[derive(Debug, Args)]
pub(super) struct AccessArgs {
    /// How many permission questions to ask; a hundredth as many identifications are made
    #[arg(long, default_value_t = 2_000_000, value_parser = clap::value_parser!(u32).range(2_000..=1_000_000_000))]
    questions: u32,
}

pub(super) fn run(args: &AccessArgs) -> anyhow::Result<AccessReport> {
    let mut who = Vec::new();
    let kinds = Kind::value_variants().iter().copied().filter(|kind| *kind != Kind::None);
    let kinds = kinds.map(|kind| (kind, kind.as_str(), false));
    for (kind, name, again) in kinds.chain([(Kind::Hs256, "a token that was verified before", true)]) {
        let credential = Credential::of(kind)?;
        let access = knowing(credential.settings(Path::new("unread"), again), &credential.verifying)?;
        access.authenticate(&credential.presented).context(name)?;
        let ask = move || drop(black_box(access.authenticate(black_box(&credential.presented))));
        who.push(NsEach::time(name, args.questions / 100, ask));
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
        what.push(NsEach::time(name, args.questions, ask));
    }
    Ok(AccessReport { questions: args.questions, authenticate: who, may_subscribe: what })
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
    let (key, file) = api_key("alice", &[], rights);
    let settings = AuthConfig { keys_file: Some("unread".into()), ..AuthConfig::default() };
    Ok(knowing(settings, &file)?.authenticate(&key)?)
}
