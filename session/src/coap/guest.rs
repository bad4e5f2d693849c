//! Whoever a credential names, as an MQTT client (version 5) of the broker.

use codec::mqtt::{
    Connect, ConnectProperties, Delivery, PacketId, ProtocolVersion, QoS, ReasonCode,
    RetainHandling, Subscribe, SubscribeFilters, Subscription, Unsubscribe, UnsubscribeFilters,
    UserProperties, put_pingreq,
};

use crate::coap::format;
use crate::now::Now;
use crate::web::{Login, Posted};

pub(super) const VERSION: ProtocolVersion = ProtocolVersion::V5;

/// Filters of one guest at a time, observed or asked for once.
const FILTERS_MAX: usize = 96;

/// Packets that may wait for their answers, below every Receive Maximum.
const ASKED_MAX: usize = 32;

/// Bytes that may wait for the shard besides one message.
const WAITING_BYTES_MAX: usize = 64 << 10;

/// The place of a guest in its endpoint.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct GuestNumber(pub u8);

/// The number of a request that has no answer yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct ExchangeNumber(pub(super) u32);

/// One guest.
#[derive(Debug)]
pub(super) struct Guest {
    /// `None` where the transport says who it is.
    pub(super) login: Option<Login>,
    pub(super) stage: Stage,
    /// Packets for the shard.
    pub(super) mqtt: Vec<u8>,
    /// Whether the caller was asked for a connection.
    pub(super) opened: bool,
    next_id: u16,
    asked: Vec<(PacketId, Question)>,
    filters: Vec<Option<Filter>>,
    /// Counts SUBSCRIBEs, so that an answer is never taken for that to an earlier one.
    subscribed: u32,
    /// Half of the Keep Alive, in seconds.
    pub(super) ping_every_s: u32,
    pub(super) ping_at: Option<Now>,
    /// When a request named it last.
    pub(super) used: Now,
}

/// How far a guest's connection has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Stage {
    /// No CONNACK yet.
    Opening,
    /// Packets pass.
    Live,
    /// It ended for this reason.
    Over(ReasonCode),
}

/// What a packet was sent for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Question {
    /// A request to publish.
    Publish(ExchangeNumber),
    /// All requests that wait for this SUBSCRIBE.
    Subscribe(Identifier),
    /// The answer is of no interest.
    Unsubscribe,
}

/// Which filter, and as of which SUBSCRIBE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Identifier {
    pub(super) filter: u8,
    pub(super) count: u32,
}

/// SUBSCRIBEs are counted in 20 bits, compared as numbers on a circle.
const COUNT_MASK: u32 = (1 << 20) - 1;

impl Identifier {
    /// The Subscription Identifier.
    pub(super) fn number(self) -> u32 {
        (u32::from(self.filter) + 1) << 20 | (self.count & COUNT_MASK)
    }

    /// What a Subscription Identifier says.
    pub(super) fn of(number: u32) -> Option<Identifier> {
        Some(Identifier {
            filter: u8::try_from((number >> 20).checked_sub(1)?).ok()?,
            count: number & COUNT_MASK,
        })
    }
}

/// Whether `count` is that of a SUBSCRIBE as late as `other`'s, or later.
pub(super) fn is_as_late(count: u32, other: u32) -> bool {
    count.wrapping_sub(other) & COUNT_MASK < 1 << 19
}

/// A filter that is subscribed to.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) topic: Box<str>,
    first: u32,
    last: u32,
    /// The broker has it.
    pub(super) granted: bool,
}

impl Guest {
    /// A guest who is about to connect.
    pub(super) fn new(login: Option<Login>, now: Now) -> Guest {
        let mut mqtt = Vec::new();
        Connect {
            version: VERSION,
            clean_start: true,
            // The broker gives its own.
            keep_alive: 0,
            client_id: "",
            will: None,
            username: login.as_ref().map(|login| &*login.username),
            password: login.as_ref().map(|login| login.password.as_bytes()),
            properties: ConnectProperties::default(),
        }
        .encode(VERSION, &mut mqtt);
        Guest {
            login,
            stage: Stage::Opening,
            mqtt,
            opened: false,
            next_id: 0,
            asked: Vec::new(),
            filters: Vec::new(),
            subscribed: 0,
            ping_every_s: 0,
            ping_at: None,
            used: now,
        }
    }

    /// Whether it takes one more request.
    pub(super) fn has_room(&self) -> bool {
        matches!(self.stage, Stage::Opening | Stage::Live)
            && self.asked.len() < ASKED_MAX
            && self.mqtt.len() < WAITING_BYTES_MAX
    }

