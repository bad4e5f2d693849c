//! What is inside a WebSocket: MQTT (MQTT 5, 6), or the messages of one channel.

use std::ops::Range;

use codec::ws::{
    CloseCode, Event, Head, Opcode, Receiver, ReceiverLimits, Role, Upgrade, UpgradeError,
    put_close, put_frame, put_refusal,
};
use session::Now;
use session::channel_socket::{ChannelRequest, ChannelSocket, ENVELOPES, Told};
use session::web::{ChannelPath, Login, query_value};

use crate::reactor::door::WebSocketDoor;

/// Bytes of a request, its headers included.
const REQUEST_BYTES_MAX: usize = 8 << 10;

/// Control frames taken from one peer in a second.
const CONTROL_FRAMES_MAX: u16 = 100;

/// Where MQTT is served, and what the protocol is called there. [MQTT-6.0.0-4] [MQTT3-6.0.0-4]
const PATHS: [&str; 2] = ["/mqtt", "/"];
const PROTOCOLS: [&str; 2] = ["mqtt", "mqttv3.1"];

/// The WebSocket is over: answer sent, nothing more is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Over {
    /// The peer closed it.
    Closed,
    /// The peer did, or asked for, what is not allowed.
    Fault,
}

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
    /// How it ends if nobody says otherwise.
    farewell: CloseCode,
    inside: Option<Box<Channel>>,
}

/// A channel socket; MQTT has none.
#[derive(Debug)]
struct Channel {
    socket: ChannelSocket,
    /// The answer that is given once the subscription is granted.
    answer: Vec<u8>,
    /// The fragments of a message.
    message: Vec<u8>,
}

/// What of a peer's bytes is MQTT.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Carried {
    /// A part of the input.
    Input(Range<usize>),
    /// All of the other buffer.
    Aside,
}

impl WebSocket {
    pub(crate) fn new() -> WebSocket {
        WebSocket::Requested(Vec::new())
    }

    /// Takes bytes of the peer. What is not a part of them is written to `aside`, which is empty
    /// before; what is to be answered is appended to `answers`. `certified` says that TLS knows
    /// who the peer is.
    ///
    /// # Errors
    /// [`Over`], when nothing more is to be read; what came before counts.
    pub(crate) fn receive(
        &mut self,
        door: &WebSocketDoor,
        certified: bool,
        input: &mut [u8],
        aside: &mut Vec<u8>,
        answers: &mut Vec<u8>,
        now: Now,
    ) -> (Carried, Result<(), Over>) {
        let request = match self {
            WebSocket::Open(open) => return open.receive(input, aside, answers, now),
            WebSocket::Requested(request) => request,
        };
        let fresh = request.is_empty();
        if !fresh {
            request.extend_from_slice(input);
        }
        let seen = if fresh { &*input } else { &request[..] };
        let (used, inside) = match accept(door, certified, seen, aside, answers) {
            Ok(Some(accepted)) => accepted,
            Ok(None) => {
                if fresh {
                    request.extend_from_slice(input);
                }
                return (Carried::Input(0..0), Ok(()));
            }
            Err(error) => {
                put_refusal(error, answers);
                return (Carried::Input(0..0), Err(Over::Fault));
            }
        };
        let limits = match &inside {
            None => door.limits,
            // A message is one packet, so its limit is that of a frame.
            Some(_) => ReceiverLimits {
                message_bytes: door.limits.frame_bytes,
                ..door.limits
            },
        };
        let mut open = Open {
            receiver: Receiver::new(Role::Server, limits),
            second: 0,
            controls: 0,
            closed: false,
            farewell: CloseCode::NORMAL,
            inside,
        };
        let mut rest = seen[used..].to_vec();
        let (carried, more) = open.receive(&mut rest, aside, answers, now);
        if let Carried::Input(range) = carried {
            aside.extend_from_slice(&rest[range]);
        }
        *self = WebSocket::Open(open);
        (Carried::Aside, more)
    }

