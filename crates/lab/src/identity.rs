//! Keys and tokens for the gateways under test.

use anyhow::anyhow;
use chrono::Utc;
use zonewire_access::{ApiKey, ApiKeyFile, Claims, SigningKey, make_api_key, make_token_id};

/// A new API key, and the file with which a gateway verifies it.
pub(crate) fn api_key(subject: &str, roles: &[&str], rights: &[String]) -> (String, String) {
    let (key, stored) = make_api_key(ApiKey {
        name: String::new(),
        sha256: String::new(),
        subject: subject.to_owned(),
        roles: roles.iter().copied().map(str::to_owned).collect(),
        rights: rights.to_vec(),
        tenant: None,
        created_at: Utc::now().timestamp(),
        expires_at: None,
    });
    (key, ApiKeyFile { keys: vec![stored] }.to_toml())
}

/// A token of this issuer, signed with the key, and the token's id.
pub(crate) fn token(
    key: &SigningKey,
    issuer: &str,
    subject: &str,
    role: &str,
    lifetime_s: i64,
) -> anyhow::Result<(String, String)> {
    let (now, jti) = (Utc::now().timestamp(), make_token_id());
    let claims = Claims {
        iss: issuer.to_owned(),
        aud: "zonewire".to_owned(),
        sub: subject.to_owned(),
        iat: now,
        exp: now + lifetime_s,
        jti: jti.clone(),
        roles: vec![role.to_owned()],
        ..Claims::default()
    };
    Ok((key.sign(&claims, None).map_err(|problem| anyhow!(problem))?, jti))
}
