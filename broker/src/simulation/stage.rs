//! What scenes need of the world: parts of it that act alone.

use codec::mqtt::ProtocolVersion;

use super::ledger::{ConnView, NEVER};
use super::net::Gone;
use super::world::World;

impl World {
    /// The shard that a device's connection is on.
    pub(super) fn shard_of(&self, device: usize) -> usize {
        let conn = self.devices[device].conn.expect("it is connected");
        let place = self.broker.net.borrow().conns[conn].place;
        place.expect("it is attached").0
    }

    pub(super) fn whole_turn_of(&mut self, at: usize) {
        self.moment += 1;
        self.run_shard(at);
        while self.broker.in_turn(at) {
            self.run_shard(at);
        }
    }

    /// What clients wrote arrives; nothing travels the other way.
    pub(super) fn carry_all(&mut self) {
        let mut net = self.broker.net.borrow_mut();
        for conn in 0..net.conns.len() {
            net.carry_up(conn, usize::MAX);
        }
    }

    /// Shards have their turns; no client reads.
    pub(super) fn shards_only(&mut self) {
        self.carry_all();
        for at in 0..self.shape.shards {
            self.whole_turn_of(at);
        }
    }

    /// Shards, link and control act; no client reads.
    pub(super) fn shards_and_feed(&mut self) {
        self.shards_only();
        self.broker.control(&mut self.database, &mut self.dice);
        self.settle();
        self.broker.carry_feed(usize::MAX);
        self.settle();
        self.broker.link_requests();
    }

    /// Until control has answered everything; no client reads.
    pub(super) fn settle_all(&mut self) {
        for _ in 0..200 {
            if self.database.settled >= self.database.revision {
                return;
            }
            self.shards_and_feed();
        }
        panic!("revision {} is never answered", self.database.revision);
    }

    pub(super) fn rotate(&mut self, principal: usize) {
        self.database.rotate_secret(principal, self.moment);
        let old = self.database.principals[principal].credential - 1;
        self.rotations
            .push((principal, old, self.database.revision, NEVER));
    }

    /// A connection by hand, which no ledger follows beyond its life.
    pub(super) fn open_raw(&mut self, principal: usize, version: ProtocolVersion) -> usize {
        let shard = self.dice.roll(self.shape.shards);
        let conn = self
            .broker
            .net
            .borrow_mut()
            .connect(usize::MAX, shard, 1 << 20);
        assert_eq!(self.ledger.conns.len(), conn);
        self.ledger.conns.push(ConnView {
            device: usize::MAX,
            principal,
            credential: 1,
            clean_start: true,
            raw: Some(version),
            ..ConnView::default()
        });
        conn
    }

    /// Opens, writes and goes.
    pub(super) fn raw(
        &mut self,
        principal: usize,
        version: ProtocolVersion,
        bytes: &[u8],
        how: Gone,
    ) {
        let conn = self.open_raw(principal, version);
        self.broker.net.borrow_mut().write(conn, bytes);
        self.rounds(3);
        self.broker.net.borrow_mut().leave(conn, how);
        self.rounds(2);
    }
}
