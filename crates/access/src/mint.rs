//! Issuing tokens: for experiments, for tests, and for issuers that are no more than a script.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use serde::Serialize;
use serde_json::Value;

use crate::crypto::{install, random};
use crate::keys::{KeysError, secret_bytes};

/// A key that signs tokens.
pub struct SigningKey {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// A secret, for HS256: the whole text, without surrounding white space.
    ///
    /// # Errors
    /// It is too short, or is a key rather than a secret.
    pub fn of_secret(text: &str) -> Result<Self, KeysError> {
        let key = EncodingKey::from_secret(secret_bytes(text)?).map_err(|_empty| KeysError::WeakSecret)?;
        Ok(Self { algorithm: Algorithm::HS256, key })
    }

    /// A private key in PEM: RSA for RS256, P-256 for ES256, Ed25519 for EdDSA.
    ///
    /// # Errors
    /// It is none of these; in words.
    pub fn of_pem(text: &str) -> Result<Self, String> {
        install();
        let expected = "expected a private key in PEM (`-----BEGIN PRIVATE KEY-----`, PKCS #8) of RSA, P-256 or \
                        Ed25519";
        let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_error| expected.to_owned())?;
        let der = der.secret_der();
        // The DER does not tell which type it is, so each is tried by signing.
        let of_kinds = [
            (Algorithm::RS256, EncodingKey::from_rsa_der(der)),
            (Algorithm::ES256, EncodingKey::from_ec_der(der)),
            (Algorithm::EdDSA, EncodingKey::from_ed_der(der)),
        ];
        let mut fitting = of_kinds.into_iter().filter(|(algorithm, key)| {
            jsonwebtoken::encode(&Header::new(*algorithm), &serde_json::json!({}), key).is_ok()
        });
        let (algorithm, key) = fitting.next().ok_or_else(|| expected.to_owned())?;
        Ok(Self { algorithm, key })
    }

    /// The signature of a text, in base64url: for tokens with a custom header.
    ///
    /// # Panics
    /// The key cannot sign; reading it has ruled that out.
    pub fn sign_text(&self, text: &str) -> String {
        install();
        let signed = jsonwebtoken::crypto::sign(text.as_bytes(), &self.key, self.algorithm);
        signed.expect("the key has signed before")
    }

    /// Signs claims without changing them.
    ///
    /// # Errors
    /// The key cannot sign.
    pub fn sign(&self, claims: &impl Serialize, key_id: Option<&str>) -> Result<String, String> {
        install();
        let header = Header { kid: key_id.map(str::to_owned), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|error| error.to_string())
    }
}

/// The claims of a token that the gateway accepts.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Claims {
    /// The issuer.
    pub iss: String,
    /// The audience.
    pub aud: String,
    /// The subject.
    pub sub: String,
    /// When it was issued, in seconds since 1970.
    pub iat: i64,
    /// When it expires, in seconds since 1970.
    pub exp: i64,
    /// The id by which it can be revoked.
    pub jti: String,
    /// The tenant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// The roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<String>,
    /// Rights in addition to those of the roles.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rights: Vec<String>,
}

/// A new secret, of 256 random bits.
pub fn make_secret() -> String {
    URL_SAFE_NO_PAD.encode(random::<32>())
}

/// A new id for a token.
pub fn make_token_id() -> String {
    URL_SAFE_NO_PAD.encode(random::<12>())
}

/// The header and the claims of a token, unverified.
///
/// # Errors
/// It is not a token; in words.
pub fn unverified(token: &str) -> Result<(Value, Value), String> {
    let parts: Vec<&str> = token.split('.').collect();
    let [header, claims, _signature] = parts.as_slice() else {
        return Err(format!("a token has three parts with dots between them; this has {}", parts.len()));
    };
    let read = |name: &str, part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part);
        let value = bytes.ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        value.ok_or_else(|| format!("its {name} is not JSON in base64url"))
    };
    Ok((read("header", header)?, read("claims", claims)?))
}
