//! Verifies client certificates, and reads the names in them.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::asn1::{Any, ObjectIdentifier};
use x509_cert::der::{self, Decode as _, Tag, Tagged as _};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::time::Time;

/// The longest certificate chain, in bytes: a session keeps all of it for as long as it lasts.
const CHAIN_BYTES_MAX: usize = 16 << 10;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Like the inner verifier, but refuses chains that are too long.
#[derive(Debug)]
pub(super) struct Verifying(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Verifying {
    fn offer_client_auth(&self) -> bool {
        self.0.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.0.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let len = end_entity.len() + intermediates.iter().map(|other| other.len()).sum::<usize>();
        if len > CHAIN_BYTES_MAX {
            return Err(CertificateError::ApplicationVerificationFailure.into());
        }
        self.0.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What a certificate says about its holder.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Said {
    /// The names, each with its kind, as in `auth.certificates`.
    pub(super) names: Vec<String>,
    /// The first and the last second in which it is valid, since 1970.
    pub(super) not_before: i64,
    pub(super) not_after: i64,
}

impl Said {
    /// Parses a certificate.
    ///
    /// # Errors
    /// It does not have the form of RFC 5280; then no part of it counts.
    pub(super) fn read(certificate: &CertificateDer<'_>) -> Result<Self, der::Error> {
        let read = Certificate::from_der(certificate)?;
        let read = read.tbs_certificate();
        let mut names = Vec::new();
        // With several common names, none of them is unambiguous.
        let mut common = read.subject().iter().filter(|attribute| attribute.oid == COMMON_NAME);
        if let (Some(attribute), None) = (common.next(), common.next())
            && let Some(text) = text_of(&attribute.value)
        {
            names.push(format!("CN:{text}"));
        }
        if let Some((_, SubjectAltName(others))) = read.get_extension::<SubjectAltName>()? {
            names.extend(others.iter().filter_map(|other| match other {
                GeneralName::DnsName(name) => Some(format!("DNS:{}", name.as_str())),
                GeneralName::UniformResourceIdentifier(name) => Some(format!("URI:{}", name.as_str())),
                GeneralName::Rfc822Name(name) => Some(format!("email:{}", name.as_str())),
                _ => None,
            }));
        }
        let validity = read.validity();
        Ok(Self { names, not_before: seconds(&validity.not_before), not_after: seconds(&validity.not_after) })
    }
}

/// The text of an attribute, if its encoding is unambiguous.
fn text_of(value: &Any) -> Option<&str> {
    let is_clear = matches!(value.tag(), Tag::Utf8String | Tag::PrintableString | Tag::Ia5String);
    is_clear.then(|| std::str::from_utf8(value.value()).ok())?
}

fn seconds(time: &Time) -> i64 {
    i64::try_from(time.to_unix_duration().as_secs()).unwrap_or(i64::MAX)
}

/// When a certificate expires, in seconds since 1970.
///
/// # Errors
/// It does not have the form of RFC 5280.
pub(super) fn not_after(certificate: &CertificateDer<'_>) -> Result<i64, der::Error> {
    Ok(seconds(&Certificate::from_der(certificate)?.tbs_certificate().validity().not_after))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;
    use zonewire_kit::certificates::{Certificates, Issued};

    use super::*;

    fn issued(subject: &str, names: &str) -> Option<CertificateDer<'static>> {
        if !Certificates::can_be_made() {
            return zonewire_kit::skip("ZONEWIRE_TEST_REQUIRE_REDIS", "there is no openssl");
        }
        let certificates = Certificates::make().unwrap();
        certificates.issue("one", &Issued { subject, names, from_s: -60, until_s: 60 }).unwrap();
        Some(CertificateDer::from_pem_file(certificates.file("one.pem")).unwrap())
    }

    #[test]
    fn names_are_read_with_their_kinds() {
        let names =
            "DNS:*.example.com,email:a@example.com,URI:spiffe://e/f,IP:10.0.0.1,RID:1.2.3,URI:spiffe://e/g";
        for (subject, names, expected) in [
            ("/CN=feed-1", "", &["CN:feed-1"][..]),
            ("/O=desk/CN=f\u{fc}nf", "", &["CN:f\u{fc}nf"]),
            ("/CN=one/CN=two", "", &[]),
            ("/O=nobody", "DNS:CN.x", &["DNS:CN.x"]),
            (
                "/CN=a",
                names,
                &["CN:a", "DNS:*.example.com", "email:a@example.com", "URI:spiffe://e/f", "URI:spiffe://e/g"],
            ),
        ] {
            let Some(certificate) = issued(subject, names) else { return };
            let said = Said::read(&certificate).unwrap();
            assert_eq!(said.names, expected, "{subject} {names}");
            let lasts = said.not_after - said.not_before;
            assert!((118..=122).contains(&lasts), "{lasts}");
            assert_eq!(not_after(&certificate).unwrap(), said.not_after);
        }
    }

    #[test]
    fn what_is_no_certificate_has_no_names() {
        let Some(certificate) = issued("/CN=a", "DNS:a,URI:b") else { return };
        for len in 0..certificate.len() {
            assert!(Said::read(&certificate[..len].to_vec().into()).is_err(), "{len}");
        }
        for at in 0..certificate.len() {
            for flip in [0x01, 0x20, 0x80, 0xff] {
                let mut changed = certificate.to_vec();
                changed[at] ^= flip;
                // Any outcome is fine, as long as nothing panics.
                let _read = Said::read(&changed.into());
            }
        }
    }
}
