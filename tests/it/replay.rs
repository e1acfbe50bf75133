//! Many clients that resume from the same position at once.

use futures_util::future::join_all;

use crate::support::client::Client;
use crate::support::gateway::{Running, config, price};

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_many_clients_resume_with_is_read_once() {
    const CLIENTS: u64 = 200;
    const PRICES: u64 = 700;
    let gateway = Running::start(config()).await;
    gateway.publish("pjm", (1..=PRICES).map(|n| price("A", n))).await;
    let history = gateway.get("/api/zones/pjm/history?limit=1").await.json();
    let url = gateway.url(&format!("/ws/market/pjm?since={}:0", history["epoch"].as_str().unwrap()));
    let come_back = async || {
        let mut client = Client::connect(&url).await;
        let subscribed = client.next_of_type("subscribed").await;
        assert_eq!((&subscribed["recovered"], &subscribed["offset"]), (&true.into(), &0.into()));
        for n in 1..=PRICES {
            let text = client.next_text().await;
            assert!(text.contains(&format!(r#""offset":{n},"#)), "{n}: {text}");
        }
    };
    join_all((0..CLIENTS).map(|_| come_back())).await;
    let messages = gateway.stats().await["messages"].clone();
    let (given, read) = (messages["replays"].as_u64().unwrap(), messages["replay_reads"].as_u64().unwrap());
    assert_eq!(given, CLIENTS * 3, "pages of 300");
    // A page is read again for clients that come seconds later.
    assert!((3..=30).contains(&read), "{read} reads of 3 pages for {CLIENTS} clients");
    assert_eq!(messages["replayed"], CLIENTS * PRICES);
}
