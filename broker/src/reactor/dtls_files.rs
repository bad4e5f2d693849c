//! The files of a CoAP listener's certificates.

use std::io;
use std::path::Path;
use std::sync::Arc;

use dimpl::DtlsCertificate;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;

use crate::reactor::dtls::{Certificates, DtlsDoor, Verify};
use crate::tls::{TlsError, TlsOptions, read, shown_in};

/// What was read, for the doors of all shards.
pub(crate) struct DtlsFiles(Option<Found>);

struct Found {
    own: DtlsCertificate,
    verify: Option<Arc<Verify>>,
    required: bool,
    identifies: bool,
}

impl DtlsFiles {
    /// Reads the first pair, and the authorities of clients; nothing without options.
    ///
    /// # Errors
    /// [`TlsError`], when the files do not make a DTLS.
    pub(crate) fn read(options: Option<&TlsOptions>) -> Result<DtlsFiles, TlsError> {
        let Some(options) = options else {
            return Ok(DtlsFiles(None));
        };
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
        let revoked = options.revoked.as_deref();
        let verify = options
            .client_ca
            .as_deref()
            .map(|authorities| verifier(authorities, revoked))
            .transpose()?;
        Ok(DtlsFiles(Some(Found {
            own,
            verify,
            required: options.client_ca.is_some() && !options.client_optional,
            identifies: options.identity,
        })))
    }

    /// The door of one shard.
    ///
    /// # Errors
    /// When the library refuses the configuration.
    pub(crate) fn door(&self) -> io::Result<DtlsDoor> {
        let certificates = self.0.as_ref().map(|found| Certificates {
            own: found.own.clone(),
            verify: found.verify.clone(),
            required: found.required,
            identifies: found.identifies,
        });
        DtlsDoor::new(certificates).map_err(io::Error::other)
    }
}

/// Believes leaf certificates that an authority signed and did not revoke. The library hands over the leaf alone, so the authority has to have signed it itself.
fn verifier(authorities: &Path, revoked: Option<&Path>) -> Result<Arc<Verify>, TlsError> {
    let mut roots = RootCertStore::empty();
    for authority in read::<CertificateDer<'static>>(authorities, "certificates of authorities")? {
        roots.add(authority).map_err(|error| TlsError::File {
            path: authorities.to_owned(),
            why: error.to_string(),
            expected: "certificates of authorities",
        })?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
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
