//! What is below a shard: TCP, plain or with layers between the socket and MQTT, and CoAP.

use authcache::feed::ShownCertificate;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use authcache::feed::SharedKey;
use router::{ShardId, SlotId};
use rustix::event::epoll;
use rustix::net::{SendFlags, SocketAddrAny};
use session::Now;

use crate::ferry::{Descriptor, Dock, Ferried};
use crate::reactor::admission::Admission;
use crate::reactor::coap::{Coap, CoapKey};
use crate::reactor::layer::{Layer, Outgoing, Received, Scratch};
use crate::reactor::shakers::{Taken, Work};
use crate::shard::wires::{Sent, SlowPolicy, Token, Watch, Wires};

/// One accepted connection with all that belongs to it.
#[derive(Debug)]
pub(crate) struct TcpWire {
    pub(crate) fd: Descriptor,
    pub(crate) layer: Option<Box<Layer>>,
}

/// A connection in its slot: eight bytes, of which the second four are seldom set.
#[derive(Debug)]
pub(crate) struct TcpEnd {
    pub(crate) fd: OwnedFd,
    pub(crate) layer: Option<LayerId>,
}

/// The place of a layer in its shard's wires: below 2^25, as slots are. The last byte has values to
/// spare, by which a slot's eight bytes say what is in them.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct LayerId {
    low: u16,
    middle: u8,
    high: bool,
}

impl LayerId {
    fn new(at: usize) -> LayerId {
        LayerId {
            low: at as u16,
            middle: (at >> 16) as u8,
            high: at >> 24 & 1 == 1,
        }
    }

    fn index(self) -> usize {
        usize::from(self.low) | usize::from(self.middle) << 16 | usize::from(self.high) << 24
    }
}

/// What travels between shards: a connection, or a place in the datagrams of one peer.
#[derive(Debug)]
pub(crate) enum Wire {
    /// A connection.
    Stream(TcpWire),
    /// A guest of a peer that speaks CoAP.
    Coap(CoapKey),
}

impl From<TcpWire> for Wire {
    fn from(wire: TcpWire) -> Wire {
        Wire::Stream(wire)
    }
}

/// The same in a slot.
#[derive(Debug)]
pub(crate) enum End {
    /// A connection.
    Stream(TcpEnd),
    /// A guest of a peer that speaks CoAP.
    Coap(CoapKey),
}

const _: () = assert!(size_of::<Option<End>>() == 8);

impl End {
    /// The layers of a connection that has some.
    pub(crate) fn layer(&self) -> Option<LayerId> {
        match self {
            End::Stream(end) => end.layer,
            End::Coap(_) => None,
        }
    }
}

/// A channel socket that lives on this shard.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Socket {
    pub(crate) token: Token,
    /// The second of its next Ping; 0 while it is not open.
    pub(crate) ping_s: u32,
}

/// The wires of one shard, registered with its epoll.
pub(crate) struct NetWires {
    epoll: Arc<OwnedFd>,
    admission: Arc<Admission>,
    layers: Vec<Option<Box<Layer>>>,
    free: Vec<LayerId>,
    pub(crate) scratch: Scratch,
    /// Channel sockets, which are looked after each second.
    pub(crate) sockets: Vec<Socket>,
    outgoing: Outgoing,
    /// Peers that speak CoAP.
    pub(crate) coap: Coap,
    /// Where connections come in, if this thread has a table of descriptors of its own.
    dock: Option<Dock>,
}

impl NetWires {
    pub(crate) fn new(
        epoll: Arc<OwnedFd>,
        admission: Arc<Admission>,
        coap: Coap,
        dock: Option<Dock>,
    ) -> NetWires {
        NetWires {
            dock,
            epoll,
            admission,
            layers: Vec::new(),
            free: Vec::new(),
            scratch: Scratch::default(),
            sockets: Vec::new(),
            outgoing: Outgoing::default(),
            coap,
        }
    }

    fn layer(&mut self, id: LayerId) -> Option<&mut Layer> {
        self.layers.get_mut(id.index())?.as_deref_mut()
    }

    fn layer_of(&self, end: &TcpEnd) -> Option<&Layer> {
        self.layers.get(end.layer?.index())?.as_deref()
    }

    /// Channel sockets are looked after each second.
    fn note_socket(&mut self, end: &TcpEnd, token: Token) {
        if self.layer_of(end).is_some_and(Layer::is_channel) {
            self.sockets.push(Socket { token, ping_s: 0 });
        }
    }

