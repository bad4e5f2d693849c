//! A bare relay: receive, copy, send. The floor that a broker is compared with.
//!
//! It understands CONNECT, SUBSCRIBE and the topic of a publisher's first packet, so that the same
//! load runs against it; from then on bytes pass unread. One thread, one epoll, one receive for
//! each event and one send for each receiver and turn, as a broker at its best would do.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};

use codec::mqtt::{
    ConnAck, Packet, ProtocolVersion, ReasonCode, SubAck, decode, decode_connect, split_frame,
};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use rustix::net::SendFlags;

use crate::error::Error;

/// Relays until the process ends.
///
/// # Errors
/// The address cannot be bound, or epoll fails.
pub fn relay(address: SocketAddr) -> Result<(), Error> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64(LISTENER);
    epoll::add(&epoll, &listener, data, epoll::EventFlags::IN)?;
    let mut relay = Relay {
        epoll,
        peers: Vec::new(),
        groups: HashMap::new(),
        receivers: Vec::new(),
        touched: Vec::new(),
    };
    let mut buffer = vec![0; READ_BYTES];
    let mut events = Vec::with_capacity(1024);
    loop {
        events.clear();
        match epoll::wait(
            &relay.epoll,
            rustix::buffer::spare_capacity(&mut events),
            None,
        ) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            match event.data.u64() {
                LISTENER => relay.accept(&listener)?,
                number => relay.receive(number as usize, &mut buffer),
            }
        }
        relay.flush();
    }
}

const LISTENER: u64 = u64::MAX;
const READ_BYTES: usize = 64 << 10;

struct Relay {
    epoll: OwnedFd,
    peers: Vec<Option<Peer>>,
    /// Number of the group of each topic.
    groups: HashMap<String, usize>,
    /// Who receives what is sent to a group.
    receivers: Vec<Vec<usize>>,
    /// Peers with something to send.
    touched: Vec<usize>,
}

struct Peer {
    stream: TcpStream,
    version: Option<ProtocolVersion>,
    /// The group it sends to, once known.
    group: Option<usize>,
    out: Vec<u8>,
}

impl Relay {
    fn accept(&mut self, listener: &TcpListener) -> Result<(), Error> {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let data = epoll::EventData::new_u64(self.peers.len() as u64);
            epoll::add(&self.epoll, &stream, data, epoll::EventFlags::IN)?;
            self.peers.push(Some(Peer {
                stream,
                version: None,
                group: None,
                out: Vec::new(),
            }));
        }
        Ok(())
    }

    fn receive(&mut self, number: usize, buffer: &mut [u8]) {
        let Some(Some(peer)) = self.peers.get_mut(number) else {
            return;
        };
        let taken = match rustix::io::read(&peer.stream, &mut *buffer) {
            Ok(taken) if taken > 0 => taken,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
            _ => return self.leave(number),
        };
        let bytes = &buffer[..taken];
        let group = match peer.group {
            Some(group) => group,
            None => match self.greet(number, bytes) {
                Some(group) => group,
                None => return,
            },
        };
        for &receiver in &self.receivers[group] {
            if let Some(peer) = &mut self.peers[receiver] {
                if peer.out.is_empty() {
                    self.touched.push(receiver);
                }
                peer.out.extend_from_slice(bytes);
            }
        }
    }

    /// The packets before a publisher's first; whole ones only, which is enough for the load
    /// generator. The group, when `bytes` are messages.
    fn greet(&mut self, number: usize, bytes: &[u8]) -> Option<usize> {
        let frame = split_frame(bytes, u32::MAX).ok()??;
        let peer = self.peers[number].as_mut()?;
        let mut out = Vec::new();
        let Some(version) = peer.version else {
            let connect = decode_connect(&frame).ok()?;
            peer.version = Some(connect.version);
            let connack = ConnAck {
                session_present: false,
                reason: ReasonCode::SUCCESS,
                properties: Default::default(),
            };
            connack.encode(connect.version, &mut out);
            send(&peer.stream, &out);
            return None;
        };
        match decode(&frame, version).ok()? {
            Packet::Subscribe(subscribe) => {
                let codes = vec![0; subscribe.filters.iter().count()];
                SubAck::new(subscribe.packet_id, &codes).encode_suback(version, &mut out);
                send(&peer.stream, &out);
                for subscription in subscribe.filters.iter() {
                    let group = self.group(subscription.filter);
                    self.receivers[group].push(number);
                }
                None
            }
            Packet::Publish(publish) => {
                let group = self.group(publish.topic);
                self.peers[number].as_mut()?.group = Some(group);
                Some(group)
            }
            _ => None,
        }
    }

    fn group(&mut self, topic: &str) -> usize {
        if let Some(group) = self.groups.get(topic) {
            return *group;
        }
        self.receivers.push(Vec::new());
        self.groups
            .insert(topic.to_owned(), self.receivers.len() - 1);
        self.receivers.len() - 1
    }

    fn leave(&mut self, number: usize) {
        self.peers[number] = None;
        for receivers in &mut self.receivers {
            receivers.retain(|receiver| *receiver != number);
        }
    }

    /// One send for each receiver; what the system does not take is dropped.
    fn flush(&mut self) {
        for number in self.touched.drain(..) {
            if let Some(peer) = &mut self.peers[number] {
                send(&peer.stream, &peer.out);
                peer.out.clear();
            }
        }
    }
}

fn send(stream: &TcpStream, bytes: &[u8]) {
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    let _ = rustix::net::send(stream, bytes, flags);
}
