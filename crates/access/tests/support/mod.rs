//! Issuers and the tokens that they sign.
#![allow(clippy::unwrap_used, dead_code, missing_docs, unreachable_pub, reason = "shared by several tests")]

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::{Value, json};
use zonewire_access::{Access, AuthConfig, Given, IssuerConfig, SigningKey};

pub const ISSUER: &str = "https://id.example/";
pub const SECRET: &str = "a secret of the tests, long enough to be one";
pub const OTHER_SECRET: &str = "another secret of the tests, as long as that";

pub fn now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// An hour after the first call.
#[allow(non_snake_case)]
pub fn EXP() -> i64 {
    static EXP: std::sync::OnceLock<i64> = std::sync::OnceLock::new();
    *EXP.get_or_init(|| now() + 3_600)
}

pub fn issuer(keys: usize, secrets: usize) -> IssuerConfig {
    IssuerConfig {
        issuer: ISSUER.to_owned(),
        keys: vec!["unread".to_owned(); keys],
        secret_files: vec!["unread".into(); secrets],
        ..IssuerConfig::default()
    }
}

/// One issuer with these keys.
pub fn access_with(public: &[&str], secrets: &[&str]) -> Access {
    let issuers = vec![issuer(public.len(), secrets.len())];
    let access = Access::new(AuthConfig { issuers, ..AuthConfig::default() }).unwrap();
    given_all(access, &[public, secrets].concat())
}

/// The outcome of a text of keys at an issuer's only source.
pub fn given(public: bool, text: &str) -> Given {
    let issuers = vec![issuer(usize::from(public), usize::from(!public))];
    let access = Access::new(AuthConfig { issuers, ..AuthConfig::default() }).unwrap();
    access.given(&access.due(0)[0], Ok((text.to_owned(), None)), 0)
}

pub fn given_all(access: Access, texts: &[&str]) -> Access {
    let due = access.due(now());
    assert_eq!(due.len(), texts.len());
    for (due, text) in due.iter().zip(texts) {
        assert_eq!(access.given(due, Ok(((*text).to_owned(), None)), now()), Given::News);
    }
    access
}

/// Valid claims, except for `change`; fields changed to null are left out.
pub fn claims(change: Value) -> Value {
    let mut claims = json!({
        "iss": ISSUER, "aud": "zonewire", "sub": "alice", "exp": EXP(), "iat": now() - 1, "roles": ["trader"],
    });
    for (name, value) in change.as_object().unwrap() {
        claims[name] = value.clone();
    }
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

pub fn base64(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

pub fn hs256(secret: &str, claims: &Value) -> String {
    SigningKey::of_secret(secret).unwrap().sign(claims, None).unwrap()
}

/// Signed with a secret that no honest issuer has, or with a text that is not valid claims.
pub fn hs256_of_text(secret: impl AsRef<[u8]>, claims: &str) -> String {
    let signed = format!("{}.{}", base64(&json!({"alg": "HS256"})), URL_SAFE_NO_PAD.encode(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_ref()), signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
}

/// With a hand-made header; the key is an RSA key.
pub fn signed_by_hand(header: &Value, claims: &Value, key: &SigningKey) -> String {
    zonewire_access::install();
    let signed = format!("{}.{}", base64(header), base64(claims));
    let signature = key.sign_text(&signed);
    format!("{signed}.{signature}")
}

pub fn pem_bytes(pem: &str) -> Vec<u8> {
    let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
    STANDARD.decode(body).unwrap()
}

/// An RSA public key as a JWK.
pub fn rsa_jwk(pem: &str, id: &str) -> Value {
    // For 2048 bits: the DER ends with the modulus and the exponent, 65537.
    let der = pem_bytes(pem);
    let modulus = &der[der.len() - 5 - 256..der.len() - 5];
    let n = URL_SAFE_NO_PAD.encode(modulus);
    json!({"kty": "RSA", "kid": id, "use": "sig", "alg": "RS256", "n": n, "e": "AQAB"})
}

pub fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}
