//! The transport below a shard, so that sockets and the simulator drive the same value.

use authcache::feed::SharedKey;
use authcache::feed::ShownCertificate;
use router::{ShardId, SlotId};

/// Names the occupant of a slot: a stale event or timer has an older generation.
#[derive(Copy, Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(crate) struct Token {
    /// The slot.
    pub slot: SlotId,
    /// Which of its occupants.
    pub generation: u32,
}

/// What became of bytes given to a wire.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Sent {
    /// The first so many were taken; fewer than given means that the wire is full.
    Taken(usize),
    /// The peer is gone.
    Gone,
}

/// What a shard wants to hear of a wire.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) struct Watch {
    /// Bytes can be read.
    pub read: bool,
    /// Bytes can be written.
    pub write: bool,
}

/// Whether a connection that has something to read is read.
#[derive(Debug)]
pub(crate) enum Readable<'a, W> {
    /// Now, from this wire.
    Now(&'a mut W),
    /// In a later turn: what came before is not consumed yet.
    Later,
    /// When it is watched for reading again.
    WhenWatched,
    /// Nobody is there.
    Gone,
}

/// What becomes of QoS 0 messages that a slow receiver has no room for.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub enum SlowPolicy {
    /// They are dropped.
    #[default]
    DropNewest,
    /// Those that wait longest are dropped for them.
    DropOldest,
    /// The receiver is told to come back later.
    Close,
}

/// Sends, closes and watches the wires of one shard.
pub(crate) trait Wires {
    /// One transport with all that belongs to it; travels between shards before its CONNACK.
    type Wire: Send + 'static;

    /// The same transport in a slot: what is seldom there is kept by the shard's wires.
    type End;

    /// Takes a wire in, to be put into a slot; `None` if it did not arrive, and is closed.
    fn place(&mut self, wire: Self::Wire) -> Option<Self::End>;

    /// Gives the wire out: it travels to another slot, or is handed over to another shard. Until
    /// then it may still be reported, under the token it had.
    fn take(&mut self, end: Self::End) -> Self::Wire;

    /// Makes a wire that was taken ready to travel to another shard: it is not reported here any
    /// more. `None` if that cannot be, and it is closed.
    fn hand_over(&mut self, wire: Self::Wire, home: ShardId) -> Option<Self::Wire> {
        let _ = home;
        Some(wire)
    }

    /// Gives bytes to the wire without waiting.
    fn send(&mut self, end: &mut Self::End, bytes: &[u8]) -> Sent;

    /// What waits for the wire is sent, and then a long run from where it lies, if there is room.
    #[cfg(test)]
    fn sends_directly(&mut self, _end: &Self::End) {}

    /// Sends what the wire itself held back, its own answers among it; whether nothing is left.
    fn resume(&mut self, end: &mut Self::End) -> bool;

    /// Begins to report the wire's readiness under `token`.
    fn attach(&mut self, end: &Self::End, token: Token);

    /// As [`Wires::attach`], for a wire that was taken from another slot of this shard.
    fn attach_again(&mut self, end: &Self::End, token: Token) {
        self.attach(end, token);
    }

    /// Changes what is reported.
    fn watch(&mut self, end: &Self::End, token: Token, watch: Watch);

    /// The address at the other end, where it has one.
    fn peer(&self, end: &Self::End) -> Option<std::net::IpAddr>;

    /// The certificate that the peer showed, where its listener takes it for a client.
    fn certificate(&self, end: &Self::End) -> Option<&ShownCertificate>;

    /// Whether it is a channel socket, which is nothing without its right.
    fn is_channel_socket(&self, end: &Self::End) -> bool;

    /// What becomes of messages that there is no room for.
    fn slow_policy(&self, end: &Self::End) -> SlowPolicy;

    /// It is closed next because its peer is too slow.
    fn overloaded(&mut self, end: &Self::End);

    /// Whether it has to stay on this shard, whose socket it uses.
    fn is_anchored(&self, _wire: &Self::Wire) -> bool {
        false
    }

    /// Whether it is to be told when all that is retained for a subscription was given.
    fn awaits_replays(&self, _end: &Self::End) -> bool {
        false
    }

    /// All that is retained was given to the subscription with this identifier.
    fn replayed(&mut self, _end: &Self::End, _identifier: u32) {}

    /// The secret that a handshake waits for under this number, if there is one.
    fn key(&mut self, _number: u64, _key: Option<SharedKey>) {}

    /// Closes it: what was given before is still sent, nothing more is read or reported.
    fn close(&mut self, end: Self::End);
}
