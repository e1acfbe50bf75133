//! `/api/zones`: publishing, reading and removing prices.

use std::sync::Arc;

use hyper::StatusCode;
use warp::reply::Response;
use warp::{Filter, Reply};

use super::entries::{self, named};
use super::{App, Caller, Handler, caller, handler, long_json, segments, with};
use crate::channels::PublishError;
use crate::http::prices::Posted;
use crate::http::problem::Problem;
use crate::model::{ChannelName, Zone};
use crate::protocol::{ProblemCode, ZoneList, ZoneView};
use crate::storage::StorageError;
use crate::support::fault;

fn channel(segment: &str) -> Result<ChannelName, Problem> {
    named::<Zone>(segment).map(|zone| ChannelName::zone(&zone))
}

/// `POST /api/zones/{zone}/prices`
pub(in crate::http) fn publish(app: &Arc<App>) -> Handler {
    entries::publish(app, channel, |_| Posted::Price)
}

/// `GET /api/zones/{zone}/latest?limit=&after=`
pub(in crate::http) fn latest(app: &Arc<App>) -> Handler {
    entries::latest(app, channel)
}

/// `GET /api/zones/{zone}/history?limit=&after=`
pub(in crate::http) fn history(app: &Arc<App>) -> Handler {
    entries::history(app, channel)
}

/// `GET /api/zones`
pub(in crate::http) fn list(app: &Arc<App>) -> Handler {
    handler(with(app).and(caller()).then(|app: Arc<App>, caller: Caller| async move {
        fault::point(|| "request".to_owned());
        let zones = app.channels.zones().await.map_err(|error| Problem::storage(&error))?;
        let views = zones.into_iter().filter(|zone| caller.may_know(zone)).map(|zone| {
            let channel = ChannelName::zone(&zone);
            let lane = app.channels.config().lane(&channel);
            let stream = format!("{}/ws/market/{zone}", app.config.base_path);
            ZoneView { zone: zone.to_string(), channel, lane, stream }
        });
        long_json(&app, &ZoneList { zones: views.collect() })
    }))
}

/// `DELETE /api/zones/{zone}/keys/{key}`
pub(in crate::http) fn remove_key(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).then(|app: Arc<App>, [zone, key]: [String; 2]| async move {
        let zone = named::<Zone>(&zone)?;
        let key = named::<String>(&key)?;
        let detail = || format!("the zone {zone} has no price for this key");
        removed(app.channels.remove_key(&zone, &key).await, &zone, ProblemCode::UnknownKey, detail, &app)
    }))
}

/// `DELETE /api/zones/{zone}`
pub(in crate::http) fn remove(app: &Arc<App>) -> Handler {
    handler(with(app).and(segments()).then(|app: Arc<App>, [zone]: [String; 1]| async move {
        let zone = named::<Zone>(&zone)?;
        let detail = || format!("nobody has published to the zone {zone}, or it was removed");
        removed(app.channels.remove_zone(&zone).await, &zone, ProblemCode::UnknownZone, detail, &app)
    }))
}

fn removed(
    found: Result<bool, PublishError>,
    zone: &Zone,
    code: ProblemCode,
    detail: impl FnOnce() -> String,
    app: &App,
) -> Result<Response, Problem> {
    match found {
        Ok(true) => Ok(StatusCode::NO_CONTENT.into_response()),
        // Other nodes may know it.
        Ok(false) if app.channels.is_degraded(&ChannelName::zone(zone)) => {
            Err(Problem::storage(&StorageError::Unknown { op: "remove" }))
        }
        Ok(false) => Err(Problem::new(code, detail())),
        Err(error) => Err(Problem::publish(&error)),
    }
}
