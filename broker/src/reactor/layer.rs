//! What lies between a socket and MQTT: a PROXY header, TLS, a WebSocket, in this order.
//!
//! Bytes that come are opened and unmasked in the shard's buffers; bytes that go are framed and
//! sealed once per flush. A layer that idles owns no buffer.

use authcache::feed::ShownCertificate;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::Arc;

use codec::ws::CloseCode;
use session::Now;

use crate::metrics::LayerFault;
use crate::reactor::shakers::{Taken, Work};
use crate::reactor::tls::{Broken, HANDSHAKE_BYTES_MAX, Tls};

use crate::reactor::door::Door;
use crate::reactor::proxy;
use crate::reactor::websocket::{Carried, Over, WebSocket};
use crate::shard::wires::{Sent, SlowPolicy};

/// The layers of one connection.
#[derive(Debug)]
pub(crate) struct Layer {
    door: Arc<Door>,
    /// Who is behind the proxy in front.
    peer: Option<IpAddr>,
    /// The part of a PROXY header that came, while one is awaited.
    header: Option<Vec<u8>>,
    /// From the first byte on, where the door has TLS.
    tls: Option<Box<Tls>>,
    /// Held while it is elsewhere for a step of the handshake.
    away: Option<Arc<()>>,
    /// A certificate that was shown at the other end of a pipe.
    shown: Option<Box<ShownCertificate>>,
    websocket: Option<Box<WebSocket>>,
    /// Framed and sealed bytes that the socket has not taken.
    pending: Vec<u8>,
    pending_sent: usize,
    /// How much of `pending` the layers wrote by themselves.
    answered: usize,
    /// Nothing more is read. Whoever has the connection by now is told when it sends: it may have
    /// moved with the bytes before the end.
    ended: bool,
    /// The last byte that was given is among `pending`, though it was not said to be taken.
    owed: bool,
}

/// Buffers of a shard that all its layers use in turn, for what comes in. One read is at most
/// 64 KiB, so they do not grow much beyond.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Opened records.
    pub(crate) plain: Vec<u8>,
    /// What did not come in one piece.
    pub(crate) aside: Vec<u8>,
}

/// The same, for what goes out: at most 64 KiB of payload at once.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    framed: Vec<u8>,
    sealed: Vec<u8>,
}

/// Where the MQTT bytes lie that came.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Place {
    /// In the input.
    Input(Range<usize>),
    /// In [`Scratch::plain`].
    Plain(Range<usize>),
    /// In [`Scratch::aside`].
    Aside(Range<usize>),
}

/// What came of some input.
#[derive(Debug)]
pub(crate) struct Received {
    /// The bytes for the machine.
    pub(crate) place: Place,
    /// Nothing more is to be read: the connection ends behind these bytes.
    pub(crate) over: Option<Ended>,
}

/// Why nothing more is read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// The peer is done.
    Closed,
    /// The peer did something wrong in this layer.
    Fault(LayerFault),
}

impl Received {
    pub(crate) fn nothing() -> Received {
        Received {
            place: Place::Input(0..0),
            over: None,
        }
    }

    fn fault(layer: LayerFault) -> Received {
        Received {
            over: Some(Ended::Fault(layer)),
            ..Received::nothing()
        }
    }
}

/// Bytes framed and sealed at once; a socket that takes less makes the rest wait, already sealed.
const SEALED_MAX: usize = 64 << 10;

/// Bytes of own answers that may wait: a peer that asks for more without taking them is closed.
/// (Pongs, key updates; alerts and handshakes are far smaller.)
const ANSWERED_MAX: usize = 64 << 10;

impl Layer {
    /// The layers that `door` has; `None` where it has none.
    pub(crate) fn new(door: &Arc<Door>) -> Option<Box<Layer>> {
        if door.is_plain() {
            return None;
        }
        Some(Box::new(Layer {
            peer: None,
            tls: None,
            away: None,
            shown: None,
            header: (!door.proxies.is_empty()).then(Vec::new),
            websocket: door.websocket.as_ref().map(|_| Box::new(WebSocket::new())),
            pending: Vec::new(),
            pending_sent: 0,
            answered: 0,
            ended: false,
            owed: false,
            door: Arc::clone(door),
        }))
    }

