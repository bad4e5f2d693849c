//! The HTTP request that asks for a WebSocket, and its answer. RFC 6455, 4; RFC 9112.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};
use thiserror::Error;

/// A request for a WebSocket; everything borrows from the bytes it was read from.
#[derive(Clone, Copy, Debug)]
pub struct Upgrade<'a> {
    /// The path, as sent.
    pub path: &'a str,
    /// What follows `?`, as sent. May hold a credential: never logged.
    pub query: Option<&'a str>,
    /// The `Origin` of a browser.
    pub origin: Option<&'a str>,
    /// The `Authorization` header. Never logged.
    pub authorization: Option<&'a str>,
    key: &'a str,
    /// All that is offered, commas included; several headers make several lists.
    protocols: [&'a str; PROTOCOL_HEADERS_MAX],
}

/// `Sec-WebSocket-Protocol` headers that are looked at; a request with more is refused.
const PROTOCOL_HEADERS_MAX: usize = 4;

/// Why a request is not answered with a WebSocket. Display says what was expected, without content.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum UpgradeError {
    /// Not HTTP/1.1, or not well formed.
    #[error("malformed request: {0}")]
    Malformed(&'static str),
    /// Another method than GET.
    #[error("method not allowed: expected GET")]
    Method,
    /// Not a request for a WebSocket.
    #[error("upgrade required: expected Upgrade: websocket and Connection: Upgrade")]
    NotWebSocket,
    /// Another version of the protocol.
    #[error("upgrade required: expected Sec-WebSocket-Version 13")]
    Version,
    /// More bytes than a request may have.
    #[error("request header fields too large")]
    TooLarge,
    /// No path that anything is served on.
    #[error("not found")]
    NotFound,
    /// None of the sub-protocols that are spoken was offered.
    #[error("expected one of the sub-protocols of this path in Sec-WebSocket-Protocol")]
    Protocol,
    /// Pages of this origin may not connect.
    #[error("origin not allowed")]
    Origin,
    /// No credential, or a wrong one.
    #[error("a credential is missing or wrong")]
    Unauthorized,
    /// No credential, where that is answered as older servers do.
    #[error("a credential is missing")]
    Missing,
    /// A known client without the right.
    #[error("no right on this channel")]
    Forbidden,
    /// Too many failures, connections or sessions.
    #[error("too many requests")]
    TooMany,
    /// The broker cannot answer now.
    #[error("service unavailable")]
    Unavailable,
}

impl UpgradeError {
    /// The HTTP status.
    pub const fn status(self) -> (u16, &'static str) {
        match self {
            UpgradeError::Malformed(_) | UpgradeError::Protocol => (400, "Bad Request"),
            UpgradeError::Unauthorized => (401, "Unauthorized"),
            UpgradeError::Origin | UpgradeError::Forbidden | UpgradeError::Missing => {
                (403, "Forbidden")
            }
            UpgradeError::NotFound => (404, "Not Found"),
            UpgradeError::Method => (405, "Method Not Allowed"),
            UpgradeError::NotWebSocket | UpgradeError::Version => (426, "Upgrade Required"),
            UpgradeError::TooMany => (429, "Too Many Requests"),
            UpgradeError::TooLarge => (431, "Request Header Fields Too Large"),
            UpgradeError::Unavailable => (503, "Service Unavailable"),
        }
    }
}

/// The headers that matter, as they are found.
#[derive(Default)]
struct Found<'a> {
    host: bool,
    upgrade: bool,
    connection: bool,
    key: Option<&'a str>,
    version: Option<&'a str>,
    origin: Option<&'a str>,
    authorization: Option<&'a str>,
    protocols: [&'a str; PROTOCOL_HEADERS_MAX],
    protocol_headers: usize,
}

