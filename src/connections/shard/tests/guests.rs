//! Clients whose rights change during their upgrade.

use std::sync::Arc;

use tempfile::TempDir;
use tokio::task::LocalSet;
use zonewire_access::{ApiKey, ApiKeyFile, make_api_key};

use super::house::House;
use crate::access::{AuthConfig, Gate, LimitsConfig, Named};
use crate::connections::config::ConnectionsConfig;
use crate::connections::shard::Opening;
use crate::model::NodeId;
use crate::storage::{MemoryBackend, MemoryConfig, Retention, SharedBackend};

/// A shard with authentication, its gate, and an API key with its name.
async fn guarded() -> (House, Arc<Gate>, (String, String), TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("keys.toml");
    let (key, kept) = make_api_key(ApiKey {
        name: String::new(),
        sha256: String::new(),
        subject: "alice".to_owned(),
        roles: vec!["viewer".to_owned()],
        rights: Vec::new(),
        tenant: None,
        created_at: 0,
        expires_at: None,
    });
    let name = kept.name.clone();
    std::fs::write(&file, ApiKeyFile { keys: vec![kept] }.to_toml()).unwrap();
    let config = AuthConfig { keys_file: Some(file), ..AuthConfig::default() };
    let (store, _sweeping) = MemoryBackend::new(Retention::default(), MemoryConfig::default());
    let (backend, node): (SharedBackend, NodeId) = (Arc::new(store), NodeId::random());
    let gate = Gate::open(&config, &LimitsConfig::default(), node, Arc::clone(&backend)).await.unwrap();
    let house = House::guarded(backend, node, ConnectionsConfig::default(), Arc::clone(&gate));
    (house, gate, (key, name), directory)
}

fn market() -> Opening {
    Opening::Market { zone: "a".parse().unwrap(), since: None, snapshot: false }
}

#[tokio::test]
async fn who_is_revoked_while_its_upgrade_is_under_way_is_not_let_in() {
    let in_house = async {
        let (house, gate, (key, name), _directory) = guarded().await;
        let principal = gate.authenticate(&key).unwrap();
        let mut stays = house.connect_as(market(), Arc::clone(&principal)).await;
        assert_eq!(stays.next().await["subject"], "alice");
        assert_eq!(stays.next().await["type"], "subscribed");
        // No connection is there to be checked: the test is about the one that comes next.
        gate.revoke(Named::Key, &name, "test").await.unwrap();
        let mut late = house.connect_as(market(), principal).await;
        let (before, code) = late.until_close().await;
        assert_eq!((before[0]["code"].as_str(), code), (Some("invalid_token"), 4501), "{before:?}");
        assert!(before.iter().all(|message| message["type"] != "subscribed"), "{before:?}");
    };
    LocalSet::new().run_until(in_house).await;
}