    /// A pipe from within the process, for a peer elsewhere, which may have `shown` a certificate.
    pub(crate) fn pipe(peer: IpAddr, shown: Option<Box<ShownCertificate>>) -> Box<Layer> {
        Box::new(Layer {
            peer: Some(peer),
            tls: None,
            away: None,
            shown,
            header: None,
            websocket: None,
            pending: Vec::new(),
            pending_sent: 0,
            answered: 0,
            ended: false,
            owed: false,
            door: Arc::new(Door::default()),
        })
    }

    /// Who is behind the proxy in front, if there is one and it said so.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.peer
    }

    /// Takes what was read from the socket.
    pub(crate) fn receive(
        &mut self,
        input: &mut [u8],
        scratch: &mut Scratch,
        now: Now,
    ) -> Received {
        let Some(header) = &mut self.header else {
            return self.behind_header(input, scratch, now);
        };
        let fresh = header.is_empty();
        if !fresh {
            header.extend_from_slice(input);
        }
        let found = match proxy::read(if fresh { input } else { header }) {
            Ok(Some(found)) => found,
            Ok(None) => {
                if fresh {
                    header.extend_from_slice(input);
                }
                return Received::nothing();
            }
            Err(proxy::NoHeader) => return Received::fault(LayerFault::Proxy),
        };
        self.peer = found.source;
        let header = self.header.take().unwrap_or_default();
        if fresh {
            let received = self.behind_header(&mut input[found.len..], scratch, now);
            return match received.place {
                Place::Input(range) => Received {
                    place: Place::Input(range.start + found.len..range.end + found.len),
                    ..received
                },
                Place::Plain(_) | Place::Aside(_) => received,
            };
        }
        let mut rest = header[found.len..].to_vec();
        let received = self.behind_header(&mut rest, scratch, now);
        match received.place {
            Place::Input(range) => {
                scratch.plain.clear();
                scratch.plain.extend_from_slice(&rest[range]);
                Received {
                    place: Place::Plain(0..scratch.plain.len()),
                    ..received
                }
            }
            Place::Plain(_) | Place::Aside(_) => received,
        }
    }

    fn behind_header(&mut self, input: &mut [u8], scratch: &mut Scratch, now: Now) -> Received {
        let before = self.pending.len();
        let received = match &self.door.tls {
            None => self.websocket_bytes(input, &mut scratch.aside, now),
            Some(door) => {
                if self.tls.is_none() {
                    self.tls = Tls::new(door).map(Box::new);
                }
                let Some(tls) = &mut self.tls else {
                    return Received::fault(LayerFault::Tls);
                };
                scratch.plain.clear();
                let opened = tls.open(input, &mut scratch.plain, &mut self.pending);
                self.opened(opened, scratch, now)
            }
        };
        self.heard(received, before)
    }

    /// What TLS opened is in `scratch.plain`.
    fn opened(&mut self, opened: Result<(), Broken>, scratch: &mut Scratch, now: Now) -> Received {
        let received = self.websocket_bytes(&mut scratch.plain, &mut scratch.aside, now);
        Received {
            place: match received.place {
                Place::Input(range) | Place::Plain(range) => Place::Plain(range),
                Place::Aside(range) => Place::Aside(range),
            },
            over: received.over.or(opened.err().map(|broken| match broken {
                Broken::Closed => Ended::Closed,
                Broken::Fault => Ended::Fault(LayerFault::Tls),
            })),
        }
    }

    /// Notes what the layers answered behind `before` bytes, and whether all is over.
    fn heard(&mut self, received: Received, before: usize) -> Received {
        self.answered += self.pending.len() - before;
        let unheard = self.answered > ANSWERED_MAX;
        let layer = match &self.websocket {
            Some(_) => LayerFault::WebSocket,
            None => LayerFault::Tls,
        };
        let received = Received {
            over: received.over.or(unheard.then_some(Ended::Fault(layer))),
            ..received
        };
        self.ended |= received.over.is_some();
        received
    }

    /// Its TLS with what is behind a PROXY header, to take the next step of the handshake elsewhere;
    /// `None` where there is no such step, or more than a handshake has.
    pub(crate) fn depart(&mut self, input: &[u8]) -> Option<Work> {
        let door = self.door.tls.as_ref()?;
        let (source, input) = match &self.header {
            None => (None, input.to_vec()),
            Some(header) => {
                let mut whole = [header, input].concat();
                let found = proxy::read(&whole).ok()??;
                whole.drain(..found.len);
                (found.source, whole)
            }
        };
        if input.is_empty() || input.len() > HANDSHAKE_BYTES_MAX {
            return None;
        }
        let tls = self.tls.take().or_else(|| Tls::new(door).map(Box::new))?;
        if self.header.take().is_some() {
            self.peer = source;
        }
        let away = Arc::new(());
        let awaited = Arc::downgrade(&away);
        self.away = Some(away);
        Some(Work {
            tls,
            input,
            awaited,
        })
    }

    /// Whether its TLS is elsewhere: nothing is to be read.
    pub(crate) fn is_away(&self) -> bool {
        self.away.is_some()
    }

    /// Its TLS is back.
    pub(crate) fn came_back(&mut self, taken: Taken, scratch: &mut Scratch, now: Now) -> Received {
        let before = self.pending.len();
        self.away = None;
        self.tls = Some(taken.tls);
        self.pending.extend_from_slice(&taken.answers);
        scratch.plain.clear();
        scratch.plain.extend_from_slice(&taken.plain);
        let received = self.opened(taken.opened, scratch, now);
        self.heard(received, before)
    }

    /// Whether the next bytes of the peer cost the work of a handshake.
    pub(crate) fn is_shaking_hands(&self) -> bool {
        self.door.tls.is_some() && self.tls.as_ref().is_none_or(|tls| tls.is_shaking_hands())
    }

    /// The certificate that the peer showed, where the door takes it for a client.
    pub(crate) fn certificate(&self) -> Option<&ShownCertificate> {
        let shown = self.tls.as_ref().and_then(|tls| tls.certificate());
        shown.or(self.shown.as_deref())
    }

    fn websocket_bytes(&mut self, input: &mut [u8], aside: &mut Vec<u8>, now: Now) -> Received {
        let (Some(websocket), Some(door)) = (&mut self.websocket, &self.door.websocket) else {
            return Received {
                place: Place::Input(0..input.len()),
                over: None,
            };
        };
        aside.clear();
        let mut answers = Vec::new();
        let certified = self
            .tls
            .as_ref()
            .is_some_and(|tls| tls.certificate().is_some());
        let (carried, more) = websocket.receive(door, certified, input, aside, &mut answers, now);
        let sealed = match &mut self.tls {
            Some(tls) if !answers.is_empty() => tls.seal(&answers, &mut self.pending),
            _ => {
                self.pending.extend_from_slice(&answers);
                Ok(())
            }
        };
        Received {
            place: match carried {
                Carried::Input(range) => Place::Input(range),
                Carried::Aside => Place::Aside(0..aside.len()),
            },
            over: match (more, sealed) {
                (Err(Over::Closed), _) => Some(Ended::Closed),
                (Err(Over::Fault), _) => Some(Ended::Fault(LayerFault::WebSocket)),
                (Ok(()), Err(_)) => Some(Ended::Fault(LayerFault::Tls)),
                (Ok(()), Ok(())) => None,
            },
        }
    }

    /// Whether the wire holds bytes back.
    pub(crate) fn has_pending(&self) -> bool {
        self.pending_sent < self.pending.len()
    }

    /// Sends what is held back: whether all of it went, or `None` when the peer is gone.
    pub(crate) fn send_pending(&mut self, send: impl FnOnce(&[u8]) -> Sent) -> Option<bool> {
        if !self.has_pending() {
            return Some(true);
        }
        match send(&self.pending[self.pending_sent..]) {
            Sent::Gone => None,
            Sent::Taken(taken) => {
                self.pending_sent += taken;
                let all = !self.has_pending();
                if all {
                    self.pending = Vec::new();
                    self.pending_sent = 0;
                    self.answered = 0;
                }
                Some(all)
            }
        }
    }

    /// Frames, seals and sends `bytes`. Sealed bytes cannot be called back, so while the socket
    /// has not taken all of them the last byte is said not to be taken: whoever sends knows that
    /// the wire is full, finishes the packet, and comes again.
    pub(crate) fn send(
        &mut self,
        bytes: &[u8],
        outgoing: &mut Outgoing,
        mut send: impl FnMut(&[u8]) -> Sent,
    ) -> Sent {
        match self.send_pending(&mut send) {
            None => return Sent::Gone,
            Some(false) => return Sent::Taken(0),
            Some(true) => {}
        }
        let mut taken = usize::from(std::mem::take(&mut self.owed)).min(bytes.len());
        while taken < bytes.len() {
            let most = match &self.websocket {
                Some(websocket) if websocket.takes_whole_packets() => usize::MAX,
                _ => SEALED_MAX,
            };
            let piece = &bytes[taken..][..most.min(bytes.len() - taken)];
            let Some(sealed) = self.seal(piece, outgoing) else {
                return Sent::Gone;
            };
            taken += piece.len();
            if sealed.is_empty() {
                continue;
            }
            match send(sealed) {
                Sent::Gone => return Sent::Gone,
                Sent::Taken(sent) if sent == sealed.len() => {}
                Sent::Taken(sent) => {
                    self.pending.extend_from_slice(&sealed[sent..]);
                    self.owed = true;
                    return Sent::Taken(taken - 1);
                }
            }
        }
        let told = self
            .websocket
            .as_ref()
            .is_some_and(|websocket| websocket.is_over());
        if self.ended || told {
            return Sent::Gone;
        }
        Sent::Taken(taken)
    }

    /// `bytes` as they leave; `None` if the layer below cannot take them any more.
    fn seal<'o>(&mut self, bytes: &[u8], outgoing: &'o mut Outgoing) -> Option<&'o [u8]> {
        let Outgoing { framed, sealed } = outgoing;
        let framed = match &mut self.websocket {
            None if self.tls.is_some() => bytes,
            None => {
                framed.clear();
                framed.extend_from_slice(bytes);
                framed
            }
            Some(websocket) => {
                framed.clear();
                websocket.put(bytes, framed);
                framed
            }
        };
        let Some(tls) = &mut self.tls else {
            // Nothing below frames; they were put where they stay.
            return Some(&outgoing.framed);
        };
        sealed.clear();
        if !framed.is_empty() {
            tls.seal(framed, sealed).ok()?;
        }
        Some(sealed)
    }

    /// Whether it is a channel socket whose messages pass.
    pub(crate) fn is_channel_open(&self) -> bool {
        self.websocket
            .as_ref()
            .is_some_and(|websocket| websocket.is_channel_open())
    }

    /// Whether it is a channel socket, open or on the way.
    pub(crate) fn is_channel(&self) -> bool {
        self.websocket
            .as_ref()
            .is_some_and(|websocket| websocket.takes_whole_packets())
    }

    /// What becomes of messages that a channel socket has no room for.
    pub(crate) fn slow_policy(&self) -> SlowPolicy {
        match &self.door.websocket {
            Some(door) if self.is_channel() => door.slow,
            _ => SlowPolicy::DropNewest,
        }
    }

    /// It ends because its peer is too slow.
    pub(crate) fn overloaded(&mut self) {
        if let Some(websocket) = &mut self.websocket {
            websocket.set_farewell(CloseCode::TRY_AGAIN_LATER);
        }
    }

    /// Asks the peer for a sign of life.
    pub(crate) fn ping(&mut self) {
        let mut ping = Vec::new();
        if let Some(websocket) = &self.websocket {
            websocket.ping(&mut ping);
        }
        match &mut self.tls {
            None => self.pending.extend_from_slice(&ping),
            // A peer whose TLS is broken is told by its silence.
            Some(tls) => drop(tls.seal(&ping, &mut self.pending)),
        }
    }

    /// Says goodbye in the words of each layer, behind what is held back.
    pub(crate) fn close(&mut self) {
        if self.is_away() {
            // What can be said is sealed elsewhere, or not agreed on.
            return;
        }
        let mut last = Vec::new();
        if let Some(websocket) = &mut self.websocket {
            websocket.close(&mut last);
        }
        match &mut self.tls {
            None => self.pending.extend_from_slice(&last),
            Some(tls) => {
                if last.is_empty() || tls.seal(&last, &mut self.pending).is_ok() {
                    tls.close(&mut self.pending);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
