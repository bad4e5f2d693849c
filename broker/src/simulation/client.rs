//! A model client: its own memory of what it owes and is owed, over the codec.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use codec::mqtt::{
    Connect, ConnectProperties, Disconnect, ProtocolVersion, PublishProperties, QoS, ReasonCode,
    Will, put_pingreq,
};

use super::database::Database;
use super::dice::Dice;
use super::ledger::{ConnView, Fate, Ledger, Request, WillView, payload};
use super::net::{Gone, Net};

/// What a client does all day.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(super) enum Role {
    /// Sees everything and publishes nothing.
    Observer,
    /// Publishes and subscribes.
    Mixed,
    /// Only a member of a shared group.
    Worker,
}

/// Everything outside a client that it touches.
pub(super) struct Around<'a> {
    pub(super) net: &'a mut Net,
    pub(super) ledger: &'a mut Ledger,
    pub(super) database: &'a Database,
    pub(super) dice: &'a mut Dice,
    pub(super) now_ms: u64,
    pub(super) shards: usize,
}

/// An exchange that the client began and that is not over.
#[derive(Clone, Debug)]
pub(super) struct Flight {
    pub(super) id: u16,
    pub(super) message: u64,
    pub(super) qos: QoS,
    pub(super) retain: bool,
    pub(super) released: bool,
}

#[derive(Debug)]
pub(super) struct Device {
    pub(super) number: usize,
    pub(super) principal: usize,
    pub(super) role: Role,
    pub(super) version: ProtocolVersion,
    pub(super) expiry: u32,
    pub(super) keep_alive: u16,
    pub(super) receive_maximum: u16,
    pub(super) aliases: u16,
    /// Whether it leaves wills, takes back what it had retained, shows old secrets and writes routes.
    pub(super) moody: bool,
    pub(super) room: usize,
    pub(super) conn: Option<usize>,
    pub(super) live: bool,
    pub(super) input: Vec<u8>,
    pub(super) next_id: u16,
    pub(super) flights: VecDeque<Flight>,
    pub(super) quota: u16,
    pub(super) received: BTreeSet<u16>,
    /// The session that all this belongs to.
    pub(super) session: u64,
    /// QoS 2 messages that were given to the application in this session.
    pub(super) taken: BTreeSet<u64>,
    /// Messages that reached it, whatever became of them on the way back.
    pub(super) heard: BTreeSet<u64>,
    pub(super) answers: VecDeque<Vec<u8>>,
    pub(super) requests: BTreeMap<u16, Request>,
    pub(super) topics: BTreeMap<u16, String>,
    pub(super) sent_ms: u64,
    /// What it noticed and nobody may do to it.
    pub(super) complaint: Option<String>,
    pub(super) retained: BTreeMap<(usize, String), u64>,
}

pub(super) const SUBTOPICS: [&str; 4] = ["", "a", "a/b", "b"];

impl Device {
    pub(super) fn new(number: usize, principal: usize, role: Role, dice: &mut Dice) -> Device {
        let version = match dice.roll(10) {
            0 => ProtocolVersion::V31,
            1..4 => ProtocolVersion::V311,
            _ => ProtocolVersion::V5,
        };
        let expiry = match (role, version, dice.roll(4)) {
            (Role::Observer, ProtocolVersion::V5, _) => u32::MAX,
            (_, ProtocolVersion::V5, 0) => 0,
            (_, ProtocolVersion::V5, 1) => 5,
            _ => 3600,
        };
        Device {
            number,
            principal,
            role,
            version: if role == Role::Observer {
                ProtocolVersion::V5
            } else {
                version
            },
            expiry: if role == Role::Observer {
                u32::MAX
            } else {
                expiry
            },
            keep_alive: *dice.pick(&[0, 10, 60]),
            receive_maximum: *dice.pick(&[1, 3, 20, u16::MAX]),
            aliases: *dice.pick(&[0, 0, 2]),
            moody: role != Role::Observer,
            room: 64 << 10,
            conn: None,
            live: false,
            input: Vec::new(),
            next_id: 1,
            flights: VecDeque::new(),
            quota: u16::MAX,
            received: BTreeSet::new(),
            session: 0,
            taken: BTreeSet::new(),
            heard: BTreeSet::new(),
            answers: VecDeque::new(),
            requests: BTreeMap::new(),
            topics: BTreeMap::new(),
            sent_ms: 0,
            complaint: None,
            retained: BTreeMap::new(),
        }
    }

    pub(super) fn client_id(&self) -> String {
        format!("device-{}", self.number)
    }

