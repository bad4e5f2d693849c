//! One connection under load: bytes out without waiting, whole packets in.

use std::net::TcpStream;

use codec::mqtt::{Frame, split_frame};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::net::SendFlags;

use crate::error::Error;

/// One connection, watched by an epoll under its number.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    number: usize,
    /// The beginning of a packet whose end has not come.
    partial: Vec<u8>,
    /// What the system did not take yet.
    unsent: Vec<u8>,
}

/// Room for what one receive takes.
pub(crate) const READ_BYTES: usize = 256 << 10;

/// Largest packet taken from a broker.
const PACKET_MAX: u32 = 32 << 20;

impl Wire {
    /// # Errors
    /// The system refuses to watch it.
    pub(crate) fn new(stream: TcpStream, number: usize, epoll: &OwnedFd) -> Result<Wire, Error> {
        stream.set_nonblocking(true)?;
        let wire = Wire {
            stream,
            number,
            partial: Vec::new(),
            unsent: Vec::new(),
        };
        epoll::add(epoll, &wire.stream, wire.data(), epoll::EventFlags::IN)?;
        Ok(wire)
    }

    fn data(&self) -> epoll::EventData {
        epoll::EventData::new_u64(self.number as u64)
    }

    /// Sends `bytes`, behind what waits already.
    ///
    /// # Errors
    /// The peer is gone.
    pub(crate) fn send(&mut self, epoll: &OwnedFd, bytes: &[u8]) -> Result<(), Error> {
        let waited = !self.unsent.is_empty();
        let taken = if waited { 0 } else { self.give(bytes)? };
        self.unsent.extend_from_slice(&bytes[taken..]);
        if !waited && !self.unsent.is_empty() {
            let both = epoll::EventFlags::IN | epoll::EventFlags::OUT;
            epoll::modify(epoll, &self.stream, self.data(), both)?;
        }
        Ok(())
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// The peer is gone.
    pub(crate) fn writable(&mut self, epoll: &OwnedFd) -> Result<(), Error> {
        let waiting = std::mem::take(&mut self.unsent);
        let taken = self.give(&waiting)?;
        self.unsent = waiting;
        self.unsent.drain(..taken);
        if self.unsent.is_empty() {
            epoll::modify(epoll, &self.stream, self.data(), epoll::EventFlags::IN)?;
        }
        Ok(())
    }

    fn give(&self, bytes: &[u8]) -> Result<usize, Error> {
        match rustix::net::send(&self.stream, bytes, SendFlags::NOSIGNAL) {
            Ok(taken) => Ok(taken),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(0),
            Err(_) => Err(Error::Closed(self.number)),
        }
    }

    /// Receives once and shows each whole packet to `packet`.
    ///
    /// # Errors
    /// The peer is gone, sends no packets, or `packet` fails.
    pub(crate) fn receive(
        &mut self,
        buffer: &mut [u8],
        mut packet: impl FnMut(&Frame<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let taken = match rustix::io::read(&self.stream, &mut *buffer) {
            Ok(0) => return Err(Error::Closed(self.number)),
            Ok(taken) => taken,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return Ok(()),
            Err(_) => return Err(Error::Closed(self.number)),
        };
        if self.partial.is_empty() {
            let used = walk(&buffer[..taken], &mut packet)?;
            self.partial.extend_from_slice(&buffer[used..taken]);
        } else {
            self.partial.extend_from_slice(&buffer[..taken]);
            let used = walk(&self.partial, &mut packet)?;
            self.partial.drain(..used);
        }
        Ok(())
    }
}

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