    /// Appends `bytes` of MQTT as they leave: one binary frame for all of them, or the messages of
    /// the channel. [MQTT-6.0.0-1] [MQTT3-6.0.0-1]
    pub(crate) fn put(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let WebSocket::Open(open) = self else { return };
        match &mut open.inside {
            // Nothing follows a Close (RFC 6455, 5.5.1).
            None if open.closed => {}
            None => {
                let head = Head {
                    fin: true,
                    opcode: Opcode::Binary,
                    mask: None,
                    payload_len: bytes.len() as u64,
                };
                head.write(out);
                out.extend_from_slice(bytes);
            }
            Some(channel) => {
                let Channel { socket, answer, .. } = &mut **channel;
                let closed = &mut open.closed;
                socket.packets(bytes, |told| match told {
                    Told::Accept => out.append(&mut std::mem::take(answer)),
                    Told::Refuse(error) => {
                        *closed = true;
                        put_refusal(error, out);
                    }
                    Told::Text(text) => put_frame(Opcode::Text, text, out),
                    Told::Binary(bytes) => put_frame(Opcode::Binary, bytes, out),
                    Told::Close(code) => {
                        if !std::mem::replace(closed, true) {
                            put_close(Some(code), out);
                        }
                    }
                });
            }
        }
    }

    /// Whether packets have to be given to [`WebSocket::put`] whole.
    pub(crate) fn takes_whole_packets(&self) -> bool {
        matches!(self, WebSocket::Open(open) if open.inside.is_some())
    }

    /// Whether the messages of a channel pass.
    pub(crate) fn is_channel_open(&self) -> bool {
        matches!(self, WebSocket::Open(open)
            if open.inside.as_ref().is_some_and(|channel| channel.socket.is_open()))
    }

    /// Whether a channel socket has told its peer the end.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, WebSocket::Open(open)
            if open.inside.as_ref().is_some_and(|channel| channel.socket.is_over()))
    }

    /// How it ends if nobody says otherwise.
    pub(crate) fn set_farewell(&mut self, code: CloseCode) {
        if let WebSocket::Open(open) = self {
            open.farewell = code;
        }
    }

    /// Appends a Ping.
    pub(crate) fn ping(&self, out: &mut Vec<u8>) {
        if matches!(self, WebSocket::Open(open) if !open.closed) {
            put_frame(Opcode::Ping, &[], out);
        }
    }

    /// Appends a Close, unless one was sent or the request is not answered.
    pub(crate) fn close(&mut self, out: &mut Vec<u8>) {
        if let WebSocket::Open(open) = self
            && open
                .inside
                .as_ref()
                .is_none_or(|channel| channel.answer.is_empty())
        {
            open.close(open.farewell, out);
        }
    }
}

/// Bytes of a request, and what it opened if that is not MQTT.
type Accepted = (usize, Option<Box<Channel>>);

/// Answers a request, or opens the MQTT connection of a channel socket.
fn accept(
    door: &WebSocketDoor,
    certified: bool,
    request: &[u8],
    mqtt: &mut Vec<u8>,
    answers: &mut Vec<u8>,
) -> Result<Option<Accepted>, UpgradeError> {
    let Some((upgrade, used)) = Upgrade::read(request, REQUEST_BYTES_MAX)? else {
        return Ok(None);
    };
    let allowed = |origin| door.origins.iter().any(|allowed| allowed == origin);
    if !door.origins.is_empty() && !upgrade.origin.is_none_or(allowed) {
        return Err(UpgradeError::Origin);
    }
    if PATHS.contains(&upgrade.path) {
        let protocol = upgrade.protocol(&PROTOCOLS);
        let protocol = protocol.ok_or(UpgradeError::Protocol)?;
        upgrade.accept(Some(protocol), answers);
        return Ok(Some((used, None)));
    }
    let path = ChannelPath::parse(upgrade.path)
        .map_err(|_| UpgradeError::Malformed("expected /m/<domain>/c/<channel>[/<subtopic>]"))?
        .ok_or(UpgradeError::NotFound)?;
    let protocol = upgrade.protocol(&[ENVELOPES]);
    if protocol.is_none() && upgrade.offers_any() {
        return Err(UpgradeError::Protocol);
    }
    let login = Login::find(upgrade.authorization, upgrade.query, &path.domain);
    if login.is_none() && !certified {
        return Err(match door.missing_is_403 {
            true => UpgradeError::Missing,
            false => UpgradeError::Unauthorized,
        });
    }
    let format = upgrade.query.and_then(|query| query_value(query, "format"));
    let request = ChannelRequest {
        path: &path,
        login: login.as_ref(),
        envelopes: protocol.is_some(),
        binary: format.as_deref() == Some("binary"),
    };
    let mut answer = Vec::new();
    upgrade.accept(protocol, &mut answer);
    let socket = ChannelSocket::open(&request, mqtt);
    Ok(Some((
        used,
        Some(Box::new(Channel {
            socket,
            answer,
            message: Vec::new(),
        })),
    )))
}

