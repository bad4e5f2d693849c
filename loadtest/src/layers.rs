//! TLS and WebSocket between MQTT and a socket.

use std::io::{self, Read, Write};

use codec::ws::{Event, Head, Opcode, Receiver, ReceiverLimits, Role, accept_key, unmask};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use crate::endpoint::Endpoint;

/// The layers of one connection, outermost last.
pub(crate) struct Layers {
    tls: Option<ClientConnection>,
    ws: Option<WebSocket>,
    /// What TLS opened, when a WebSocket lies above it.
    opened: Vec<u8>,
}

struct WebSocket {
    receiver: Receiver,
    /// The answer to the upgrade, until it is whole.
    answer: Option<Vec<u8>>,
    expected: String,
    /// Frames that wait for the upgrade.
    waiting: Vec<u8>,
    mask: u32,
}

/// Longest head of an HTTP answer to the upgrade.
const ANSWER_BYTES_MAX: usize = 8 << 10;

const LIMITS: ReceiverLimits = ReceiverLimits {
    frame_bytes: 64 << 20,
    message_bytes: 64 << 20,
    fragments: 1 << 16,
};

impl Layers {
    /// The layers of a new connection; what is to be sent first is put into `out`.
    ///
    /// # Errors
    /// The name of the broker cannot stand in a TLS handshake.
    pub(crate) fn new(
        endpoint: &Endpoint,
        number: usize,
        out: &mut Vec<u8>,
    ) -> Result<Layers, String> {
        let tls = endpoint.tls.as_ref().map(|config| {
            let name =
                ServerName::try_from(endpoint.host.clone()).map_err(|error| error.to_string())?;
            let made = ClientConnection::new(config.clone(), name);
            let mut tls = made.map_err(|error| error.to_string())?;
            tls.set_buffer_limit(None);
            Ok::<_, String>(tls)
        });
        let mut layers = Layers {
            tls: tls.transpose()?,
            ws: None,
            opened: Vec::new(),
        };
        if endpoint.is_websocket() {
            // Need not be secret, only different: RFC 6455, 4.1.
            let key = key(number);
            let request = format!(
                "GET {} HTTP/1.1\r\nHost: {}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Protocol: mqtt\r\n\r\n",
                endpoint.path, endpoint.address
            );
            layers.seal_tls(request.as_bytes(), out)?;
            layers.ws = Some(WebSocket {
                receiver: Receiver::new(Role::Client, LIMITS),
                answer: Some(Vec::new()),
                expected: accept_key(&key),
                waiting: Vec::new(),
                mask: number as u32,
            });
        } else {
            layers.flush_tls(out)?;
        }
        Ok(layers)
    }

    /// Puts the bytes for the socket that carry `plain` into `out`.
    ///
    /// # Errors
    /// The TLS connection is broken.
    pub(crate) fn seal(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let Some(ws) = &mut self.ws else {
            return self.seal_tls(plain, out);
        };
        let mut frame = Vec::with_capacity(plain.len() + 14);
        ws.put(Opcode::Binary, plain, &mut frame);
        if ws.answer.is_some() {
            ws.waiting.extend_from_slice(&frame);
            return Ok(());
        }
        self.seal_tls(&frame, out)
    }

    /// Takes bytes from the socket: MQTT's are put into `plain`, answers into `out`.
    ///
    /// # Errors
    /// The peer breaks the rules of a layer, or ends it.
    pub(crate) fn open(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        if self.tls.is_none() {
            return self.open_ws(input, plain, out);
        }
        let mut opened = std::mem::take(&mut self.opened);
        opened.clear();
        self.open_tls(input, &mut opened)?;
        self.flush_tls(out)?;
        let result = if self.ws.is_some() {
            self.open_ws(&mut opened, plain, out)
        } else {
            plain.extend_from_slice(&opened);
            Ok(())
        };
        self.opened = opened;
        result
    }

