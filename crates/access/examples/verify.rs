//! How long it takes to find out who shows a token: `cargo run --release -p zonewire-access --example verify`.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made has nothing to say")]
#![allow(clippy::disallowed_types, reason = "nobody stops the clock here")]

use std::hint::black_box;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use zonewire_access::{
    Access, Action, ApiKey, ApiKeyFile, AuthConfig, Claims, IssuerConfig, Resource, SigningKey, make_api_key,
    make_secret, make_token_id, may,
};

const ROUNDS: u32 = 20_000;

fn main() {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let secret = make_secret();
    let keys = [
        ("HS256", SigningKey::of_secret(&secret).unwrap(), secret.as_str()),
        (
            "RS256",
            SigningKey::of_pem(include_str!("../tests/keys/rsa1.pem")).unwrap(),
            include_str!("../tests/keys/rsa1.pub.pem"),
        ),
        (
            "ES256",
            SigningKey::of_pem(include_str!("../tests/keys/ec.pem")).unwrap(),
            include_str!("../tests/keys/ec.pub.pem"),
        ),
        (
            "EdDSA",
            SigningKey::of_pem(include_str!("../tests/keys/ed.pem")).unwrap(),
            include_str!("../tests/keys/ed.pub.pem"),
        ),
    ];
    let unread = || vec!["unread".into()];
    for (name, key, verifying) in keys {
        let is_secret = name == "HS256";
        let issuer = IssuerConfig {
            issuer: "i".to_owned(),
            secret_files: if is_secret { unread() } else { Vec::new() },
            keys: if is_secret { Vec::new() } else { vec!["unread".to_owned()] },
            ..IssuerConfig::default()
        };
        let access = Access::new(AuthConfig { issuers: vec![issuer], ..AuthConfig::default() }).unwrap();
        let due = access.due(now);
        access.given(&due[0], Ok((verifying.to_owned(), None)), now);
        let claims = Claims {
            iss: "i".to_owned(),
            aud: "zonewire".to_owned(),
            sub: "alice".to_owned(),
            iat: now,
            exp: now + 3_600,
            jti: make_token_id(),
            roles: vec!["trader".to_owned()],
            ..Claims::default()
        };
        let token = key.sign(&claims, None).unwrap();
        say(name, || drop(black_box(access.authenticate(black_box(&token)).unwrap())));
        if is_secret {
            let alice = access.authenticate(&token).unwrap();
            say("may", || {
                let _answer =
                    black_box(may(&alice, Action::Subscribe, Resource::Channel(black_box("zone:pjm"))));
            });
        }
    }
    let (key, kept) = make_api_key(ApiKey {
        name: String::new(),
        sha256: String::new(),
        subject: "feed".to_owned(),
        roles: vec!["publisher".to_owned()],
        rights: Vec::new(),
        tenant: None,
        created_at: now,
        expires_at: None,
    });
    let config = AuthConfig { keys_file: Some("unread".into()), ..AuthConfig::default() };
    let access = Access::new(config).unwrap();
    let due = access.due(now);
    access.given(&due[0], Ok((ApiKeyFile { keys: vec![kept] }.to_toml(), None)), now);
    say("API key", || drop(black_box(access.authenticate(black_box(&key)).unwrap())));
}

fn say(what: &str, mut act: impl FnMut()) {
    let begun = Instant::now();
    for _ in 0..ROUNDS {
        act();
    }
    println!("{what:8} {:8.3} µs", begun.elapsed().as_secs_f64() * 1e6 / f64::from(ROUNDS));
}
