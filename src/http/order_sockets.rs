//! `/ws/orders/{orderId}`: a WebSocket that is subscribed to one order from the start.

use std::sync::Arc;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::routes::{App, BadAddress, Since, open, with};
use super::upgrade::web_socket;
use crate::connections::Opening;
use crate::model::InvalidOrderId;
use crate::protocol::ErrorCode;

/// `GET /ws/orders/{orderId}?since=<epoch>:<offset>`, also as `/api/orders/status/{orderId}`.
pub(super) fn order_sockets(app: &Arc<App>) -> BoxedFilter<(Response,)> {
    warp::path!("ws" / "orders" / String)
        .or(warp::path!("api" / "orders" / "status" / String))
        .unify()
        .and(Since::filter())
        .and(web_socket())
        .and(with(app))
        .and_then(|order: String, query, request, app: Arc<App>| async move {
            open(request, &app, opening(&order, query)).await
        })
        .boxed()
}

fn opening(order: &str, query: Option<Since>) -> Result<Opening, BadAddress> {
    let invalid = |error: InvalidOrderId| BadAddress(ErrorCode::InvalidChannel, error.to_string());
    Ok(Opening::Order { order: order.parse().map_err(invalid)?, since: Since::position(query)? })
}