    fn keep(&mut self, layer: Box<Layer>) -> LayerId {
        if let Some(id) = self.free.pop() {
            self.layers[id.index()] = Some(layer);
            return id;
        }
        self.layers.push(Some(layer));
        // Not more layers than slots, of which there are 2^25.
        LayerId::new(self.layers.len() - 1)
    }

    fn release(&mut self, id: LayerId) -> Option<Box<Layer>> {
        let layer = self.layers.get_mut(id.index())?.take();
        if layer.is_some() {
            self.free.push(id);
        }
        layer
    }

    /// Whether a step of its handshake is being taken elsewhere.
    pub(crate) fn is_away(&mut self, id: LayerId) -> bool {
        self.layer(id).is_some_and(|layer| layer.is_away())
    }

    /// The step of a handshake that these bytes of the peer ask for, if it can be taken elsewhere.
    pub(crate) fn depart(&mut self, id: LayerId, input: &[u8]) -> Option<Work> {
        self.layer(id)?.depart(input)
    }

    /// A step was taken elsewhere; where the MQTT bytes behind the handshake lie.
    pub(crate) fn came_back(&mut self, id: LayerId, taken: Taken, now: Now) -> Received {
        let Some(Some(layer)) = self.layers.get_mut(id.index()) else {
            return Received::nothing();
        };
        layer.came_back(taken, &mut self.scratch, now)
    }

    /// Whether the next bytes of a peer cost the work of a handshake.
    pub(crate) fn is_shaking_hands(&mut self, id: LayerId) -> bool {
        self.layer(id).is_some_and(|layer| layer.is_shaking_hands())
    }