impl<'a> Upgrade<'a> {
    /// The request at the start of `input` and its bytes; `None` while it is not all there.
    ///
    /// # Errors
    /// When it is no request for a WebSocket, or longer than `bytes_max` without an end.
    pub fn read(
        input: &'a [u8],
        bytes_max: usize,
    ) -> Result<Option<(Upgrade<'a>, usize)>, UpgradeError> {
        // Whoever does not speak HTTP is told at the first byte.
        if input
            .first()
            .is_some_and(|first| !first.is_ascii_uppercase())
        {
            return Err(UpgradeError::Malformed("expected a request line"));
        }
        let seen = &input[..input.len().min(bytes_max)];
        let Some(end) = memchr::memmem::find(seen, b"\r\n\r\n") else {
            if input.len() >= bytes_max {
                return Err(UpgradeError::TooLarge);
            }
            return Ok(None);
        };
        let text = simdutf8::basic::from_utf8(&input[..end])
            .map_err(|_| UpgradeError::Malformed("expected UTF-8"))?;
        if text
            .bytes()
            .any(|byte| byte != b'\t' && byte != b'\r' && byte != b'\n' && byte.is_ascii_control())
        {
            return Err(UpgradeError::Malformed("a control character"));
        }
        let mut lines = text.split("\r\n");
        let (path, query) = request_line(lines.next().unwrap_or_default())?;
        let mut found = Found::default();
        for line in lines {
            found.header(line)?;
        }
        let upgrade = found.upgrade(path, query)?;
        Ok(Some((upgrade, end + 4)))
    }

    /// The first of `spoken` that is offered. Names are compared exactly.
    pub fn protocol<'s>(&self, spoken: &[&'s str]) -> Option<&'s str> {
        let offered = |name: &str| {
            self.protocols
                .iter()
                .flat_map(|list| list.split(','))
                .any(|offer| offer.trim_matches([' ', '\t']) == name)
        };
        spoken.iter().copied().find(|name| offered(name))
    }

    /// Whether any sub-protocol is offered.
    pub fn offers_any(&self) -> bool {
        self.protocols.iter().any(|list| !list.is_empty())
    }

    /// Appends the answer that begins the WebSocket.
    pub fn accept(&self, protocol: Option<&str>, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
        );
        out.extend_from_slice(b"Sec-WebSocket-Accept: ");
        out.extend_from_slice(accept_key(self.key).as_bytes());
        if let Some(protocol) = protocol {
            out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
            out.extend_from_slice(protocol.as_bytes());
        }
        out.extend_from_slice(b"\r\n\r\n");
    }
}

fn request_line(line: &str) -> Result<(&str, Option<&str>), UpgradeError> {
    let mut words = line.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let (Some(method), Some(target), Some(version), None) = (method, target, version, words.next())
    else {
        return Err(UpgradeError::Malformed("expected METHOD TARGET HTTP/1.1"));
    };
    if version != "HTTP/1.1" {
        return Err(UpgradeError::Malformed("expected HTTP/1.1"));
    }
    if method != "GET" {
        return Err(UpgradeError::Method);
    }
    // An absolute target is for proxies.
    if !target.starts_with('/') || target.contains('#') {
        return Err(UpgradeError::Malformed(
            "expected a path that begins with /",
        ));
    }
    Ok(match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    })
}

