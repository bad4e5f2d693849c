//! MQTT in WebSocket messages (MQTT 5, 6): the upgrade, and the stream inside the frames.

use std::ops::Range;

use codec::ws::{
    CloseCode, Event, Head, Opcode, Receiver, Role, Upgrade, UpgradeError, put_close, put_frame,
    put_refusal,
};
use session::Now;

use crate::reactor::door::WebSocketDoor;

/// Bytes of a request, its headers included.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// Control frames taken from one peer in a second.
const CONTROL_FRAMES_MAX: u16 = 100;

/// Where MQTT is served, and what the protocol is called there. [MQTT-6.0.0-4]
const PATHS: [&str; 2] = ["/mqtt", "/"];
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// The WebSocket is over: answer sent, nothing more is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Over;

/// An upgrade that is being waited for, or the WebSocket behind it.
#[derive(Debug)]
pub(crate) enum WebSocket {
    /// The request so far; empty while nothing came.
    Requested(Vec<u8>),
    /// Frames.
    Open(Open),
}

/// The state behind the upgrade. An idle one owns no buffer.
#[derive(Debug)]
pub(crate) struct Open {
    receiver: Receiver,
    /// The second that `controls` were counted in.
    second: u32,
    controls: u16,
    /// Whether Close was sent: nothing may follow it.
    closed: bool,
}

impl WebSocket {
    pub(crate) fn new() -> WebSocket {
        WebSocket::Requested(Vec::new())
    }

    /// Takes bytes of the peer, which lie in `buffer[range]`. What they carry of MQTT lies in the
    /// range that is returned; where a request was cut, in `aside`. What is to be answered is
    /// appended to `answers`.
    ///
    /// # Errors
    /// [`Over`], when nothing more is to be read; what came before counts.
    pub(crate) fn receive(
        &mut self,
        door: &WebSocketDoor,
        input: &mut [u8],
        aside: &mut Vec<u8>,
        answers: &mut Vec<u8>,
        now: Now,
    ) -> (Carried, Result<(), Over>) {
        match self {
            WebSocket::Open(open) => {
                let (range, more) = open.receive(input, answers, now);
                (Carried::Input(range), more)
            }
            WebSocket::Requested(request) => {
                let fresh = request.is_empty();
                if !fresh {
                    request.extend_from_slice(input);
                }
                let seen = if fresh { &*input } else { &request[..] };
                let used = match accept(door, seen, answers) {
                    Ok(Some(used)) => used,
                    Ok(None) => {
                        if fresh {
                            request.extend_from_slice(input);
                        }
                        return (Carried::Input(0..0), Ok(()));
                    }
                    Err(error) => {
                        put_refusal(error, answers);
                        return (Carried::Input(0..0), Err(Over));
                    }
                };
                let mut open = Open {
                    receiver: Receiver::new(Role::Server, door.limits),
                    second: 0,
                    controls: 0,
                    closed: false,
                };
                let carried = if fresh {
                    let (range, more) = open.receive(&mut input[used..], answers, now);
                    (Carried::Input(range.start + used..range.end + used), more)
                } else {
                    aside.extend_from_slice(&request[used..]);
                    let (range, more) = open.receive(aside, answers, now);
                    (Carried::Aside(range), more)
                };
                *self = WebSocket::Open(open);
                carried
            }
        }
    }

    /// Appends the head of one binary frame for `len` bytes of MQTT, whole packets or not.
    /// [MQTT-6.0.0-1]
    pub(crate) fn put_head(&self, len: usize, out: &mut Vec<u8>) {
        let head = Head {
            fin: true,
            opcode: Opcode::Binary,
            mask: None,
            payload_len: len as u64,
        };
        head.write(out);
    }

    /// Appends a Close, unless one was sent.
    pub(crate) fn close(&mut self, code: CloseCode, out: &mut Vec<u8>) {
        if let WebSocket::Open(open) = self {
            open.close(Some(code), out);
        }
    }
}

/// Where the bytes are that a WebSocket carried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Carried {
    /// In the input.
    Input(Range<usize>),
    /// In the other buffer.
    Aside(Range<usize>),
}

fn accept(
    door: &WebSocketDoor,
    request: &[u8],
    answers: &mut Vec<u8>,
) -> Result<Option<usize>, UpgradeError> {
    let Some((upgrade, used)) = Upgrade::read(request, REQUEST_BYTES_MAX)? else {
        return Ok(None);
    };
    if !PATHS.contains(&upgrade.path) {
        return Err(UpgradeError::NotFound);
    }
    let allowed = |origin| door.origins.iter().any(|allowed| allowed == origin);
    if !door.origins.is_empty() && !upgrade.origin.is_none_or(allowed) {
        return Err(UpgradeError::Origin);
    }
    let protocol = upgrade.protocol(&PROTOCOLS);
    let protocol = protocol.ok_or(UpgradeError::Protocol)?;
    upgrade.accept(Some(protocol), answers);
    Ok(Some(used))
}

impl Open {
    /// Moves the payload of all binary frames together, in place; frames and packets need not be
    /// aligned. [MQTT-6.0.0-2]
    fn receive(
        &mut self,
        input: &mut [u8],
        answers: &mut Vec<u8>,
        now: Now,
    ) -> (Range<usize>, Result<(), Over>) {
        let mut carried = 0..0;
        let mut at = 0;
        while at < input.len() {
            let (used, event) = match self.receiver.next(&mut input[at..]) {
                Ok(next) => next,
                Err(violation) => {
                    self.close(Some(violation.close_code()), answers);
                    return (carried, Err(Over));
                }
            };
            match event {
                // [MQTT-6.0.0-1]
                Some(Event::Data { text: true, .. }) => {
                    self.close(Some(CloseCode::UNSUPPORTED_DATA), answers);
                    return (carried, Err(Over));
                }
                Some(Event::Data { range, .. }) if carried.is_empty() => {
                    carried = at + range.start..at + range.end;
                }
                Some(Event::Data { range, .. }) => {
                    let len = range.len();
                    input.copy_within(at + range.start..at + range.end, carried.end);
                    carried.end += len;
                }
                Some(Event::Ping | Event::Pong) if !self.has_room_for_control(now) => {
                    self.close(Some(CloseCode::POLICY_VIOLATION), answers);
                    return (carried, Err(Over));
                }
                Some(Event::Ping) => {
                    if !self.closed {
                        put_frame(Opcode::Pong, self.receiver.control(), answers);
                    }
                }
                Some(Event::Pong) | None => {}
                Some(Event::Close(code)) => {
                    self.close(code.or(Some(CloseCode::NORMAL)), answers);
                    return (carried, Err(Over));
                }
            }
            at += used;
        }
        (carried, Ok(()))
    }

    fn has_room_for_control(&mut self, now: Now) -> bool {
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            self.controls = 0;
        }
        self.controls += 1;
        self.controls <= CONTROL_FRAMES_MAX
    }

    fn close(&mut self, code: Option<CloseCode>, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.closed, true) {
            put_close(code, out);
        }
    }
}
