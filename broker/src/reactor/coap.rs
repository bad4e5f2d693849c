//! Peers that speak CoAP: their sockets, their endpoints, and which guest is in which slot.

use authcache::feed::ShownCertificate;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use authcache::feed::SharedKey;
use session::coap::{Around, Datagrams, Endpoint, GuestNumber, Manner, Tally};
use session::{Limits, Now};

use crate::reactor::admission::Admission;
use crate::reactor::dtls::{DtlsDoor, Secure};
use crate::shard::wires::{Token, Watch};

/// One shard's end of a CoAP listener.
#[derive(Debug)]
pub(crate) struct CoapDoor {
    pub(crate) socket: UdpSocket,
    /// The number of its rules.
    pub(crate) listener: u8,
    /// Whether credentials are taken though others can read along.
    pub(crate) insecure: bool,
    /// Whether addresses have to be proven.
    pub(crate) echo: bool,
    /// Whether POST on a channel is answered 2.01.
    pub(crate) created: bool,
    /// What handshakes are made of, where everything is in DTLS.
    pub(crate) dtls: Option<Arc<DtlsDoor>>,
}

/// A guest of a peer: its place in a shard's table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct CoapKey(u32);

/// The place of a peer in a shard's table.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct PeerId(u32);

/// All peers of one shard.
pub(crate) struct Coap {
    pub(crate) doors: Vec<Arc<CoapDoor>>,
    admission: Arc<Admission>,
    peers: Vec<Option<Box<Peer>>>,
    free: Vec<PeerId>,
    by_address: HashMap<(u8, SocketAddr), PeerId, foldhash::quality::RandomState>,
    guests: Vec<Option<Guest>>,
    free_guests: Vec<CoapKey>,
    /// Peers that began a handshake, oldest first; most of them are done with it.
    shaking: VecDeque<(PeerId, u32)>,
    /// Secrets that handshakes wait for.
    pub(crate) keys: Vec<(u64, Option<SharedKey>)>,
    /// Handshakes that were done, and those that failed.
    pub(crate) handshakes: u64,
    pub(crate) handshake_faults: u64,
    start: Instant,
    /// Peers whose wishes are to be carried out.
    touched: Vec<PeerId>,
    /// Guests that are to be told that their wire takes bytes again.
    pub(crate) writable: Vec<Token>,
    timers: BinaryHeap<Reverse<(Now, PeerId, u32)>>,
    generation: u32,
    /// Where the next look at observers begins.
    pub(crate) reviewed: usize,
    /// Bytes that all endpoints keep of bodies in blocks.
    bytes: usize,
    pub(crate) observations: usize,
    pub(crate) out: Datagrams,
    pub(crate) tally: Tally,
    /// Datagrams that came and that went, and those that the system did not take.
    pub(crate) datagrams_in: u64,
    pub(crate) datagrams_out: u64,
    pub(crate) unsent: u64,
    /// Datagrams of peers for whom there was no room.
    pub(crate) turned_away: u64,
    /// Proves addresses: a keyed hash of each and the minute (RFC 9175, 2.2).
    proof: RandomState,
    random: u64,
    pub(crate) now: Now,
    peers_max: usize,
    bytes_max: usize,
    idle_ms: u64,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) door: u8,
    pub(crate) endpoint: Endpoint,
    pub(crate) secure: Option<Box<Secure>>,
    /// A handshake that is to take the place of the session: the peer may have begun anew.
    pub(crate) candidate: Option<Box<Secure>>,
    /// Its session is over: nothing more can be said to it.
    pub(crate) over: bool,
    pub(crate) keys: [Option<CoapKey>; Endpoint::GUESTS_MAX],
    generation: u32,
    armed: Option<Now>,
    touched: bool,
    bytes: usize,
    observations: usize,
}

/// One guest.
#[derive(Clone, Copy, Debug)]
struct Guest {
    peer: PeerId,
    number: GuestNumber,
    token: Option<Token>,
}

/// Peers looked at when there is no room for another one: the best of them makes it.
const CANDIDATES: usize = 8;

/// Peers that may be shaking hands on a shard: past it the oldest is given up. Each holds at most 8
/// datagrams and the state of its handshake.
const SHAKING_MAX: usize = 1024;

