//! Where a broker listens, and through which layers it is spoken with.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// What lies between MQTT and the socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Transport {
    /// Nothing.
    Tcp,
    /// TLS.
    Tls,
    /// WebSocket messages.
    Ws,
    /// WebSocket messages over TLS.
    Wss,
}

impl Transport {
    /// Its scheme in an address.
    pub const fn scheme(self) -> &'static str {
        match self {
            Transport::Tcp => "mqtt",
            Transport::Tls => "mqtts",
            Transport::Ws => "ws",
            Transport::Wss => "wss",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Transport::Tcp => 1883,
            Transport::Tls => 8883,
            Transport::Ws => 8083,
            Transport::Wss => 8084,
        }
    }

    fn is_tls(self) -> bool {
        matches!(self, Transport::Tls | Transport::Wss)
    }
}

/// What is believed and shown in a TLS handshake.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub struct TlsFiles {
    /// Authorities in PEM that the broker's certificate is checked against.
    pub ca: Option<PathBuf>,
    /// Checks nothing of the broker's certificate.
    pub insecure: bool,
    /// Chain in PEM that is shown to the broker.
    pub certificate: Option<PathBuf>,
    /// Its private key in PEM.
    pub key: Option<PathBuf>,
}

/// Where a broker listens, and how it is spoken with.
#[derive(Clone)]
pub struct Endpoint {
    /// Its address.
    pub address: SocketAddr,
    /// The layers.
    pub transport: Transport,
    /// Its name, for TLS and WebSocket.
    pub(crate) host: String,
    /// Path of a WebSocket.
    pub(crate) path: String,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// What it was read from, for processes that read it again.
    pub(crate) source: (String, TlsFiles),
}

impl Endpoint {
    /// MQTT over plain TCP.
    pub fn tcp(address: SocketAddr) -> Endpoint {
        Endpoint {
            address,
            transport: Transport::Tcp,
            host: address.ip().to_string(),
            path: String::new(),
            tls: None,
            source: (address.to_string(), TlsFiles::default()),
        }
    }

    /// Reads `HOST:PORT` or `SCHEME://HOST:PORT/PATH`, with the schemes mqtt (tcp), mqtts (ssl,
    /// tls), ws and wss. The usual port of the scheme may be left out.
    ///
    /// # Errors
    /// It is no such address, its host is unknown, or a file of `files` cannot be used.
    pub fn parse(text: &str, files: &TlsFiles) -> Result<Endpoint, Error> {
        let fault = |why: &str| {
            Error::Plan(format!(
                "{text:?} is no address of a broker: {why}; expected HOST:PORT or one of \
                 mqtt://, mqtts://, ws://, wss:// before it"
            ))
        };
        let (scheme, rest) = text.split_once("://").unwrap_or(("mqtt", text));
        let transport = match scheme {
            "mqtt" | "tcp" => Transport::Tcp,
            "mqtts" | "ssl" | "tls" => Transport::Tls,
            "ws" => Transport::Ws,
            "wss" => Transport::Wss,
            _ => return Err(fault("the scheme is unknown")),
        };
        let (place, path) = match rest.split_once('/') {
            Some((place, path)) => (place, format!("/{path}")),
            None => (rest, "/mqtt".to_owned()),
        };
        let (host, port) = match place.rsplit_once(':') {
            Some((host, port)) if !host.ends_with(':') && !port.ends_with(']') => {
                let port = port.parse().map_err(|_| fault("the port is no number"))?;
                (host, port)
            }
            _ => (place, transport.port()),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let found = (host, port).to_socket_addrs();
        let address = found
            .ok()
            .and_then(|mut found| found.next())
            .ok_or_else(|| fault("the host is unknown"))?;
        let tls = transport.is_tls().then(|| client_config(files));
        Ok(Endpoint {
            address,
            transport,
            host: host.to_owned(),
            path,
            tls: tls.transpose()?,
            source: (text.to_owned(), files.clone()),
        })
    }

    /// The address with its scheme.
    pub fn url(&self) -> String {
        format!("{}://{}", self.transport.scheme(), self.address)
    }

    pub(crate) fn is_plain(&self) -> bool {
        self.transport == Transport::Tcp
    }

    pub(crate) fn is_websocket(&self) -> bool {
        matches!(self.transport, Transport::Ws | Transport::Wss)
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url())
    }
}

pub(crate) fn client_config(files: &TlsFiles) -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = |why: rustls::Error| Error::Plan(format!("TLS cannot be set up: {why}"));
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(tls)?;
    let builder = if files.insecure {
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
    } else {
        let Some(ca) = &files.ca else {
            return Err(Error::Plan(
                "TLS needs --tls-ca FILE with the authority of the broker's certificate, or \
                 --tls-insecure to check nothing"
                    .into(),
            ));
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca)? {
            roots.add(certificate).map_err(tls)?;
        }
        builder.with_root_certificates(roots)
    };
    let config = match (&files.certificate, &files.key) {
        (Some(certificate), Some(key)) => {
            let shown = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| unreadable(key, &error.to_string()))?;
            builder
                .with_client_auth_cert(certificates(certificate)?, shown)
                .map_err(tls)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => {
            return Err(Error::Plan(
                "a certificate to show needs both --tls-certificate and --tls-key".into(),
            ));
        }
    };
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(unreadable(file, "no certificate in PEM is in it")),
        Ok(found) => Ok(found),
        Err(error) => Err(unreadable(file, &error.to_string())),
    }
}

fn unreadable(file: &Path, why: &str) -> Error {
    Error::File {
        path: file.to_owned(),
        why: why.to_owned(),
    }
}

/// Believes every certificate: for brokers under test whose authority nobody knows.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_and_without_scheme_port_and_path() {
        // text; transport, address, path
        let cases = [
            ("127.0.0.1:2000", Transport::Tcp, "127.0.0.1:2000", "/mqtt"),
            ("127.0.0.1", Transport::Tcp, "127.0.0.1:1883", "/mqtt"),
            ("mqtt://[::1]:2000", Transport::Tcp, "[::1]:2000", "/mqtt"),
            ("tcp://[::1]", Transport::Tcp, "[::1]:1883", "/mqtt"),
            ("ws://127.0.0.1", Transport::Ws, "127.0.0.1:8083", "/mqtt"),
            (
                "ws://127.0.0.1:80/x/y",
                Transport::Ws,
                "127.0.0.1:80",
                "/x/y",
            ),
        ];
        for (text, transport, address, path) in cases {
            let endpoint = Endpoint::parse(text, &TlsFiles::default()).unwrap();
            assert_eq!(endpoint.transport, transport, "{text}");
            assert_eq!(endpoint.address.to_string(), address, "{text}");
            assert_eq!(endpoint.path, path, "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_is_expected() {
        let insecure = TlsFiles {
            insecure: true,
            ..TlsFiles::default()
        };
        assert!(Endpoint::parse("wss://127.0.0.1", &insecure).is_ok());
        let missing = TlsFiles {
            ca: Some("/nowhere/ca.pem".into()),
            ..TlsFiles::default()
        };
        for (text, files, expected) in [
            ("http://127.0.0.1:1", &insecure, "mqtt://"),
            ("127.0.0.1:x", &insecure, "no number"),
            ("no.such.host.invalid:1", &insecure, "unknown"),
            ("mqtts://127.0.0.1", &TlsFiles::default(), "--tls-ca"),
            ("mqtts://127.0.0.1", &missing, "/nowhere/ca.pem"),
        ] {
            let error = Endpoint::parse(text, files).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
