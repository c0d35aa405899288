//! Client certificates and the tenants that they name.

use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::client::danger::HandshakeSignatureValid;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Tag, Tagged};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::request::PeerTenant;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");
/// Maximum number of bytes of a tenant's name.
const MAX_NAME_BYTES: usize = 128;

/// Field of a client certificate that names the tenant. The certificate must have exactly one such field, of 1 to 128
/// visible ASCII characters; otherwise it is not accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientTenant {
    /// The common name (CN) of the subject.
    #[default]
    CommonName,
    /// The DNS name among the subject's alternative names.
    DnsName,
    /// The URI among the subject's alternative names, as in SPIFFE.
    Uri,
}

/// Returns the tenant that a certificate names. Does not verify the certificate.
pub(super) fn tenant(certificate: &CertificateDer<'_>, field: ClientTenant) -> Result<PeerTenant, &'static str> {
    let certificate = Certificate::from_der(certificate).map_err(|_| "the certificate cannot be read")?;
    let subject = &certificate.tbs_certificate;
    let mut names: Vec<String> = Vec::new();
    if field == ClientTenant::CommonName {
        let attributes = subject.subject.0.iter().flat_map(|relative| relative.0.iter());
        for attribute in attributes.filter(|attribute| attribute.oid == COMMON_NAME) {
            let text = match attribute.value.tag() {
                Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => attribute.value.value(),
                _ => return Err("its common name is not text"),
            };
            names.push(String::from_utf8(text.to_vec()).map_err(|_| "its common name is not text")?);
        }
    } else {
        let alternatives = subject.get::<SubjectAltName>().map_err(|_| "its alternative names cannot be read")?;
        for name in alternatives.into_iter().flat_map(|(_, SubjectAltName(names))| names) {
            match (field, name) {
                (ClientTenant::DnsName, GeneralName::DnsName(name)) => names.push(name.to_string()),
                (ClientTenant::Uri, GeneralName::UniformResourceIdentifier(name)) => names.push(name.to_string()),
                _ => {}
            }
        }
    }
    let [name] = &*names else { return Err("it does not have exactly one name of the kind that names the tenant") };
    if name.is_empty() || name.len() > MAX_NAME_BYTES || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("the tenant's name in it is not 1 to 128 visible ASCII characters");
    }
    Ok(PeerTenant::new(name.as_str(), expiry(&certificate)))
}

pub(super) fn expiry(certificate: &Certificate) -> SystemTime {
    certificate.tbs_certificate.validity.not_after.to_system_time()
}

/// Verifies client certificates with webpki, and requires that they name a tenant. Clients without a certificate are
/// accepted: authentication is decided for each request.
#[derive(Debug)]
pub(super) struct NamedClients {
    pub(super) chains: Arc<dyn ClientCertVerifier>,
    pub(super) field: ClientTenant,
}

impl ClientCertVerifier for NamedClients {
    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chains.verify_client_cert(end_entity, intermediates, now)?;
        if let Err(reason) = tenant(end_entity, self.field) {
            tracing::debug!(reason, "a client certificate names no tenant");
            return Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure));
        }
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}
