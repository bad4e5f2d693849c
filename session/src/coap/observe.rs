//! Observations (RFC 7641): who is notified, and which notifications are confirmed.

use std::collections::VecDeque;

use codec::coap::{Block, Code, Kind, MessageId, Token};

use crate::coap::answer::Reply;
use crate::coap::bodies::Body;
use crate::coap::confirm::{Purpose, UNCONFIRMED_MAX, Unconfirmed};
use crate::coap::endpoint::{Around, Endpoint, Right, Rights};
use crate::coap::guest::{GuestNumber, Identifier};
use crate::now::Now;

/// Observations of one endpoint; a further one is answered once, without Observe.
pub(super) const OBSERVATIONS_MAX: usize = 64;

/// Every so many notifications one has to be confirmed: so many can be lost or unwanted at most.
const CONFIRM_EVERY: u16 = 16;

/// Milliseconds after which the next notification has to be confirmed. (RFC 7641, 4.5 asks for one
/// in 24 hours.)
const CONFIRM_AFTER_MS: u64 = 60_000;

/// Messages and bytes that wait while a notification is unconfirmed; then the oldest is dropped.
/// (RFC 7641, 1.3: an observer sees the latest state, not each.)
const QUEUE_MESSAGES: usize = 16;
const QUEUE_BYTES: usize = 64 << 10;

/// Notifications without confirmation whose RST is understood.
const UNCONFIRMED_IDS: usize = 32;

/// Sequence numbers have 24 bits (RFC 7641, 3.4).
const SEQUENCE_MASK: u32 = (1 << 24) - 1;

/// One observation.
#[derive(Debug)]
pub(super) struct Observation {
    pub(super) token: Token,
    pub(super) guest: u8,
    /// Its filter, and the SUBSCRIBE whose retained messages are its own.
    pub(super) identifier: Identifier,
    pub(super) accept: Option<u16>,
    /// The size of blocks that its peer takes.
    pub(super) exponent: u8,
    since_confirmed: u16,
    confirmed_at: Now,
    in_flight: bool,
    queue: VecDeque<Body>,
}

impl Observation {
    pub(super) fn new(
        token: Token,
        guest: u8,
        identifier: Identifier,
        accept: Option<u16>,
        exponent: u8,
        now: Now,
    ) -> Observation {
        Observation {
            token,
            guest,
            identifier,
            accept,
            exponent,
            since_confirmed: 0,
            confirmed_at: now,
            in_flight: false,
            queue: VecDeque::new(),
        }
    }

    fn queued_bytes(&self) -> usize {
        self.queue.iter().map(|body| body.bytes.len()).sum()
    }
}

