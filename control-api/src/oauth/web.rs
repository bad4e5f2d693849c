//! Requests to servers that the operator named: bounded in time, bytes and number, and no further
//! than the address that was asked.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long one request may take, from the look-up of the name to the last byte.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer: tokens and profiles have a few kilobytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Why there is no answer.
#[derive(Debug, Error)]
pub(crate) enum WebError {
    #[error("it did not answer in time")]
    Silent,
    #[error("the connection failed: {0}")]
    Io(#[from] std::io::Error),
    #[error("it does not speak HTTP: {0}")]
    Http(#[from] hyper::Error),
    #[error("it answered {0}")]
    Status(StatusCode),
    #[error("its answer is too long, cut, or not JSON")]
    Answer,
}

/// Where a request goes: `https://…`, or `http://…` on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    path: String,
}

impl Endpoint {
    /// Reads a URL; none if it is none, has a user in it, or would send secrets in the clear to
    /// another machine.
    pub(crate) fn parse(url: &str) -> Option<Endpoint> {
        let uri: Uri = url.parse().ok()?;
        let authority = uri.authority()?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let here = host == "localhost"
            || host
                .parse::<std::net::IpAddr>()
                .is_ok_and(|ip| ip.is_loopback());
        let secure = match uri.scheme_str()? {
            "https" => true,
            "http" if here => false,
            _ => return None,
        };
        if host.is_empty() || authority.as_str().contains('@') || url.contains('#') {
            return None;
        }
        let port = match authority.port_u16() {
            Some(port) => port,
            // What stands behind a colon is no port.
            None if authority.as_str() != authority.host() => return None,
            None if secure => 443,
            None => 80,
        };
        Some(Endpoint {
            secure,
            host,
            port,
            authority: authority.to_string(),
            path: uri.path_and_query()?.to_string(),
        })
    }
}

/// What is sent.
pub(crate) struct Ask<'a> {
    pub(crate) endpoint: &'a Endpoint,
    /// `Basic …` or `Bearer …`.
    pub(crate) authorization: Option<String>,
    /// Fields of a form; a GET without.
    pub(crate) form: Option<String>,
}

/// Asks one provider. Cheap to clone.
#[derive(Clone)]
pub(crate) struct WebClient(Arc<ClientConfig>);

impl WebClient {
    /// A client that believes the authorities of the Web, and those in a file besides.
    ///
    /// # Errors
    /// The file is not one of certificates.
    pub(crate) fn new(authorities: Option<&Path>) -> Result<WebClient, String> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = authorities {
            let wrong = |why: &dyn std::fmt::Display| {
                format!(
                    "{}: {why}; expected certificates of authorities in PEM",
                    path.display()
                )
            };
            let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path)
                .map_err(|error| wrong(&error))?
                .collect();
            let found = found.map_err(|error| wrong(&error))?;
            if found.is_empty() {
                return Err(wrong(&"none inside"));
            }
            for authority in found {
                roots.add(authority).map_err(|error| wrong(&error))?;
            }
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(WebClient(Arc::new(config)))
    }

    /// Sends a request and reads the JSON that is answered. A redirect is an answer like any other
    /// that is not 200.
    pub(crate) async fn json(&self, ask: Ask<'_>) -> Result<Value, WebError> {
        let asked = tokio::time::timeout(TIMEOUT, self.exchange(ask)).await;
        asked.map_err(|_| WebError::Silent)?
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Value, WebError> {
        let endpoint = ask.endpoint;
        let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
        stream.set_nodelay(true)?;
        if !endpoint.secure {
            return over(stream, ask).await;
        }
        let name = ServerName::try_from(endpoint.host.clone()).map_err(std::io::Error::other)?;
        let connector = TlsConnector::from(self.0.clone());
        over(connector.connect(name, stream).await?, ask).await
    }
}

async fn over<S>(stream: S, ask: Ask<'_>) -> Result<Value, WebError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let method = match ask.form {
        Some(_) => Method::POST,
        None => Method::GET,
    };
    let mut request = Request::builder()
        .method(method)
        .uri(&ask.endpoint.path)
        .header(header::HOST, &ask.endpoint.authority)
        .header(header::ACCEPT, "application/json")
        .header(header::USER_AGENT, "turnpike")
        .header(header::CONNECTION, "close");
    if let Some(authorization) = &ask.authorization {
        request = request.header(header::AUTHORIZATION, authorization);
    }
    if ask.form.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    }
    let body = Full::new(Bytes::from(ask.form.unwrap_or_default()));
    let request = request.body(body).map_err(|_| WebError::Answer)?;
    let answered = async {
        let answer = sender.send_request(request).await?;
        if answer.status() != StatusCode::OK {
            return Err(WebError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX);
        let body = body.collect().await.map_err(|_| WebError::Answer)?;
        serde_json::from_slice(&body.to_bytes()).map_err(|_| WebError::Answer)
    };
    // The connection is driven beside the request, and ends with it.
    let mut connection = std::pin::pin!(connection);
    let mut answered = std::pin::pin!(answered);
    let mut open = true;
    loop {
        tokio::select! {
            answer = answered.as_mut() => return answer,
            // Whatever ended it is told to the request.
            _ = connection.as_mut(), if open => open = false,
        }
    }
}

/// Text as it stands in a query or form (RFC 3986, 2.3).
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// Names and values as a query or form.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{name}={}", encode(value)))
        .collect();
    fields.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_leave_this_machine_in_tls_alone() {
        for (url, secure, host, port, path) in [
            ("https://a.example/token", true, "a.example", 443, "/token"),
            ("https://a.example", true, "a.example", 443, "/"),
            (
                "https://a.example:8443/t?x=1",
                true,
                "a.example",
                8443,
                "/t?x=1",
            ),
            ("http://127.0.0.1:80/t", false, "127.0.0.1", 80, "/t"),
            ("http://localhost/t", false, "localhost", 80, "/t"),
            ("https://[2001:db8::1]:5/t", true, "2001:db8::1", 5, "/t"),
            ("http://[::1]:5/t", false, "::1", 5, "/t"),
        ] {
            let found = Endpoint::parse(url).unwrap_or_else(|| panic!("{url}"));
            assert_eq!(
                (found.secure, &*found.host, found.port, &*found.path),
                (secure, host, port, path),
                "{url}"
            );
        }
        for url in [
            "",
            "a.example/token",
            "/token",
            "ftp://a.example/",
            "http://a.example/token",
            "http://127.0.0.1.a.example/",
            "https://user:password@a.example/",
            "https://a.example/#x",
            "https:///token",
            "https://a.example:/token",
            "https://a.example:99999/token",
        ] {
            assert_eq!(Endpoint::parse(url), None, "{url}");
        }
    }

    #[test]
    fn forms_say_nothing_but_what_was_meant() {
        let text = form(&[("a", "x y&b=1"), ("c", "é-._~")]);
        assert_eq!(text, "a=x%20y%26b%3D1&c=%C3%A9-._~");
    }
}