impl Open {
    /// Takes frames. For MQTT the payload of all of them is moved together, in place: frames and
    /// packets need not be aligned. [MQTT-6.0.0-2] [MQTT3-6.0.0-2]
    fn receive(
        &mut self,
        input: &mut [u8],
        aside: &mut Vec<u8>,
        answers: &mut Vec<u8>,
        now: Now,
    ) -> (Carried, Result<(), Over>) {
        let mut carried = 0..0;
        let mut at = 0;
        let mut ended = Ok(());
        while at < input.len() && ended.is_ok() {
            let (used, event) = match self.receiver.next(&mut input[at..]) {
                Ok(next) => next,
                Err(violation) => {
                    self.close(violation.close_code(), answers);
                    ended = Err(Over::Fault);
                    break;
                }
            };
            let taken = match event {
                Some(Event::Data { range, text, end }) => {
                    let range = at + range.start..at + range.end;
                    match &mut self.inside {
                        Some(channel) => channel.data(text, end, &input[range], aside),
                        // [MQTT-6.0.0-1] [MQTT3-6.0.0-1]
                        None if text => Err(CloseCode::UNSUPPORTED_DATA),
                        None if carried.is_empty() => {
                            carried = range;
                            Ok(())
                        }
                        None => {
                            let len = range.len();
                            input.copy_within(range, carried.end);
                            carried.end += len;
                            Ok(())
                        }
                    }
                }
                Some(Event::Ping | Event::Pong) if !self.has_room_for_control(now) => {
                    Err(CloseCode::POLICY_VIOLATION)
                }
                Some(Event::Ping) => {
                    if !self.closed {
                        put_frame(Opcode::Pong, self.receiver.control(), answers);
                    }
                    Ok(())
                }
                Some(Event::Pong) => {
                    if let Some(channel) = &self.inside {
                        channel.socket.pong(aside);
                    }
                    Ok(())
                }
                Some(Event::Close(code)) => {
                    self.close(code.unwrap_or(CloseCode::NORMAL), answers);
                    ended = Err(Over::Closed);
                    Ok(())
                }
                None => Ok(()),
            };
            if let Err(code) = taken {
                self.close(code, answers);
                ended = Err(Over::Fault);
            }
            at += used;
        }
        let carried = match &self.inside {
            Some(_) => Carried::Aside,
            None => Carried::Input(carried),
        };
        (carried, ended)
    }

    fn has_room_for_control(&mut self, now: Now) -> bool {
        if self.second != now.as_secs() {
            self.second = now.as_secs();
            self.controls = 0;
        }
        self.controls += 1;
        self.controls <= CONTROL_FRAMES_MAX
    }

    fn close(&mut self, code: CloseCode, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.closed, true) {
            put_close(Some(code), out);
        }
    }
}

impl Channel {
    /// A piece of a message; the whole becomes a PUBLISH.
    fn data(
        &mut self,
        text: bool,
        end: bool,
        piece: &[u8],
        mqtt: &mut Vec<u8>,
    ) -> Result<(), CloseCode> {
        if !end {
            self.message.extend_from_slice(piece);
            return Ok(());
        }
        if self.message.is_empty() {
            return self.socket.message(text, piece, mqtt);
        }
        let mut message = std::mem::take(&mut self.message);
        message.extend_from_slice(piece);
        self.socket.message(text, &message, mqtt)
    }
}