impl Endpoint {
    /// The next sequence number: one counter for all observations.
    pub(super) fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1) & SEQUENCE_MASK;
        self.sequence
    }

    /// A message for the observation at `at`: sent, or kept while another is unconfirmed.
    pub(super) fn notify(&mut self, at: usize, body: Body, around: &mut Around<'_>) {
        let observation = &mut self.observations[at];
        if !observation.in_flight {
            return self.send_notification(at, body, around);
        }
        observation.queue.push_back(body);
        while observation.queue.len() > QUEUE_MESSAGES
            || observation.queue.len() > 1 && observation.queued_bytes() > QUEUE_BYTES
        {
            observation.queue.pop_front();
            around.tally.notifications_dropped += 1;
        }
    }

    fn send_notification(&mut self, at: usize, body: Body, around: &mut Around<'_>) {
        let sequence = self.next_sequence();
        let id = self.next_id();
        let room = self.unconfirmed.len() < UNCONFIRMED_MAX;
        let observation = &mut self.observations[at];
        if observation
            .accept
            .is_some_and(|accept| body.format.is_some_and(|format| format != accept))
        {
            return self.end_observation(at, Code::NOT_ACCEPTABLE, around);
        }
        observation.since_confirmed = observation.since_confirmed.saturating_add(1);
        let old = around.now.millis_since(observation.confirmed_at) >= CONFIRM_AFTER_MS;
        let confirmed = (observation.since_confirmed >= CONFIRM_EVERY || old) && room;
        let (kind, token) = match confirmed {
            true => (Kind::Con, observation.token),
            false => (Kind::Non, observation.token),
        };
        observation.in_flight = confirmed;
        let (guest, exponent) = (observation.guest, observation.exponent);
        let first = Block {
            number: 0,
            more: true,
            exponent,
        };
        let blocks = body.bytes.len() > first.size();
        let reply = Reply {
            observe: Some(sequence),
            format: body.format,
            etag: blocks.then_some(body.etag),
            block2: blocks.then_some(first),
            size2: blocks.then_some(body.bytes.len() as u32),
            payload: &body.bytes[..body.bytes.len().min(first.size())],
            ..Reply::new(Code::CONTENT)
        };
        let bytes = around.out.write(|out| reply.put(kind, id, token, out));
        around.tally.notifications += 1;
        if confirmed {
            let purpose = Purpose::Notification(token);
            let random = self.random.next();
            self.unconfirmed
                .push(Unconfirmed::new(id, bytes, purpose, random, around.now));
        } else {
            if self.notified.len() == UNCONFIRMED_IDS {
                self.notified.pop_front();
            }
            self.notified.push_back((id, token));
        }
        if blocks {
            let filter = self.observations[at].identifier;
            let topic = self.guests[usize::from(guest)]
                .as_ref()
                .and_then(|guest| guest.filter(filter))
                .map(|filter| filter.topic.clone());
            if let Some(topic) = topic {
                self.bodies.keep(guest, &topic, body, around.now);
            }
        }
    }

    /// The peer has a notification: what waited behind it goes, if it may still be read.
    pub(super) fn notification_confirmed(
        &mut self,
        token: Token,
        rights: &mut dyn Rights,
        around: &mut Around<'_>,
    ) {
        let Some(at) = self.observation(token) else {
            return;
        };
        let observation = &mut self.observations[at];
        observation.in_flight = false;
        observation.since_confirmed = 0;
        observation.confirmed_at = around.now;
        if observation.queue.is_empty() {
            return;
        }
        match self.right_of(at, rights) {
            Right::Held => {}
            Right::Lost => return self.end_observation(at, Code::FORBIDDEN, around),
            Right::Unclear => {
                let dropped = self.observations[at].queue.len() as u64;
                around.tally.notifications_dropped += dropped;
                return self.observations[at].queue.clear();
            }
        }
        while self.observation(token) == Some(at)
            && !self.observations[at].in_flight
            && let Some(body) = self.observations[at].queue.pop_front()
        {
            self.send_notification(at, body, around);
        }
    }

    /// Whether the messages of an observation may still be read.
    pub(super) fn right_of(&self, at: usize, rights: &mut dyn Rights) -> Right {
        let observation = &self.observations[at];
        let guest = self.guests[usize::from(observation.guest)].as_ref();
        let current = guest.and_then(|guest| guest.current(observation.identifier.filter));
        match current {
            Some(current) => rights.may_read(GuestNumber(observation.guest), current.number()),
            None => Right::Lost,
        }
    }

    /// Ends observations whose right is gone, and says so. (They are silent from the moment of the
    /// revocation on.)
    pub fn review(&mut self, rights: &mut dyn Rights, around: &mut Around<'_>) {
        let mut at = 0;
        while at < self.observations.len() {
            if self.right_of(at, rights) == Right::Lost {
                self.end_observation(at, Code::FORBIDDEN, around);
            } else {
                at += 1;
            }
        }
    }

    /// The observation under a token.
    pub(super) fn observation(&self, token: Token) -> Option<usize> {
        let mut all = self.observations.iter();
        all.position(|observation| observation.token == token)
    }

    /// Ends an observation with a notification of an error (RFC 7641, 4.2).
    pub(super) fn end_observation(&mut self, at: usize, code: Code, around: &mut Around<'_>) {
        let token = self.observations[at].token;
        let id = self.next_id();
        let reply = Reply::new(code);
        around.out.write(|out| reply.put(Kind::Non, id, token, out));
        self.forget_observation(at);
    }

    /// Ends an observation without a word.
    pub(super) fn forget_observation(&mut self, at: usize) {
        let gone = self.observations.remove(at);
        self.unconfirmed
            .retain(|sent| sent.purpose != Purpose::Notification(gone.token));
        self.notified.retain(|(_, token)| *token != gone.token);
        self.release_filter(gone.guest, gone.identifier.filter);
    }

    /// Ends whatever a message with this id notified: its peer does not want it.
    pub(super) fn reset(&mut self, id: MessageId) {
        let mut notified = self.notified.iter();
        if let Some((_, token)) = notified.find(|(sent, _)| *sent == id)
            && let Some(at) = self.observation(*token)
        {
            self.forget_observation(at);
        }
    }
}
