//! Virtual wires: bytes that travel when the scheduler says so, are taken in parts, and stop
//! anywhere.

use authcache::feed::ShownCertificate;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use codec::mqtt::split_frame;

use super::dice::Dice;
use crate::shard::wires::{Sent, SlowPolicy, Token, Watch, Wires};

/// The broker's end of a wire. Dropped without a close it counts as leaked.
pub(super) struct SimWire {
    pub(super) id: usize,
    leaked: Option<Arc<AtomicUsize>>,
}

impl Drop for SimWire {
    fn drop(&mut self) {
        if let Some(leaked) = &self.leaked {
            leaked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// How a client's end is gone.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Gone {
    /// In order: what was sent before still arrives.
    Fin,
    /// At once: what was on its way is lost.
    Reset,
}

/// One connection between a client and a shard.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) device: usize,
    pub(super) listener_shard: usize,
    pub(super) accepted: bool,
    /// Written by the client, on its way.
    pub(super) up: VecDeque<u8>,
    /// At the broker's socket.
    pub(super) arrived: VecDeque<u8>,
    /// Taken from the broker, on its way.
    pub(super) down: VecDeque<u8>,
    /// Bytes that `down` may hold.
    pub(super) room: usize,
    pub(super) gone: Option<Gone>,
    pub(super) closed: bool,
    pub(super) place: Option<(usize, Token)>,
    watch: Watch,
    /// Whether a send was ever taken in part.
    pub(super) was_blocked: bool,
    /// Sends since the shard's turn began.
    pub(super) sends: u32,
    /// Long runs among them, or that found no room behind what lay in the out-buffer.
    pub(super) direct: u32,
    /// Bytes missing of a frame that was begun towards the client.
    unsent_of_frame: usize,
    /// Input that is no whole frame yet.
    input: Vec<u8>,
}

/// What happened on a wire, in order, for those who check.
#[derive(Debug)]
pub(super) enum Happening {
    /// The first byte of this frame was taken from the broker.
    Begun(usize, Vec<u8>),
    /// The last byte of this frame was given to a shard.
    Input(usize, Vec<u8>),
    /// The broker closed the wire.
    Closed(usize),
}

/// All wires.
pub(super) struct Net {
    pub(super) conns: Vec<Conn>,
    pub(super) happenings: Vec<Happening>,
    pub(super) leaked: Arc<AtomicUsize>,
    /// Chance in percent that a send takes only a part.
    pub(super) partial: usize,
    dice: Dice,
}

const IDLE: Watch = Watch {
    read: true,
    write: false,
};

impl Net {
    pub(super) fn new(dice: Dice) -> Net {
        Net {
            conns: Vec::new(),
            happenings: Vec::new(),
            leaked: Arc::default(),
            partial: 0,
            dice,
        }
    }

    pub(super) fn connect(&mut self, device: usize, shard: usize, room: usize) -> usize {
        self.conns.push(Conn {
            device,
            listener_shard: shard,
            accepted: false,
            up: VecDeque::new(),
            arrived: VecDeque::new(),
            down: VecDeque::new(),
            room,
            gone: None,
            closed: false,
            place: None,
            watch: IDLE,
            was_blocked: false,
            sends: 0,
            direct: 0,
            unsent_of_frame: 0,
            input: Vec::new(),
        });
        self.conns.len() - 1
    }

    pub(super) fn wire(&self, id: usize) -> SimWire {
        SimWire {
            id,
            leaked: Some(Arc::clone(&self.leaked)),
        }
    }

    /// The client writes.
    pub(super) fn write(&mut self, id: usize, bytes: &[u8]) {
        let conn = &mut self.conns[id];
        if conn.gone.is_none() {
            conn.up.extend(bytes);
        }
    }

    /// The client goes.
    pub(super) fn leave(&mut self, id: usize, how: Gone) {
        let conn = &mut self.conns[id];
        conn.gone = Some(how);
        conn.down.clear();
        if how == Gone::Reset {
            conn.up.clear();
            conn.arrived.clear();
        }
    }

    /// Some bytes reach the broker's socket.
    pub(super) fn carry_up(&mut self, id: usize, most: usize) {
        let conn = &mut self.conns[id];
        let count = most.min(conn.up.len());
        conn.arrived.extend(conn.up.drain(..count));
    }

    /// Some bytes reach the client.
    pub(super) fn carry_down(&mut self, id: usize, most: usize) -> Vec<u8> {
        let conn = &mut self.conns[id];
        let count = most.min(conn.down.len());
        conn.down.drain(..count).collect()
    }

    /// What a shard takes by one receive; `None` when nothing is there yet, empty at the end.
    pub(super) fn receive(&mut self, id: usize, most: usize) -> Option<Vec<u8>> {
        let conn = &mut self.conns[id];
        if conn.arrived.is_empty() {
            let ended = conn.gone == Some(Gone::Reset)
                || conn.gone == Some(Gone::Fin) && conn.up.is_empty();
            return ended.then(Vec::new);
        }
        let count = most.min(conn.arrived.len());
        let bytes: Vec<u8> = conn.arrived.drain(..count).collect();
        conn.input.extend_from_slice(&bytes);
        while let Ok(Some(frame)) = split_frame(&conn.input, u32::MAX) {
            let len = frame.bytes.len();
            let frame: Vec<u8> = conn.input.drain(..len).collect();
            self.happenings.push(Happening::Input(id, frame));
        }
        Some(bytes)
    }

