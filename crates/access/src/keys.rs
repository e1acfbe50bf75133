//! Keys that verify tokens: secrets, public keys in PEM, and JWK Sets (RFC 7517). The type of a key
//! determines its algorithm; what a token claims never does.

use std::fmt;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject as _;
use serde_json::Value;
use spki::ObjectIdentifier;
use spki::der::asn1::{AnyRef, BitStringRef, UintRef};
use spki::der::{Decode as _, Reader as _, SliceReader};

use crate::crypto::short_hash;

/// The shortest secret, in bytes: the length of an HMAC-SHA-256 (RFC 7518, section 3.2).
pub const SECRET_LEN_MIN: usize = 32;

/// The most keys of one source. All that could have signed a token are tried.
pub const KEYS_MAX: usize = 32;

/// The longest text of a source of keys, in bytes.
pub const KEYS_BYTES_MAX: usize = 256 << 10;

/// The shortest RSA modulus, in bytes (RFC 7518, section 3.3).
const RSA_LEN_MIN: usize = 256;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// A key and the one algorithm that it verifies.
#[derive(Clone)]
pub(crate) struct Key {
    /// Its `kid` in a JWK Set. Only compared.
    pub(crate) id: Option<String>,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: DecodingKey,
    /// Identifies the key independently of where, and in what form, it was read.
    pub(crate) number: KeyNumber,
}

/// Identifies a key without revealing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct KeyNumber(u32);

impl KeyNumber {
    /// For principals whose credential is not signed, such as API keys.
    pub(crate) const NONE: Self = Self(0);

    /// For the authorities that verify certificates, which have generations.
    pub(crate) fn of_authorities(number: u32) -> Self {
        Self(number)
    }

    /// `bytes` are the secret, the RSA modulus, or the point on the curve.
    fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        Self(short_hash(&[b"key", format!("{algorithm:?}").as_bytes(), bytes]) as u32)
    }
}

impl Key {
    fn new(algorithm: Algorithm, key: DecodingKey, bytes: &[u8]) -> Self {
        Self { id: None, algorithm, key, number: KeyNumber::of(algorithm, bytes) }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, algorithm, key: _, number: _ } = self;
        f.debug_struct("Key").field("id", id).field("algorithm", algorithm).finish_non_exhaustive()
    }
}

/// What is wrong with a text of keys. Contains nothing of the keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeysError {
    /// It is longer than allowed.
    #[error("is longer than {KEYS_BYTES_MAX} bytes")]
    TooLong,
    /// A secret is too short, or empty.
    #[error("expected a secret of at least {SECRET_LEN_MIN} bytes, such as `openssl rand -base64 32` gives")]
    WeakSecret,
    /// A key or a key set is where a secret belongs.
    #[error(
        "expected a secret that only the gateway and the issuer know; this is a key, so name it in `keys`"
    )]
    NotASecret,
    /// A secret or a private key is where public keys belong.
    #[error("holds {0}; only public keys belong here")]
    Private(&'static str),
    /// It is neither PEM nor a JWK Set.
    #[error("expected public keys in PEM (`-----BEGIN PUBLIC KEY-----`), or a JWK Set (`{{\"keys\":[…]}}`)")]
    Unreadable,
    /// None of its keys is usable.
    #[error("has no key for RS256 (2048 bits or more), ES256 or EdDSA (Ed25519){0}")]
    None(String),
    /// There are more keys than allowed.
    #[error("has more than {KEYS_MAX} keys")]
    TooMany,
}

/// A secret with which an issuer signs by HS256: the whole text, without surrounding white space.
///
/// # Errors
/// It is too short, or is a key rather than a secret.
pub(crate) fn read_secret(text: &str) -> Result<Key, KeysError> {
    let secret = secret_bytes(text)?;
    let key = DecodingKey::from_secret(secret).map_err(|_empty| KeysError::WeakSecret)?;
    Ok(Key::new(Algorithm::HS256, key, secret))
}

/// The bytes of a secret, for HS256.
pub(crate) fn secret_bytes(text: &str) -> Result<&[u8], KeysError> {
    let secret = text.trim();
    // If a public key were accepted as a secret, everybody who knows it could forge tokens.
    if secret.starts_with("-----BEGIN") || secret.starts_with('{') {
        return Err(KeysError::NotASecret);
    }
    let is_one_character = secret.bytes().all(|b| Some(b) == secret.bytes().next());
    if secret.len() < SECRET_LEN_MIN || is_one_character {
        return Err(KeysError::WeakSecret);
    }
    Ok(secret.as_bytes())
}