    /// Whether nothing depends on it.
    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty() && self.filters.iter().all(Option::is_none)
    }

    fn ask(&mut self, question: Question) -> PacketId {
        loop {
            self.next_id = self.next_id.wrapping_add(1);
            if let Some(id) = PacketId::new(self.next_id)
                && self.asked.iter().all(|(other, _)| *other != id)
            {
                self.asked.push((id, question));
                return id;
            }
        }
    }

    /// What an answered packet was sent for.
    pub(super) fn answered(&mut self, id: PacketId) -> Option<Question> {
        let at = self.asked.iter().position(|(asked, _)| *asked == id)?;
        Some(self.asked.remove(at).1)
    }

    /// Sends a message at QoS 1.
    pub(super) fn publish(
        &mut self,
        exchange: ExchangeNumber,
        topic: &str,
        format: Option<u16>,
        retain: bool,
        payload: &[u8],
    ) {
        let id = self.ask(Question::Publish(exchange));
        Posted {
            topic,
            delivery: Delivery::AtLeastOnce(id),
            retain,
            text: format == Some(format::TEXT) && std::str::from_utf8(payload).is_ok(),
            content_type: format.and_then(format::name),
            payload,
        }
        .encode(&mut self.mqtt);
    }

    /// Subscribes to a filter, or once more to one that is subscribed to: the answer says whether
    /// it may be read, and with `retained` what is retained follows. `None` with too many filters.
    pub(super) fn subscribe(&mut self, topic: &str, retained: bool) -> Option<Identifier> {
        let count = self.subscribed;
        let known = self.filters.iter().position(|filter| {
            filter
                .as_ref()
                .is_some_and(|filter| *filter.topic == *topic)
        });
        let at = match known {
            Some(at) => at,
            None => match self.filters.iter().position(Option::is_none) {
                Some(free) => free,
                None if self.filters.len() < FILTERS_MAX => {
                    self.filters.push(None);
                    self.filters.len() - 1
                }
                None => return None,
            },
        };
        let identifier = Identifier {
            filter: at as u8,
            count,
        };
        let mut filters = Vec::new();
        Subscription {
            retain_handling: if retained {
                RetainHandling::Send
            } else {
                RetainHandling::DoNotSend
            },
            ..Subscription::new(topic, QoS::AtMostOnce)
        }
        .put(VERSION, &mut filters);
        let filters = SubscribeFilters::parse(&filters, VERSION).ok()?;
        let packet_id = self.ask(Question::Subscribe(identifier));
        Subscribe {
            packet_id,
            subscription_identifier: Some(identifier.number()),
            user_properties: UserProperties::default(),
            filters,
        }
        .encode(VERSION, &mut self.mqtt);
        self.subscribed = count.wrapping_add(1) & COUNT_MASK;
        let filter = self.filters[at].get_or_insert(Filter {
            topic: topic.into(),
            first: count,
            last: count,
            granted: false,
        });
        filter.last = count;
        Some(identifier)
    }

    /// The filter that an identifier belongs to, if it is still the same.
    pub(super) fn filter(&self, identifier: Identifier) -> Option<&Filter> {
        let filter = self.filters.get(usize::from(identifier.filter))?.as_ref()?;
        is_as_late(identifier.count, filter.first).then_some(filter)
    }

    /// The identifier that the broker knows a filter by now.
    pub(super) fn current(&self, filter: u8) -> Option<Identifier> {
        let found = self.filters.get(usize::from(filter))?.as_ref()?;
        Some(Identifier {
            filter,
            count: found.last,
        })
    }

    /// A filter by its number.
    pub(super) fn filter_mut(&mut self, filter: u8) -> Option<&mut Filter> {
        self.filters.get_mut(usize::from(filter))?.as_mut()
    }

    /// Gives a filter up.
    pub(super) fn release(&mut self, filter: u8) {
        let Some(found) = self
            .filters
            .get_mut(usize::from(filter))
            .and_then(Option::take)
        else {
            return;
        };
        if !found.granted || self.stage != Stage::Live {
            return;
        }
        let mut filters = Vec::new();
        UnsubscribeFilters::put(&found.topic, &mut filters);
        if let Ok(filters) = UnsubscribeFilters::parse(&filters) {
            let packet_id = self.ask(Question::Unsubscribe);
            Unsubscribe {
                packet_id,
                user_properties: UserProperties::default(),
                filters,
            }
            .encode(VERSION, &mut self.mqtt);
        }
    }

    /// Shows that it is alive.
    pub(super) fn ping(&mut self, now: Now) {
        put_pingreq(&mut self.mqtt);
        self.ping_at = Some(now.plus_secs(self.ping_every_s));
    }
}

/// Whether two Subscription Identifiers of one guest belong to the same filter: it gets a new one
/// with each SUBSCRIBE.
pub fn is_same_filter(one: u32, other: u32) -> bool {
    one >> 20 == other >> 20
}
