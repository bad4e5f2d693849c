//! Datagrams in a turn: read, handed to their endpoints, and carried out.

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use authcache::{Action, Denied};
use session::coap::{Around, Endpoint, GuestNumber, Incoming, Right, Rights, Wish, is_same_filter};

use crate::reactor::Reactor;
use crate::reactor::coap::{CoapKey, Peer, PeerId};
use crate::reactor::dtls_records::offers_psk;
use crate::reactor::tcp::{NetWires, Wire};
use crate::shard::Shard;
use crate::shard::wires::{Readable, Token};

/// Datagrams read from one socket in a turn.
const DATAGRAMS_MAX: usize = 256;

/// Peers looked through for observers in a second.
const REVIEWED_MAX: usize = 65_536;

/// Bytes of a PUBLISH besides its payload that a message in CoAP may need.
const HEAD_BYTES: usize = 16 << 10;

/// The shard as an endpoint sees it, while the endpoint is not in it.
struct ShardRights<'a> {
    shard: &'a mut Shard<NetWires>,
    tokens: [Option<Token>; Endpoint::GUESTS_MAX],
}

impl Rights for ShardRights<'_> {
    fn may_read(&mut self, guest: GuestNumber, identifier: u32) -> Right {
        let token = self.tokens.get(usize::from(guest.0)).copied().flatten();
        let env = &self.shard.env;
        let slot = token.and_then(|token| self.shard.outlets.slots.current(token));
        let Some(slot) = slot else {
            return Right::Lost;
        };
        let principal = slot.hot.principal;
        let mut machine = slot.machine();
        let Some(session) = machine.session() else {
            return Right::Lost;
        };
        let own = session.subscriptions().iter().find(|record| {
            let known = record.identifier.map(|number| number.get());
            known.is_some_and(|known| is_same_filter(known, identifier))
        });
        let Some(record) = own else {
            return Right::Lost;
        };
        if !env.may_serve() {
            return Right::Unclear;
        }
        match env
            .gate
            .allows(principal, Action::Subscribe, record.channel)
        {
            Ok(_) => Right::Held,
            Err(Denied::NoRight | Denied::NotLive) => Right::Lost,
            // A user's right that is not known is asked for when there is something to read.
            Err(Denied::Unknown | Denied::LeaseOver) => Right::Unclear,
        }
    }

    fn canonical(&mut self, domain: &str, channel: &str) -> Option<String> {
        let directory = self.shard.env.shared.cache.directory();
        let index = directory.resolve(domain, channel)?;
        directory.prefix(index).map(|prefix| prefix.to_string())
    }
}

impl Reactor {
    /// Reads what came to one of the UDP sockets; whether more may have come.
    pub(super) fn datagrams(&mut self, door: u8) -> bool {
        let Some(options) = self.doors.get(usize::from(door)).cloned() else {
            return false;
        };
        for _ in 0..DATAGRAMS_MAX {
            // Another shard has so much to do for this one that its clients have to wait.
            if self.shard.is_spent() || self.shard.holds_back() {
                return true;
            }
            let (len, address) = match options.socket.recv_from(&mut self.buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return false,
                // What ICMP said of an earlier datagram; others may wait behind it.
                Err(_) => continue,
            };
            self.datagram(door, address, len);
        }
        true
    }

    fn datagram(&mut self, door: u8, address: SocketAddr, len: usize) {
        let coap = &mut self.shard.outlets.wires.coap;
        coap.datagrams_in += 1;
        if !coap.knows(door, address) {
            // Behind DTLS nobody is remembered who does not ask for a handshake.
            let secure = coap.doors[usize::from(door)].dtls.is_some();
            if secure && offers_psk(&self.buffer[..len]).is_none() {
                coap.turned_away += 1;
                return;
            }
            if let Some(surplus) = coap.surplus() {
                self.forget_peer(surplus);
            }
            if !self.shard.outlets.wires.coap.has_room() {
                self.shard.outlets.wires.coap.turned_away += 1;
                return;
            }
        }
        self.shard.env.counters.wire_bytes_in.add(len as u64);
        let serving = self.shard.may_serve();
        let most = self.shard.env.shared.limits.max_packet_size as usize;
        let coap = &mut self.shard.outlets.wires.coap;
        let Some(id) = coap.peer_at(door, address, Instant::now()) else {
            return;
        };
        let incoming = Incoming {
            serving,
            payload_max: most - HEAD_BYTES.min(most / 2),
            room: coap.room(),
            echo: coap.proof_of(address),
        };
        let buffer = std::mem::take(&mut self.buffer);
        if self.doors[usize::from(door)].dtls.is_some() {
            self.sealed(id, &buffer[..len], &incoming);
        } else {
            self.opened(id, &buffer[..len], &incoming);
        }
        self.buffer = buffer;
    }

    /// A datagram in the clear.
    pub(super) fn opened(&mut self, id: PeerId, datagram: &[u8], incoming: &Incoming) {
        self.with_endpoint(id, |peer, rights, around| {
            peer.endpoint.datagram(datagram, incoming, rights, around);
        });
        self.carry_out_wishes(id);
    }

