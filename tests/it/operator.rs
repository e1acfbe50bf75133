//! The commands of an operator's day, against a gateway: what they print, and with which digits.

use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::client::Client;
use crate::support::eventually::until;
use crate::support::gateway::{Running, config, price, until_stat};
use crate::support::orders::{base, external, new_order, place, post_json, update};
use crate::support::process::Signal;
use crate::support::program::{End, Program, listening, run, zonewire};
use crate::support::redis::nowhere;

/// `zonewire <args>` against a gateway.
async fn ask(args: &str, gateway: &Running) -> End {
    let args: Vec<&str> = args.split(' ').collect();
    run(zonewire(&args).args(["--url", &base(gateway)])).await
}

/// The output of a command that must succeed.
async fn said(args: &str, gateway: &Running) -> String {
    let end = ask(args, gateway).await;
    assert_eq!(end.code, Some(0), "{args}: {end:?}");
    end.stdout
}

fn tail(args: &str, gateway: &Running) -> Program {
    let args: Vec<&str> = args.split(' ').collect();
    Program::start(zonewire(&args).args(["--url", &base(gateway)]))
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lists_say_so_and_print_nothing() {
    let gateway = Running::start(external()).await;
    for (args, expected) in [
        ("zones", "no zones: nobody has published anything yet\n"),
        ("latest pjm", "nobody has published to zone pjm yet\n"),
        ("history pjm", "nobody has published to zone pjm yet\n"),
        ("order list", "no orders\n"),
        ("order dead-letters", "no dead letters\n"),
    ] {
        let end = ask(args, &gateway).await;
        assert_eq!((end.code, end.stdout.as_str(), end.stderr.as_str()), (Some(0), "", expected), "{args}");
    }
    for args in ["zones --json", "latest pjm --json", "order list --json"] {
        assert_eq!(said(args, &gateway).await, "", "{args}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_latest_and_history_print_tables_and_lines_with_exact_digits() {
    let gateway = Running::start(config()).await;
    let (first, second) = (r#"{"key":"A","price":41.20,"n":[1.50]}"#, r#"{"key":"B","price":-7}"#);
    gateway.publish("pjm", [first, second]).await;
    assert_eq!(said("zones", &gateway).await, "ZONE  LANE    STREAM\npjm   latest  /ws/market/pjm\n");
    let latest = said("latest pjm", &gateway).await;
    let lines: Vec<&str> = latest.lines().collect();
    assert!(lines[0].starts_with("TIME (UTC)           KEY  PRICE"), "{latest}");
    assert!(lines[1].ends_with("  A    41.20  n=[1.50]"), "{latest}");
    assert!(lines[2].ends_with("  B    -7"), "{latest}");

    for args in ["latest pjm --json", "history pjm --json", "history pjm -n 2 --json"] {
        let text = said(args, &gateway).await;
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{args}: {text}");
        assert!(lines[0].contains(r#""key":"A","price":41.20,"n":[1.50]}"#), "{args}: {text}");
    }
    let history = ask("history pjm -n 1", &gateway).await;
    assert_eq!(history.stdout.lines().count(), 2, "{history:?}");
    assert!(history.stdout.lines().next_back().unwrap().starts_with("     2  "), "{history:?}");
    assert!(history.stderr.starts_with("entries 1 to 2 are stored; `tail --since "), "{history:?}");

    // After a position, and more than fits into one page.
    gateway.publish("ercot", (1..=1_500).map(|n| price("A", n))).await;
    let history = ask("history ercot -n 1400 --json", &gateway).await;
    let offsets: Vec<u64> = history.json_lines().iter().map(|e| e["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, (101..=1_500).collect::<Vec<_>>());
    let epoch = gateway.get("/api/zones/ercot/history?limit=1").await.json()["epoch"].clone();
    let after = format!("history ercot --after {}:1490 --json", epoch.as_str().unwrap());
    assert_eq!(ask(&after, &gateway).await.json_lines().len(), 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn latest_and_history_show_events_by_their_market_and_say_what_shows_all_else() {
    let gateway = Running::start(config()).await;
    for args in ["latest event:ticker", "history event:ticker"] {
        let end = ask(args, &gateway).await;
        let nothing = "nobody has published to event:ticker yet\n";
        assert_eq!((end.code, end.stdout.as_str(), end.stderr.as_str()), (Some(0), "", nothing), "{args}");
    }
    for (symbol, price) in [("BTC-USDT", "64250.10"), ("ETH-USDT", "3120.5"), ("BTC-USDT", "64251.00")] {
        let event = json!({ "exchange": "binance", "symbol": symbol, "price": price, "venue": "spot" });
        post_json(gateway.address, "/api/events/ticker", &event).await;
    }
    let latest = said("latest event:ticker", &gateway).await;
    let lines: Vec<&str> = latest.lines().collect();
    assert!(lines[0].starts_with("TIME (UTC)           KEY               "), "{latest}");
    let expected = ["binance:BTC-USDT  64251.00  venue=spot", "binance:ETH-USDT   3120.5   venue=spot"];
    for (line, expected) in lines[1..].iter().zip(expected) {
        assert!(line.ends_with(expected), "{latest}");
    }
    assert_eq!(lines.len(), 3, "{latest}");
    let history = ask("history event:ticker -n 2 --json", &gateway).await;
    let offsets: Vec<u64> = history.json_lines().iter().map(|e| e["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [2, 3]);
    let entry = history.json_lines().remove(1);
    assert_eq!(entry["data"]["price"], "64251.00", "{entry}");

    for (channel, hint) in [
        ("event:ticker:binance:*", "zonewire latest event:ticker`"),
        ("registry:providers", "zonewire tail registry:providers --snapshot`"),
        (&*format!("order:{}", new_order()), "zonewire order show "),
        ("event:tick", "event:"),
    ] {
        let end = ask(&format!("latest {channel}"), &gateway).await;
        assert!(end.code == Some(64) && end.stderr.contains(hint), "{channel}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_and_lists_of_orders_are_printed_with_exact_digits() {
    let gateway = Running::start(external()).await;
    let order = json!({"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5});
    let text = order.to_string().replace("1.5", "1.50");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("order.json");
    std::fs::write(&file, text).unwrap();
    let id = said(&format!("order place --order {}", file.display()), &gateway).await;
    let id = id.trim();

    let list = said("order list", &gateway).await;
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("ORDER  "), "{list}");
    assert!(lines[1].starts_with(id) && lines[1].ends_with("  1.50 SOL -> USDC"), "{list}");
    let list = said("order list --status pending --json", &gateway).await;
    assert!(list.contains(r#""amount":1.50"#), "{list}");
    let shown = said(&format!("order show {id}"), &gateway).await;
    assert!(shown.contains("what      1.50 SOL -> USDC\nstatus    pending"), "{shown}");
    assert!(shown.ends_with("no updates yet\n"), "{shown}");

    let outside = new_order();
    update(gateway.address, &outside, json!({"type": "routing", "progress": 10, "attempt": 1})).await;
    let shown = said(&format!("order show {outside}"), &gateway).await;
    assert!(shown.contains("updates:\n") && shown.contains("  routing     10 %"), "{shown}");
    let whole = said(&format!("order show {outside} --json"), &gateway).await;
    assert_eq!(serde_json::from_str::<Value>(&whole).unwrap()["status"], "routing");
    let unknown = ask(&format!("order show {}", new_order()), &gateway).await;
    assert!(unknown.code == Some(1) && unknown.stderr.contains("(unknown_order)"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_a_sentence_and_stats_are_lines_or_json() {
    let gateway = Running::start(config()).await;
    let sentence = said("health", &gateway).await;
    let expected =
        format!("The gateway at {} is healthy. It serves from memory, has 0 connections", base(&gateway));
    assert!(sentence.starts_with(&expected), "{sentence}");
    let health = said("health --strict --json", &gateway).await;
    assert_eq!(serde_json::from_str::<Value>(&health).unwrap()["status"], "healthy");

    let client = gateway.connect("/ws/market/pjm").await;
    until_stat(&gateway, "/connections/open", 1).await;
    let stats = said("stats", &gateway).await;
    for part in
        ["storage      in-memory, healthy since ", "connections  1 open, 1 since the start, 0 refused"]
    {
        assert!(stats.contains(part), "{stats}");
    }
    let stats = said("stats --json", &gateway).await;
    assert_eq!(serde_json::from_str::<Value>(&stats).unwrap()["connections"]["open"], 1);
    client.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_begins_with_history_and_continues_without_a_gap() {
    let gateway = Running::start(config()).await;
    gateway.publish("pjm", (1..=5).map(|n| price("A", n))).await;
    let mut tail = tail("tail pjm -n 3", &gateway);
    let mut offsets = Vec::new();
    for _ in 0..3 {
        offsets.push(tail.json().await["offset"].as_u64().unwrap());
    }
    gateway.publish("pjm", [r#"{"key":"A","price":41.20}"#]).await;
    let text = tail.line().await;
    assert!(text.contains(r#""offset":6,"#) && text.ends_with(r#""price":41.20}"#), "{text}");
    assert_eq!(offsets, [3, 4, 5]);
    // Ctrl-C ends it, and it prints how to continue.
    tail.signal(Signal::INT);
    let end = tail.ended().await.exits(0);
    let epoch = gateway.get("/api/zones/pjm/history?limit=1").await.json()["epoch"].clone();
    let epoch = epoch.as_str().unwrap();
    assert!(end.stderr.contains(&format!("zone:pjm from {epoch}:5 on\n")), "{end:?}");
    let told = format!("zone:pjm was at {epoch}:6; `--since {epoch}:6` resumes there");
    assert!(end.stderr.contains(&told), "{end:?}");

    let counted = ask("tail pjm -n 2 --count 2", &gateway).await;
    assert_eq!(counted.json_lines().len(), 2, "{counted:?}");
    let since = ask(&format!("tail pjm --since {epoch}:4 --count 2"), &gateway).await;
    let offsets: Vec<u64> = since.json_lines().iter().map(|e| e["offset"].as_u64().unwrap()).collect();
    assert_eq!(offsets, [5, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_begins_with_an_orders_updates_too() {
    let gateway = Running::start(config()).await;
    let order = new_order();
    for progress in [10, 20, 30] {
        update(gateway.address, &order, json!({"type": "routing", "progress": progress, "attempt": 1})).await;
    }
    let end = ask(&format!("tail order:{order} -n 2 --count 2"), &gateway).await;
    let progress: Vec<Value> = end.json_lines().iter().map(|update| update["progress"].clone()).collect();
    assert_eq!(progress, [20, 30], "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_says_that_nobody_has_published_yet_and_suggests_a_similar_name() {
    let gateway = Running::start(config()).await;
    gateway.publish("pjm", [price("A", 1)]).await;
    let mut tail = tail("tail PJM --count 1", &gateway);
    until_stat(&gateway, "/connections/open", 1).await;
    // It must be connected before anybody publishes, or it would print nothing about that.
    until("the channel is followed", async || {
        let stats = gateway.stats().await;
        stats["connections"]["by_zone"]["PJM"] == 1
    })
    .await;
    gateway.publish("PJM", [price("A", 1)]).await;
    assert_eq!(tail.json().await["channel"], "zone:PJM");
    let end = tail.ended().await;
    let told = "nobody has published to zone PJM yet; there is one called pjm, and case matters; waiting";
    assert!(end.stderr.contains(told), "{end:?}");
}

#[tokio::test]
async fn without_a_gateway_every_command_fails_at_once() {
    let port = nowhere();
    let order = new_order();
    let (watch, show) = (format!("order watch {order}"), format!("order show {order}"));
    for args in
        ["tail pjm", "tail pjm -n 5", &watch, &show, "zones", "latest pjm", "history pjm", "stats", "health"]
    {
        let args: Vec<&str> = args.split(' ').collect();
        let end = run(zonewire(&args).args(["--url", &format!("http://127.0.0.1:{port}")])).await;
        assert_eq!(end.code, Some(1), "{args:?}: {end:?}");
        let expected = format!(
            "error: no gateway answers at http://127.0.0.1:{port} (the connection was refused); is one running? (`zonewire demo` starts one)\n"
        );
        assert_eq!(end.stderr, expected, "{args:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_no_gateway_is_described_in_plain_words() {
    // It answers HTTP with something other than JSON, and does not answer TLS or WebSocket.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut server = tokio::task::JoinSet::new();
    server.spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _read = stream.read(&mut request).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
            let _written = stream.write_all(answer).await;
        }
    });
    for (args, scheme, expected) in [
        ("zones", "http", "the answer is not a list of zones; is this a Zonewire gateway"),
        ("stats", "http", "the answer is not a gateway's statistics"),
        ("health", "http", "is not a gateway's health"),
        ("publish pjm --key A --price 1", "http", "the answer is not the number of accepted prices"),
        ("zones", "https", "(the server does not speak TLS; should the address begin with http://?)"),
        ("tail pjm", "https", "(the server does not speak TLS; should the address begin with http://?)"),
        ("tail pjm", "http", "the gateway answered 200 OK"),
    ] {
        let mut args: Vec<&str> = args.split(' ').collect();
        if args[0] == "tail" {
            args.extend(["--tries", "0"]);
        }
        let end = run(zonewire(&args).args(["--url", &format!("{scheme}://{address}")])).await;
        assert!(end.code == Some(1) && end.stderr.contains(expected), "{args:?}: {end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_follows_a_connection_and_an_order_by_their_ids() {
    let level =
        ["--set", "log.level=warn,zonewire::connections=debug,zonewire::orders=debug,zonewire::gateway=info"];
    let orders = ["--set", "orders.paper.step_ms=1", "--set", "orders.paper.failure_rate=0"];
    let (address, process) = listening(|address| {
        let mut command = zonewire(&["serve", "--storage", "memory", "--set", "http.drain_s=0", "--listen"]);
        command.arg(address.to_string()).args(level).args(orders);
        command
    })
    .await;
    let gateway = Program::of(process);
    let mut client = Client::connect(&format!("ws://{address}/ws/market/pjm")).await;
    let connection = client.next_of_type("connection_established").await["connection_id"].clone();
    client.close().await;
    let order = place(address).await;
    let mut updates = Client::connect(&format!("ws://{address}/ws/orders/{order}")).await;
    updates.next_of_type("confirmed").await;
    updates.close().await;
    let cancelled = post_json(address, &format!("/api/orders/{order}/cancel"), &json!({})).await;
    assert_eq!(cancelled.status, 409);
    gateway.signal(Signal::TERM);
    let end = gateway.ended().await;
    let (connection, log) = (connection.as_str().unwrap(), &end.stderr);
    let has = |parts: &[&str]| log.lines().any(|line| parts.iter().all(|part| line.contains(part)));
    let page = format!("open http://{address}/ in a browser");
    for parts in [
        &[page.as_str()][..],
        &["connection opened", connection, "opened_on=\"pjm\"", "source=127.0.0.1"],
        &["connection closed", connection, "reason=\"normal\"", "received=0", "subscriptions=1"],
        &["order placed", &order],
        &["order claimed", &order, "attempt=1"],
        &["order update published", &order, "kind=\"routing\""],
        &["order ended", &order, "kind=\"confirmed\""],
    ] {
        assert!(has(parts), "{parts:?}: {log}");
    }
}
