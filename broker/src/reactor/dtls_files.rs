//! The files of a CoAP listener's certificates.

use std::io;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use dimpl::DtlsCertificate;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;
use rustls::{RootCertStore, SignatureScheme};

use crate::reactor::dtls::{Certificates, DtlsDoor, Verify};
use crate::tls::{TlsError, TlsOptions, read, shown_in};

/// What was read for the doors of all shards. Whoever begins a handshake gets the certificates of
/// that moment.
pub(crate) struct DtlsFiles {
    name: String,
    options: Option<TlsOptions>,
    current: Arc<ArcSwapOption<Certificates>>,
}

impl DtlsFiles {
    /// Reads the first pair, and the authorities of clients; nothing without options.
    ///
    /// # Errors
    /// [`TlsError`], when the files do not make a DTLS.
    pub(crate) fn open(name: &str, options: Option<&TlsOptions>) -> Result<DtlsFiles, TlsError> {
        let current = options.map(load).transpose()?;
        Ok(DtlsFiles {
            name: name.to_owned(),
            options: options.cloned(),
            current: Arc::new(ArcSwapOption::from_pointee(current)),
        })
    }

    /// The door of one shard.
    ///
    /// # Errors
    /// When the library refuses the configuration.
    pub(crate) fn door(&self) -> io::Result<DtlsDoor> {
        DtlsDoor::new(Arc::clone(&self.current)).map_err(io::Error::other)
    }

    /// The files it was made of.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        self.options.iter().flat_map(TlsOptions::files)
    }

    /// Reads the files again; with files that are wrong the old ones stay in force.
    pub(crate) fn reload(&self) {
        let listener = &self.name;
        match self.options.as_ref().map(load) {
            None => {}
            Some(Ok(certificates)) => {
                self.current.store(Some(Arc::new(certificates)));
                tracing::info!(listener, "certificates were read again");
            }
            Some(Err(error)) => {
                tracing::error!(listener, %error, "the old certificates stay in force");
            }
        }
    }
}

impl std::fmt::Debug for DtlsFiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DtlsFiles")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn load(options: &TlsOptions) -> Result<Certificates, TlsError> {
    let (chain, key) = options
        .certificates
        .first()
        .ok_or(TlsError::NoCertificate)?;
    let certificates: Vec<CertificateDer<'static>> = read(chain, "certificates")?;
    let leaf = certificates.first().ok_or(TlsError::NoCertificate)?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| TlsError::File {
        path: key.clone(),
        why: error.to_string(),
        expected: "a private key of an elliptic curve",
    })?;
    let own = DtlsCertificate {
        certificate: leaf.to_vec(),
        private_key: secret.secret_der().to_vec(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    check(certificates, secret, &provider).map_err(|why| TlsError::Pair {
        chain: chain.clone(),
        key: key.clone(),
        why,
    })?;
    let revoked = options.revoked.as_deref();
    let verify = options
        .client_ca
        .as_deref()
        .map(|authorities| verifier(authorities, revoked, provider))
        .transpose()?;
    let required = options.client_ca.is_some() && !options.client_optional;
    Certificates::new(own, verify, required, options.identity)
        .map_err(|error| TlsError::Setup(error.to_string()))
}

/// A key that is the certificate's own, and one that the library can sign with.
fn check(
    chain: Vec<CertificateDer<'static>>,
    secret: PrivateKeyDer<'static>,
    provider: &CryptoProvider,
) -> Result<(), rustls::Error> {
    let pair = CertifiedKey::from_der(chain, secret, provider)?;
    let curves = [
        SignatureScheme::ECDSA_NISTP256_SHA256,
        SignatureScheme::ECDSA_NISTP384_SHA384,
    ];
    match pair.key.choose_scheme(&curves) {
        Some(_) => Ok(()),
        None => Err(rustls::Error::General(
            "neither of P-256 nor of P-384".to_owned(),
        )),
    }
}

/// Believes leaf certificates that an authority signed and did not revoke. The library hands over
/// the leaf alone, so the authority has to have signed it itself.
fn verifier(
    authorities: &Path,
    revoked: Option<&Path>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<Verify>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in read::<CertificateDer<'static>>(authorities, "certificates of authorities")? {
        roots.add(authority).map_err(|error| TlsError::File {
            path: authorities.to_owned(),
            why: error.to_string(),
            expected: "certificates of authorities",
        })?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    if let Some(path) = revoked {
        let lists: Vec<CertificateRevocationListDer<'static>> =
            read(path, "lists of revoked certificates")?;
        builder = builder.with_crls(lists).only_check_end_entity_revocation();
    }
    let verifier = builder
        .build()
        .map_err(|error| TlsError::Setup(error.to_string()))?;
    Ok(Arc::new(move |leaf: &[u8]| {
        let leaf = CertificateDer::from(leaf.to_vec());
        let believed = verifier.verify_client_cert(&leaf, &[], UnixTime::now());
        believed.ok().and_then(|_| shown_in(&leaf))
    }))
}
