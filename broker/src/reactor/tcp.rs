//! Plain TCP below a shard.

use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use router::SlotId;
use rustix::event::epoll;
use rustix::net::SendFlags;

use crate::reactor::admission::Admission;
use crate::shard::wires::{Sent, Token, Watch, Wires};

/// One accepted connection: four bytes in its slot.
#[derive(Debug)]
pub(crate) struct TcpWire {
    pub(crate) fd: OwnedFd,
}

/// The wires of one shard, registered with its epoll.
pub(crate) struct TcpWires {
    epoll: Arc<OwnedFd>,
    admission: Arc<Admission>,
}

impl TcpWires {
    pub(crate) fn new(epoll: Arc<OwnedFd>, admission: Arc<Admission>) -> TcpWires {
        TcpWires { epoll, admission }
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
/// kernel need not look at each socket a second time to find that it is empty. A wire that is
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

const READ: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::ET);

impl Wires for TcpWires {
    type Wire = TcpWire;

    fn send(&mut self, wire: &mut TcpWire, bytes: &[u8]) -> Sent {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        loop {
            match rustix::net::send(&wire.fd, bytes, flags) {
                Ok(taken) => return Sent::Taken(taken),
                Err(rustix::io::Errno::AGAIN) => return Sent::Taken(0),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Sent::Gone,
            }
        }
    }

    fn attach(&mut self, wire: &TcpWire, token: Token) {
        let registered = epoll::add(&self.epoll, &wire.fd, data_of(token), READ);
        if let Err(error) = registered {
            // It stays silent and its deadline closes it.
            tracing::error!(%error, "a connection could not be watched");
        }
    }

    fn detach(&mut self, wire: &TcpWire) {
        let _ = epoll::delete(&self.epoll, &wire.fd);
    }

    fn watch(&mut self, wire: &TcpWire, token: Token, watch: Watch) {
        let _ = epoll::modify(&self.epoll, &wire.fd, data_of(token), flags_of(watch));
    }

    fn close(&mut self, wire: TcpWire) {
        self.admission.left(wire.fd.as_raw_fd());
        // What was sent still goes out; the peer learns of the end at once, even if it goes on
        // sending: unread input must not turn the close into a reset that overtakes our bytes.
        let _ = rustix::net::shutdown(&wire.fd, rustix::net::Shutdown::Write);
        let mut rest = [0u8; 4096];
        for _ in 0..16 {
            match rustix::io::read(&wire.fd, &mut rest[..]) {
                Ok(taken) if taken > 0 => {}
                _ => break,
            }
        }
    }

    fn peer(&self, wire: &TcpWire) -> Option<IpAddr> {
        peer_of(wire.fd.as_fd())
    }
}

/// The address at the other end.
pub(crate) fn peer_of(fd: std::os::fd::BorrowedFd<'_>) -> Option<IpAddr> {
    let address = rustix::net::getpeername(fd).ok()??;
    std::net::SocketAddr::try_from(address)
        .ok()
        .map(|address| address.ip().to_canonical())
}