impl<'a> Found<'a> {
    fn header(&mut self, line: &'a str) -> Result<(), UpgradeError> {
        let (name, value) = line
            .split_once(':')
            .ok_or(UpgradeError::Malformed("a header without colon"))?;
        // Folded lines and spaces before the colon are what smuggling is made of.
        if name.is_empty() || !name.bytes().all(is_token) || value.contains(['\r', '\n']) {
            return Err(UpgradeError::Malformed("a header name that is no token"));
        }
        let value = value.trim_matches([' ', '\t']);
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        let once = |known: &mut Option<&'a str>| match known.replace(value) {
            None => Ok(()),
            Some(_) => Err(UpgradeError::Malformed(
                "a header that may come once came twice",
            )),
        };
        if is("host") {
            if std::mem::replace(&mut self.host, true) {
                return Err(UpgradeError::Malformed("two Host headers"));
            }
        } else if is("upgrade") {
            self.upgrade |= lists(value, "websocket");
        } else if is("connection") {
            self.connection |= lists(value, "upgrade");
        } else if is("sec-websocket-key") {
            once(&mut self.key)?;
        } else if is("sec-websocket-version") {
            once(&mut self.version)?;
        } else if is("origin") {
            once(&mut self.origin)?;
        } else if is("authorization") {
            once(&mut self.authorization)?;
        } else if is("sec-websocket-protocol") {
            let place =
                self.protocols
                    .get_mut(self.protocol_headers)
                    .ok_or(UpgradeError::Malformed(
                        "too many Sec-WebSocket-Protocol headers",
                    ))?;
            *place = value;
            self.protocol_headers += 1;
        } else if is("transfer-encoding") || is("content-length") && value != "0" {
            return Err(UpgradeError::Malformed("a body; expected none"));
        }
        Ok(())
    }

    fn upgrade(self, path: &'a str, query: Option<&'a str>) -> Result<Upgrade<'a>, UpgradeError> {
        if !self.host {
            return Err(UpgradeError::Malformed("no Host header"));
        }
        if !self.upgrade || !self.connection {
            return Err(UpgradeError::NotWebSocket);
        }
        if self.version != Some("13") {
            return Err(UpgradeError::Version);
        }
        let key = self
            .key
            .filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16))
            .ok_or(UpgradeError::Malformed(
                "expected a Sec-WebSocket-Key of 16 bytes in base64",
            ))?;
        Ok(Upgrade {
            path,
            query,
            origin: self.origin,
            authorization: self.authorization,
            key,
            protocols: self.protocols,
        })
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether a comma-separated list has `word`, whatever the case.
fn lists(list: &str, word: &str) -> bool {
    list.split(',')
        .any(|item| item.trim_matches([' ', '\t']).eq_ignore_ascii_case(word))
}

/// `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`.
pub fn accept_key(key: &str) -> String {
    let mut hash = Sha1::new();
    hash.update(key.as_bytes());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    STANDARD.encode(hash.finalize())
}