/// Milliseconds for which a proof of an address holds, and half as long again on average.
const PROOF_MS: u64 = 60_000;

impl Coap {
    pub(crate) fn new(
        doors: Vec<Arc<CoapDoor>>,
        limits: &Limits,
        admission: Arc<Admission>,
        random: u64,
        start: Instant,
    ) -> Coap {
        Coap {
            doors,
            admission,
            peers: Vec::new(),
            free: Vec::new(),
            by_address: HashMap::default(),
            guests: Vec::new(),
            free_guests: Vec::new(),
            shaking: VecDeque::new(),
            keys: Vec::new(),
            handshakes: 0,
            handshake_faults: 0,
            start,
            touched: Vec::new(),
            writable: Vec::new(),
            timers: BinaryHeap::new(),
            generation: 0,
            reviewed: 0,
            bytes: 0,
            observations: 0,
            out: Datagrams::default(),
            tally: Tally::default(),
            datagrams_in: 0,
            datagrams_out: 0,
            unsent: 0,
            turned_away: 0,
            proof: RandomState::new(),
            random,
            now: Now::default(),
            peers_max: limits.coap_endpoints,
            bytes_max: limits.coap_block_bytes,
            idle_ms: limits.coap_idle_timeout_ms,
        }
    }

    /// The peer at `address`, new if it was not heard before. `None` where there is no room: what it
    /// sent is dropped.
    pub(crate) fn peer_at(
        &mut self,
        door: u8,
        address: SocketAddr,
        now: Instant,
    ) -> Option<PeerId> {
        if let Some(known) = self.by_address.get(&(door, address)) {
            return Some(*known);
        }
        let ip = address.ip().to_canonical();
        if !self.admission.admit_peer(ip, now) {
            self.turned_away += 1;
            return None;
        }
        let here = ip.is_loopback();
        let endpoint = self.new_endpoint(door, here);
        self.generation = self.generation.wrapping_add(1);
        let peer = Box::new(Peer {
            address,
            door,
            endpoint,
            secure: None,
            candidate: None,
            over: false,
            keys: [None; Endpoint::GUESTS_MAX],
            generation: self.generation,
            armed: None,
            touched: false,
            bytes: 0,
            observations: 0,
        });
        let id = match self.free.pop() {
            Some(id) => {
                self.peers[id.0 as usize] = Some(peer);
                id
            }
            None => {
                self.peers.push(Some(peer));
                PeerId(self.peers.len() as u32 - 1)
            }
        };
        self.by_address.insert((door, address), id);
        Some(id)
    }

    /// The endpoint of a peer of whom nothing is known but where it is.
    pub(crate) fn new_endpoint(&mut self, door: u8, here: bool) -> Endpoint {
        self.roll();
        let options = &self.doors[usize::from(door)];
        let manner = Manner {
            // Nobody elsewhere can send from an address of this host's own.
            proven: options.dtls.is_none() && (here || !options.echo),
            certified: false,
            credentials: options.dtls.is_none() && (here || options.insecure),
            created: options.created,
            random: self.proof.hash_one(self.random),
        };
        Endpoint::new(manner, self.now)
    }

    /// The next number of a sequence that peers cannot see (Knuth's multiplier).
    fn roll(&mut self) {
        self.random = self
            .random
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
    }

    /// Who is to make room, where there are too many peers: of a few the one that was silent
    /// longest, strangers first, observers never.
    pub(crate) fn surplus(&mut self) -> Option<PeerId> {
        if self.by_address.len() < self.peers_max {
            return None;
        }
        let mut best = None;
        for _ in 0..CANDIDATES {
            self.roll();
            let at = (self.random >> 33) as usize % self.peers.len().max(1);
            if let Some(Some(peer)) = self.peers.get(at)
                && peer.endpoint.is_idle()
            {
                let rank = (
                    peer.endpoint.has_guests(),
                    peer.endpoint.heard(),
                    PeerId(at as u32),
                );
                best = Some(best.map_or(rank, |best: (bool, Now, PeerId)| best.min(rank)));
            }
        }
        best.map(|(_, _, id)| id)
    }

    /// Whether there is room for one more peer.
    pub(crate) fn has_room(&self) -> bool {
        self.by_address.len() < self.peers_max
    }

