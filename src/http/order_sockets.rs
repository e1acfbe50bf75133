//! `/ws/orders/{orderId}`: a WebSocket that is subscribed to one order from the start.

use std::sync::Arc;

use warp::Filter;
use warp::filters::BoxedFilter;
use warp::reply::Response;

use super::orders::order_id;
use super::problem::Problem;
use super::routes::{App, Since, answer, with};
use super::upgrade::{WebSocketRequest, accept, web_socket};
use crate::connections::Opening;

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
    let opening = Opening::Order { order: order_id(order)?, since: query.position()? };
    accept(request, &app.manager, opening).await
}
