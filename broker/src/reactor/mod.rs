//! A shard's thread: its own epoll, its listeners, and the turns it drives.

pub(crate) mod admission;
pub(crate) mod coap;
mod datagrams;
pub(crate) mod door;
pub(crate) mod dtls;
pub(crate) mod dtls_files;
mod dtls_records;
mod handshakes;
pub(crate) mod layer;
pub(crate) mod listener;
mod proxy;
mod rest;
pub(crate) mod shakers;
pub(crate) mod tcp;
pub(crate) mod tls;
mod websocket;

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, Timespec, epoll, eventfd};
use session::Now;
use session::channel_socket::PING_EVERY_S;

use crate::ferry::Descriptor;
use crate::reactor::coap::CoapDoor;
use crate::reactor::layer::{Ended, Layer, Place, Received};
use crate::reactor::listener::Listener;
use crate::reactor::rest::Rest;
use crate::reactor::shakers::{Returns, Shakers, Step};
use crate::reactor::tcp::{End, LayerId, NetWires, TcpWire, data_of, token_of};
use crate::shard::Shard;
use crate::shard::wires::{Readable, Token};

/// The descriptor that wakes a sleeping shard.
#[derive(Debug)]
pub(crate) struct Waker(OwnedFd);

impl Waker {
    /// # Errors
    ///
    /// When the process has no descriptor left.
    pub(crate) fn new() -> io::Result<Waker> {
        Ok(Waker(eventfd(
            0,
            EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC,
        )?))
    }