    fn open_tls(&mut self, mut input: &[u8], opened: &mut Vec<u8>) -> Result<(), String> {
        let Some(tls) = &mut self.tls else {
            return Ok(());
        };
        while !input.is_empty() {
            tls.read_tls(&mut input)
                .map_err(|error| error.to_string())?;
            tls.process_new_packets()
                .map_err(|error| error.to_string())?;
            match tls.reader().read_to_end(opened) {
                Ok(_) => return Err("the broker ended TLS".into()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn open_ws(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<(), String> {
        let Some(ws) = &mut self.ws else {
            plain.extend_from_slice(input);
            return Ok(());
        };
        let mut replies = Vec::new();
        let mut behind;
        let mut rest = input;
        if let Some(answer) = &mut ws.answer {
            answer.extend_from_slice(rest);
            let Some(end) = memchr::memmem::find(answer, b"\r\n\r\n") else {
                if answer.len() > ANSWER_BYTES_MAX {
                    return Err("the answer to the upgrade is too long".into());
                }
                return Ok(());
            };
            let head = String::from_utf8_lossy(&answer[..end]).into_owned();
            check_upgrade(&head, &ws.expected)?;
            behind = answer.split_off(end + 4);
            ws.answer = None;
            replies.append(&mut ws.waiting);
            rest = &mut behind;
        }
        while !rest.is_empty() {
            let next = ws
                .receiver
                .next(rest)
                .map_err(|violation| format!("{violation:?}"));
            let (taken, event) = next?;
            match event {
                Some(Event::Data { range, .. }) => plain.extend_from_slice(&rest[range]),
                Some(Event::Ping) => {
                    let payload = ws.receiver.control().to_vec();
                    ws.put(Opcode::Pong, &payload, &mut replies);
                }
                Some(Event::Pong) | None => {}
                Some(Event::Close(code)) => {
                    return Err(format!("the broker closed the WebSocket: {code:?}"));
                }
            }
            rest = &mut rest[taken..];
        }
        if replies.is_empty() {
            return Ok(());
        }
        self.seal_tls(&replies, out)
    }

    fn seal_tls(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        let Some(tls) = &mut self.tls else {
            out.extend_from_slice(bytes);
            return Ok(());
        };
        tls.writer()
            .write_all(bytes)
            .map_err(|error| error.to_string())?;
        self.flush_tls(out)
    }

    fn flush_tls(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                tls.write_tls(out).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers").finish_non_exhaustive()
    }
}

impl WebSocket {
    /// Appends a masked frame.
    fn put(&mut self, opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
        self.mask = self.mask.wrapping_mul(0x9E37_79B1).wrapping_add(1);
        let mask = self.mask.to_be_bytes();
        let head = Head {
            fin: true,
            opcode,
            mask: Some(mask),
            payload_len: payload.len() as u64,
        };
        head.write(out);
        let at = out.len();
        out.extend_from_slice(payload);
        unmask(&mut out[at..], mask, 0);
    }
}

fn check_upgrade(head: &str, expected: &str) -> Result<(), String> {
    let first = head.lines().next().unwrap_or_default();
    if first.split(' ').nth(1) != Some("101") {
        return Err(format!("the upgrade was answered with {first:?}"));
    }
    let accepts = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| {
            name.eq_ignore_ascii_case("sec-websocket-accept") && value.trim() == expected
        });
    if accepts {
        Ok(())
    } else {
        Err("the upgrade was answered with the wrong Sec-WebSocket-Accept".into())
    }
}

/// Sixteen bytes in base64.
fn key(number: usize) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut left = number as u64 ^ 0x5DEE_CE66_D1CE_4E5B;
    let mut text: String = (0..21)
        .map(|_| {
            left = left.rotate_left(7).wrapping_mul(0x9E37_79B9_7F4A_7C15);
            char::from(DIGITS[(left >> 58) as usize])
        })
        .collect();
    // The last digit carries two bits of the sixteenth byte.
    text.push_str("A==");
    text
}

#[cfg(test)]
mod tests {
    use codec::ws::put_frame;

    use super::*;
    use crate::endpoint::TlsFiles;

    fn websocket() -> (Layers, Vec<u8>) {
        let endpoint = Endpoint::parse("ws://127.0.0.1:1/p", &TlsFiles::default()).unwrap();
        let mut out = Vec::new();
        let layers = Layers::new(&endpoint, 7, &mut out).unwrap();
        (layers, out)
    }

    fn answer(layers: &Layers) -> String {
        let expected = &layers.ws.as_ref().unwrap().expected;
        format!("HTTP/1.1 101 Switching\r\nsec-websocket-accept: {expected}\r\n\r\n")
    }

    #[test]
    fn websocket_carries_packets_once_it_is_upgraded_wherever_the_answer_is_cut() {
        let (layers, request) = websocket();
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("GET /p HTTP/1.1\r\n"), "{request}");
        let mut answer = answer(&layers).into_bytes();
        put_frame(Opcode::Binary, b"abc", &mut answer);
        for cut in 0..answer.len() {
            let (mut layers, _) = websocket();
            let (mut plain, mut out) = (Vec::new(), Vec::new());
            layers.seal(b"xyz", &mut out).unwrap();
            assert!(out.is_empty(), "nothing before the upgrade");
            for part in [&answer[..cut], &answer[cut..]] {
                layers
                    .open(&mut part.to_vec(), &mut plain, &mut out)
                    .unwrap();
            }
            assert_eq!(plain, b"abc");
            let (head, at) = Head::read(&out).unwrap().unwrap();
            let mut payload = out[at..].to_vec();
            unmask(&mut payload, head.mask.unwrap(), 0);
            assert_eq!(payload, b"xyz");
        }
    }

    #[test]
    fn ping_is_answered_and_close_or_refusal_end_the_connection() {
        let (mut layers, _) = websocket();
        let mut answer = answer(&layers).into_bytes();
        put_frame(Opcode::Ping, b"p", &mut answer);
        let (mut plain, mut out) = (Vec::new(), Vec::new());
        layers.open(&mut answer, &mut plain, &mut out).unwrap();
        assert_eq!(Head::read(&out).unwrap().unwrap().0.opcode, Opcode::Pong);
        let mut close = Vec::new();
        codec::ws::put_close(None, &mut close);
        assert!(layers.open(&mut close, &mut plain, &mut out).is_err());
        for refusal in ["HTTP/1.1 403 No\r\n\r\n", "HTTP/1.1 101 Yes\r\n\r\n"] {
            let (mut layers, _) = websocket();
            let mut bytes = refusal.as_bytes().to_vec();
            assert!(layers.open(&mut bytes, &mut plain, &mut out).is_err());
        }
    }

    #[test]
    fn keys_are_sixteen_bytes_in_base64_and_differ() {
        assert_eq!(key(1).len(), 24);
        assert_ne!(key(1), key(2));
    }
}