/// Appends an answer that says why there is no WebSocket; the connection is closed behind it.
pub fn put_refusal(error: UpgradeError, out: &mut Vec<u8>) {
    let (status, reason) = error.status();
    let body = error.to_string();
    let more = match error {
        UpgradeError::Version | UpgradeError::NotWebSocket => {
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        }
        UpgradeError::Method => "Allow: GET\r\n",
        UpgradeError::Unauthorized => "WWW-Authenticate: Bearer, Basic, Client\r\n",
        UpgradeError::TooMany | UpgradeError::Unavailable => "Retry-After: 5\r\n",
        UpgradeError::Malformed(_)
        | UpgradeError::TooLarge
        | UpgradeError::NotFound
        | UpgradeError::Protocol
        | UpgradeError::Origin
        | UpgradeError::Missing
        | UpgradeError::Forbidden => "",
    };
    let answer = format!(
        "HTTP/1.1 {status} {reason}\r\n{more}Connection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    out.extend_from_slice(answer.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "Host: example.com\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

    fn request(line: &str, headers: &str) -> Vec<u8> {
        format!("{line}\r\n{headers}\r\n").into_bytes()
    }

    fn refused(input: &[u8]) -> u16 {
        let error = Upgrade::read(input, 8192).err();
        let error = error.unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(input)));
        let mut answer = Vec::new();
        put_refusal(error, &mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {} ", error.status().0)),
            "{answer}"
        );
        assert!(answer.contains("Connection: close\r\n"));
        error.status().0
    }

    #[test]
    fn the_example_of_the_rfc_is_answered_as_there() {
        let request = request("GET /chat HTTP/1.1", LINES);
        let (upgrade, used) = Upgrade::read(&request, 8192).unwrap().unwrap();
        assert_eq!(
            (upgrade.path, upgrade.query, used),
            ("/chat", None, request.len())
        );
        let mut answer = Vec::new();
        upgrade.accept(Some("mqtt"), &mut answer);
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 101 "));
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(answer.ends_with("Sec-WebSocket-Protocol: mqtt\r\n\r\n"));
    }

    #[test]
    fn request_that_is_cut_is_waited_for_and_what_follows_is_left() {
        let mut input = request("GET /mqtt?x=1 HTTP/1.1", LINES);
        let whole = input.len();
        for end in 0..whole {
            assert!(
                Upgrade::read(&input[..end], 8192).unwrap().is_none(),
                "{end}"
            );
        }
        input.extend_from_slice(b"\x82\x80abcd");
        let (upgrade, used) = Upgrade::read(&input, 8192).unwrap().unwrap();
        assert_eq!(
            (upgrade.path, upgrade.query, used),
            ("/mqtt", Some("x=1"), whole)
        );
    }

    #[test]
    fn sub_protocols_are_found_in_lists_and_repeated_headers() {
        let headers = format!(
            "{LINES}Sec-WebSocket-Protocol: foo, mqttv3.1\r\nsec-websocket-protocol:\tmqtt \r\n"
        );
        let input = request("GET / HTTP/1.1", &headers);
        let (upgrade, _) = Upgrade::read(&input, 8192).unwrap().unwrap();
        assert_eq!(upgrade.protocol(&["mqtt", "mqttv3.1"]), Some("mqtt"));
        assert_eq!(upgrade.protocol(&["mqttv3.1"]), Some("mqttv3.1"));
        assert_eq!(upgrade.protocol(&["MQTT", "mqttv3", "fo"]), None);
        assert!(upgrade.offers_any());
    }

    #[test]
    fn credentials_and_origin_are_handed_on() {
        let headers = format!("{LINES}Origin: https://a.example\r\nAuthorization: Client s\r\n");
        let input = request("GET /m/d/c/x?authorization=y HTTP/1.1", &headers);
        let (upgrade, _) = Upgrade::read(&input, 8192).unwrap().unwrap();
        assert_eq!(upgrade.origin, Some("https://a.example"));
        assert_eq!(upgrade.authorization, Some("Client s"));
        assert_eq!(upgrade.query, Some("authorization=y"));
        assert!(!upgrade.offers_any());
    }

    #[test]
    fn t_http_1_requests_that_are_not_well_formed_are_refused() {
        for line in [
            "GET / HTTP/1.0",
            "GET  / HTTP/1.1",
            "GET /",
            "GET http://x/ HTTP/1.1",
            "GET /a b HTTP/1.1",
        ] {
            assert_eq!(refused(&request(line, LINES)), 400, "{line}");
        }
        for more in [
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Host: twice\r\n",
            "Bad Name: x\r\n",
            "X : y\r\n",
            " folded\r\n",
            "nocolon\r\n",
            ": empty\r\n",
            "X: a\x00b\r\n",
            "X: a\nY: b\r\n",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            "Origin: a\r\nOrigin: b\r\n",
        ] {
            assert_eq!(
                refused(&request("GET / HTTP/1.1", &format!("{LINES}{more}"))),
                400,
                "{more}"
            );
        }
        assert_eq!(refused(b"\x16\x03\x01"), 400, "a TLS hello");
        assert_eq!(refused(b"\x10"), 400, "a CONNECT");
    }

    #[test]
    fn requests_for_something_else_are_told_what_is_expected() {
        assert_eq!(refused(&request("POST / HTTP/1.1", LINES)), 405);
        for (part, other, status) in [
            ("Upgrade: websocket", "Upgrade: h2c", 426),
            (
                "Connection: keep-alive, Upgrade",
                "Connection: keep-alive",
                426,
            ),
            ("Version: 13", "Version: 8", 426),
            ("Host: example.com\r\n", "", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ=", 400),
            ("dGhlIHNhbXBsZSBub25jZQ==", "not base64", 400),
        ] {
            let headers = LINES.replace(part, other);
            assert_eq!(
                refused(&request("GET / HTTP/1.1", &headers)),
                status,
                "{other}"
            );
        }
    }

    #[test]
    fn t_ws_3_endless_headers_are_refused_at_the_limit() {
        let long = format!("{LINES}X: {}\r\n", "a".repeat(9000));
        assert_eq!(refused(&request("GET / HTTP/1.1", &long)), 431);
        assert!(
            Upgrade::read(b"GET / HTTP/1.1\r\nX: ", 8192)
                .unwrap()
                .is_none()
        );
    }
}