    /// How many peers there are.
    pub(crate) fn len(&self) -> usize {
        self.by_address.len()
    }

    /// Whether a peer is known.
    pub(crate) fn knows(&self, door: u8, address: SocketAddr) -> bool {
        self.by_address.contains_key(&(door, address))
    }

    pub(crate) fn peer(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// Takes a peer out, to be looked at together with the shard; [`Coap::put_back`] ends that.
    pub(crate) fn take_peer(&mut self, id: PeerId) -> Option<Box<Peer>> {
        self.peers.get_mut(id.0 as usize)?.take()
    }

    /// Puts a peer back and sends what it has to say.
    pub(crate) fn put_back(&mut self, id: PeerId, peer: Box<Peer>) {
        self.peers[id.0 as usize] = Some(peer);
        self.settle(id);
    }

    /// Forgets a peer whose guests are gone.
    pub(crate) fn forget(&mut self, id: PeerId) {
        let Some(mut peer) = self.take_peer(id) else {
            return;
        };
        let door = &self.doors[usize::from(peer.door)];
        if let Some(secure) = &mut peer.secure {
            self.handshake_faults += u64::from(!secure.is_open());
            secure.close(&mut |datagram| {
                // It may be lost on its way as well.
                let _ = door.socket.send_to(datagram, peer.address);
            });
        }
        self.bytes -= peer.bytes;
        self.observations -= peer.observations;
        self.by_address.remove(&(peer.door, peer.address));
        self.admission.peer_left(peer.address.ip().to_canonical());
        self.free.push(id);
    }

    /// Bytes that may still be kept of bodies in blocks.
    pub(crate) fn room(&self) -> usize {
        self.bytes_max.saturating_sub(self.bytes)
    }

    /// What proves an address now, and what did a while ago.
    pub(crate) fn proof_of(&self, address: SocketAddr) -> [[u8; 8]; 2] {
        let minute = self.now.as_millis() / PROOF_MS;
        [minute, minute.wrapping_sub(1)]
            .map(|minute| self.proof.hash_one((address, minute)).to_be_bytes())
    }

    /// After an endpoint was called: sends, accounts, and sets its timer.
    fn settle(&mut self, id: PeerId) {
        let Some(Some(peer)) = self.peers.get_mut(id.0 as usize) else {
            return;
        };
        let door = &self.doors[usize::from(peer.door)];
        let (mut sent, mut unsent) = (0, 0);
        let mut send = |datagram: &[u8]| match door.socket.send_to(datagram, peer.address) {
            Ok(_) => sent += 1,
            // As if it were lost on its way: the peer asks again, or is sent it again.
            Err(_) => unsent += 1,
        };
        for datagram in self.out.iter() {
            match &mut peer.secure {
                Some(secure) => peer.over |= secure.seal(datagram, &mut send).is_err(),
                None => send(datagram),
            }
        }
        self.out.clear();
        self.datagrams_out += sent;
        self.unsent += unsent;
        let (bytes, observations) = (peer.endpoint.bytes(), peer.endpoint.observations());
        self.bytes = self.bytes - peer.bytes + bytes;
        self.observations = self.observations - peer.observations + observations;
        (peer.bytes, peer.observations) = (bytes, observations);
        let idle = peer
            .endpoint
            .is_idle()
            .then(|| peer.endpoint.heard().plus_millis(self.idle_ms));
        let start = self.start;
        let secure = [&peer.secure, &peer.candidate].into_iter().flatten();
        let handshake = secure.filter_map(|secure| secure.next_timeout()).min();
        let handshake = handshake.map(|at| {
            // One millisecond more, so that it lies behind then.
            let after = at.saturating_duration_since(start).as_millis() as u64;
            Now::from_millis(after.saturating_add(1))
        });
        let next = peer.endpoint.next_timeout().into_iter();
        let next = next.chain(idle).chain(handshake).min();
        if let Some(next) = next
            && peer.armed.is_none_or(|armed| next < armed)
        {
            peer.armed = Some(next);
            self.timers.push(Reverse((next, id, peer.generation)));
        }
    }

    /// Notes that a peer's wishes are to be carried out.
    pub(crate) fn touch(&mut self, id: PeerId) {
        if let Some(Some(peer)) = self.peers.get_mut(id.0 as usize)
            && !std::mem::replace(&mut peer.touched, true)
        {
            self.touched.push(id);
        }
    }

    /// Whether some peers' wishes are to be carried out.
    pub(crate) fn is_busy(&self) -> bool {
        !self.touched.is_empty() || !self.writable.is_empty() || !self.keys.is_empty()
    }

    /// A peer whose wishes are to be carried out.
    pub(crate) fn next_touched(&mut self) -> Option<PeerId> {
        let id = self.touched.pop()?;
        if let Some(peer) = self.peer(id) {
            peer.touched = false;
        }
        Some(id)
    }

    /// When a timer is due.
    pub(crate) fn next_timer(&self) -> Option<Now> {
        self.timers.peek().map(|Reverse((at, ..))| *at)
    }

    /// A peer whose timer is due.
    pub(crate) fn next_due(&mut self) -> Option<PeerId> {
        while let Some(Reverse((at, id, generation))) = self.timers.peek().copied()
            && at <= self.now
        {
            self.timers.pop();
            if let Some(Some(peer)) = self.peers.get_mut(id.0 as usize)
                && peer.generation == generation
            {
                if peer.armed == Some(at) {
                    peer.armed = None;
                }
                return Some(id);
            }
        }
        None
    }

    /// Whether a peer was silent for so long that it is forgotten.
    pub(crate) fn is_over(&mut self, id: PeerId) -> bool {
        let (now, idle_ms) = (self.now, self.idle_ms);
        self.peer(id).is_some_and(|peer| {
            peer.endpoint.is_idle() && now.millis_since(peer.endpoint.heard()) >= idle_ms
        })
    }

    /// The next peers to be looked after, of those that observe.
    pub(crate) fn observers(&mut self, most: usize) -> Vec<PeerId> {
        if self.observations == 0 {
            return Vec::new();
        }
        let count = self.peers.len();
        let begin = self.reviewed;
        self.reviewed = if most >= count {
            0
        } else {
            (begin + most) % count
        };
        (0..most.min(count))
            .map(|step| (begin + step) % count)
            .filter(|at| {
                let peer = self.peers[*at].as_ref();
                peer.is_some_and(|peer| peer.observations > 0)
            })
            .map(|at| PeerId(at as u32))
            .collect()
    }

    /// A place for a guest, which has no slot yet.
    pub(crate) fn new_guest(&mut self, peer: PeerId, number: GuestNumber) -> CoapKey {
        let guest = Some(Guest {
            peer,
            number,
            token: None,
        });
        let key = match self.free_guests.pop() {
            Some(key) => {
                self.guests[key.0 as usize] = guest;
                key
            }
            None => {
                self.guests.push(guest);
                CoapKey(self.guests.len() as u32 - 1)
            }
        };
        if let Some(peer) = self.peer(peer) {
            peer.keys[usize::from(number.0)] = Some(key);
        }
        key
    }

    /// The slot of a guest.
    pub(crate) fn token(&self, key: CoapKey) -> Option<Token> {
        self.guests.get(key.0 as usize)?.as_ref()?.token
    }

    /// Parts a guest's slot from its peer: what happens to it is not told any more.
    pub(crate) fn part(&mut self, key: CoapKey) {
        let Some(guest) = self.guest(key) else {
            return;
        };
        if let Some(peer) = self.peer(guest.peer) {
            peer.keys[usize::from(guest.number.0)] = None;
        }
    }

    fn guest(&self, key: CoapKey) -> Option<Guest> {
        *self.guests.get(key.0 as usize)?
    }

    /// The guest's endpoint, if the guest is still its own.
    fn endpoint_of(&mut self, key: CoapKey) -> Option<(Guest, &mut Peer)> {
        let guest = self.guest(key)?;
        let peer = self.peers.get_mut(guest.peer.0 as usize)?.as_deref_mut()?;
        (peer.keys[usize::from(guest.number.0)] == Some(key)).then_some((guest, peer))
    }

    pub(crate) fn address(&self, key: CoapKey) -> Option<SocketAddr> {
        let guest = self.guest(key)?;
        let peer = self.peers.get(guest.peer.0 as usize)?.as_ref()?;
        Some(peer.address)
    }

    /// The certificate that says who a guest is.
    pub(crate) fn certificate(&self, key: CoapKey) -> Option<&ShownCertificate> {
        let guest = self.guest(key)?;
        let peer = self.peers.get(guest.peer.0 as usize)?.as_ref()?;
        let certified = peer.endpoint.is_certified(guest.number);
        peer.secure.as_ref().filter(|_| certified)?.certificate()
    }

    /// Begins a peer's handshake, or another one; who is to be given up for it, if there are too
    /// many.
    pub(crate) fn begin_handshake(&mut self, id: PeerId, secure: Secure) -> Option<PeerId> {
        let peer = self.peer(id)?;
        if peer.secure.is_some() {
            peer.candidate = Some(Box::new(secure));
        } else {
            peer.secure = Some(Box::new(secure));
        }
        let generation = peer.generation;
        self.shaking.push_back((id, generation));
        if self.shaking.len() <= SHAKING_MAX {
            return None;
        }
        let peers = &self.peers;
        self.shaking.retain(|(id, generation)| {
            let peer = peers.get(id.0 as usize).and_then(Option::as_ref);
            peer.is_some_and(|peer| {
                let open = peer.secure.as_ref().is_none_or(|secure| secure.is_open());
                peer.generation == *generation && !open
            })
        });
        (self.shaking.len() > SHAKING_MAX)
            .then(|| self.shaking.pop_front())
            .flatten()
            .map(|(id, _)| id)
    }

    /// The number under which a peer waits for its key.
    pub(crate) fn number_of(&mut self, id: PeerId) -> u64 {
        let generation = self.peer(id).map_or(0, |peer| peer.generation);
        u64::from(id.0) << 32 | u64::from(generation)
    }

    /// The peer that waits under a number, if it is still there.
    pub(crate) fn numbered(&mut self, number: u64) -> Option<PeerId> {
        let id = PeerId((number >> 32) as u32);
        let peer = self.peer(id)?;
        (peer.generation == number as u32).then_some(id)
    }

    /// Packets for a guest.
    pub(crate) fn packets(&mut self, key: CoapKey, packets: &[u8]) {
        self.told(key, |endpoint, number, around| {
            endpoint.packets(number, packets, around);
        });
    }

    /// All that is retained was given to a guest.
    pub(crate) fn replayed(&mut self, key: CoapKey, identifier: u32) {
        self.told(key, |endpoint, number, around| {
            endpoint.replayed(number, identifier, around);
        });
    }

    /// A guest's slot let go of it.
    pub(crate) fn closed(&mut self, key: CoapKey) {
        self.told(key, |endpoint, number, around| {
            endpoint.guest_closed(number, around);
        });
        self.part(key);
        if let Some(place) = self.guests.get_mut(key.0 as usize)
            && place.take().is_some()
        {
            self.free_guests.push(key);
        }
    }

    fn told(
        &mut self,
        key: CoapKey,
        tell: impl FnOnce(&mut Endpoint, GuestNumber, &mut Around<'_>),
    ) {
        let mut out = std::mem::take(&mut self.out);
        let mut tally = self.tally;
        let now = self.now;
        let Some((guest, peer)) = self.endpoint_of(key) else {
            self.out = out;
            return;
        };
        let mut around = Around {
            now,
            out: &mut out,
            tally: &mut tally,
        };
        tell(&mut peer.endpoint, guest.number, &mut around);
        self.out = out;
        self.tally = tally;
        self.settle(guest.peer);
        self.touch(guest.peer);
    }

    pub(crate) fn attach(&mut self, key: CoapKey, token: Token) {
        if let Some(Some(guest)) = self.guests.get_mut(key.0 as usize) {
            guest.token = Some(token);
            let peer = guest.peer;
            self.touch(peer);
        }
    }

    pub(crate) fn detach(&mut self, key: CoapKey) {
        if let Some(Some(guest)) = self.guests.get_mut(key.0 as usize) {
            guest.token = None;
        }
    }

    /// A datagram can always be written, and packets are held here until they are read.
    pub(crate) fn watch(&mut self, key: CoapKey, watch: Watch) {
        let Some(guest) = self.guest(key) else {
            return;
        };
        if watch.read {
            self.touch(guest.peer);
        }
        if watch.write
            && let Some(token) = guest.token
        {
            self.writable.push(token);
        }
    }
}
