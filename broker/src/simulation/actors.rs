//! The scheduler's choices: who acts next, and what then happens by chance.

use authcache::Right;

use super::client::Role;
use super::ledger::NEVER;
use super::net::Gone;
use super::world::World;

impl World {
    /// One action of somebody, then the checks.
    pub(super) fn step(&mut self) {
        self.moment += 1;
        let die = self.dice.roll(100);
        if die < self.shape.control {
            self.control_operation();
        } else if die < self.shape.control + self.shape.cuts {
            self.accident();
        } else {
            match self.dice.roll(100) {
                0..35 => self.shard_step(),
                35..62 => self.device_step(),
                62..86 => self.carry(),
                86..94 => self.feed_step(),
                94..98 => self.pass(1),
                _ => self.idle(),
            }
        }
        self.watch();
    }

    fn shard_step(&mut self) {
        let at = self.dice.roll(self.shape.shards);
        if self.broker.may_run(at) {
            self.run_shard(at);
        }
    }

    fn device_step(&mut self) {
        let number = self.dice.roll(self.devices.len());
        let device = &self.devices[number];
        if device.conn.is_none() {
            let clean = device.role != Role::Observer && self.dice.percent(20);
            self.note(|| format!("device {number} connects, clean {clean}"));
            self.with(number, |device, around| device.connect(clean, around));
            return;
        }
        let role = device.role;
        let die = self.dice.roll(100);
        let done = self.with(number, |device, around| device.ping_if_due(around));
        if done || die < 40 && self.with(number, |device, around| device.answer(around)) {
            self.note(|| format!("device {number} answers"));
            return;
        }
        match (role, die) {
            (Role::Mixed | Role::Worker, 98..) => {
                let clean = self.dice.percent(20);
                self.note(|| format!("device {number} connects again, clean {clean}"));
                self.with(number, |device, around| device.connect(clean, around));
            }
            (Role::Mixed | Role::Worker, 96..98) => {
                let with_will = self.dice.percent(30);
                self.note(|| format!("device {number} disconnects, will {with_will}"));
                self.with(number, |device, around| {
                    device.disconnect(with_will, around)
                });
            }
            (Role::Mixed, 82..94) | (Role::Worker, 60..90) => {
                self.note(|| format!("device {number} subscribes"));
                self.with(number, |device, around| device.subscribe(around));
            }
            (Role::Mixed | Role::Worker, 94..96) => {
                self.note(|| format!("device {number} unsubscribes"));
                self.with(number, |device, around| device.unsubscribe(around));
            }
            (Role::Mixed, 20..82) => {
                let count = if self.dice.percent(20) { 4 } else { 1 };
                self.note(|| format!("device {number} publishes {count}"));
                for _ in 0..count {
                    self.with(number, |device, around| device.publish(around));
                }
            }
            _ => {}
        }
    }

    /// Bytes travel on one wire.
    fn carry(&mut self) {
        let busy: Vec<usize> = {
            let net = self.broker.net.borrow();
            let busy = |id: &usize| {
                let conn = &net.conns[*id];
                !conn.up.is_empty() || !conn.down.is_empty() || conn.closed
            };
            (0..net.conns.len()).rev().take(40).filter(busy).collect()
        };
        if busy.is_empty() {
            return;
        }
        let conn = *self.dice.pick(&busy);
        let most = if self.dice.percent(25) {
            1 + self.dice.roll(10)
        } else {
            usize::MAX
        };
        self.carry_one(conn, most);
    }

    fn feed_step(&mut self) {
        let most = if self.dice.percent(20) {
            1 + self.dice.roll(30)
        } else {
            usize::MAX
        };
        match self.dice.roll(3) {
            0 => {
                self.broker.carry_feed(most);
            }
            1 => {
                self.broker.control(&mut self.database, &mut self.dice);
            }
            _ => self.broker.link_requests(),
        }
        self.settle();
    }

