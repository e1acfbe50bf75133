//! Small runs of the measurements of access: they must end, and report what they should.

use serde_json::{Value, json};
use zonewire_access::{ApiKey, ApiKeyFile, make_api_key};
use zonewire_kit::dir::TempDir;

use crate::support::{bench, gateway};

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_credential_is_measured_in_each_round() {
    for (rounds, again) in [(2, ""), (1, " --again")] {
        let arguments =
            format!("handshakes --rounds {rounds} --duration 0.2 --warmup 0 --open-concurrency 4{again}");
        let report = bench(&arguments, "").await.unwrap();
        assert_eq!(report["again"], !again.is_empty());
        let kinds = report["kinds"].as_array().unwrap();
        let shown: Vec<&str> = kinds.iter().map(|of| of["shown"].as_str().unwrap()).collect();
        assert_eq!(shown, ["none", "hs256", "es256", "rs256", "eddsa", "key"]);
        for of in kinds {
            assert!(of["opened"].as_u64() > Some(0), "{of}");
            assert_eq!((&of["failed"], &of["failures_by_reason"]), (&json!(0), &json!({})), "{of}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_question_of_access_is_timed() {
    let report = bench("access --questions 2000", "").await.unwrap();
    for (question, expected) in [("authenticate", 6), ("may_subscribe", 5)] {
        let answers = report[question].as_array().unwrap();
        assert_eq!(answers.len(), expected, "{report}");
        assert!(answers.iter().all(|answer| answer["ns"].as_f64() > Some(0.0)), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_and_requests_show_the_token() {
    let directory = TempDir::new().unwrap();
    let (key, kept) = make_api_key(ApiKey {
        name: String::new(),
        sha256: String::new(),
        subject: "bench".to_owned(),
        roles: ["viewer", "publisher", "trader", "operator"].map(str::to_owned).to_vec(),
        rights: Vec::new(),
        tenant: None,
        created_at: 0,
        expires_at: None,
    });
    let file = directory.path().join("keys.toml");
    std::fs::write(&file, ApiKeyFile { keys: vec![kept] }.to_toml()).unwrap();
    let keys_file = format!("auth.keys_file={}", file.display());
    let settings = [&keys_file, "orders.paper.failure_rate=0", "orders.paper.step_ms=0"].map(str::to_owned);
    let gateway = gateway(&settings).await;
    let address = gateway.address;
    let fanout = format!(
        "fanout --url ws://{address}/ws/market/a --publish http://{address}/api/zones/a/prices \
         --subscribers 3 --expect-subscribed --rate 50 --messages 5 --settle 0 --open-timeout 2"
    );
    let report = bench(&fanout, &key).await.unwrap();
    assert_eq!((&report["lost"], &report["received"]), (&json!(0), &report["expected"]), "{report}");
    assert!(bench(&fanout, "").await.unwrap_err().contains("0 of 3 subscribers were ready"));

    let orders = format!("order-throughput --url http://{address} --orders 4 --connections 2");
    assert_eq!(bench(&orders, &key).await.unwrap()["confirmed"], 4);
    assert!(bench(&orders, "").await.unwrap_err().contains("401"));

    let idle = format!("idle --url ws://{address}/ws/market/a --connections 2 --settle 0");
    assert_eq!(bench(&idle, &key).await.unwrap()["held"], 2);
    let refused = bench(&idle, &key.replace('_', "-")).await.unwrap();
    assert_eq!((&refused["opened"], &refused["closed_by_code"]), (&json!(2), &json!({ "4501": 2 })));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attack_is_measured_beside_a_phase_without_one() {
    let arguments = "hostile --attack silence,smuggling --duration 0.3 --many 5";
    let report = bench(arguments, "").await.unwrap();
    assert_eq!(report["published"], report["received"], "{report}");
    assert!(report["peace"]["latency_us"]["p99"].as_f64() > Some(0.0), "{report}");
    let attacks = report["attacks"].as_array().unwrap();
    let names: Vec<&str> = attacks.iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["silence", "smuggling"]);
    for of in attacks {
        assert!(of["rounds"].as_u64() > Some(0) && of["cases"].as_u64() > Some(0), "{of}");
        assert_eq!(of["wrong"], Value::Null, "{of}");
    }
    assert!(
        bench("hostile --attack kindness", "").await.unwrap_err().contains("there is no attack `kindness`")
    );
}