    /// Whether it is a channel socket whose messages pass.
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
        let Some(Some(layer)) = self.layers.get_mut(id.index()) else {
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
    pub(crate) fn answer(&mut self, end: &End, token: Token) {
        let End::Stream(end) = end else {
            return;
        };
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

    /// The descriptor of a connection that came from another thread.
    fn receive(&mut self, ferried: &Ferried) -> Option<OwnedFd> {
        let received = match &mut self.dock {
            Some(dock) => dock.receive(ferried),
            None => Err(std::io::ErrorKind::NotFound.into()),
        };
        if let Err(error) = &received {
            tracing::warn!(%error, "a connection did not reach its shard and is closed");
        }
        received.ok()
    }

    fn send_layered(&mut self, id: LayerId, fd: BorrowedFd<'_>, bytes: &[u8]) -> Sent {
        let Some(Some(layer)) = self.layers.get_mut(id.index()) else {
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

impl Wires for NetWires {
    type Wire = Wire;
    type End = End;

    fn place(&mut self, wire: Wire) -> Option<End> {
        let wire = match wire {
            Wire::Coap(key) => return Some(End::Coap(key)),
            Wire::Stream(wire) => wire,
        };
        let fd = match wire.fd {
            Descriptor::Here(fd) => fd,
            Descriptor::Ferried(ferried) => self.receive(&ferried)?,
        };
        Some(End::Stream(TcpEnd {
            fd,
            layer: wire.layer.map(|layer| self.keep(layer)),
        }))
    }

    fn hand_over(&mut self, wire: Wire, home: ShardId) -> Option<Wire> {
        let Wire::Stream(wire) = wire else {
            return Some(wire);
        };
        if let Descriptor::Here(fd) = &wire.fd {
            let _ = epoll::delete(&self.epoll, fd);
        }
        let (Some(dock), Descriptor::Here(fd)) = (&self.dock, &wire.fd) else {
            return Some(Wire::Stream(wire));
        };
        match dock.ferry().send(home.index(), fd) {
            Ok(ferried) => Some(Wire::Stream(TcpWire {
                fd: Descriptor::Ferried(ferried),
                layer: wire.layer,
            })),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be handed to its shard and is closed");
                None
            }
        }
    }

    fn take(&mut self, end: End) -> Wire {
        match end {
            End::Coap(key) => {
                self.coap.detach(key);
                Wire::Coap(key)
            }
            End::Stream(end) => Wire::Stream(TcpWire {
                layer: end.layer.and_then(|id| self.release(id)),
                fd: Descriptor::Here(end.fd),
            }),
        }
    }

    #[inline]
    fn send(&mut self, end: &mut End, bytes: &[u8]) -> Sent {
        match end {
            End::Stream(end) => match end.layer {
                None => send(end.fd.as_fd(), bytes),
                Some(id) => self.send_layered(id, end.fd.as_fd(), bytes),
            },
            End::Coap(key) => {
                self.coap.packets(*key, bytes);
                Sent::Taken(bytes.len())
            }
        }
    }

    fn resume(&mut self, end: &mut End) -> bool {
        let End::Stream(end) = end else {
            return true;
        };
        let Some(layer) = end.layer.and_then(|id| self.layer(id)) else {
            return true;
        };
        // A peer that is gone is told by the event that comes with it.
        layer.send_pending(|bytes| send(end.fd.as_fd(), bytes)) != Some(false)
    }

    fn attach(&mut self, end: &End, token: Token) {
        let end = match end {
            End::Stream(end) => end,
            End::Coap(key) => return self.coap.attach(*key, token),
        };
        self.note_socket(end, token);
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

    fn attach_again(&mut self, end: &End, token: Token) {
        let watch = Watch {
            read: true,
            write: false,
        };
        match end {
            End::Stream(stream) => {
                self.note_socket(stream, token);
                // What waits to be read is told again.
                self.watch(end, token, watch);
            }
            End::Coap(key) => self.coap.attach(*key, token),
        }
    }

    fn watch(&mut self, end: &End, token: Token, watch: Watch) {
        let end = match end {
            End::Stream(end) => end,
            End::Coap(key) => return self.coap.watch(*key, watch),
        };
        let watch = Watch {
            write: watch.write || self.holds_back(end),
            ..watch
        };
        let _ = epoll::modify(&self.epoll, &end.fd, data_of(token), flags_of(watch));
    }

    fn is_anchored(&self, wire: &Wire) -> bool {
        matches!(wire, Wire::Coap(_))
    }

    fn awaits_replays(&self, end: &End) -> bool {
        matches!(end, End::Coap(_))
    }

    fn replayed(&mut self, end: &End, identifier: u32) {
        if let End::Coap(key) = end {
            self.coap.replayed(*key, identifier);
        }
    }

    fn key(&mut self, number: u64, key: Option<SharedKey>) {
        self.coap.keys.push((number, key));
    }

    fn close(&mut self, end: End) {
        let end = match end {
            End::Stream(end) => end,
            End::Coap(key) => return self.coap.closed(key),
        };
        // Nobody else has the descriptor: closing it ends its watch too.
        if let Some(mut layer) = end.layer.and_then(|id| self.release(id)) {
            layer.close();
            layer.send_pending(|bytes| send(end.fd.as_fd(), bytes));
        }
        self.admission.left(end.fd.as_raw_fd());
        // What was sent still goes out. Unread input would turn the close into a reset that overtakes
        // our bytes: a peer that goes on sending learns of the end first.
        let mut rest = [0u8; 4096];
        for read in 0..16 {
            match rustix::io::read(&end.fd, &mut rest[..]) {
                Ok(taken) if taken > 0 => {}
                _ => break,
            }
            if read == 0 {
                let _ = rustix::net::shutdown(&end.fd, rustix::net::Shutdown::Write);
            }
        }
    }

    fn certificate(&self, end: &End) -> Option<&ShownCertificate> {
        match end {
            End::Stream(end) => self.layer_of(end)?.certificate(),
            End::Coap(key) => self.coap.certificate(*key),
        }
    }

    fn is_channel_socket(&self, end: &End) -> bool {
        match end {
            End::Stream(end) => self.layer_of(end).is_some_and(Layer::is_channel),
            End::Coap(_) => false,
        }
    }

    fn slow_policy(&self, end: &End) -> SlowPolicy {
        let layer = match end {
            End::Stream(end) => self.layer_of(end),
            End::Coap(_) => None,
        };
        layer.map_or(SlowPolicy::DropNewest, Layer::slow_policy)
    }

    fn overloaded(&mut self, end: &End) {
        if let Some(layer) = end.layer().and_then(|id| self.layer(id)) {
            layer.overloaded();
        }
    }

    fn peer(&self, end: &End) -> Option<IpAddr> {
        match end {
            End::Stream(end) => match self.layer_of(end) {
                Some(layer) if layer.peer().is_some() => layer.peer(),
                _ => peer_of(end.fd.as_fd()),
            },
            End::Coap(key) => self.coap.address(*key).map(|address| address.ip()),
        }
    }
}

/// The address at the other end.
fn peer_of(fd: BorrowedFd<'_>) -> Option<IpAddr> {
    ip_of(rustix::net::getpeername(fd).ok()??)
}

/// The address of a peer that the system names.
pub(crate) fn ip_of(address: SocketAddrAny) -> Option<IpAddr> {
    let address = std::net::SocketAddr::try_from(address).ok()?;
    Some(address.ip().to_canonical())
}