    /// Wakes the shard. Nobody reads the counter: it holds more than are ever rung.
    pub(crate) fn wake(&self) {
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// Event data of what is not a connection: the waker, then the listeners from here on.
const WAKER: u64 = u64::MAX;
const LISTENERS: u64 = 1 << 63;

/// Among the listeners: the sockets of datagrams.
const DATAGRAMS: u64 = 1 << 32;

/// Events that say that a peer sends nothing more. They come with what it sent last, in one.
const ENDED: epoll::EventFlags = epoll::EventFlags::RDHUP
    .union(epoll::EventFlags::HUP)
    .union(epoll::EventFlags::ERR);

/// Events taken by one `epoll_wait`.
const EVENTS_MAX: usize = 1024;

/// Bytes read from one connection in a turn.
const READ_BYTES: usize = 64 << 10;

/// Between two looks at the world while the lease is over, or control has not told its state.
const WITHOUT_LEASE: Duration = Duration::from_millis(1);

/// A turn is put off while another shard's inbox is full.
const HELD_BACK: Duration = Duration::from_millis(1);

/// Connections accepted from one listener in a turn.
const ACCEPTS_MAX: usize = 64;

/// Steps of TLS handshakes that a turn takes itself, ~150 us each with a key of P-256; more are
/// taken elsewhere ([`Shakers`]).
const HANDSHAKES_MAX: u32 = 2;

/// A connection that comes back from there is read: whatever came meanwhile had an event that was
/// not looked at.
const READ_AGAIN: epoll::EventFlags = epoll::EventFlags::IN.union(epoll::EventFlags::RDHUP);

/// Connections that may be shaking hands on a shard: past it the oldest is closed. Each holds at
/// most 32 KiB of its peer's bytes and the state of its handshake, 40 MiB together.
pub(crate) const SHAKING_MAX: usize = 1024;

/// Milliseconds without accepting after the process ran out of descriptors.
const ACCEPT_PAUSE_MS: u64 = 100;

pub(crate) struct Reactor {
    shard: Shard<NetWires>,
    epoll: Arc<OwnedFd>,
    listeners: Vec<Listener>,
    doors: Vec<Arc<CoapDoor>>,
    listening: bool,
    /// Accepting stopped until then, because there was no descriptor.
    paused_until: Option<Now>,
    /// Held back so that a waiting peer can be taken and closed when there is no other left.
    reserve: Option<OwnedFd>,
    buffer: Box<[u8]>,
    events: Vec<epoll::Event>,
    /// The second in which channel sockets were looked after last.
    looked_s: u32,
    /// Connections that began a handshake, oldest first; most of them are done with it.
    shaking: VecDeque<Token>,
    /// Steps of handshakes that this turn may still take itself.
    handshakes: u32,
    shakers: Arc<Shakers>,
    /// Where the steps come back that are taken elsewhere.
    returns: Arc<Returns>,
    /// Connections that may have more to read than was taken, with what their event said: it does
    /// not come again.
    unread: Vec<(u64, epoll::EventFlags)>,
    rest: Rest,
    start: Instant,
}

impl Reactor {
    /// # Errors
    ///
    /// When the waker cannot be registered.
    pub(crate) fn new(
        shard: Shard<NetWires>,
        epoll: Arc<OwnedFd>,
        waker: Arc<Waker>,
        listeners: Vec<Listener>,
        shakers: Arc<Shakers>,
        rest: Duration,
        start: Instant,
    ) -> io::Result<Reactor> {
        epoll::add(
            &epoll,
            &waker.0,
            epoll::EventData::new_u64(WAKER),
            // Each ring is an edge, so nobody has to read the counter.
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        let returns = Returns::new(waker);
        Ok(Reactor {
            doors: shard.outlets.wires.coap.doors.clone(),
            shard,
            epoll,
            listeners,
            listening: false,
            paused_until: None,
            reserve: rustix::io::dup(std::io::stderr()).ok(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
            events: Vec::with_capacity(EVENTS_MAX),
            looked_s: 0,
            shaking: VecDeque::new(),
            handshakes: 0,
            shakers,
            returns,
            unread: Vec::new(),
            rest: Rest::new(rest, Instant::now()),
            start,
        })
    }

    /// Drives the shard until it has shut down.
    ///
    /// # Errors
    ///
    /// When epoll itself fails.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let mut more = false;
        while !self.shard.is_over() {
            let busy = more || self.shard.is_busy();
            if !busy && let Some(rest) = self.rest.after_turn() {
                std::thread::sleep(rest);
            }
            let sleep = if !self.shard.may_serve() {
                // Nothing is read without a lease, so events stay: look again in a while.
                std::thread::sleep(WITHOUT_LEASE);
                Some(Duration::ZERO)
            } else if busy || !self.shard.may_sleep() {
                Some(Duration::ZERO)
            } else {
                self.sleep_max()
            };
            more = self.turn(sleep)?;
        }
        Ok(())
    }

    /// The shard and the listeners, to begin anew after a panic.
    pub(crate) fn into_parts(self) -> (Shard<NetWires>, Vec<Listener>) {
        (self.shard, self.listeners)
    }

    fn now(&self) -> Now {
        Now::from_millis(self.start.elapsed().as_millis() as u64)
    }

    fn sleep_max(&self) -> Option<Duration> {
        let peers = self.shard.outlets.wires.coap.next_timer();
        let shard = self.shard.next_timeout().into_iter();
        let next = shard.chain(self.paused_until).chain(peers).min();
        // One millisecond more, so that the deadline lies behind when the shard wakes.
        next.map(|at| Duration::from_millis(at.millis_since(self.now()) + 1))
    }

    /// One turn, after a sleep of at most `sleep`; whether something may be left that no new event
    /// will tell of.
    ///
    /// A connection whose read filled the buffer or that has ended, a full list of events and a
    /// listener with more to accept stay ready without a new wake, so they ask for another turn;
    /// everything else has been looked at, and whatever comes later wakes the thread.
    fn turn(&mut self, sleep: Option<Duration>) -> io::Result<bool> {
        if self.shard.holds_back() {
            std::thread::sleep(HELD_BACK);
        }
        self.events.clear();
        let sleep = sleep.map(|sleep| Timespec {
            tv_sec: sleep.as_secs() as i64,
            tv_nsec: i64::from(sleep.subsec_nanos()),
        });
        let mut events = std::mem::take(&mut self.events);
        match epoll::wait(
            &*self.epoll,
            rustix::buffer::spare_capacity(&mut events),
            sleep.as_ref(),
        ) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.shard.awake();
        let began = Instant::now();
        self.rest.turn(began);
        let now = self.now();
        self.shard.outlets.wires.coap.now = now;
        self.shard.begin(now);
        self.handshakes = HANDSHAKES_MAX;
        let serve = self.shard.may_serve();
        let mut more = events.len() == EVENTS_MAX;
        if serve {
            let unread = self.unread.len();
            let mut looked_at = 0;
            while looked_at < unread && !self.shard.is_spent() {
                let (data, flags) = self.unread[looked_at];
                self.connection(data, flags);
                looked_at += 1;
            }
            // Who was not looked at comes first in the next turn.
            self.unread.drain(..looked_at);
        }
        for event in &events {
            let data = event.data.u64();
            if data == WAKER {
                // Only wakes: what it is for is looked at in every turn.
            } else if data & (LISTENERS | DATAGRAMS) == LISTENERS | DATAGRAMS {
                more |= self.datagrams(data as u8);
            } else if data & LISTENERS != 0 {
                more |= self.accept((data & !LISTENERS) as usize);
            } else if serve || self.shard.is_new(token_of(data)) {
                self.rest.reads(token_of(data).slot.get());
                self.connection(data, event.flags);
            } else {
                self.unread.push((data, event.flags));
            }
        }
        // None of them has had its CONNACK: they are answered without a lease, too.
        self.shaken();
        let second = self.look_after_sockets();
        self.look_after_peers(second);
        more |= !self.unread.is_empty();
        let count = events.len();
        self.events = events;
        self.shard.end();
        more |= self.shard.outlets.wires.coap.is_busy() && serve;
        self.listen_when_told()?;
        if count > 0 {
            self.shard.record_turn(began.elapsed().as_micros() as u64);
        }
        Ok(more)
    }

    /// Serves one connection, and notes it if it may have more to read.
    fn connection(&mut self, data: u64, flags: epoll::EventFlags) {
        let token = token_of(data);
        if flags.contains(epoll::EventFlags::OUT) {
            self.shard.writable(token);
        }
        if !flags.intersects(epoll::EventFlags::IN | ENDED) {
            return;
        }
        // Looked at again in a later turn. What can be written then is told again.
        let later = (data, flags.difference(epoll::EventFlags::OUT));
        if self.shard.is_spent() || self.shard.holds_back() {
            self.unread.push(later);
            return;
        }
        match self.shard.readable(token) {
            // Peers that speak CoAP have no event of their own.
            Readable::Now(End::Coap(_)) => {}
            Readable::Now(End::Stream(wire)) => match wire.layer {
                None => match rustix::io::read(&wire.fd, &mut self.buffer[..]) {
                    Ok(0) => self.shard.lost(token),
                    Ok(taken) => {
                        self.shard.input(token, &self.buffer[..taken]);
                        if self.may_have_more(taken, flags) {
                            self.unread.push(later);
                        }
                    }
                    Err(rustix::io::Errno::AGAIN) => {}
                    Err(rustix::io::Errno::INTR) => self.unread.push(later),
                    Err(_) => self.shard.lost(token),
                },
                Some(layer) => self.layered(token, layer, later),
            },
            Readable::Later => self.unread.push(later),
            // Whoever lets it be read again registers it anew, which tells of what waits.
            Readable::WhenWatched | Readable::Gone => {
                if flags.intersects(epoll::EventFlags::HUP | epoll::EventFlags::ERR) {
                    self.shard.lost(token);
                }
            }
        }
    }

    /// Whether a wire may have more to read behind the `taken` bytes. What fills the buffer may not
    /// be all; and the end of the stream is read behind its last bytes, however few they are.
    fn may_have_more(&self, taken: usize, flags: epoll::EventFlags) -> bool {
        taken == self.buffer.len() || flags.intersects(ENDED)
    }

    /// Reads what came through layers; the MQTT in it goes to the shard.
    fn layered(&mut self, token: Token, layer: LayerId, later: (u64, epoll::EventFlags)) {
        let wires = &mut self.shard.outlets.wires;
        if wires.is_away(layer) {
            // It is read when it is back.
            return;
        }
        // (Threats T-TLS-1: a storm of handshakes must not hold up whoever is connected.)
        let shakes = wires.is_shaking_hands(layer);
        let elsewhere = shakes && self.handshakes == 0;
        if shakes && !elsewhere {
            self.handshakes -= 1;
        }
        let now = self.now();
        let Some(Some(End::Stream(end))) = self
            .shard
            .outlets
            .slots
            .current(token)
            .map(|slot| &slot.wire)
        else {
            return;
        };
        let taken = match rustix::io::read(&end.fd, &mut self.buffer[..]) {
            Ok(0) => return self.shard.lost(token),
            Ok(taken) => taken,
            Err(rustix::io::Errno::AGAIN) => return,
            Err(rustix::io::Errno::INTR) => return self.unread.push(later),
            Err(_) => return self.shard.lost(token),
        };
        let input = &mut self.buffer[..taken];
        let wires = &mut self.shard.outlets.wires;
        if elsewhere && let Some(work) = wires.depart(layer, input) {
            self.shard.env.counters.handshakes_elsewhere.add(1);
            return self.shakers.send(Step {
                token,
                work,
                returns: Arc::clone(&self.returns),
            });
        }
        if taken == READ_BYTES || later.1.intersects(ENDED) {
            self.unread.push(later);
        }
        // As with machines: a fault in one connection's layers ends that connection.
        let received = catch_unwind(AssertUnwindSafe(|| wires.received(layer, input, now)));
        match received {
            Ok(received) => self.carry(token, received),
            Err(_) => {
                self.shard.panicked();
                self.shard.lost(token);
            }
        }
    }

    /// Takes back the connections whose step of a handshake was taken elsewhere.
    fn shaken(&mut self) {
        let now = self.now();
        for taken in self.returns.take() {
            let token = taken.token;
            if taken.panicked {
                self.shard.panicked();
            }
            // It may be gone; its slot is another's then.
            let slot = self.shard.outlets.slots.current(token);
            let Some(layer) = slot.and_then(|slot| slot.wire.as_ref()?.layer()) else {
                continue;
            };
            let received = self.shard.outlets.wires.came_back(layer, taken, now);
            self.carry(token, received);
            self.connection(data_of(token).u64(), READ_AGAIN);
        }
    }

    /// Sends what layers answer, gives the shard what they carried, and ends what is over.
    fn carry(&mut self, token: Token, Received { place, over }: Received) {
        if let Some(slot) = self.shard.outlets.slots.current(token)
            && let Some(end) = &slot.wire
        {
            self.shard.outlets.wires.answer(end, token);
        }
        let scratch = std::mem::take(&mut self.shard.outlets.wires.scratch);
        let bytes = match place {
            Place::Input(range) => &self.buffer[range],
            Place::Plain(range) => &scratch.plain[range],
            Place::Aside(range) => &scratch.aside[range],
        };
        if !bytes.is_empty() {
            self.shard.input(token, bytes);
        }
        self.shard.outlets.wires.scratch = scratch;
        match over {
            None => {}
            Some(Ended::Closed) => self.shard.lost(token),
            Some(Ended::Fault(layer)) => self.shard.broke(token, layer),
        }
    }

    /// Once a second channel sockets are asked for a sign of life when it is time, and closed when
    /// their right is gone. Whether a second has begun.
    fn look_after_sockets(&mut self) -> bool {
        let now_s = self.now().as_secs();
        if now_s == self.looked_s {
            return false;
        }
        self.looked_s = now_s;
        let mut sockets = std::mem::take(&mut self.shard.outlets.wires.sockets);
        sockets.retain_mut(|socket| {
            let slot = self.shard.outlets.slots.current(socket.token);
            let Some(layer) = slot.and_then(|slot| slot.wire.as_ref()?.layer()) else {
                return false;
            };
            if !self.shard.outlets.wires.is_channel_open(layer) {
                return true;
            }
            if socket.ping_s == 0 {
                socket.ping_s = now_s + PING_EVERY_S;
            } else if socket.ping_s <= now_s {
                socket.ping_s = now_s + PING_EVERY_S;
                self.shard.outlets.wires.ping(layer);
                if let Some(slot) = self.shard.outlets.slots.current(socket.token)
                    && let Some(end) = &slot.wire
                {
                    self.shard.outlets.wires.answer(end, socket.token);
                }
            }
            true
        });
        // Those that were attached meanwhile are behind.
        sockets.append(&mut self.shard.outlets.wires.sockets);
        self.shard.outlets.wires.sockets = sockets;
        true
    }

    /// Accepts who waits; whether more may wait.
    fn accept(&mut self, at: usize) -> bool {
        let Some(listener) = self.listeners.get(at) else {
            return false;
        };
        for _ in 0..ACCEPTS_MAX {
            match listener.accept() {
                Ok(Some(None)) => self.shard.turned_away(),
                Ok(Some(Some(fd))) => {
                    let layer = Layer::new(&listener.door);
                    let shakes = listener.door.tls.is_some();
                    let fd = Descriptor::Here(fd);
                    let token = self
                        .shard
                        .accepted(TcpWire { fd, layer }.into(), listener.number);
                    if let Some(token) = token.filter(|_| shakes) {
                        begin_handshake(&mut self.shaking, &mut self.shard, token);
                    }
                }
                Ok(None) => return false,
                Err(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => {
                    // (Threats T-EXH-7.)
                    self.reserve = None;
                    listener.turn_away();
                    self.reserve = rustix::io::dup(std::io::stderr()).ok();
                    tracing::warn!("no descriptor left for a new connection; raise the limit");
                    self.pause();
                    return false;
                }
                Err(error) => {
                    // The listener stays ready, so asking again at once would only spin.
                    tracing::warn!(%error, "a connection cannot be accepted now");
                    self.pause();
                    return false;
                }
            }
        }
        true
    }

    fn pause(&mut self) {
        for listener in &self.listeners {
            let _ = epoll::delete(&self.epoll, listener.as_fd());
        }
        for door in &self.doors {
            let _ = epoll::delete(&self.epoll, &door.socket);
        }
        self.listening = false;
        let now = self.now();
        self.paused_until = Some(now.plus_millis(ACCEPT_PAUSE_MS));
    }

    /// Accepting begins when the shard serves, and again after a pause; it ends with shutdown.
    fn listen_when_told(&mut self) -> io::Result<()> {
        if self.paused_until.is_some_and(|until| until <= self.now()) {
            self.paused_until = None;
        }
        let wanted = self.shard.accepts() && self.paused_until.is_none();
        if wanted && !self.listening {
            for (at, listener) in self.listeners.iter().enumerate() {
                let data = epoll::EventData::new_u64(LISTENERS | at as u64);
                epoll::add(&self.epoll, listener.as_fd(), data, epoll::EventFlags::IN)?;
            }
            for (at, door) in self.doors.iter().enumerate() {
                let data = epoll::EventData::new_u64(LISTENERS | DATAGRAMS | at as u64);
                epoll::add(&self.epoll, &door.socket, data, epoll::EventFlags::IN)?;
            }
            self.listening = true;
        }
        if !self.shard.accepts() && self.listening {
            for door in &self.doors {
                let _ = epoll::delete(&self.epoll, &door.socket);
            }
            self.listeners.clear();
            self.listening = false;
        }
        Ok(())
    }
}

/// Notes a connection that is to shake hands; where too many are at it, the one that has taken
/// longest is closed.
fn begin_handshake(shaking: &mut VecDeque<Token>, shard: &mut Shard<NetWires>, token: Token) {
    shaking.push_back(token);
    if shaking.len() <= SHAKING_MAX {
        return;
    }
    shaking.retain(|token| {
        let slot = shard.outlets.slots.current(*token);
        slot.and_then(|slot| slot.wire.as_ref()?.layer())
            .is_some_and(|layer| shard.outlets.wires.is_shaking_hands(layer))
    });
    if shaking.len() > SHAKING_MAX
        && let Some(oldest) = shaking.pop_front()
    {
        shard.lost(oldest);
    }
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor")
            .field("epoll", &self.epoll.as_raw_fd())
            .finish_non_exhaustive()
    }
}