/// Public keys, in PEM or as a JWK Set.
///
/// # Errors
/// There is no usable key, or something other than public keys.
pub(crate) fn read_public(text: &str) -> Result<Vec<Key>, KeysError> {
    if text.len() > KEYS_BYTES_MAX {
        return Err(KeysError::TooLong);
    }
    let text = text.trim_start_matches('\u{feff}').trim();
    let keys = if text.starts_with('{') { read_jwks(text)? } else { read_pem(text)? };
    if keys.len() > KEYS_MAX {
        return Err(KeysError::TooMany);
    }
    Ok(keys)
}

fn read_pem(text: &str) -> Result<Vec<Key>, KeysError> {
    if text.contains("PRIVATE KEY-----") {
        return Err(KeysError::Private("a private key"));
    }
    let mut keys = Vec::new();
    for found in SubjectPublicKeyInfoDer::pem_slice_iter(text.as_bytes()) {
        let found = found.map_err(|_error| KeysError::Unreadable)?;
        keys.push(of_spki(&found).ok_or_else(|| KeysError::None(String::new()))?);
    }
    if keys.is_empty() { Err(KeysError::Unreadable) } else { Ok(keys) }
}

/// A public key in X.509 `SubjectPublicKeyInfo` (RFC 5280, section 4.1.2.7).
fn of_spki(der: &[u8]) -> Option<Key> {
    let info = spki::SubjectPublicKeyInfo::<AnyRef<'_>, BitStringRef<'_>>::from_der(der).ok()?;
    let bytes = info.subject_public_key.as_bytes()?;
    let (algorithm, key) = match info.algorithm.oid {
        RSA => {
            let modulus = rsa_modulus(bytes).filter(|modulus| modulus.len() >= RSA_LEN_MIN)?;
            return Some(Key::new(Algorithm::RS256, DecodingKey::from_rsa_der(bytes), modulus));
        }
        EC if info.algorithm.parameters_oid().ok()? == P256 && is_p256(bytes) => {
            (Algorithm::ES256, DecodingKey::from_ec_der(bytes))
        }
        ED25519 if bytes.len() == 32 => (Algorithm::EdDSA, DecodingKey::from_ed_der(bytes)),
        _ => return None,
    };
    Some(Key::new(algorithm, key, bytes))
}

/// The modulus of a key in PKCS #1 (RFC 8017, appendix A.1.1), without leading zeros.
fn rsa_modulus(der: &[u8]) -> Option<&[u8]> {
    let mut reader = SliceReader::new(der).ok()?;
    let modulus = reader.sequence(|numbers| {
        let modulus = UintRef::decode(numbers)?;
        let _exponent = UintRef::decode(numbers)?;
        Ok::<_, spki::der::Error>(modulus.as_bytes())
    });
    modulus.ok()
}

fn without_zeros(number: &[u8]) -> &[u8] {
    &number[number.iter().take_while(|byte| **byte == 0).count()..]
}

fn is_p256(point: &[u8]) -> bool {
    point.len() == 65 && point[0] == 4
}

fn read_jwks(text: &str) -> Result<Vec<Key>, KeysError> {
    let document: Value = serde_json::from_str(text).map_err(|_error| KeysError::Unreadable)?;
    let listed = document.get("keys").and_then(Value::as_array).ok_or(KeysError::Unreadable)?;
    if listed.len() > KEYS_MAX {
        return Err(KeysError::TooMany);
    }
    let (mut keys, mut left_out) = (Vec::new(), 0);
    for value in listed {
        if value.get("kty").and_then(Value::as_str) == Some("oct") {
            return Err(KeysError::Private("a secret (`\"kty\":\"oct\"`)"));
        }
        if value.get("d").is_some() {
            return Err(KeysError::Private("a private key (`\"d\"`)"));
        }
        // Sets may contain keys for other purposes and of unknown types, which are ignored: RFC 7517,
        // section 5.
        match serde_json::from_value::<Jwk>(value.clone()).ok().and_then(|jwk| of_jwk(&jwk)) {
            Some(key) => keys.push(key),
            None => left_out += 1,
        }
    }
    if keys.is_empty() {
        let others = if left_out > 0 { format!("; {left_out} of other kinds") } else { String::new() };
        return Err(KeysError::None(others));
    }
    Ok(keys)
}