    /// Whether a shard's poll would tell of this wire: (read, write, broken).
    pub(super) fn readiness(&self, id: usize) -> (bool, bool, bool) {
        let conn = &self.conns[id];
        let broken = conn.gone == Some(Gone::Reset);
        let ended = conn.gone == Some(Gone::Fin) && conn.up.is_empty();
        let read = conn.watch.read && (!conn.arrived.is_empty() || ended);
        let write = conn.watch.write && (conn.down.len() < conn.room || broken);
        (read, write, broken)
    }

    /// Wires that a shard's poll would tell of.
    pub(super) fn ready(&self, shard: usize) -> Vec<usize> {
        (0..self.conns.len())
            .filter(|id| {
                let conn = &self.conns[*id];
                let (read, write, broken) = self.readiness(*id);
                !conn.closed
                    && conn.place.is_some_and(|(at, _)| at == shard)
                    && (read || write || broken)
            })
            .collect()
    }

    fn send(&mut self, id: usize, bytes: &[u8]) -> Sent {
        assert!(!self.conns[id].closed, "bytes for a wire that was closed");
        let conn = &mut self.conns[id];
        conn.sends += 1;
        if conn.gone == Some(Gone::Reset) {
            // Nobody hears that the session is there; it is all the same.
            let connack = split_frame(bytes, u32::MAX).ok().flatten();
            if let Some(frame) = connack.filter(|frame| frame.first == 0x20) {
                self.happenings
                    .push(Happening::Begun(id, frame.bytes.to_vec()));
            }
            return Sent::Gone;
        }
        let mut taken = bytes.len();
        if conn.gone.is_none() {
            taken = taken.min(conn.room.saturating_sub(conn.down.len()));
            if taken > 0 && self.dice.percent(self.partial) {
                taken = 1 + self.dice.roll(taken);
            }
        }
        if taken < bytes.len() {
            conn.was_blocked = true;
        }
        let mut at = conn.unsent_of_frame.min(taken);
        conn.unsent_of_frame -= at;
        while at < taken {
            let frame = split_frame(&bytes[at..], u32::MAX);
            let frame = frame
                .expect("the broker sends frames")
                .expect("and offers them whole");
            let len = frame.bytes.len();
            self.happenings
                .push(Happening::Begun(id, frame.bytes.to_vec()));
            conn.unsent_of_frame = (at + len).saturating_sub(taken);
            at += len;
        }
        if conn.gone.is_none() {
            conn.down.extend(&bytes[..taken]);
        }
        Sent::Taken(taken)
    }
}

/// The wires of one shard.
pub(super) struct SimWires {
    pub(super) shard: usize,
    pub(super) net: Rc<RefCell<Net>>,
}

impl Wires for SimWires {
    type Wire = SimWire;
    type End = SimWire;

    fn place(&mut self, wire: SimWire) -> Option<SimWire> {
        Some(wire)
    }

    fn take(&mut self, wire: SimWire) -> SimWire {
        self.net.borrow_mut().conns[wire.id].place = None;
        wire
    }

    fn sends_directly(&mut self, wire: &SimWire) {
        self.net.borrow_mut().conns[wire.id].direct += 1;
    }

    fn resume(&mut self, _wire: &mut SimWire) -> bool {
        true
    }

    fn send(&mut self, wire: &mut SimWire, bytes: &[u8]) -> Sent {
        self.net.borrow_mut().send(wire.id, bytes)
    }

    fn attach(&mut self, wire: &SimWire, token: Token) {
        let conn = &mut self.net.borrow_mut().conns[wire.id];
        assert!(conn.place.is_none(), "a wire is attached in one place");
        conn.place = Some((self.shard, token));
        conn.watch = IDLE;
    }

    fn watch(&mut self, wire: &SimWire, token: Token, watch: Watch) {
        let conn = &mut self.net.borrow_mut().conns[wire.id];
        assert_eq!(
            conn.place,
            Some((self.shard, token)),
            "only what is attached is watched"
        );
        conn.watch = watch;
    }

    fn certificate(&self, _wire: &SimWire) -> Option<&ShownCertificate> {
        None
    }

    fn is_channel_socket(&self, _wire: &SimWire) -> bool {
        false
    }

    fn slow_policy(&self, _wire: &SimWire) -> SlowPolicy {
        SlowPolicy::DropNewest
    }

    fn overloaded(&mut self, _wire: &SimWire) {}

    fn peer(&self, _wire: &SimWire) -> Option<IpAddr> {
        None
    }

    fn close(&mut self, mut wire: SimWire) {
        wire.leaked = None;
        let mut net = self.net.borrow_mut();
        net.conns[wire.id].place = None;
        net.conns[wire.id].closed = true;
        net.happenings.push(Happening::Closed(wire.id));
    }
}
