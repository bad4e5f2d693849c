//! One connection under load: bytes out without waiting, whole packets in.

use std::net::{Ipv4Addr, SocketAddr};

use codec::mqtt::{Frame, split_frame};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::layers::Layers;

/// One connection, watched by an epoll under its number.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: OwnedFd,
    number: usize,
    /// The beginning of a packet whose end has not come.
    partial: Vec<u8>,
    /// What the system did not take yet.
    unsent: Vec<u8>,
    layers: Option<Box<Layers>>,
}

/// Room for what one receive takes.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Largest packet taken from a broker.
const PACKET_MAX: u32 = 64 << 20;

/// More unsent bytes than this and nothing new is sent on the connection.
const UNSENT_MAX: usize = 4 << 20;

/// Connections from one source address, below the usual number of ephemeral ports.
pub(crate) const PER_ADDRESS: usize = 10_000;

impl Wire {
    /// Begins to connect; `serial` counts the connections of the whole machine, so that each ten
    /// thousand have another source address. Events come under `number`.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn open(
        endpoint: &Endpoint,
        serial: usize,
        number: usize,
        epoll: &OwnedFd,
    ) -> Result<Wire, Error> {
        let failed = |why: String| Error::Connect { number, why };
        let socket =
            connect(endpoint.address, serial).map_err(|error| failed(error.to_string()))?;
        let mut wire = Wire {
            socket,
            number,
            partial: Vec::new(),
            unsent: Vec::new(),
            layers: None,
        };
        epoll::add(epoll, &wire.socket, wire.data(), epoll::EventFlags::IN)?;
        if !endpoint.is_plain() {
            let mut first = Vec::new();
            let layers = Layers::new(endpoint, serial, &mut first).map_err(failed)?;
            wire.layers = Some(Box::new(layers));
            wire.transmit(epoll, &first)?;
        }
        Ok(wire)
    }

    /// Its events come under another number from now on.
    ///
    /// # Errors
    /// The system refuses to watch it.
    pub(crate) fn renumber(&mut self, epoll: &OwnedFd, number: usize) -> Result<(), Error> {
        self.number = number;
        let flags = if self.unsent.is_empty() {
            epoll::EventFlags::IN
        } else {
            epoll::EventFlags::IN | epoll::EventFlags::OUT
        };
        Ok(epoll::modify(epoll, &self.socket, self.data(), flags)?)
    }

    /// It is watched no longer.
    pub(crate) fn abandon(&mut self, epoll: &OwnedFd) {
        // Nothing is lost if it was not watched.
        let _ = epoll::delete(epoll, &self.socket);
        self.unsent = Vec::new();
    }

    fn data(&self) -> epoll::EventData {
        epoll::EventData::new_u64(self.number as u64)
    }

    /// Whether so much is unsent that nothing should be added.
    #[inline]
    pub(crate) fn is_clogged(&self) -> bool {
        self.unsent.len() > UNSENT_MAX
    }

    /// Sends `bytes`, behind what waits already.
    ///
    /// # Errors
    /// The peer is gone.
    #[inline]
    pub(crate) fn send(&mut self, epoll: &OwnedFd, bytes: &[u8]) -> Result<(), Error> {
        let Some(layers) = &mut self.layers else {
            return self.transmit(epoll, bytes);
        };
        let mut sealed = Vec::with_capacity(bytes.len() + 64);
        let number = self.number;
        let done = layers.seal(bytes, &mut sealed);
        done.map_err(|why| Error::Lost { number, why })?;
        self.transmit(epoll, &sealed)
    }

    fn transmit(&mut self, epoll: &OwnedFd, bytes: &[u8]) -> Result<(), Error> {
        let waited = !self.unsent.is_empty();
        let taken = if waited { 0 } else { self.give(bytes)? };
        self.unsent.extend_from_slice(&bytes[taken..]);
        if !waited && !self.unsent.is_empty() {
            let both = epoll::EventFlags::IN | epoll::EventFlags::OUT;
            epoll::modify(epoll, &self.socket, self.data(), both)?;
        }
        Ok(())
    }

    /// Sends what waits; whether that was all.
    ///
    /// # Errors
    /// The peer is gone.
    pub(crate) fn writable(&mut self, epoll: &OwnedFd) -> Result<bool, Error> {
        let waiting = std::mem::take(&mut self.unsent);
        let taken = self.give(&waiting)?;
        self.unsent = waiting;
        self.unsent.drain(..taken);
        let all = self.unsent.is_empty();
        if all {
            epoll::modify(epoll, &self.socket, self.data(), epoll::EventFlags::IN)?;
            self.unsent = Vec::new();
        }
        Ok(all)
    }

    fn give(&self, bytes: &[u8]) -> Result<usize, Error> {
        match rustix::net::send(&self.socket, bytes, SendFlags::NOSIGNAL) {
            Ok(taken) => Ok(taken),
            // A connection that is being made takes nothing yet.
            Err(Errno::AGAIN | Errno::INTR | Errno::NOTCONN) => Ok(0),
            Err(errno) => Err(self.lost(errno)),
        }
    }

    fn lost(&self, errno: Errno) -> Error {
        match errno {
            Errno::CONNRESET | Errno::PIPE => Error::Closed(self.number),
            other => Error::Lost {
                number: self.number,
                why: std::io::Error::from(other).to_string(),
            },
        }
    }

    /// Receives once and shows each whole packet to `packet`.
    ///
    /// # Errors
    /// The peer is gone, sends no packets, or `packet` fails.
    pub(crate) fn receive(
        &mut self,
        epoll: &OwnedFd,
        buffer: &mut [u8],
        mut packet: impl FnMut(&Frame<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let taken = match rustix::io::read(&self.socket, &mut *buffer) {
            Ok(0) => return Err(Error::Closed(self.number)),
            Ok(taken) => taken,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(errno) => return Err(self.lost(errno)),
        };
        if let Some(layers) = &mut self.layers {
            let (number, mut answers) = (self.number, Vec::new());
            let opened = layers.open(&mut buffer[..taken], &mut self.partial, &mut answers);
            opened.map_err(|why| Error::Lost { number, why })?;
            if !answers.is_empty() {
                self.transmit(epoll, &answers)?;
            }
        } else if self.partial.is_empty() {
            let used = walk(&buffer[..taken], &mut packet)?;
            self.partial.extend_from_slice(&buffer[used..taken]);
            return Ok(());
        } else {
            self.partial.extend_from_slice(&buffer[..taken]);
        }
        let used = walk(&self.partial, &mut packet)?;
        self.partial.drain(..used);
        if self.partial.is_empty() && self.partial.capacity() <= KEPT_MIN {
            // Idle connections keep no buffer: there may be very many. One that carries large
            // packets needs it again.
            self.partial = Vec::new();
        }
        Ok(())
    }
}

