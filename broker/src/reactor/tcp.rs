//! TCP below a shard: plain, or with layers between the socket and MQTT.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use router::SlotId;
use rustix::event::epoll;
use rustix::net::SendFlags;
use session::Now;

use crate::reactor::admission::Admission;
use crate::reactor::layer::{Layer, Outgoing, Received, Scratch};
use crate::shard::wires::{Sent, SlowPolicy, Token, Watch, Wires};

/// One accepted connection with all that belongs to it.
#[derive(Debug)]
pub(crate) struct TcpWire {
    pub(crate) fd: OwnedFd,
    pub(crate) layer: Option<Box<Layer>>,
}

/// A connection in its slot: eight bytes, of which the second four are seldom set.
#[derive(Debug)]
pub(crate) struct TcpEnd {
    pub(crate) fd: OwnedFd,
    pub(crate) layer: Option<LayerId>,
}

const _: () = assert!(size_of::<Option<TcpEnd>>() == 8);

/// The place of a layer in its shard's wires, from 1.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct LayerId(NonZeroU32);

/// A channel socket that lives on this shard.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Socket {
    pub(crate) token: Token,
    /// The second of its next Ping; 0 while it is not open.
    pub(crate) ping_s: u32,
}

/// The wires of one shard, registered with its epoll.
pub(crate) struct TcpWires {
    epoll: Arc<OwnedFd>,
    admission: Arc<Admission>,
    layers: Vec<Option<Box<Layer>>>,
    free: Vec<LayerId>,
    pub(crate) scratch: Scratch,
    /// Channel sockets, which are looked after each second.
    pub(crate) sockets: Vec<Socket>,
    outgoing: Outgoing,
}

impl TcpWires {
    pub(crate) fn new(epoll: Arc<OwnedFd>, admission: Arc<Admission>) -> TcpWires {
        TcpWires {
            epoll,
            admission,
            layers: Vec::new(),
            free: Vec::new(),
            scratch: Scratch::default(),
            sockets: Vec::new(),
            outgoing: Outgoing::default(),
        }
    }

    fn layer(&mut self, id: LayerId) -> Option<&mut Layer> {
        self.layers.get_mut(id.0.get() as usize - 1)?.as_deref_mut()
    }

    fn keep(&mut self, layer: Box<Layer>) -> LayerId {
        if let Some(id) = self.free.pop() {
            self.layers[id.0.get() as usize - 1] = Some(layer);
            return id;
        }
        self.layers.push(Some(layer));
        // Not more layers than slots, of which there are 2^25.
        LayerId(NonZeroU32::MIN.saturating_add(self.layers.len() as u32 - 1))
    }

    fn release(&mut self, id: LayerId) -> Option<Box<Layer>> {
        let layer = self.layers.get_mut(id.0.get() as usize - 1)?.take();
        if layer.is_some() {
            self.free.push(id);
        }
        layer
    }

    /// Whether the next bytes of a peer cost the work of a handshake.
    pub(crate) fn is_shaking_hands(&mut self, id: LayerId) -> bool {
        self.layer(id).is_some_and(|layer| layer.is_shaking_hands())
    }

    /// Whether it is a channel socket whose messages pass.
    fn layer_of(&self, end: &TcpEnd) -> Option<&Layer> {
        let place = end.layer?.0.get() as usize - 1;
        self.layers.get(place)?.as_deref()
    }

    pub(crate) fn is_channel_open(&mut self, id: LayerId) -> bool {
        self.layer(id).is_some_and(|layer| layer.is_channel_open())
    }

    /// Asks the peer for a sign of life.
    pub(crate) fn ping(&mut self, id: LayerId) {
        if let Some(layer) = self.layer(id) {
            layer.ping();
        }
    }

    /// Takes bytes that came through a layer; where the MQTT bytes among them lie.
    pub(crate) fn received(&mut self, id: LayerId, input: &mut [u8], now: Now) -> Received {
        let Some(Some(layer)) = self.layers.get_mut(id.0.get() as usize - 1) else {
            return Received::nothing();
        };
        layer.receive(input, &mut self.scratch, now)
    }

    /// Whether a layer holds bytes that the socket has not taken.
    fn holds_back(&mut self, end: &TcpEnd) -> bool {
        end.layer
            .and_then(|id| self.layer(id))
            .is_some_and(|layer| layer.has_pending())
    }

    /// Sends what a layer answered by itself; the rest goes when the wire takes bytes again.
    pub(crate) fn answer(&mut self, end: &TcpEnd, token: Token) {
        let Some(layer) = end.layer.and_then(|id| self.layer(id)) else {
            return;
        };
        if layer.has_pending()
            && layer.send_pending(|bytes| send(end.fd.as_fd(), bytes)) == Some(false)
        {
            let both = Watch {
                read: true,
                write: true,
            };
            let _ = epoll::modify(&self.epoll, &end.fd, data_of(token), flags_of(both));
        }
    }

    fn send_layered(&mut self, id: LayerId, fd: BorrowedFd<'_>, bytes: &[u8]) -> Sent {
        let Some(Some(layer)) = self.layers.get_mut(id.0.get() as usize - 1) else {
            return Sent::Gone;
        };
        layer.send(bytes, &mut self.outgoing, |bytes| send(fd, bytes))
    }
}

/// A token as event data. Slots have 25 bits, so the highest bit stays clear.
pub(crate) fn data_of(token: Token) -> epoll::EventData {
    let slot = u64::from(token.slot.get());
    epoll::EventData::new_u64((slot << 32) | u64::from(token.generation))
}