    /// Calls an endpoint while it is not in the shard. A fault in one ends it alone.
    fn with_endpoint(
        &mut self,
        id: PeerId,
        call: impl FnOnce(&mut Peer, &mut dyn Rights, &mut Around<'_>),
    ) {
        let coap = &mut self.shard.outlets.wires.coap;
        let Some(mut peer) = coap.take_peer(id) else {
            return;
        };
        let now = coap.now;
        let mut out = std::mem::take(&mut coap.out);
        let mut tally = coap.tally;
        let tokens = peer.keys.map(|key| key.and_then(|key| coap.token(key)));
        let called = catch_unwind(AssertUnwindSafe(|| {
            let mut rights = ShardRights {
                shard: &mut self.shard,
                tokens,
            };
            let mut around = Around {
                now,
                out: &mut out,
                tally: &mut tally,
            };
            call(&mut peer, &mut rights, &mut around);
        }));
        let coap = &mut self.shard.outlets.wires.coap;
        coap.out = out;
        coap.tally = tally;
        coap.put_back(id, peer);
        if called.is_err() {
            self.shard.panicked();
            self.forget_peer(id);
        }
    }

    /// Carries out what an endpoint wants of the shard.
    pub(super) fn carry_out_wishes(&mut self, id: PeerId) {
        loop {
            let coap = &mut self.shard.outlets.wires.coap;
            let Some(peer) = coap.peer(id) else {
                return;
            };
            if peer.over {
                return self.forget_peer(id);
            }
            let keys = peer.keys;
            let ready = keys.map(|key| key.is_some_and(|key| self.is_readable(key)));
            let Some(peer) = self.shard.outlets.wires.coap.peer(id) else {
                return;
            };
            let wish = peer.endpoint.wishes(|guest| ready[usize::from(guest.0)]);
            match wish {
                None => return,
                Some(Wish::Close(guest)) => {
                    if let Some(key) = keys[usize::from(guest.0)] {
                        self.part(key);
                    }
                }
                Some(Wish::Open(guest)) => {
                    let door = peer.door;
                    let coap = &mut self.shard.outlets.wires.coap;
                    let key = coap.new_guest(id, guest);
                    let listener = coap.doors[usize::from(door)].listener;
                    // Where there is no room it is closed, and its endpoint knows.
                    self.shard.accepted(Wire::Coap(key), listener);
                }
                Some(Wish::Input(guest, packets)) => {
                    let key = keys[usize::from(guest.0)];
                    let token = key.and_then(|key| self.shard.outlets.wires.coap.token(key));
                    if let Some(token) = token {
                        self.shard.input(token, &packets);
                    }
                }
            }
        }
    }

    fn is_readable(&mut self, key: CoapKey) -> bool {
        let token = self.shard.outlets.wires.coap.token(key);
        token.is_some_and(|token| matches!(self.shard.readable(token), Readable::Now(_)))
    }

    /// Ends the slot of a guest of whom nothing more is to be told.
    pub(super) fn part(&mut self, key: CoapKey) {
        let coap = &mut self.shard.outlets.wires.coap;
        coap.part(key);
        match coap.token(key) {
            Some(token) => self.shard.lost(token),
            None => coap.closed(key),
        }
    }

    pub(super) fn forget_peer(&mut self, id: PeerId) {
        let Some(peer) = self.shard.outlets.wires.coap.peer(id) else {
            return;
        };
        for key in peer.keys.into_iter().flatten() {
            self.part(key);
        }
        self.shard.outlets.wires.coap.forget(id);
    }

    /// What peers wait for: wishes, timers, and once a second their rights.
    pub(super) fn look_after_peers(&mut self, second: bool) {
        if self.shard.may_serve() {
            for token in std::mem::take(&mut self.shard.outlets.wires.coap.writable) {
                self.shard.writable(token);
            }
        }
        for (number, key) in std::mem::take(&mut self.shard.outlets.wires.coap.keys) {
            self.key_told(number, key);
        }
        while let Some(id) = self.shard.outlets.wires.coap.next_touched() {
            self.carry_out_wishes(id);
        }
        while let Some(id) = self.shard.outlets.wires.coap.next_due() {
            if self.shard.outlets.wires.coap.is_over(id) {
                self.forget_peer(id);
                continue;
            }
            if !self.handshake_timeout(id) {
                continue;
            }
            self.with_endpoint(id, |peer, rights, around| {
                peer.endpoint.timeout(rights, around);
            });
            self.carry_out_wishes(id);
        }
        if second {
            let observers = self.shard.outlets.wires.coap.observers(REVIEWED_MAX);
            for id in observers {
                self.with_endpoint(id, |peer, rights, around| {
                    peer.endpoint.review(rights, around);
                });
                self.carry_out_wishes(id);
            }
        }
        self.count_datagrams();
    }

    fn count_datagrams(&mut self) {
        let coap = &mut self.shard.outlets.wires.coap;
        let counters = &self.shard.env.counters.coap;
        let tally = std::mem::take(&mut coap.tally);
        counters.add(&tally);
        counters
            .received
            .add(std::mem::take(&mut coap.datagrams_in));
        counters.sent.add(std::mem::take(&mut coap.datagrams_out));
        counters
            .handshakes
            .add(std::mem::take(&mut coap.handshakes));
        counters
            .handshake_faults
            .add(std::mem::take(&mut coap.handshake_faults));
        counters.unsent.add(std::mem::take(&mut coap.unsent));
        counters
            .turned_away
            .add(std::mem::take(&mut coap.turned_away));
        counters.endpoints.set(coap.len() as u64);
        counters.observations.set(coap.observations as u64);
    }
}