    /// Time passes, at most to what a shard waits for.
    fn pass(&mut self, seconds: usize) {
        let ms = 1 + self.dice.roll(50 * seconds) as u64;
        let mut to = self.broker.now.plus_millis(ms);
        let due = self
            .broker
            .shards
            .iter()
            .filter_map(|driven| driven.shard.next_timeout());
        if let Some(due) = due.min() {
            to = to.min(due.max(self.broker.now).plus_millis(1));
        }
        self.broker.now = to;
        self.broker.tick();
        self.note_lease();
    }

    /// Everybody waits for some seconds, and does only what has to be done.
    fn idle(&mut self) {
        let seconds = 1 + self.dice.roll(8);
        self.note(|| format!("{seconds} seconds pass"));
        for _ in 0..seconds * 2 {
            self.broker.now = self.broker.now.plus_millis(500);
            for _ in 0..4 {
                self.round();
            }
            for number in 0..self.devices.len() {
                self.with(number, |device, around| device.ping_if_due(around));
            }
        }
    }

    /// Something breaks.
    fn accident(&mut self) {
        let number = self.dice.roll(self.devices.len());
        if self.shape.pipe_cuts && self.dice.percent(20) {
            if self.broker.is_joined() {
                self.note(|| "the pipe to control is cut".to_owned());
                self.broker.cut();
            } else {
                self.note(|| "a pipe to control is there again".to_owned());
                self.database.voided = true;
                self.broker.join();
            }
            self.note_lease();
            return;
        }
        if self.shape.slow > 0 && self.dice.percent(50) {
            let room = *self.dice.pick(&[16, 200, 64 << 10]);
            self.note(|| format!("device {number} has room for {room} bytes"));
            self.devices[number].room = room;
            if let Some(conn) = self.devices[number].conn {
                self.broker.net.borrow_mut().conns[conn].room = room;
            }
            return;
        }
        if let Some(conn) = self.devices[number].conn {
            let how = if self.dice.percent(50) {
                Gone::Fin
            } else {
                Gone::Reset
            };
            // A part of what was written may still arrive.
            let most = self.dice.roll(60);
            self.broker.net.borrow_mut().carry_up(conn, most);
            if how == Gone::Fin {
                let mut net = self.broker.net.borrow_mut();
                let kept = self.dice.roll(net.conns[conn].up.len() + 1);
                net.conns[conn].up.truncate(kept);
            }
            self.note(|| format!("device {number} is cut off: {how:?} on {conn}"));
            self.with(number, |device, around| device.cut(how, around));
        }
    }

    pub(super) fn control_operation(&mut self) {
        let moment = self.moment;
        let who = self.dice.roll(self.devices.len());
        let principal = self.devices[who].principal;
        let channel = self.dice.roll(self.database.channels.len());
        let domain = self.database.channels[channel].domain;
        let die = self.dice.roll(100);
        let off = (0..self.database.principals.len())
            .find(|who| !self.database.principals[*who].row.enabled);
        self.note(|| format!("control: {die} for principal {principal}, channel {channel}"));
        let database = &mut self.database;
        match die {
            0..55 if who != 0 && !database.channels[channel].removed => {
                let right = Right::from_bits(self.dice.roll(4) as u8);
                let right = if self.dice.percent(60) {
                    Right::BOTH
                } else {
                    right
                };
                database.set_right(principal, channel, right, moment);
            }
            55..70 => match off {
                Some(off) => database.switch_principal(off, true, moment),
                None if who != 0 => database.switch_principal(principal, false, moment),
                None => {}
            },
            70..80 => {
                let on = database.channels[channel].enabled;
                if !database.channels[channel].removed {
                    database.switch_channel(channel, !on, moment);
                }
            }
            80..85 => {
                let on = database.domains[domain].enabled;
                database.switch_domain(domain, !on, moment);
            }
            85..92 if who != 0 => {
                database.rotate_secret(principal, moment);
                let old = database.principals[principal].credential - 1;
                self.rotations
                    .push((principal, old, database.revision, NEVER));
            }
            92..96 if database.channels.len() < 6 && !database.channels[channel].removed => {
                for session in self.ledger.sessions.values_mut() {
                    session.subscriptions.retain(|(of, _), _| *of != channel);
                }
                database.remove_channel(channel, moment);
            }
            96..98 if who > 2 => database.remove_principal(principal, moment),
            _ => {}
        }
    }
}
