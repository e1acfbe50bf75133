//! Probes of the parsers of tokens, keys and rights.

use std::sync::LazyLock;

use serde_json::Value;
use zonewire_access::{
    Access, ApiKeyFile, AuthConfig, Given, IssuerConfig, Kind, Refused, Right, SigningKey, TOKEN_LEN_MAX,
};

use crate::support::probing::{text, told};

const SECRET: &str = "a secret of the probes, long enough to be one";

const ISSUER: &str = "https://id.example/";

/// Tokens are checked against this machine's clock, so the probes use it too.
fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// An access state with an issuer that has a secret, one with public keys, and a file of API keys; only the
/// secret has been loaded.
fn access() -> Access {
    let issuer = |name: &str| IssuerConfig { issuer: name.to_owned(), ..IssuerConfig::default() };
    let issuers = vec![
        IssuerConfig { secret_files: vec!["unread".into()], ..issuer(ISSUER) },
        IssuerConfig { keys: vec!["unread".to_owned()], ..issuer("https://other.example/") },
    ];
    let config = AuthConfig { issuers, keys_file: Some("unread".into()), ..AuthConfig::default() };
    Access::new(config).expect("settings")
}

/// Tokens as given; input that is a JSON object of claims is signed first.
pub(super) fn tokens(bytes: &[u8]) {
    static ACCESS: LazyLock<Access> = LazyLock::new(|| {
        let access = access();
        let places = access.due(now());
        assert_eq!(access.given(&places[0], Ok((SECRET.to_owned(), None)), now()), Given::News);
        access
    });
    let Some(shown) = text(bytes) else { return };
    let refused = ACCESS.authenticate(shown).expect_err("nobody has signed it");
    told(&refused.to_string());
    assert!(shown.len() <= TOKEN_LEN_MAX || matches!(refused, Refused::TooLong | Refused::UnknownApiKey));
    // `exp` counts from now in the corpus, so that the stored inputs do not expire.
    let Ok(mut claims) = serde_json::from_str::<Value>(shown) else { return };
    if let Some(in_s) = claims.get("exp").and_then(Value::as_i64) {
        claims["exp"] = now().saturating_add(in_s).into();
    }
    let key = SigningKey::of_secret(SECRET).expect("a secret");
    let token = key.sign(&claims, None).expect("a secret signs anything");
    let principal = match ACCESS.authenticate(&token) {
        Ok(principal) => principal,
        Err(refused) => return told(&refused.to_string()),
    };
    let of = |name: &str| claims.get(name).and_then(Value::as_str);
    assert_eq!((principal.kind(), of("iss")), (Kind::Token, Some(ISSUER)));
    let subject = principal.subject().expect("somebody");
    assert_eq!(of("sub"), Some(subject));
    assert!((1..=128).contains(&subject.len()) && !subject.chars().any(char::is_control), "{subject:?}");
    let expires_at = principal.expires_at().expect("each token ends");
    assert!((now() - 60..=now() + 86_400 + 60).contains(&expires_at), "{expires_at}");
    assert_eq!(principal.tenant().is_some(), of("tenant").is_some());
    assert_eq!(*ACCESS.authenticate(&token).expect("as before"), *principal);
    // Changing a single character must make the token invalid.
    let last = token.len() - 2;
    let mut other = token.into_bytes();
    other[last] = if other[last] == b'A' { b'B' } else { b'A' };
    let other = String::from_utf8(other).expect("ASCII");
    assert_eq!(ACCESS.authenticate(&other).err(), Some(Refused::Signature));
}

/// The contents of a key source: secrets, PEM, JWK Sets, API keys.
pub(super) fn keys(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let (access, now) = (access(), now());
    // In order: the secret, the public keys, and the file of API keys.
    let places = access.due(now);
    assert_eq!(access.given(&places[0], Ok((SECRET.to_owned(), None)), now), Given::News);
    let claims = serde_json::json!({"iss": ISSUER, "aud": "zonewire", "sub": "alice", "exp": now + 60});
    let holds = |secret: &str| {
        let token = SigningKey::of_secret(secret).expect("a secret").sign(&claims, None).expect("signed");
        access.authenticate(&token).is_ok()
    };
    for (n, place) in places.iter().enumerate() {
        match (n, access.given(place, Ok((text.to_owned(), None)), now)) {
            // The new secret has replaced the old one.
            (0, Given::News) => assert!(holds(text) && holds(SECRET) == (text.trim() == SECRET)),
            (0, Given::Same) => assert_eq!(text, SECRET),
            (_, Given::Problem { problem, .. }) => {
                told(&problem);
                assert!(n > 0 || holds(SECRET), "the previous keys stay in effect");
            }
            _ => {}
        }
    }
    if let Ok(file) = ApiKeyFile::read(text) {
        assert_eq!(ApiKeyFile::read(&file.to_toml()).as_ref(), Ok(&file));
        for key in &file.keys {
            let forged = format!("zwk_{}_{}", key.name, key.sha256);
            assert_eq!(access.authenticate(&forged).err(), Some(Refused::UnknownApiKey));
        }
    }
}

/// Names, and rights that contain names.
pub(super) fn names(bytes: &[u8]) {
    crate::protocol::probes::names(bytes);
    match text(bytes).map(str::parse::<Right>) {
        Some(Ok(right)) => {
            let written = right.to_string();
            assert_eq!(written.parse(), Ok(right), "{written}");
        }
        Some(Err(invalid)) => told(&invalid.to_string()),
        None => {}
    }
}
