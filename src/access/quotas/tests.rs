//! Which requests the limits permit, with a stopped clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time;
use zonewire_access::Principal;

use super::*;

/// Tokens of one issuer, with the roles `desk` and `gold`.
struct Realm {
    access: zonewire_access::Access,
    key: zonewire_access::SigningKey,
    quotas: Arc<Quotas>,
    _dir: tempfile::TempDir,
}

impl Realm {
    fn new(change: impl FnOnce(&mut LimitsConfig)) -> Self {
        let mut config = LimitsConfig::default();
        change(&mut config);
        let dir = tempfile::tempdir().unwrap();
        let (file, secret) = (dir.path().join("secret"), "a secret of these tests, long enough to be one");
        std::fs::write(&file, secret).unwrap();
        let auth = zonewire_access::AuthConfig {
            issuers: vec![zonewire_access::IssuerConfig {
                issuer: "tests".to_owned(),
                secret_files: vec![file],
                ..Default::default()
            }],
            ..Default::default()
        };
        let access = zonewire_access::Access::new(auth).unwrap().marking(config.roles.keys().cloned());
        for due in access.due(now_s()) {
            access.given(&due, Ok((secret.to_owned(), None)), now_s());
        }
        let key = zonewire_access::SigningKey::of_secret(secret).unwrap();
        Self { access, key, quotas: Quotas::new(config), _dir: dir }
    }

    fn of(&self, subject: &str, tenant: Option<&str>, role: &str) -> Share {
        let claims = serde_json::json!({
            "iss": "tests", "aud": "zonewire", "sub": subject, "exp": now_s() + 600, "tenant": tenant,
            "roles": [role],
        });
        let principal = self.access.authenticate(&self.key.sign(&claims, None).unwrap()).unwrap();
        self.quotas.share(&principal).unwrap()
    }
}

fn now_s() -> i64 {
    chrono::Utc::now().timestamp()
}

