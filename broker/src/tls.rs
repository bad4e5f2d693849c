//! What TLS is made of: files to a configuration, and certificates to names.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use authcache::EntityId;
use authcache::feed::{CertificatePrint, ShownCertificate};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, ServerConfig};

/// The TLS of a listener.
#[derive(Clone, Debug, Default)]
pub struct TlsOptions {
    /// Chains of certificates in PEM, each with the file of its private key. Whoever asks for a
    /// server by name gets the first that has the name, everybody else the first.
    pub certificates: Vec<(PathBuf, PathBuf)>,
    /// Authorities in PEM that may have signed a client's certificate; without them none is asked
    /// for.
    pub client_ca: Option<PathBuf>,
    /// Whether a client without a certificate is let in.
    pub client_optional: bool,
    /// Lists of revoked certificates in PEM.
    pub revoked: Option<PathBuf>,
    /// Whether a client's certificate says which client it is: its name has to be the client's id.
    pub identity: bool,
    /// Whether TLS 1.2 is refused.
    pub only_1_3: bool,
}

impl TlsOptions {
    /// All files that it names.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter();
        let pairs = pairs.flat_map(|(chain, key)| [chain.as_path(), key.as_path()]);
        pairs
            .chain(self.client_ca.as_deref())
            .chain(self.revoked.as_deref())
    }
}

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is not what it should be.
    #[error("{path}: {why}; expected {expected} in PEM")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What it should hold.
        expected: &'static str,
    },
    /// A chain and a key do not belong together, or cannot be used.
    #[error("{chain} and {key}: {why}; expected a certificate and its own private key")]
    Pair {
        /// The chain.
        chain: PathBuf,
        /// The key.
        key: PathBuf,
        /// What is wrong.
        why: rustls::Error,
    },
    /// Nothing to show to clients.
    #[error("no certificate; expected at least one with its key")]
    NoCertificate,
    /// The parts do not fit together.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// Reads all files into a configuration.
///
/// Tickets are sealed under a key of this configuration: what was agreed on under older files
/// cannot be resumed, so a revoked certificate does not come back by a ticket.
pub(crate) fn load(options: &TlsOptions, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let setup = |error: rustls::Error| TlsError::Setup(error.to_string());
    let mut keys = Vec::new();
    for (chain, key) in &options.certificates {
        let certificates: Vec<CertificateDer<'static>> = read(chain, "certificates")?;
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File {
            path: key.clone(),
            why: error.to_string(),
            expected: "a private key",
        })?;
        let pair = CertifiedKey::from_der(certificates, secret, &provider);
        keys.push(Arc::new(pair.map_err(|why| TlsError::Pair {
            chain: chain.clone(),
            key: key.clone(),
            why,
        })?));
    }
    if keys.is_empty() {
        return Err(TlsError::NoCertificate);
    }
    let versions: &[&rustls::SupportedProtocolVersion] = if options.only_1_3 {
        &[&rustls::version::TLS13]
    } else {
        &[&rustls::version::TLS13, &rustls::version::TLS12]
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(setup)?;
    let builder = match &options.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for authority in read::<CertificateDer<'static>>(path, "certificates of authorities")? {
                roots.add(authority).map_err(|error| TlsError::File {
                    path: path.clone(),
                    why: error.to_string(),
                    expected: "certificates of authorities",
                })?;
            }
            let mut verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
            if let Some(path) = &options.revoked {
                let lists: Vec<CertificateRevocationListDer<'static>> =
                    read(path, "lists of revoked certificates")?;
                verifier = verifier.with_crls(lists).only_check_end_entity_revocation();
            }
            if options.client_optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier
                .build()
                .map_err(|error| TlsError::Setup(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(keys)));
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(setup)?;
    config.send_tls13_tickets = 1;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(Arc::new(config))
}

pub(crate) fn read<T: PemObject>(path: &Path, expected: &'static str) -> Result<Vec<T>, TlsError> {
    let wrong = |why: String| TlsError::File {
        path: path.to_owned(),
        why,
        expected,
    };
    let parts = T::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let parts: Vec<T> = parts
        .collect::<Result<_, _>>()
        .map_err(|error| wrong(error.to_string()))?;
    if parts.is_empty() {
        return Err(wrong("none inside".to_owned()));
    }
    Ok(parts)
}

/// Certificates by the server name that a client asks for (RFC 6066, 3).
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let asked = hello
            .server_name()
            .and_then(|name| ServerName::try_from(name).ok());
        let has = |key: &Arc<CertifiedKey>, name: &ServerName<'_>| {
            key.cert.first().is_some_and(|certificate| {
                webpki::EndEntityCert::try_from(certificate)
                    .is_ok_and(|cert| cert.verify_is_valid_for_subject_name(name).is_ok())
            })
        };
        asked
            .and_then(|name| self.0.iter().find(|key| has(key, &name)))
            .or(self.0.first())
            .map(Arc::clone)
    }
}

/// What a client's certificate says of it.
pub(crate) fn shown_in(der: &CertificateDer<'_>) -> Option<Box<ShownCertificate>> {
    let certificate = webpki::EndEntityCert::try_from(der).ok()?;
    Some(Box::new(ShownCertificate {
        named: name_in(&certificate).and_then(EntityId::from_text),
        print: CertificatePrint::of(der),
        claimed: None,
    }))
}

/// The name that a client's certificate gives it: a URI `urn:uuid:…` or one whose last part is a
/// name, a DNS name, or the Common Name, in this order.
fn name_in<'a>(certificate: &'a webpki::EndEntityCert<'a>) -> Option<&'a str> {
    let uri = certificate.valid_uri_names().next();
    let uri = uri.map(|uri| uri.rsplit([':', '/']).next().unwrap_or(uri));
    uri.or_else(|| certificate.valid_dns_names().next())
        .or_else(|| common_name(certificate.subject()))
}

/// The last Common Name in a subject: a sequence of sets of pairs of an object identifier and
/// text (RFC 5280, 4.1.2.4), in DER.
fn common_name(mut subject: &[u8]) -> Option<&str> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
    let mut found = None;
    // The outer sequence's head may have been taken off.
    if let Some((SEQUENCE, inner, [])) = element(subject) {
        subject = inner;
    }
    while let Some((SET, mut set, rest)) = element(subject) {
        while let Some((SEQUENCE, pair, rest)) = element(set) {
            if let Some((0x06, COMMON_NAME, value)) = element(pair)
                // UTF8String, PrintableString, IA5String.
                && let Some((0x0C | 0x13 | 0x16, text, _)) = element(value)
            {
                found = std::str::from_utf8(text).ok();
            }
            set = rest;
        }
        subject = rest;
    }
    found
}

/// The first element of DER: its tag, its content, and what follows.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let [tag, len, rest @ ..] = der else {
        return None;
    };
    let (len, rest) = match *len {
        len @ 0..=0x7F => (usize::from(len), rest),
        0x81 => (usize::from(*rest.first()?), &rest[1..]),
        0x82 => (
            usize::from(u16::from_be_bytes(*rest.first_chunk()?)),
            &rest[2..],
        ),
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(len)?;
    Some((*tag, content, rest))
}
