//! Runs each of `docs/examples` for real.

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use zonewire::config::AuthMode;
use zonewire_access::{ApiKey, ApiKeyFile, make_api_key};
use zonewire_kit::proxy::Proxy;

use crate::support::client::LIMIT;
use crate::support::gateway::Running;
use crate::support::orders::{
    base, check_whole, external, new_order, paper, place, place_this, post_json, swap, until_ended,
    until_status, update,
};
use crate::support::process::Signal;
use crate::support::program::{Program, run};
use crate::support::tools::Examples;

const CLIENTS: [&str; 2] = ["order-client.mjs", "order_client.py"];
/// Those that a scripted gateway can answer; the other one also uses HTTP, and its library has tests of its
/// own.
const SCRIPTED: [&str; 1] = ["order_client.py"];
const WORKERS: [&str; 2] = ["worker.py", "worker.mjs"];

// Clients

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_an_order_through() {
    let Some(examples) = Examples::find() else { return };
    let gateway = Running::start(paper()).await;
    for client in CLIENTS {
        let end = run(examples.command(client, &base(&gateway)).args(["SOL", "USDC", "1.5"])).await;
        assert_eq!(end.code, Some(0), "{client}: {end:?}");
        let updates = end.json_lines();
        let mut stages = check_whole(&updates, "confirmed");
        stages.dedup();
        assert_eq!(stages, ["routing", "building", "submitted", "confirmed"], "{client}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_reconnect_after_a_lost_connection_and_miss_nothing() {
    let Some(examples) = Examples::find() else { return };
    let gateway = Running::start(paper()).await;
    let cases = [("confirmed", "trying again in"), ("failed", "Next try in")];
    for (client, (last, said)) in CLIENTS.into_iter().zip(cases) {
        let proxy = Proxy::start(gateway.address).await.unwrap();
        let order = new_order();
        let step = async |kind: &str, progress: u8| {
            let step = json!({"type": kind, "progress": progress, "attempt": 1});
            update(gateway.address, &order, step).await;
        };
        step("routing", 10).await;
        let mut program =
            Program::start(examples.command(client, &format!("http://{}", proxy.address)).arg(&order));
        let mut seen = vec![program.json().await];
        step("routing", 30).await;
        seen.push(program.json().await);
        proxy.cut();
        step("building", 50).await;
        step("submitted", 75).await;
        seen.push(program.json().await);
        seen.push(program.json().await);
        let error = json!({"code": "no_liquidity", "message": "no pool has enough"});
        update(gateway.address, &order, json!({"type": last, "attempt": 1, "error": error})).await;
        let end = program.ended().await;
        assert_eq!(end.code, Some(i32::from(last == "failed")), "{client}: {end:?}");
        assert!(end.stderr.contains(said), "{client}: {end:?}");
        seen.extend(end.json_lines());
        assert_eq!(
            check_whole(&seen, last),
            ["routing", "routing", "building", "submitted", last],
            "{client}"
        );
    }
}

/// One connection to a scripted gateway: it says this, then closes. The client names the order in the
/// address, or subscribes.
async fn connection(listener: &TcpListener, order: &str, said: &[Value]) {
    let (stream, _) = time::timeout(LIMIT, listener.accept()).await.unwrap().unwrap();
    let mut path = String::new();
    let look = |request: &Request, response: Response| {
        request.uri().path().clone_into(&mut path);
        Ok(response)
    };
    let mut socket = tokio_tungstenite::accept_hdr_async(stream, look).await.unwrap();
    let mut request = json!({});
    if path == "/ws" {
        let hello = json!({
            "type": "connection_established", "connection_id": "c", "storage_backend": "in-memory", "state": "healthy",
            "heartbeat_interval_ms": 30_000, "protocol": 1, "timestamp": "2026-11-21T10:11:17Z", "message": "",
        });
        socket.send(Message::text(hello.to_string())).await.unwrap();
        let asked = time::timeout(LIMIT, socket.next()).await.unwrap().unwrap().unwrap();
        request = serde_json::from_str(asked.to_text().unwrap()).unwrap();
    }
    for message in said {
        let mut message = message.clone();
        (message["channel"], message["orderId"]) = (json!(format!("order:{order}")), json!(order));
        if message["type"] == "subscribed" {
            message["id"] = request["id"].clone();
        }
        socket.send(Message::text(message.to_string())).await.unwrap();
    }
    let frame = CloseFrame { code: 4000.into(), reason: "shutting_down".into() };
    socket.close(Some(frame)).await.unwrap();
    // Read up to the client's close frame, or its end.
    while let Some(Ok(_)) = socket.next().await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_drop_repeated_updates_between_recovered_false_and_true() {
    let Some(examples) = Examples::find() else { return };
    let word = |kind: &str, recovered: bool| json!({"type": kind, "epoch": "e", "offset": 0, "recovered": recovered});
    let step =
        |kind: &str, n: u64| json!({"type": kind, "offset": n, "id": format!("a-{n}"), "progress": 10});
    for client in SCRIPTED {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let order = new_order();
        let program = Program::start(examples.command(client, &url).arg(&order));
        connection(&listener, &order, &[word("subscribed", true), step("routing", 1), step("routing", 2)])
            .await;
        connection(
            &listener,
            &order,
            &[
                word("subscribed", false),
                step("routing", 1),
                step("building", 3),
                step("building", 3),
                word("resync", true),
                // No gateway sends this now; a client that hid it would hide a fault.
                step("routing", 2),
                step("confirmed", 4),
            ],
        )
        .await;
        let end = program.ended().await;
        assert_eq!(end.code, Some(0), "{client}: {end:?}");
        let ids: Vec<Value> = end.json_lines().iter().map(|update| update["id"].clone()).collect();
        assert_eq!(ids, ["a-1", "a-2", "a-3", "a-2", "a-4"], "{client}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_say_what_is_wrong_with_an_order() {
    let Some(examples) = Examples::find() else { return };
    let gateway = Running::start(paper()).await;
    for (client, said) in CLIENTS.into_iter().zip(["a UUID", "not a valid channel name"]) {
        let end = run(examples.command(client, &base(&gateway)).args(["SOL", "USDC", "0"])).await;
        assert_eq!((end.code, end.stdout.as_str()), (Some(1), ""), "{client}: {end:?}");
        assert!(end.stderr.contains("invalid_order") && end.stderr.contains("amount"), "{client}: {end:?}");
        let end = run(examples.command(client, &base(&gateway)).arg("17")).await;
        assert_eq!(end.code, Some(1), "{client}: {end:?}");
        assert!(end.stderr.contains(said), "{client}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_walk_through_works() {
    let Some(examples) = Examples::find() else { return };
    let gateway = Running::start(paper()).await;
    let end = run(&mut examples.command("orders.sh", &base(&gateway))).await.exits(0);
    assert!(end.stdout.ends_with("all as expected\n"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_postman_collection_passes_its_own_tests() {
    let Some(examples) = Examples::find() else { return };
    let gateway = Running::start(paper()).await;
    let end = run(&mut examples.newman("orders.postman_collection.json", &base(&gateway))).await.exits(0);
    assert!(end.stdout.contains("✓  confirmed, by stages in order"), "{end:?}");
}

// With authentication

#[tokio::test(flavor = "multi_thread")]
async fn examples_show_a_token_where_one_is_required() {
    let Some(examples) = Examples::find() else { return };
    let (dir, mut configs) = (tempfile::tempdir().unwrap(), [paper(), external()]);
    let (key, kept) = make_api_key(ApiKey {
        name: String::new(),
        sha256: String::new(),
        subject: "tests".to_owned(),
        roles: vec!["operator".to_owned()],
        rights: Vec::new(),
        tenant: None,
        created_at: chrono::Utc::now().timestamp() - 1,
        expires_at: None,
    });
    let keys_file = dir.path().join("keys.toml");
    std::fs::write(&keys_file, ApiKeyFile { keys: vec![kept] }.to_toml()).unwrap();
    for config in &mut configs {
        config.auth.mode = Some(AuthMode::On);
        config.auth.keys_file = Some(keys_file.clone());
    }
    let [paper, external] = configs;
    let gateway = Running::start(paper).await;
    let swap = ["SOL", "USDC", "1.5"];
    for client in CLIENTS {
        let end = run(examples.command(client, &base(&gateway)).args(swap)).await;
        assert_eq!((end.code, end.stdout.as_str()), (Some(1), ""), "{end:?}");
    }
    for (mut command, says) in [
        (examples.command(CLIENTS[0], &base(&gateway)), "confirmed"),
        (examples.command(CLIENTS[1], &base(&gateway)), "confirmed"),
        (examples.command("orders.sh", &base(&gateway)), "all as expected"),
        (
            examples.newman("orders.postman_collection.json", &base(&gateway)),
            "✓  confirmed, by stages in order",
        ),
    ] {
        match says {
            "confirmed" => command.args(swap),
            "all as expected" => &mut command,
            _ => command.args(["--env-var", &format!("token={key}")]),
        };
        let end = run(command.env("ZONEWIRE_TOKEN", &key)).await;
        assert_eq!((end.code, end.stdout.contains(says)), (Some(0), true), "{end:?}");
    }
    gateway.stop().await;

    let gateway = Running::start(external).await;
    for name in WORKERS {
        let worker = Program::start(worker(&examples, name, &gateway, 1).env("ZONEWIRE_TOKEN", &key));
        let mut client = examples.command("order-client.mjs", &base(&gateway));
        let end = run(client.args(swap).env("ZONEWIRE_TOKEN", &key)).await;
        assert_eq!(end.code, Some(0), "{name}: {end:?}");
        stop(worker).await;
    }
}

// Workers

/// A worker that takes this many milliseconds per stage.
fn worker(examples: &Examples, name: &str, gateway: &Running, work_ms: u32) -> Command {
    let mut command = examples.command(name, &base(gateway));
    command.args(["--lease-ms", "1000", "--work-ms", &work_ms.to_string()]);
    command
}

/// Longer than any test takes: such a worker never finishes.
const FOR_EVER: u32 = 600_000;

async fn stop(worker: Program) {
    worker.signal(Signal::TERM);
    let end = worker.ended().await.exits(0);
    assert!(end.stdout.ends_with("stopped\n"), "{end:?}");
}

fn updates(view: &Value) -> &[Value] {
    view["updates"].as_array().unwrap()
}

/// Runs a test for each kind of worker, with the other kind as the one that takes over; both at once.
async fn for_each_worker(test: impl AsyncFn(&Examples, &str, &str)) {
    let Some(examples) = Examples::find() else { return };
    let [one, other] = WORKERS;
    tokio::join!(test(&examples, one, other), test(&examples, other, one));
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_execute_orders() {
    for_each_worker(async |examples, name, _| {
        let gateway = Running::start(external()).await;
        let worker = Program::start(&mut worker(examples, name, &gateway, 1));
        let orders = [place(gateway.address).await, place(gateway.address).await];
        let mut too_large = swap();
        too_large["amount"] = json!(2e6);
        let too_large = place_this(gateway.address, &too_large).await;
        for order in &orders {
            let view = until_ended(gateway.address, order).await;
            let stages = check_whole(updates(&view), "confirmed");
            assert_eq!(stages, ["routing", "building", "submitted", "confirmed"]);
            assert!(updates(&view)[3]["txHash"].as_str().unwrap().starts_with("0x"), "{view}");
            assert!(updates(&view)[0]["executor"].as_str().unwrap().starts_with(name), "{view}");
        }
        let view = until_ended(gateway.address, &too_large).await;
        check_whole(updates(&view), "failed");
        assert_eq!(view["lastUpdate"]["error"]["code"], "too_large");
        stop(worker).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_at_work_is_told_that_its_order_was_cancelled() {
    for_each_worker(async |examples, name, _| {
        let gateway = Running::start(external()).await;
        let mut worker = Program::start(&mut worker(examples, name, &gateway, FOR_EVER));
        let order = place(gateway.address).await;
        until_status(gateway.address, &order, "routing").await;
        let answer = post_json(gateway.address, &format!("/api/orders/{order}/cancel"), &json!({})).await;
        assert_eq!(answer.status, 202, "{answer:?}");
        let view = until_ended(gateway.address, &order).await;
        check_whole(updates(&view), "failed");
        assert_eq!(view["lastUpdate"]["error"]["code"], "cancelled");
        worker.until("cancelled while it was executed").await;
        stop(worker).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_keeps_its_order_for_longer_than_one_lease() {
    for_each_worker(async |examples, name, rival| {
        let gateway = Running::start(external()).await;
        let mut long = examples.command(name, &base(&gateway));
        let long = Program::start(long.args(["--lease-ms", "8000", "--work-ms", "3000"]));
        let order = place(gateway.address).await;
        until_status(gateway.address, &order, "routing").await;
        let rival = Program::start(&mut worker(examples, rival, &gateway, 1));
        let view = until_ended(gateway.address, &order).await;
        check_whole(updates(&view), "confirmed");
        for update in updates(&view) {
            assert_eq!(update["run"], 1, "{view}");
            assert!(update["executor"].as_str().unwrap().starts_with(name), "{view}");
        }
        tokio::join!(stop(long), stop(rival));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_worker_is_killed_is_ended_once_by_another() {
    for_each_worker(async |examples, name, other| {
        let gateway = Running::start(external()).await;
        let killed = Program::start(&mut worker(examples, name, &gateway, FOR_EVER));
        let order = place(gateway.address).await;
        until_status(gateway.address, &order, "routing").await;
        killed.signal(Signal::KILL);
        assert_eq!(killed.ended().await.code, None);
        let other = Program::start(&mut worker(examples, other, &gateway, 1));
        let view = until_ended(gateway.address, &order).await;
        check_whole(updates(&view), "confirmed");
        for field in ["run", "attempt"] {
            let numbers: Vec<&Value> = updates(&view).iter().map(|update| &update[field]).collect();
            assert_eq!(numbers, [1, 2, 2, 2, 2], "{field}");
        }
        stop(other).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_away_too_long_drops_its_order_and_goes_on() {
    for_each_worker(async |examples, name, other| {
        let gateway = Running::start(external()).await;
        let mut away = Program::start(&mut worker(examples, name, &gateway, FOR_EVER));
        let order = place(gateway.address).await;
        until_status(gateway.address, &order, "routing").await;
        away.signal(Signal::STOP);
        let other = Program::start(&mut worker(examples, other, &gateway, 1));
        let view = until_ended(gateway.address, &order).await;
        stop(other).await;
        away.signal(Signal::CONT);
        away.until("dropped: 409 lease_lost").await;
        let after = until_ended(gateway.address, &order).await;
        assert_eq!(after["updates"], view["updates"]);
        check_whole(updates(&after), "confirmed");
        stop(away).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_waits_for_its_gateway_and_gives_up_if_it_is_refused() {
    for_each_worker(async |examples, name, _| {
        // A gateway that executes its orders itself.
        let gateway = Running::start(paper()).await;
        let end = run(&mut worker(examples, name, &gateway, 1)).await;
        assert_eq!(end.code, Some(1), "{name}: {end:?}");
        assert!(end.stderr.contains("error: 409"), "{name}: {end:?}");
        gateway.stop().await;

        let proxy = Proxy::to_nowhere().await.unwrap();
        let mut early = examples.command(name, &format!("http://{}", proxy.address));
        let mut early = Program::start(early.args(["--work-ms", "1"]));
        early.until("trying again").await;
        let gateway = Running::start(external()).await;
        proxy.lead_to(gateway.address);
        let order = place(gateway.address).await;
        until_status(gateway.address, &order, "confirmed").await;
        stop(early).await;
    })
    .await;
}

// Orders that are not swaps

const POWER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/examples/power/order.schema.json");

const TRADE: [&str; 6] =
    ["buy", "WESTERN HUB", "50", "2026-12-01T15:00:00-05:00", "2026-12-01T16:00:00-05:00", "41.25"];

#[tokio::test(flavor = "multi_thread")]
async fn a_power_trade_is_placed_executed_and_followed() {
    let Some(examples) = Examples::find() else { return };
    let gateway = Running::changed(external(), |config| config.orders.schema = POWER.to_owned()).await;
    let worker = Program::start(&mut worker(&examples, "power_worker.py", &gateway, 1));
    let end = run(examples.command("power_client.py", &base(&gateway)).args(TRADE)).await.exits(0);
    let seen = end.json_lines();
    check_whole(&seen, "confirmed");
    let last = seen.last().unwrap();
    assert!(last["price"].as_f64().unwrap() <= 41.25 && last["tradeId"].is_string(), "{last}");
    assert!(last["message"].as_str().unwrap().starts_with("bought 50.0 MW at WESTERN HUB for "), "{last}");
    let view = until_ended(gateway.address, last["orderId"].as_str().unwrap()).await;
    assert_eq!((&view["order"]["quantity"], &view["order"]["limit"]), (&json!(50.0), &json!(41.25)));

    let mut wrong = TRADE;
    (wrong[0], wrong[3]) = ("hold", "tomorrow");
    let end = run(examples.command("power_client.py", &base(&gateway)).args(wrong)).await.exits(1);
    for part in ["invalid_order", "side", "period.start"] {
        assert!(end.stderr.contains(part), "{part}: {end:?}");
    }
    stop(worker).await;
}