#[tokio::test(start_paused = true)]
async fn each_principal_has_its_rate_and_a_tenant_one_for_all_of_it() {
    for quota in [Quota::Connects, Quota::Messages, Quota::Publishes, Quota::Orders] {
        let realm = Realm::new(|config| {
            let rate = |per_s| Allowances {
                connects_per_s: per_s,
                messages_per_s: per_s,
                publishes_per_s: per_s,
                orders_per_s: per_s,
                ..Allowances::default()
            };
            (config.burst_s, config.principal, config.tenant) = (2, rate(5), rate(8));
            config.roles.insert(
                "gold".to_owned(),
                RoleAllowances {
                    connects_per_s: Some(0),
                    messages_per_s: Some(0),
                    publishes_per_s: Some(0),
                    orders_per_s: Some(0),
                    ..RoleAllowances::default()
                },
            );
        });
        let passed = |share: &Share| (0..100).filter(|_| share.take(quota, 1).is_ok()).count();
        let (alice, again, bob) =
            (realm.of("alice", None, "desk"), realm.of("alice", None, "desk"), realm.of("bob", None, "desk"));
        assert_eq!((passed(&alice), passed(&again), passed(&bob)), (10, 0, 10), "{quota:?}");
        let over = alice.take(quota, 1).unwrap_err();
        assert_eq!((over.scope, over.wait_ms()), (Scope::Principal, 200));
        time::advance(Duration::from_millis(200)).await;
        assert_eq!(passed(&again), 1);
        assert_eq!(passed(&realm.of("carol", None, "gold")), 100, "a role has its own");

        let (of_acme, other, gold) = (
            realm.of("alice", Some("acme"), "desk"),
            realm.of("bob", Some("acme"), "desk"),
            realm.of("carol", Some("acme"), "gold"),
        );
        assert_eq!((passed(&of_acme), passed(&other), passed(&gold)), (10, 6, 0), "{quota:?}");
        assert_eq!(other.take(quota, 1).unwrap_err().scope, Scope::Tenant);
        time::advance(Duration::from_millis(125)).await;
        // What the tenant's limit refused was not taken from the principal's quota.
        assert_eq!((passed(&other), passed(&realm.of("dave", Some("other"), "desk"))), (1, 10));
        let view = realm.quotas.view();
        for scope in Scope::ALL {
            assert!(view.refused[&format!("{}.{}", scope.as_str(), quota.setting())] > 0, "{view:?}");
        }
        assert_eq!((view.principals, view.tenants), (7, 2));
        assert!(view.dry_run.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn connections_and_subscriptions_come_back_when_they_end() {
    let realm = Realm::new(|config| {
        config.principal = Allowances { connections_max: 2, subscriptions_max: 3, ..Allowances::default() };
        config.tenant = Allowances { connections_max: 3, subscriptions_max: 4, ..Allowances::default() };
    });
    let connect = |subject| realm.of(subject, Some("acme"), "desk").connect();
    let (first, second) = (connect("alice").unwrap(), connect("alice").unwrap());
    let over = connect("alice").unwrap_err();
    assert_eq!((over.quota, over.scope), (Quota::Connections, Scope::Principal));
    let third = connect("bob").unwrap();
    assert_eq!(connect("bob").unwrap_err().scope, Scope::Tenant);
    assert_eq!(connect("bob").unwrap_err().scope, Scope::Tenant, "what was refused holds nothing");

    for seat in [&first, &first, &second] {
        seat.subscribe().unwrap();
    }
    assert_eq!(second.subscribe().unwrap_err().scope, Scope::Principal);
    third.subscribe().unwrap();
    assert_eq!(third.subscribe().unwrap_err().scope, Scope::Tenant);
    first.unsubscribe();
    second.subscribe().unwrap();
    drop((first, second));
    let (first, _second) = (connect("alice").unwrap(), connect("alice").unwrap());
    assert_eq!((0..10).filter(|_| first.subscribe().is_ok()).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_dry_run_counts_and_refuses_nothing() {
    let realm = Realm::new(|config| {
        config.dry_run = true;
        config.principal = Allowances {
            connections_max: 1,
            subscriptions_max: 1,
            orders_per_s: 1,
            bytes_out_per_s: 4_096,
            ..Allowances::default()
        };
    });
    let share = || realm.of("alice", None, "desk");
    assert!((0..10).all(|_| share().take(Quota::Orders, 1).is_ok()));
    let (first, second) = (share().connect().unwrap(), share().connect().unwrap());
    assert!(first.subscribe().is_ok() && second.subscribe().is_ok());
    assert!((0..2).all(|_| share().charge(Quota::BytesOut, 1 << 20).is_zero()));
    let view = realm.quotas.view();
    let counted = |quota: Quota| view.dry_run[&format!("principal.{}", quota.setting())];
    assert_eq!((counted(Quota::Orders), counted(Quota::Connections)), (5, 1));
    assert_eq!((counted(Quota::Subscriptions), counted(Quota::BytesOut)), (1, 1));
    assert!(view.refused.is_empty());
    drop((first, second));
    assert!(share().connect().is_ok());
    assert_eq!(realm.quotas.view().dry_run["principal.connections_max"], 1, "all are given back");
}

#[tokio::test(start_paused = true)]
async fn bytes_are_owed_and_paid() {
    let bytes = |per_s| Allowances { bytes_out_per_s: per_s, ..Allowances::default() };
    let realm = Realm::new(|config| {
        (config.burst_s, config.principal, config.tenant) = (1, bytes(10_000), bytes(20_000));
    });
    let share = realm.of("alice", Some("acme"), "desk");
    assert_eq!(share.charge(Quota::BytesOut, 10_000), Duration::ZERO);
    assert_eq!(share.charge(Quota::BytesOut, 5_000), Duration::from_millis(500));
    time::advance(Duration::from_millis(500)).await;
    assert_eq!(share.charge(Quota::BytesOut, 0), Duration::ZERO);
    let other = realm.of("bob", Some("acme"), "desk");
    assert_eq!(other.charge(Quota::BytesOut, 20_000), Duration::from_secs(1), "the longer one counts");
}

#[tokio::test(start_paused = true)]
async fn a_key_that_gets_another_tenant_counts_for_that_one_and_has_what_it_had() {
    let (shown, mut kept) = zonewire_access::make_api_key(zonewire_access::ApiKey {
        subject: "desk".to_owned(),
        tenant: Some("acme".to_owned()),
        ..zonewire_access::ApiKey::default()
    });
    let auth = zonewire_access::AuthConfig { keys_file: Some("unread".into()), ..Default::default() };
    let access = zonewire_access::Access::new(auth).unwrap();
    let two = Allowances { connections_max: 2, ..Allowances::default() };
    let three = Allowances { connections_max: 3, ..two };
    let config = LimitsConfig { principal: three, tenant: two, ..LimitsConfig::default() };
    let quotas = Quotas::new(config);
    let mut seats = Vec::new();
    let mut connect = |tenant: &str, now| {
        kept.tenant = Some(tenant.to_owned());
        let file = zonewire_access::ApiKeyFile { keys: vec![kept.clone()] }.to_toml();
        for due in access.due(now) {
            access.given(&due, Ok((file.clone(), None)), now);
        }
        let seat = quotas.share(&access.authenticate(&shown).unwrap()).unwrap().connect();
        seat.map(|seat| seats.push(seat)).map_err(|over| over.scope)
    };
    let now = now_s();
    assert_eq!([(); 3].map(|()| connect("acme", now)), [Ok(()), Ok(()), Err(Scope::Tenant)]);
    let later = now + 60;
    assert_eq!([(); 2].map(|()| connect("other", later)), [Ok(()), Err(Scope::Principal)]);
    seats.clear();
    assert_eq!(quotas.view().tenants, 2);
}

#[test]
fn nobody_is_limited_who_has_shown_nothing_or_where_nothing_is() {
    let quotas = Quotas::new(LimitsConfig::default());
    assert!(quotas.share(&Principal::unchecked()).is_none());
    let config = LimitsConfig {
        principal: Allowances { orders_per_s: 1, ..Allowances::default() },
        ..LimitsConfig::default()
    };
    assert!(Quotas::new(config).share(&Principal::unchecked()).is_none());
}
