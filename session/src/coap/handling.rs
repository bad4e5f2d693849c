//! What is done about a request, and what it is answered.

use codec::coap::{Block, Code, Kind, Message, MessageId, OptionNumber, Token};
use codec::mqtt::ReasonCode;

use crate::coap::answer::Reply;
use crate::coap::bodies::Body;
use crate::coap::endpoint::{Around, Endpoint, Incoming, Rights};
use crate::coap::format;
use crate::coap::guest::{ExchangeNumber, Guest, Identifier, Stage, is_as_late};
use crate::coap::observe::{OBSERVATIONS_MAX, Observation};
use crate::coap::path::{NoPlace, Place, retains};
use crate::coap::uploads::Taken;
use crate::now::Now;
use crate::web::Login;

/// Requests of one endpoint without an answer; a further one gets 5.03.
const EXCHANGES_MAX: usize = 32;

/// A request that has no answer yet.
#[derive(Clone, Debug)]
pub(super) struct Exchange {
    pub(super) number: ExchangeNumber,
    pub(super) id: MessageId,
    pub(super) token: Token,
    pub(super) confirmable: bool,
    /// An empty ACK was sent, so the answer comes on its own.
    pub(super) acknowledged: bool,
    pub(super) acknowledge_at: Option<Now>,
    pub(super) request_bytes: usize,
    /// Classes that are not to be told (RFC 7967).
    pub(super) no_response: u32,
    /// What proves the peer's address, should it have to.
    pub(super) echo: [u8; 8],
    guest: u8,
    block1: Option<Block>,
    success: Success,
}

/// The answer when all is well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Success {
    /// 2.31, as soon as it is known who asks.
    Continue,
    /// 2.01
    Created,
    /// 2.04
    Changed,
    /// 2.04 with `ok`
    ChangedOk,
    /// 2.05 with what is retained.
    Content,
}

