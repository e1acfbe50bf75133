//! `/api/auth`: revoking.

use std::sync::Arc;

use hyper::StatusCode;
use warp::Filter;

use super::{App, Caller, Handler, Text, caller, handler, json, json_body, parse, with};
use crate::access::{Named, RevokeError};
use crate::http::problem::Problem;
use crate::protocol::{ProblemCode, Revoke};

/// The longest name of what is revoked, in bytes.
const NAME_LEN_MAX: usize = 256;

/// `POST /api/auth/revoke`
pub(in crate::http) fn revoke(app: &Arc<App>) -> Handler {
    let asked = with(app).and(caller()).and(json_body(app));
    handler(asked.then(|app: Arc<App>, caller: Caller, text: Text| async move {
        if !app.gate.is_on() {
            let detail = "authentication is off (auth.mode), so there is nothing to revoke";
            return Err(Problem::new(ProblemCode::NotFound, detail));
        }
        let (what, name) = wish(&text)?;
        let by = caller.principal()?.subject().unwrap_or_default();
        let revoked = app.gate.revoke(what, &name, by).await.map_err(|error| match error {
            RevokeError::TooMany(_) => Problem::new(ProblemCode::Busy, error.to_string()),
            RevokeError::Storage(_) => Problem::new(ProblemCode::StorageUnavailable, error.to_string()),
        })?;
        Ok(json(StatusCode::OK, &revoked))
    }))
}

fn wish(text: &str) -> Result<(Named, String), Problem> {
    let invalid = |detail: String| Problem::new(ProblemCode::InvalidRequest, detail);
    let Revoke { jti, key, subject } = parse(text)?;
    let (what, name) = match (jti, key, subject) {
        (Some(name), None, None) => (Named::Token, name),
        (None, Some(name), None) => (Named::Key, name),
        (None, None, Some(name)) => (Named::Subject, name),
        _ => return Err(invalid("expected one of `jti`, `key` and `subject`".to_owned())),
    };
    if !(1..=NAME_LEN_MAX).contains(&name.len()) {
        return Err(invalid(format!("expected a name of 1 to {NAME_LEN_MAX} bytes, found {}", name.len())));
    }
    Ok((what, name))
}