fn of_jwk(jwk: &Jwk) -> Option<Key> {
    let common = &jwk.common;
    let may_verify = common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|list| list.contains(&KeyOperations::Verify));
    let key = DecodingKey::from_jwk(jwk).ok()?;
    let bytes = key.try_get_as_bytes().unwrap_or_default();
    let (algorithm, number) = match (&jwk.algorithm, key.kind()) {
        (AlgorithmParameters::RSA(_), jsonwebtoken::DecodingKeyKind::RsaModulusExponent { n, .. })
            if without_zeros(n).len() >= RSA_LEN_MIN =>
        {
            (Algorithm::RS256, KeyNumber::of(Algorithm::RS256, without_zeros(n)))
        }
        (AlgorithmParameters::EllipticCurve(of), _) if of.curve == EllipticCurve::P256 && is_p256(bytes) => {
            (Algorithm::ES256, KeyNumber::of(Algorithm::ES256, bytes))
        }
        (AlgorithmParameters::OctetKeyPair(of), _)
            if of.curve == EllipticCurve::Ed25519 && bytes.len() == 32 =>
        {
            (Algorithm::EdDSA, KeyNumber::of(Algorithm::EdDSA, bytes))
        }
        _ => return None,
    };
    let says_so = common.key_algorithm.is_none_or(|said| Algorithm::try_from(said).ok() == Some(algorithm));
    (may_verify && says_so).then(|| Key { id: common.key_id.clone(), algorithm, key, number })
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    use super::*;

    fn der_of(pem: &str) -> Vec<u8> {
        let body: String = pem.lines().filter(|line| !line.starts_with("---")).collect();
        STANDARD.decode(body).unwrap()
    }

    #[test]
    fn a_key_has_the_same_number_in_every_form() {
        let pem = include_str!("../tests/keys/ec.pub.pem");
        let der = der_of(pem);
        let (x, y) = der[der.len() - 64..].split_at(32);
        let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
        let ec = serde_json::json!({ "kty": "EC", "crv": "P-256", "kid": "a", "x": x, "y": y });
        let pem_rsa = include_str!("../tests/keys/rsa1.pub.pem");
        let der = der_of(pem_rsa);
        let n = URL_SAFE_NO_PAD.encode(&der[der.len() - 5 - 256..der.len() - 5]);
        let rsa = serde_json::json!({ "kty": "RSA", "n": n, "e": "AQAB" });
        let jwks = serde_json::json!({ "keys": [ec, rsa] }).to_string();
        let numbers =
            |text: &str| read_public(text).unwrap().iter().map(|key| key.number).collect::<Vec<_>>();
        assert_eq!(numbers(&jwks), [numbers(pem), numbers(pem_rsa)].concat());
        assert_ne!(numbers(pem_rsa), numbers(include_str!("../tests/keys/rsa2.pub.pem")));
        assert!(format!("{:?}", read_public(pem).unwrap()).contains("ES256"));
    }

    #[test]
    fn a_key_of_an_elliptic_curve_is_of_the_curve_that_it_names() {
        let number = |len: usize| URL_SAFE_NO_PAD.encode(vec![7; len]);
        let of = |kty: &str, curve: &str, len: usize| {
            let mut key = serde_json::json!({ "kty": kty, "crv": curve, "kid": "a", "x": number(len) });
            if kty == "EC" {
                key["y"] = number(len).into();
            }
            read_public(&serde_json::json!({ "keys": [key] }).to_string())
                .map(|keys| keys.iter().map(|key| key.algorithm).collect::<Vec<_>>())
        };
        assert_eq!(of("OKP", "Ed25519", 32), Ok(vec![Algorithm::EdDSA]));
        assert_eq!(of("EC", "P-256", 32), Ok(vec![Algorithm::ES256]));
        for (kty, curve, len) in [
            ("OKP", "Ed25519", 31),
            ("OKP", "Ed25519", 33),
            ("OKP", "P-256", 32),
            ("EC", "P-256", 31),
            ("EC", "P-384", 32),
            ("EC", "P-384", 48),
        ] {
            assert!(of(kty, curve, len).is_err(), "{kty} {curve} {len}");
        }
        // The same in X.509: what is shorter by a byte, with the lengths around it as they are to be.
        let mut der = der_of(include_str!("../tests/keys/ed.pub.pem"));
        assert!(of_spki(&der).is_some());
        assert_eq!((der[1], der[10]), (42, 33));
        (der[1], der[10]) = (41, 32);
        der.pop();
        assert!(of_spki(&der).is_none());
    }
}