/// Smaller buffers are not kept.
const KEPT_MIN: usize = 4096;

/// Shows the whole packets in `input`; how many bytes they have.
fn walk(
    input: &[u8],
    packet: &mut impl FnMut(&Frame<'_>) -> Result<(), Error>,
) -> Result<usize, Error> {
    let mut used = 0;
    while let Some(frame) = split_frame(&input[used..], PACKET_MAX)? {
        packet(&frame)?;
        used += frame.bytes.len();
    }
    Ok(used)
}

fn connect(address: SocketAddr, serial: usize) -> std::io::Result<OwnedFd> {
    let domain = Domain::for_address(address);
    let kind = Type::STREAM.nonblocking();
    let socket = Socket::new(domain, kind, Some(Protocol::TCP))?;
    if let Some(source) = source(address, serial) {
        // Ports of connections that ended a moment ago may be taken again.
        socket.set_reuse_address(true)?;
        if socket.bind(&source.into()).is_err() {
            // Somebody else has the port: the system looks for another one, which takes longer
            // the more of them are taken.
            socket.bind(&SocketAddr::new(source.ip(), 0).into())?;
        }
    }
    socket.set_tcp_nodelay(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(socket.into())
}

/// The first serial number beside a run that holds `held` connections. Each of its processes may
/// have connections besides, such as publishers, which have no more addresses than one of their own.
#[must_use]
pub fn serial_beside(held: usize) -> usize {
    match held {
        0 => 0,
        held => held.next_multiple_of(PER_ADDRESS) + PER_ADDRESS,
    }
}

const FIRST_PORT: u16 = 20_000;

/// Another source address for each ten thousand connections over loopback, and for each of them a
/// port below those that the system gives out.
fn source(target: SocketAddr, serial: usize) -> Option<SocketAddr> {
    let SocketAddr::V4(target) = target else {
        return None;
    };
    let group = serial / PER_ADDRESS % 60_000;
    if !target.ip().is_loopback() || group == 0 {
        return None;
    }
    let (high, low) = (group / 250, group % 250);
    let port = FIRST_PORT + (serial % PER_ADDRESS) as u16;
    Some((Ipv4Addr::new(127, 1, high as u8, low as u8 + 1), port).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ten_thousand_connections_over_loopback_have_an_address_of_their_own() {
        let here = "127.0.0.1:1883".parse().unwrap();
        assert_eq!(source(here, 9_999), None);
        let at = |serial| source(here, serial).unwrap().to_string();
        assert_eq!(at(10_000), "127.1.0.2:20000");
        assert_eq!(at(19_999), "127.1.0.2:29999");
        assert_eq!(at(2_500_000), "127.1.1.1:20000");
        assert_eq!(at(serial_beside(100_000)), "127.1.0.12:20000");
        assert_eq!(serial_beside(0), 0);
        assert_eq!(source("10.0.0.1:1883".parse().unwrap(), 20_000), None);
        assert_eq!(source("[::1]:1883".parse().unwrap(), 20_000), None);
    }
}