    /// Opens a connection; one that is there is left to itself.
    pub(super) fn connect(&mut self, clean_start: bool, around: &mut Around<'_>) {
        // 3.1 is not told whether its session is there.
        let clean_start = clean_start || self.version == ProtocolVersion::V31;
        let old_secret = self.moody && around.dice.percent(2);
        let principal = &around.database.principals[self.principal];
        let credential = principal.credential - u64::from(old_secret);
        let shard = around.dice.roll(around.shards);
        let conn = around.net.connect(self.number, shard, self.room);
        let v5 = self.version.is_v5();
        let expiry = if v5 { self.expiry } else { 0 };
        let delay = if v5 {
            *around.dice.pick(&[0, 0, 3, 30])
        } else {
            0
        };
        let will = self.will(delay, around);
        let client_id = self.client_id();
        let (name, secret) = (self.principal.to_string(), credential.to_string());
        let content = will
            .map(|(number, ..)| payload(number, 0))
            .unwrap_or_default();
        let topic = will.map(|(_, channel, sub, ..)| topic(around.database, channel, sub, false));
        let packet = Connect {
            version: self.version,
            clean_start,
            keep_alive: self.keep_alive,
            client_id: &client_id,
            will: will
                .zip(topic.as_deref())
                .map(|((_, _, _, qos, retain), topic)| Will {
                    topic,
                    payload: &content,
                    qos,
                    retain,
                    delay,
                    properties: PublishProperties::default(),
                }),
            username: Some(&name),
            password: Some(secret.as_bytes()),
            properties: ConnectProperties {
                session_expiry: expiry,
                receive_maximum: if v5 { self.receive_maximum } else { u16::MAX },
                topic_alias_maximum: if v5 { self.aliases } else { 0 },
                ..ConnectProperties::default()
            },
        };
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        around.net.write(conn, &bytes);
        assert_eq!(around.ledger.conns.len(), conn);
        around.ledger.conns.push(ConnView {
            device: self.number,
            principal: self.principal,
            credential,
            clean_start,
            expiry: match (v5, clean_start) {
                (true, _) => expiry,
                (false, true) => 0,
                (false, false) => 24 * 3600,
            },
            keep_alive: self.keep_alive,
            will: will.map(|(message, ..)| WillView {
                message,
                delay,
                fate: Fate::Held,
                taken_back: false,
            }),
            heard_ms: around.now_ms,
            ..ConnView::default()
        });
        self.forget_connection();
        if clean_start {
            // Whether or not the answer is ever heard.
            self.flights.clear();
            self.received.clear();
            self.taken.clear();
        }
        self.conn = Some(conn);
        self.sent_ms = around.now_ms;
    }

    fn will(
        &mut self,
        _delay: u32,
        around: &mut Around<'_>,
    ) -> Option<(u64, usize, &'static str, QoS, bool)> {
        if !self.moody || self.role != Role::Mixed || !around.dice.percent(40) {
            return None;
        }
        let channel = around.dice.roll(around.database.channels.len());
        let right = around.database.right(self.principal, channel);
        // Without the right the CONNECT is refused: seldom tried.
        let alive = around.database.channel_lives(channel);
        if !(right.contains(authcache::Action::Publish) && alive || around.dice.percent(3)) {
            return None;
        }
        let subtopic = *around.dice.pick(&SUBTOPICS);
        let qos = qos_of(around.dice.roll(3));
        let retain = around.dice.percent(20);
        let place = (channel, subtopic);
        let number =
            around
                .ledger
                .register(self.number, self.principal, place, (qos, retain, true));
        Some((number, channel, subtopic, qos, retain))
    }

    pub(super) fn forget_connection(&mut self) {
        self.conn = None;
        self.live = false;
        self.input.clear();
        self.answers.clear();
        self.requests.clear();
        self.topics.clear();
    }

    /// Leaves without a word.
    pub(super) fn cut(&mut self, how: Gone, around: &mut Around<'_>) {
        if let Some(conn) = self.conn {
            around.net.leave(conn, how);
            self.forget_connection();
        }
    }

    /// Says goodbye.
    pub(super) fn disconnect(&mut self, with_will: bool, around: &mut Around<'_>) {
        let Some(conn) = self.conn else { return };
        let reason = if with_will && self.version.is_v5() {
            ReasonCode::DISCONNECT_WITH_WILL_MESSAGE
        } else {
            ReasonCode::SUCCESS
        };
        let packet = Disconnect {
            reason,
            ..Disconnect::default()
        };
        let mut bytes = Vec::new();
        packet.encode(self.version, &mut bytes);
        around.net.write(conn, &bytes);
        around.net.leave(conn, Gone::Fin);
        self.forget_connection();
    }

    pub(super) fn write(&mut self, bytes: &[u8], around: &mut Around<'_>) {
        if let Some(conn) = self.conn {
            around.net.write(conn, bytes);
            self.sent_ms = around.now_ms;
        }
    }

    /// Sends one answer that is owed; whether there was one.
    pub(super) fn answer(&mut self, around: &mut Around<'_>) -> bool {
        let Some(bytes) = self.answers.pop_front() else {
            return false;
        };
        self.write(&bytes, around);
        true
    }

    /// Whether it would be silent for too long.
    pub(super) fn ping_if_due(&mut self, around: &mut Around<'_>) -> bool {
        let due = self.sent_ms + u64::from(self.keep_alive) * 900;
        if !self.live || self.keep_alive == 0 || around.now_ms < due {
            return false;
        }
        let mut bytes = Vec::new();
        put_pingreq(&mut bytes);
        self.write(&bytes, around);
        true
    }

    pub(super) fn fresh_id(&mut self) -> u16 {
        loop {
            let id = self.next_id;
            self.next_id = self.next_id.wrapping_add(1).max(1);
            let used = self.flights.iter().any(|flight| flight.id == id)
                || self.requests.contains_key(&id);
            if id != 0 && !used {
                return id;
            }
        }
    }

    /// Whether nothing is owed in either direction.
    pub(super) fn is_quiet(&self) -> bool {
        self.answers.is_empty() && self.flights.is_empty() && self.requests.is_empty()
    }

    /// The connection ended at the other side.
    pub(super) fn ended(&mut self) {
        self.forget_connection();
    }
}

pub(super) fn qos_of(number: usize) -> QoS {
    QoS::from_bits(number as u8).expect("0 to 2")
}

/// `m/<domain>/c/<channel>[/<subtopic>]`, by ids or by routes.
pub(super) fn topic(database: &Database, channel: usize, subtopic: &str, spelled: bool) -> String {
    let row = &database.channels[channel];
    let domain = &database.domains[row.domain];
    let slash = if subtopic.is_empty() { "" } else { "/" };
    if spelled {
        format!("m/{}/c/{}{slash}{subtopic}", domain.route, row.route)
    } else {
        format!("m/{}/c/{}{slash}{subtopic}", domain.id, row.id)
    }
}
