//! `/ws/orders/{orderId}`: a WebSocket that is subscribed to one order from the start.

use std::sync::Arc;

use hyper::StatusCode;
use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::problem::Problem;
use super::routes::{App, Since, answer, with};
use super::upgrade::{WebSocketRequest, accept, web_socket};
use crate::connections::Opening;
use crate::model::OrderId;

/// `GET /ws/orders/{orderId}?since=<epoch>:<offset>`, also as `/api/orders/status/{orderId}`.
pub(super) fn order_sockets(app: &Arc<App>, origins: Arc<[String]>) -> BoxedFilter<(Response,)> {
    warp::path!("ws" / "orders" / String)
        .or(warp::path!("api" / "orders" / "status" / String))
        .unify()
        .and(warp::query::<Since>())
        .and(web_socket(origins))
        .and(with(app))
        .and_then(|order: String, query: Since, request, app: Arc<App>| async move {
            answer(open(&order, &query, request, &app).await)
        })
        .boxed()
}

async fn open(order: &str, query: &Since, request: WebSocketRequest, app: &App) -> Result<Response, Problem> {
    // No escapes to undo: a UUID needs none.
    let order: OrderId = order.parse().map_err(|error: crate::model::InvalidOrderId| {
        Problem::new(StatusCode::BAD_REQUEST, "invalid_order_id", error.to_string())
    })?;
    accept(request, &app.manager, Opening::Order { order, since: query.position()? }).await
}