/// The token of event data.
pub(crate) fn token_of(data: u64) -> Token {
    Token {
        slot: SlotId::new((data >> 32) as u32),
        generation: data as u32,
    }
}

/// Edges while a wire is only read: the reactor notes what it leaves unread ([`Reactor`]), and the
/// kernel need not look at each socket a second time to find that it is empty. The end of a stream
/// has a flag of its own: it may come with the last bytes, in one edge. A wire that is
/// written to is watched by level, so that a send that stops early is told to go on.
///
/// [`Reactor`]: crate::reactor::Reactor
fn flags_of(watch: Watch) -> epoll::EventFlags {
    match (watch.read, watch.write) {
        (true, false) => READ,
        (true, true) => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        (false, true) => epoll::EventFlags::OUT,
        (false, false) => epoll::EventFlags::empty(),
    }
}

const READ: epoll::EventFlags = epoll::EventFlags::IN
    .union(epoll::EventFlags::RDHUP)
    .union(epoll::EventFlags::ET);

/// One send without waiting.
#[inline]
fn send(fd: BorrowedFd<'_>, bytes: &[u8]) -> Sent {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    loop {
        match rustix::net::send(fd, bytes, flags) {
            Ok(taken) => return Sent::Taken(taken),
            Err(rustix::io::Errno::AGAIN) => return Sent::Taken(0),
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Sent::Gone,
        }
    }
}

impl Wires for TcpWires {
    type Wire = TcpWire;
    type End = TcpEnd;

    fn place(&mut self, wire: TcpWire) -> TcpEnd {
        TcpEnd {
            fd: wire.fd,
            layer: wire.layer.map(|layer| self.keep(layer)),
        }
    }

    fn take(&mut self, end: TcpEnd) -> TcpWire {
        let _ = epoll::delete(&self.epoll, &end.fd);
        TcpWire {
            layer: end.layer.and_then(|id| self.release(id)),
            fd: end.fd,
        }
    }

    #[inline]
    fn send(&mut self, end: &mut TcpEnd, bytes: &[u8]) -> Sent {
        match end.layer {
            None => send(end.fd.as_fd(), bytes),
            Some(id) => self.send_layered(id, end.fd.as_fd(), bytes),
        }
    }

    fn resume(&mut self, end: &mut TcpEnd) -> bool {
        let Some(layer) = end.layer.and_then(|id| self.layer(id)) else {
            return true;
        };
        // A peer that is gone is told by the event that comes with it.
        layer.send_pending(|bytes| send(end.fd.as_fd(), bytes)) != Some(false)
    }

    fn attach(&mut self, end: &TcpEnd, token: Token) {
        if let Some(layer) = end.layer.and_then(|id| self.layer(id))
            && layer.is_channel()
        {
            self.sockets.push(Socket { token, ping_s: 0 });
        }
        let watch = Watch {
            read: true,
            write: self.holds_back(end),
        };
        let registered = epoll::add(&self.epoll, &end.fd, data_of(token), flags_of(watch));
        if let Err(error) = registered {
            // It stays silent and its deadline closes it.
            tracing::error!(%error, "a connection could not be watched");
        }
    }

    fn watch(&mut self, end: &TcpEnd, token: Token, watch: Watch) {
        let watch = Watch {
            write: watch.write || self.holds_back(end),
            ..watch
        };
        let _ = epoll::modify(&self.epoll, &end.fd, data_of(token), flags_of(watch));
    }

    fn close(&mut self, end: TcpEnd) {
        let _ = epoll::delete(&self.epoll, &end.fd);
        if let Some(mut layer) = end.layer.and_then(|id| self.release(id)) {
            layer.close();
            layer.send_pending(|bytes| send(end.fd.as_fd(), bytes));
        }
        self.admission.left(end.fd.as_raw_fd());
        // What was sent still goes out; the peer learns of the end at once, even if it goes on
        // sending: unread input must not turn the close into a reset that overtakes our bytes.
        let _ = rustix::net::shutdown(&end.fd, rustix::net::Shutdown::Write);
        let mut rest = [0u8; 4096];
        for _ in 0..16 {
            match rustix::io::read(&end.fd, &mut rest[..]) {
                Ok(taken) if taken > 0 => {}
                _ => break,
            }
        }
    }

    fn certificate(&self, end: &TcpEnd) -> Option<&str> {
        self.layer_of(end)?.certificate()
    }

    fn is_channel_socket(&self, end: &TcpEnd) -> bool {
        self.layer_of(end).is_some_and(Layer::is_channel)
    }

    fn slow_policy(&self, end: &TcpEnd) -> SlowPolicy {
        let layer = self.layer_of(end);
        layer.map_or(SlowPolicy::DropNewest, Layer::slow_policy)
    }

    fn overloaded(&mut self, end: &TcpEnd) {
        if let Some(layer) = end.layer.and_then(|id| self.layer(id)) {
            layer.overloaded();
        }
    }

    fn peer(&self, end: &TcpEnd) -> Option<IpAddr> {
        match self.layer_of(end) {
            Some(layer) if layer.peer().is_some() => layer.peer(),
            _ => peer_of(end.fd.as_fd()),
        }
    }
}

/// The address at the other end.
pub(crate) fn peer_of(fd: BorrowedFd<'_>) -> Option<IpAddr> {
    let address = rustix::net::getpeername(fd).ok()??;
    std::net::SocketAddr::try_from(address)
        .ok()
        .map(|address| address.ip().to_canonical())
}
