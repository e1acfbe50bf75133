//! The cryptography of tokens, with ring: signatures with the four algorithms, digests, and random bytes.

use std::sync::OnceLock;

use jsonwebtoken::crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error as JwtError, ErrorKind, Result as JwtResult};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey,
};
use ring::{digest, hmac};
use signature::{Error as Refused, Signer, Verifier};

static RING: CryptoProvider = CryptoProvider {
    signer_factory: new_signer,
    verifier_factory: new_verifier,
    // Thumbprints, and JWKs derived from keys; neither is used here.
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes jsonwebtoken use ring, for the whole process. May be called repeatedly.
///
/// # Panics
/// Another provider was installed before, which is a bug in the program.
pub fn install() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        if RING.install_default().is_err() {
            panic!("another cryptography provider was installed for jsonwebtoken before");
        }
    });
}

/// Random bytes from the operating system.
///
/// # Panics
/// The system has none; nothing secret can be made without them.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SystemRandom::new().fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// The SHA-256 of several parts, each prefixed with its length, so that different lists never hash the same
/// bytes.
pub(crate) fn sha256_of(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// The first eight bytes of [`sha256_of`].
pub(crate) fn short_hash(parts: &[&[u8]]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = sha256_of(parts);
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// The error for a key that does not fit the algorithm.
fn wrong_key() -> JwtError {
    ErrorKind::InvalidKeyFormat.into()
}

fn unsupported() -> JwtError {
    ErrorKind::UnsupportedAlgorithm.into()
}

// Verifying

struct RingVerifier {
    algorithm: Algorithm,
    key: DecodingKey,
}

fn new_verifier(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    let family = match algorithm {
        Algorithm::HS256 => AlgorithmFamily::Hmac,
        Algorithm::RS256 => AlgorithmFamily::Rsa,
        Algorithm::ES256 => AlgorithmFamily::Ec,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        _ => return Err(unsupported()),
    };
    // An RSA public key must never be used as an HMAC secret.
    if key.family() != family {
        return Err(wrong_key());
    }
    Ok(Box::new(RingVerifier { algorithm: *algorithm, key: key.clone() }))
}

impl Verifier<Vec<u8>> for RingVerifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Refused> {
        let verified = match (self.algorithm, self.key.kind()) {
            (Algorithm::HS256, DecodingKeyKind::SecretOrDer(secret)) => {
                hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret), message, signature)
            }
            (Algorithm::RS256, DecodingKeyKind::SecretOrDer(der)) => {
                UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).verify(message, signature)
            }
            (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (Algorithm::ES256, DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(message, signature)
            }
            (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(point)) => {
                UnparsedPublicKey::new(&ED25519, point).verify(message, signature)
            }
            _ => return Err(Refused::new()),
        };
        verified.map_err(|_unspecified| Refused::new())
    }
}

impl JwtVerifier for RingVerifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

// Signing

enum Pair {
    Hmac(hmac::Key),
    Rsa(RsaKeyPair),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

struct RingSigner {
    algorithm: Algorithm,
    pair: Pair,
}

/// Private keys are in PKCS #8 (RFC 5208); RSA keys may also be in PKCS #1 (RFC 8017).
fn new_signer(algorithm: &Algorithm, key: &EncodingKey) -> JwtResult<Box<dyn JwtSigner>> {
    let bytes = key.as_bytes();
    let pair = match (algorithm, key.family()) {
        (Algorithm::HS256, AlgorithmFamily::Hmac) => Pair::Hmac(hmac::Key::new(hmac::HMAC_SHA256, bytes)),
        (Algorithm::RS256, AlgorithmFamily::Rsa) => {
            let pair = RsaKeyPair::from_pkcs8(bytes).or_else(|_| RsaKeyPair::from_der(bytes));
            Pair::Rsa(pair.map_err(|error| ErrorKind::InvalidRsaKey(error.to_string()))?)
        }
        (Algorithm::ES256, AlgorithmFamily::Ec) => {
            let pair =
                EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, bytes, &SystemRandom::new());
            Pair::Ec(pair.map_err(|_rejected| ErrorKind::InvalidEcdsaKey)?)
        }
        (Algorithm::EdDSA, AlgorithmFamily::Ed) => {
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes);
            Pair::Ed(pair.map_err(|_rejected| ErrorKind::InvalidEddsaKey)?)
        }
        (Algorithm::HS256 | Algorithm::RS256 | Algorithm::ES256 | Algorithm::EdDSA, _) => {
            return Err(wrong_key());
        }
        _ => return Err(unsupported()),
    };
    Ok(Box::new(RingSigner { algorithm: *algorithm, pair }))
}

impl Signer<Vec<u8>> for RingSigner {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, Refused> {
        match &self.pair {
            Pair::Hmac(key) => Ok(hmac::sign(key, message).as_ref().to_vec()),
            Pair::Ed(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::Ec(pair) => {
                let signed = pair.sign(&SystemRandom::new(), message);
                signed.map(|signature| signature.as_ref().to_vec()).map_err(|_unspecified| Refused::new())
            }
            Pair::Rsa(pair) => {
                let mut out = vec![0; pair.public().modulus_len()];
                let signed = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut out);
                signed.map(|()| out).map_err(|_unspecified| Refused::new())
            }
        }
    }
}

impl JwtSigner for RingSigner {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
