//! `zonewire replay`: a file on its way to a gateway, and whatever may be wrong with either.

use std::process::Stdio;
use std::sync::{Arc, Mutex};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time;

use crate::support::client::LIMIT;
use crate::support::eventually::until;
use crate::support::gateway::{Running, config};
use crate::support::orders::base;
use crate::support::program::{End, run, zonewire};
use crate::support::scripted::answer;

/// Runs `zonewire replay` on this text.
async fn replay(text: &str, suffix: &str, args: &[&str], url: &str) -> End {
    let file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
    std::fs::write(file.path(), text).unwrap();
    let path = file.path().to_str().unwrap();
    run(zonewire(&["replay", path, "--url", url]).args(args)).await
}

async fn prices(gateway: &Running, zone: &str) -> Vec<Value> {
    let history = gateway.get(&format!("/api/zones/{zone}/history")).await.json();
    history["entries"].as_array().unwrap().iter().map(|entry| entry["price"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_before_a_bad_line_are_published() {
    let gateway = Running::start(config()).await;
    let text = "zone,key,price\nercot,A,1\npjm,A,2\npjm,A,much\npjm,A,4\n";
    let end = replay(text, ".csv", &[], &base(&gateway)).await;
    assert_eq!((end.code, end.stdout.as_str()), (Some(1), "ercot: 1 accepted\npjm: 1 accepted\n"), "{end:?}");
    assert_eq!(end.stderr, "error: line 4: price \"much\" is not a number\n");
    assert_eq!(prices(&gateway, "ercot").await, [1]);
    assert_eq!(prices(&gateway, "pjm").await, [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_lines_may_be_skipped_and_are_counted() {
    let gateway = Running::start(config()).await;
    // Line 3 is malformed, and only the gateway refuses line 4.
    let mut text = "key,price,time\nA,1,\nA,much,\nA,3,2199-01-01T00:00:00Z\nA,4,\nA\n".to_owned();
    let args = ["--zone", "pjm", "--flat-out", "--skip-invalid"];
    let end = replay(&text, ".csv", &args, &base(&gateway)).await;
    assert_eq!((end.code, end.stdout.as_str()), (Some(0), "pjm: 2 accepted\n"), "{end:?}");
    for part in [
        "left out line 3: price \"much\" is not a number\n",
        "left out line 4: `timestamp` is 2199-01-01T00:00:00.000Z, too far ahead",
        "left out line 6: expected 3 columns as in the header, found 1\n",
        "left out 3 invalid lines\n",
    ] {
        assert!(end.stderr.contains(part), "{part}: {end:?}");
    }
    assert_eq!(prices(&gateway, "pjm").await, [1, 4]);

    // Not all of them are printed, and a file with nothing else is an error.
    text = format!("key,price,time\n{}", "A,much,\n".repeat(30));
    let end = replay(&text, ".csv", &args, &base(&gateway)).await;
    assert_eq!((end.code, end.stdout.as_str()), (Some(1), ""), "{end:?}");
    assert_eq!(end.stderr.matches("left out line").count(), 20, "{end:?}");
    assert!(end.stderr.contains("left out 30 invalid lines; the first 20 are above"), "{end:?}");
    assert!(end.stderr.ends_with("error: all of its 30 lines are invalid\n"), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_permanent_refusal_ends_the_replay_and_names_the_line() {
    let gateway = Running::changed(config(), |config| config.channels.keys_per_zone_max = 1).await;
    // The next line would be due in a year.
    let text = "zone,key,price,time\npjm,A,1,2021-01-01\npjm,B,2,2021-01-01\npjm,A,3,2022-01-01\n";
    for args in [&[][..], &["--skip-invalid"]] {
        let end = replay(text, ".csv", args, &base(&gateway)).await;
        assert_eq!((end.code, end.stdout.as_str()), (Some(1), "pjm: 1 accepted\n"), "{end:?}");
        assert!(end.stderr.starts_with("error: zone pjm: line 3: "), "{end:?}");
        assert!(end.stderr.contains("(too_many_keys)"), "{end:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_of_many_formats_are_published_correctly() {
    let gateway = Running::start(config()).await;
    for (zone, suffix, text, args, expected) in [
        (
            "us",
            ".csv",
            "Time;Location;Market;LMP\n01/02/2026 00:05;WEST;RT;41.20\n",
            &[
                "--time-format",
                "%m/%d/%Y %H:%M",
                "--time-zone",
                "America/New_York",
                "--delimiter",
                ";",
                "--key-column",
                "Location",
                "--key-column",
                "Market",
                "--price-column",
                "LMP",
            ][..],
            r#""timestamp":"2026-01-02T05:05:00.000Z","key":"WEST/RT","Location":"WEST","Market":"RT","price":41.20}"#,
        ),
        ("tabs", ".tsv", "key\tprice\nA\t.50\n", &[], r#""key":"A","price":0.50}"#),
        (
            "ndjson",
            ".json",
            "{\"hub\":\"A\",\"price\":\"+1.50\",\"ts\":1610064000.123456}\n",
            &[],
            r#""timestamp":"2021-01-08T00:00:00.123Z","key":"A","price":1.50}"#,
        ),
    ] {
        let end = replay(text, suffix, &[&["--zone", zone], args].concat(), &base(&gateway)).await;
        assert_eq!(end.exits(0).stdout, format!("{zone}: 1 accepted\n"));
        let history = gateway.get(&format!("/api/zones/{zone}/history")).await.body;
        assert!(history.contains(expected), "{zone}: {history}");
    }
    for (text, expected) in [
        ("", "it is empty"),
        ("key,price\n", "no prices in it"),
        ("[{\"key\":\"A\",\"price\":1}]", "`jq -c '.[]' FILE`"),
        ("{\n \"key\": \"A\",\n \"price\": 1\n}\n", "`jq -c . FILE`"),
        ("key;price\nA;1\n", "say --delimiter ';'"),
    ] {
        let end = replay(text, "", &["--zone", "pjm"], &base(&gateway)).await;
        assert!(end.stdout.is_empty() && end.stderr.contains(expected), "{text}: {end:?}");
        assert_eq!(end.code, Some(i32::from(text != "key,price\n")), "{text}: {end:?}");
    }
}

/// Answers one request after the other with the next of these; with an empty status the connection breaks off
/// instead. Stores the bodies of requests.
async fn scripted(
    answers: &'static [(&'static str, &'static str)],
) -> (String, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let received = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&received);
    let mut server = JoinSet::new();
    server.spawn(async move {
        for &(status, body) in answers {
            let (stream, _) = listener.accept().await.unwrap();
            if status.is_empty() {
                drop(stream);
                continue;
            }
            let request = answer(stream, Some((status, "", body))).await;
            log.lock().unwrap().push(request.body);
        }
    });
    (url, received, server)
}

#[tokio::test]
async fn a_busy_or_restarting_gateway_gets_each_line_once() {
    let (url, received, _server) = scripted(&[
        ("503 Service Unavailable", r#"{"code":"shutting_down","detail":"it stops","accepted":1,"line":2}"#),
        ("200 OK", r#"{"accepted":2}"#),
    ])
    .await;
    let end = replay("key,price\nA,1\nA,2\nA,3\n", ".csv", &["--zone", "pjm"], &url).await;
    assert_eq!((end.code, end.stdout.as_str()), (Some(0), "pjm: 3 accepted\n"), "{end:?}");
    for told in ["it stops (shutting_down)", "trying again in"] {
        assert!(end.stderr.contains(told), "{end:?}");
    }
    assert!(!end.stderr.contains("twice"), "{end:?}");
    let line = |n: u8| format!("{{\"key\":\"A\",\"price\":{n}}}\n");
    let sent: String = received.lock().unwrap().concat();
    // However the lines were divided into requests: the first was accepted, and the others were sent once
    // more.
    assert!(sent.ends_with(&(line(2) + &line(3))), "{sent}");
}

#[tokio::test]
async fn lines_are_sent_as_they_are_read_and_possible_repetitions_are_reported() {
    let (url, received, _server) =
        scripted(&[("200 OK", r#"{"accepted":1}"#), ("", ""), ("200 OK", r#"{"accepted":1}"#)]).await;
    let mut command = zonewire(&["replay", "-", "--zone", "pjm", "--url", &url]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"key,price\nA,1\n").await.unwrap();
    until("the first line has come", async || received.lock().unwrap().len() == 1).await;
    stdin.write_all(b"A,2\n").await.unwrap();
    drop(stdin);
    let output = time::timeout(LIMIT, child.wait_with_output()).await.unwrap().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "pjm: 2 accepted\n", "{stderr}");
    assert!(stderr.contains("lines 3 to 3 are sent again, and may be stored twice"), "{stderr}");
    assert_eq!(received.lock().unwrap().last().unwrap(), "{\"key\":\"A\",\"price\":2}\n");
}