/// A GET that waits for what is retained.
#[derive(Debug)]
pub(super) struct Fetch {
    exchange: ExchangeNumber,
    guest: u8,
    identifier: Identifier,
    intent: Intent,
    block: Option<Block>,
    accept: Option<u16>,
    etags: Vec<[u8; 8]>,
    /// What is to be answered is kept here; only the right to it is asked for.
    kept: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Intent {
    Read,
    Register,
    Deregister,
}

/// Why a request is refused.
type Refusal = (Code, &'static str);

const CORE: &str = concat!(
    "</m>;rt=\"turnpike.channel\";title=\"m/<domain>/c/<channel>[/<subtopic>]\";obs,",
    "</mqtt/publish>;rt=\"turnpike.publish\";title=\"mqtt/publish/<topic>\",",
    "</hc>;rt=\"turnpike.health\";title=\"hc/<domain>\""
);

impl Endpoint {
    /// A new request: it is answered here, or waits for its guest's connection.
    pub(super) fn request(
        &mut self,
        message: &Message<'_>,
        len: usize,
        incoming: &Incoming,
        rights: &mut dyn Rights,
        around: &mut Around<'_>,
    ) {
        self.room = incoming.room;
        let confirmable = message.kind == Kind::Con;
        let unacceptable = message.unacceptable_option().is_some()
            || message.values(OptionNumber::IF_MATCH).next().is_some()
            || message.values(OptionNumber::IF_NONE_MATCH).next().is_some();
        if unacceptable && !confirmable {
            // (RFC 7252, 5.4.1)
            around.tally.rejected += 1;
            return self.reject(message.id, around);
        }
        self.next_exchange = self.next_exchange.wrapping_add(1);
        let exchange = Exchange {
            number: ExchangeNumber(self.next_exchange),
            id: message.id,
            token: message.token,
            confirmable,
            acknowledged: false,
            acknowledge_at: confirmable.then(|| Endpoint::acknowledge_at(around.now)),
            request_bytes: len,
            no_response: message.uint(OptionNumber::NO_RESPONSE).unwrap_or(0),
            echo: incoming.echo[0],
            guest: u8::MAX,
            block1: None,
            success: Success::Changed,
        };
        if !self.manner.proven {
            let echo = message.values(OptionNumber::ECHO).next();
            let is_fresh = |echo: &[u8]| incoming.echo.iter().any(|known| known == echo);
            self.manner.proven = echo.is_some_and(is_fresh);
        }
        let refused = if unacceptable {
            Err((
                Code::BAD_OPTION,
                "a critical option is unknown, malformed or repeated",
            ))
        } else if !incoming.serving {
            Err((Code::SERVICE_UNAVAILABLE, "not now"))
        } else if self.exchanges.len() >= EXCHANGES_MAX {
            Err((
                Code::SERVICE_UNAVAILABLE,
                "too many requests without an answer",
            ))
        } else {
            self.carry_out(message, &exchange, incoming, rights, around)
        };
        if let Err((code, why)) = refused {
            let size1 = (code == Code::REQUEST_ENTITY_TOO_LARGE)
                .then(|| u32::try_from(incoming.payload_max).unwrap_or(u32::MAX));
            let reply = Reply {
                size1,
                block1: message.block(OptionNumber::BLOCK1).flatten(),
                ..Reply::refusal(code, why)
            };
            self.answer_exchange(&exchange, &reply, around);
        }
    }

    fn carry_out(
        &mut self,
        message: &Message<'_>,
        exchange: &Exchange,
        incoming: &Incoming,
        rights: &mut dyn Rights,
        around: &mut Around<'_>,
    ) -> Result<(), Refusal> {
        let any = |number| message.values(number).next().is_some();
        if any(OptionNumber::PROXY_URI) || any(OptionNumber::PROXY_SCHEME) {
            return Err((Code::PROXYING_NOT_SUPPORTED, "this is no proxy"));
        }
        let place = Place::of(message).map_err(|none| match none {
            NoPlace::Malformed => (
                Code::BAD_REQUEST,
                "malformed path: expected m/<domain>/c/<channel>[/<subtopic>]",
            ),
            NoPlace::Unknown => (Code::NOT_FOUND, "expected m/<domain>/c/<channel>"),
        })?;
        let publishes = match (message.code, &place) {
            (Code::GET, Place::Core | Place::Channel(_)) => false,
            (Code::POST | Code::PUT, Place::Channel(_) | Place::Topic(_) | Place::Health(_)) => {
                true
            }
            _ => {
                return Err((
                    Code::METHOD_NOT_ALLOWED,
                    "expected POST or PUT to publish, GET to read",
                ));
            }
        };
        if place == Place::Core {
            let reply = Reply {
                format: Some(format::LINKS),
                payload: CORE.as_bytes(),
                ..Reply::new(Code::CONTENT)
            };
            self.answer_exchange(exchange, &reply, around);
            return Ok(());
        }
        let login = place.login(message);
        let shown = login.is_some();
        let login = login.or_else(|| self.transport.clone());
        if shown && !self.manner.credentials {
            return Err((Code::UNAUTHORIZED, "credentials are taken over DTLS only"));
        }
        if login.is_none() && !self.manner.certified {
            return Err((
                Code::UNAUTHORIZED,
                "a credential is missing: expected ?auth=<secret>",
            ));
        }
        if publishes {
            self.publish(message, exchange, &place, login, incoming, around)
        } else {
            self.read(message, exchange, &place, login, rights, around)
        }
    }

    fn publish(
        &mut self,
        message: &Message<'_>,
        exchange: &Exchange,
        place: &Place,
        login: Option<Login>,
        incoming: &Incoming,
        around: &mut Around<'_>,
    ) -> Result<(), Refusal> {
        if matches!(place, Place::Channel(path) if path.has_wildcard()) {
            return Err((Code::BAD_REQUEST, "expected a topic without wildcards"));
        }
        let retain = retains(message).ok_or((Code::BAD_REQUEST, "retain is true or false"))?;
        let format = message.uint(OptionNumber::CONTENT_FORMAT);
        let block1 = match message.block(OptionNumber::BLOCK1) {
            Some(None) => return Err((Code::BAD_REQUEST, "malformed Block1")),
            Some(Some(block)) => Some(block),
            None => None,
        };
        let too_large = (Code::REQUEST_ENTITY_TOO_LARGE, "the message is too large");
        if message.payload.len() > incoming.payload_max
            || message.uint(OptionNumber::SIZE1).unwrap_or(0) as usize > incoming.payload_max
        {
            return Err(too_large);
        }
        let number = self.guest_of(login, around.now)?;
        let mut exchange = Exchange {
            guest: number,
            block1,
            success: match (place, self.manner.created && message.code == Code::POST) {
                (Place::Topic(_), _) => Success::ChangedOk,
                (Place::Channel(_), true) => Success::Created,
                (Place::Core | Place::Channel(_) | Place::Health(_), _) => Success::Changed,
            },
            ..exchange.clone()
        };
        let mut whole = None;
        if let Some(block) = block1 {
            let bounds = (incoming.payload_max, incoming.room);
            let target = place.target(message);
            match self
                .uploads
                .block(&target, block, message.payload, bounds, around.now)
            {
                Taken::Whole(body) => whole = Some(body),
                Taken::Continue => {
                    exchange.success = Success::Continue;
                    let live = self
                        .guest_mut(number)
                        .is_some_and(|guest| guest.stage == Stage::Live);
                    if live {
                        self.succeed(&exchange, around);
                    } else {
                        self.exchanges.push(exchange);
                    }
                    return Ok(());
                }
                Taken::Refused(Code::REQUEST_ENTITY_TOO_LARGE, _) => return Err(too_large),
                Taken::Refused(Code::REQUEST_ENTITY_INCOMPLETE, _) => {
                    return Err((
                        Code::REQUEST_ENTITY_INCOMPLETE,
                        "a block before this one is missing",
                    ));
                }
                Taken::Refused(code, _) => return Err((code, "the block is not taken")),
            }
        }
        let payload = whole.as_deref().unwrap_or(message.payload);
        let Some(guest) = self.guest_mut(number).filter(|guest| guest.has_room()) else {
            return Err((
                Code::SERVICE_UNAVAILABLE,
                "too many requests without an answer",
            ));
        };
        let format = format.and_then(|number| u16::try_from(number).ok());
        guest.publish(exchange.number, &place.topic(), format, retain, payload);
        self.exchanges.push(exchange);
        Ok(())
    }

    fn read(
        &mut self,
        message: &Message<'_>,
        exchange: &Exchange,
        place: &Place,
        login: Option<Login>,
        rights: &mut dyn Rights,
        around: &mut Around<'_>,
    ) -> Result<(), Refusal> {
        let Place::Channel(path) = place else {
            return Err((Code::METHOD_NOT_ALLOWED, "expected POST or PUT"));
        };
        let block = match message.block(OptionNumber::BLOCK2) {
            Some(None) => return Err((Code::BAD_REQUEST, "malformed Block2")),
            Some(Some(block)) => Some(block),
            None => None,
        };
        let later = block.is_some_and(|block| block.number > 0);
        let intent = match message.uint(OptionNumber::OBSERVE) {
            Some(0) if !later => Intent::Register,
            Some(1) => Intent::Deregister,
            _ => Intent::Read,
        };
        if intent == Intent::Deregister
            && let Some(at) = self.observation(message.token)
        {
            self.forget_observation(at);
        }
        if intent == Intent::Read && path.has_wildcard() && !later {
            return Err((
                Code::BAD_REQUEST,
                "a path with wildcards can only be observed",
            ));
        }
        if intent == Intent::Register && !self.manner.proven {
            around.tally.challenges += 1;
            let reply = Reply {
                echo: Some(exchange.echo),
                ..Reply::new(Code::UNAUTHORIZED)
            };
            self.answer_exchange(exchange, &reply, around);
            return Ok(());
        }
        // Two names of one channel are one filter.
        let topic = match rights.canonical(&path.domain, &path.channel) {
            Some(prefix) if path.subtopic.is_empty() => prefix,
            Some(prefix) => format!("{prefix}/{}", path.subtopic),
            None => path.topic(),
        };
        let number = self.guest_of(login, around.now)?;
        let kept = later && self.bodies.has(number, &topic);
        let full = (
            Code::SERVICE_UNAVAILABLE,
            "too many requests without an answer",
        );
        let guest = self.guest_mut(number).filter(|guest| guest.has_room());
        let identifier = guest
            .and_then(|guest| guest.subscribe(&topic, !kept))
            .ok_or(full)?;
        let accept = message.uint(OptionNumber::ACCEPT);
        self.exchanges.push(Exchange {
            guest: number,
            success: Success::Content,
            ..exchange.clone()
        });
        self.fetches.push(Fetch {
            exchange: exchange.number,
            guest: number,
            identifier,
            intent,
            block,
            accept: accept.and_then(|number| u16::try_from(number).ok()),
            etags: message
                .values(OptionNumber::ETAG)
                .filter_map(|etag| etag.try_into().ok())
                .take(8)
                .collect(),
            kept,
        });
        Ok(())
    }

    /// The guest with this credential: known, or new in a free place or that of whoever was idle
    /// longest.
    fn guest_of(&mut self, login: Option<Login>, now: Now) -> Result<u8, Refusal> {
        let known = self.guests.iter_mut().position(|place| {
            let guest = place.as_mut().filter(|guest| {
                guest.login == login && matches!(guest.stage, Stage::Opening | Stage::Live)
            });
            guest.map(|guest| guest.used = now).is_some()
        });
        if let Some(at) = known {
            return Ok(at as u8);
        }
        let free = self.guests.iter().position(Option::is_none);
        let at = match free {
            Some(at) => at,
            None => {
                let idle = self.guests.iter().enumerate().filter_map(|(at, guest)| {
                    let guest = guest.as_ref().filter(|guest| guest.is_idle())?;
                    Some((guest.used, at))
                });
                let (_, at) = idle.min().ok_or((
                    Code::SERVICE_UNAVAILABLE,
                    "too many credentials in use from this address",
                ))?;
                self.leaving[at] = self.guests[at].as_ref().is_some_and(|guest| guest.opened);
                self.bodies.forget(at as u8);
                at
            }
        };
        self.guests[at] = Some(Box::new(Guest::new(login, now)));
        Ok(at as u8)
    }

    /// A guest was let in: blocks that waited for it are answered.
    pub(super) fn guest_connected(&mut self, guest: u8, around: &mut Around<'_>) {
        let waiting: Vec<ExchangeNumber> = self
            .exchanges
            .iter()
            .filter(|open| open.guest == guest && open.success == Success::Continue)
            .map(|open| open.number)
            .collect();
        for number in waiting {
            if let Some(at) = self.exchanges.iter().position(|open| open.number == number) {
                let exchange = self.exchanges.swap_remove(at);
                self.succeed(&exchange, around);
            }
        }
    }

    /// A guest is gone: whatever it asked for is refused, and it observes nothing more.
    pub(super) fn guest_gone(&mut self, guest: u8, reason: ReasonCode, around: &mut Around<'_>) {
        let (code, why) = refusal(reason);
        self.fetches.retain(|fetch| fetch.guest != guest);
        while let Some(at) = self.exchanges.iter().position(|open| open.guest == guest) {
            let exchange = self.exchanges.swap_remove(at);
            self.answer_exchange(&exchange, &Reply::refusal(code, why), around);
        }
        while let Some(at) = self
            .observations
            .iter()
            .position(|found| found.guest == guest)
        {
            self.end_observation(at, code, around);
        }
        self.bodies.forget(guest);
        if !self.has_guests() {
            // Whoever is not let in keeps nothing here.
            self.uploads = Default::default();
        }
    }

    fn succeed(&mut self, exchange: &Exchange, around: &mut Around<'_>) {
        let code = match exchange.success {
            Success::Continue => Code::CONTINUE,
            Success::Created => Code::CREATED,
            Success::Changed | Success::ChangedOk => Code::CHANGED,
            Success::Content => Code::CONTENT,
        };
        let reply = Reply {
            block1: exchange.block1,
            payload: match exchange.success {
                Success::ChangedOk => b"ok",
                _ => b"",
            },
            ..Reply::new(code)
        };
        self.answer_exchange(exchange, &reply, around);
    }

    /// A message was taken, or not.
    pub(super) fn published(
        &mut self,
        number: ExchangeNumber,
        reason: ReasonCode,
        around: &mut Around<'_>,
    ) {
        let Some(at) = self.exchanges.iter().position(|open| open.number == number) else {
            return;
        };
        let exchange = self.exchanges.swap_remove(at);
        if !reason.is_error() {
            return self.succeed(&exchange, around);
        }
        let (code, why) = refusal(reason);
        let reply = Reply {
            block1: exchange.block1,
            ..Reply::refusal(code, why)
        };
        self.answer_exchange(&exchange, &reply, around);
    }

    /// A SUBSCRIBE was answered: whoever may not read is told, and whoever fetches what is kept here
    /// gets it.
    pub(super) fn subscribed(
        &mut self,
        guest: u8,
        identifier: Identifier,
        reason: ReasonCode,
        around: &mut Around<'_>,
    ) {
        if !reason.is_error()
            && let Some(filter) = self
                .guest_mut(guest)
                .and_then(|guest| guest.filter_mut(identifier.filter))
        {
            filter.granted = true;
        }
        let mut at = 0;
        while at < self.fetches.len() {
            let fetch = &self.fetches[at];
            let own = fetch.guest == guest && fetch.identifier == identifier;
            if !own || !(reason.is_error() || fetch.kept) {
                at += 1;
                continue;
            }
            let fetch = self.fetches.swap_remove(at);
            if reason.is_error() {
                let (code, why) = refusal(reason);
                self.answer(fetch.exchange, &Reply::refusal(code, why), around);
                continue;
            }
            let topic = self.topic_of(guest, identifier);
            let body = topic.and_then(|topic| self.bodies.find(guest, &topic, around.now));
            self.give(&fetch, body.as_ref(), around);
        }
        self.release_filter(guest, identifier.filter);
    }

    /// What is retained came, or there is nothing: for all who asked so far. Tokens of the
    /// observations that began with it.
    pub(super) fn fetched(
        &mut self,
        guest: u8,
        identifier: Identifier,
        body: Option<&Body>,
        around: &mut Around<'_>,
    ) -> Vec<Token> {
        let mut begun = Vec::new();
        let mut at = 0;
        while at < self.fetches.len() {
            let fetch = &self.fetches[at];
            let own = fetch.guest == guest
                && fetch.identifier.filter == identifier.filter
                && is_as_late(identifier.count, fetch.identifier.count)
                && !fetch.kept;
            if !own {
                at += 1;
                continue;
            }
            let fetch = self.fetches.swap_remove(at);
            begun.extend(self.give(&fetch, body, around));
        }
        self.release_filter(guest, identifier.filter);
        begun
    }

    fn topic_of(&self, guest: u8, identifier: Identifier) -> Option<Box<str>> {
        let guest = self.guests.get(usize::from(guest))?.as_ref()?;
        Some(guest.filter(identifier)?.topic.clone())
    }

    /// Answers a GET; the token of the observation that begins with it.
    fn give(
        &mut self,
        fetch: &Fetch,
        body: Option<&Body>,
        around: &mut Around<'_>,
    ) -> Option<Token> {
        let token = self
            .exchanges
            .iter()
            .find(|open| open.number == fetch.exchange)
            .map(|open| open.token)?;
        let format = body.and_then(|body| body.format);
        if let (Some(accept), Some(format)) = (fetch.accept, format)
            && accept != format
        {
            let reply = Reply::refusal(Code::NOT_ACCEPTABLE, "the message has another format");
            self.answer(fetch.exchange, &reply, around);
            return None;
        }
        let mut observe = None;
        if fetch.intent == Intent::Register {
            let known = self.observation(token);
            let exponent = fetch.block.map_or(Block::LARGEST, |block| block.exponent);
            let observation = Observation::new(
                token,
                fetch.guest,
                fetch.identifier,
                fetch.accept,
                exponent,
                around.now,
            );
            // (RFC 7641, 4.1: the same token registers once.)
            if let Some(known) = known {
                let old = std::mem::replace(&mut self.observations[known], observation);
                self.release_filter(old.guest, old.identifier.filter);
            } else if self.observations.len() < OBSERVATIONS_MAX {
                self.observations.push(observation);
            }
            let begun = known.is_some() || self.observation(token).is_some();
            observe = begun.then(|| self.next_sequence());
        }
        match body {
            Some(body) => self.give_content(fetch, body, observe, around),
            None if fetch.intent == Intent::Read => {
                let reply = Reply::refusal(Code::NOT_FOUND, "nothing is retained");
                self.answer(fetch.exchange, &reply, around);
            }
            None => {
                let reply = Reply {
                    observe,
                    ..Reply::new(Code::CONTENT)
                };
                self.answer(fetch.exchange, &reply, around);
            }
        }
        observe.map(|_| token)
    }

    fn give_content(
        &mut self,
        fetch: &Fetch,
        body: &Body,
        observe: Option<u32>,
        around: &mut Around<'_>,
    ) {
        let base = Reply {
            etag: Some(body.etag),
            observe,
            ..Reply::new(Code::CONTENT)
        };
        if fetch.etags.contains(&body.etag) {
            let reply = Reply {
                code: Code::VALID,
                ..base
            };
            return self.answer(fetch.exchange, &reply, around);
        }
        let asked = fetch.block.unwrap_or(Block {
            number: 0,
            more: false,
            exponent: Block::LARGEST,
        });
        let len = body.bytes.len();
        if asked.number > 0 && asked.offset() >= len {
            let reply = Reply::refusal(Code::BAD_REQUEST, "there is no such block");
            return self.answer(fetch.exchange, &reply, around);
        }
        let end = len.min(asked.offset() + asked.size());
        let more = end < len;
        if more
            && !fetch.kept
            && len <= self.room
            && let Some(topic) = self.topic_of(fetch.guest, fetch.identifier)
        {
            self.bodies
                .keep(fetch.guest, &topic, body.clone(), around.now);
        }
        let blocks = more || asked.number > 0 || fetch.block.is_some();
        let reply = Reply {
            format: body.format,
            block2: blocks.then_some(Block { more, ..asked }),
            size2: (blocks && asked.number == 0).then_some(len as u32),
            payload: &body.bytes[asked.offset()..end],
            ..base
        };
        self.answer(fetch.exchange, &reply, around);
    }

    /// Gives a filter up that nobody needs any more.
    pub(super) fn release_filter(&mut self, guest: u8, filter: u8) {
        let fetched = self
            .fetches
            .iter()
            .any(|fetch| fetch.guest == guest && fetch.identifier.filter == filter);
        let observed = self
            .observations
            .iter()
            .any(|found| found.guest == guest && found.identifier.filter == filter);
        if !fetched
            && !observed
            && let Some(guest) = self.guest_mut(guest)
        {
            guest.release(filter);
        }
    }
}

/// The answer to a Reason Code.
fn refusal(reason: ReasonCode) -> Refusal {
    match reason {
        ReasonCode::BAD_USER_NAME_OR_PASSWORD
        | ReasonCode::CLIENT_IDENTIFIER_NOT_VALID
        | ReasonCode::BAD_AUTHENTICATION_METHOD => (Code::UNAUTHORIZED, "the credential is wrong"),
        ReasonCode::MAXIMUM_CONNECT_TIME => (Code::UNAUTHORIZED, "the credential has ended"),
        ReasonCode::NOT_AUTHORIZED | ReasonCode::ADMINISTRATIVE_ACTION | ReasonCode::BANNED => {
            (Code::FORBIDDEN, "no right to do that")
        }
        ReasonCode::TOPIC_NAME_INVALID | ReasonCode::TOPIC_FILTER_INVALID => {
            (Code::BAD_REQUEST, "the path is no topic")
        }
        ReasonCode::PACKET_TOO_LARGE => {
            (Code::REQUEST_ENTITY_TOO_LARGE, "the message is too large")
        }
        ReasonCode::CONNECTION_RATE_EXCEEDED | ReasonCode::MESSAGE_RATE_TOO_HIGH => {
            (Code::TOO_MANY_REQUESTS, "too many attempts")
        }
        ReasonCode::QUOTA_EXCEEDED => (Code::SERVICE_UNAVAILABLE, "too much of it is there"),
        ReasonCode::SERVER_UNAVAILABLE
        | ReasonCode::SERVER_BUSY
        | ReasonCode::SERVER_SHUTTING_DOWN
        | ReasonCode::KEEP_ALIVE_TIMEOUT
        | ReasonCode::SESSION_TAKEN_OVER => (Code::SERVICE_UNAVAILABLE, "not now"),
        _ => (Code::INTERNAL_SERVER_ERROR, "the broker failed"),
    }
}
