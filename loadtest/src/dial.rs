//! From an address to connections that may be loaded: CONNECT, SUBSCRIBE and their answers, many
//! side by side.

use std::time::{Duration, Instant};

use codec::mqtt::{
    Connect, ConnectProperties, Disconnect, Frame, Packet, PacketId, ProtocolVersion, QoS,
    ReasonCode, RetainHandling, Subscribe, SubscribeFilters, Subscription, UserProperties, decode,
};
use hdrhistogram::Histogram;
use rustix::event::epoll;
use rustix::fd::OwnedFd;

use crate::error::Error;
use crate::pace::TICK;
use crate::target::Target;
use crate::wire::{READ_BYTES, Wire};

/// How connections are made.
#[derive(Clone, Debug)]
pub(crate) struct Dial<'a> {
    pub(crate) target: &'a Target,
    pub(crate) version: ProtocolVersion,
    /// QoS of subscriptions.
    pub(crate) qos: QoS,
    /// Seconds; 0 for none.
    pub(crate) keep_alive: u16,
    /// Sets the Client Identifiers of this run apart.
    pub(crate) run: u32,
    /// Connections that are made side by side.
    pub(crate) together: usize,
    /// Connections begun in a second, at most.
    pub(crate) per_s: Option<f64>,
    /// Whether a connection that fails is counted and tried again, or ends everything.
    pub(crate) tolerant: bool,
}

/// One connection after CONNACK and SUBACK.
#[derive(Debug)]
pub(crate) struct Dialed {
    pub(crate) wire: Wire,
    /// How many messages the broker takes without an acknowledgement.
    pub(crate) receive_maximum: u16,
}

/// What became of many connections.
#[derive(Debug)]
pub(crate) struct Dialled {
    /// Those that were kept, in the order of their numbers.
    pub(crate) kept: Vec<Dialed>,
    /// From the intended begin of a connection to its SUBACK (or CONNACK), in ns.
    pub(crate) latency: Histogram<u64>,
    /// Connections made.
    pub(crate) made: u64,
    /// Attempts that failed.
    pub(crate) failed: u64,
    /// Why the first of them failed.
    pub(crate) why: Option<String>,
    pub(crate) took: Duration,
}

/// Which connections are made, and for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Numbers {
    /// Each once; they are kept.
    Once { first: usize, count: usize },
    /// In turns until then; each is disconnected as soon as it is made.
    Round {
        first: usize,
        count: usize,
        until: Instant,
    },
}

/// Keep Alive of connections under load: some brokers refuse those without.
pub(crate) const KEEP_ALIVE_S: u16 = 3600;

/// Connections made side by side unless something else is said.
pub(crate) const TOGETHER: usize = 128;

/// A broker that is silent for so long has failed.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Failed attempts of one run, after which even a tolerant one gives up.
const FAILED_MAX: u64 = 1_000_000;

/// Before an attempt that failed is made again.
const AGAIN_AFTER: Duration = Duration::from_millis(20);

/// Filters in one SUBSCRIBE.
const FILTERS_PER_PACKET: usize = 100;

struct Dialing {
    wire: Wire,
    /// Which connection: its place in a row is the number of its wire.
    connection: usize,
    intended: Instant,
    began: Instant,
    receive_maximum: u16,
    /// SUBACKs that are still to come; `None` before CONNACK.
    subacks: Option<usize>,
}

impl<'a> Dial<'a> {
    pub(crate) fn new(target: &'a Target, version: ProtocolVersion, qos: QoS) -> Dial<'a> {
        Dial {
            target,
            version,
            qos,
            keep_alive: KEEP_ALIVE_S,
            run: std::process::id(),
            together: TOGETHER,
            per_s: None,
            tolerant: false,
        }
    }

    /// Makes connections; `filters` names what each subscribes to. Wires of kept connections bear
    /// the connection's number, counted from the first, and are watched by `epoll`. `watch` is told
    /// again and again how many are made.
    ///
    /// # Errors
    /// The broker cannot be reached, refuses one (unless that is tolerated), or is silent.
    pub(crate) fn connect(
        &self,
        epoll: &OwnedFd,
        numbers: Numbers,
        filters: &dyn Fn(usize) -> Vec<String>,
        watch: &mut dyn FnMut(u64) -> Result<(), Error>,
    ) -> Result<Dialled, Error> {
        let mut row = Row {
            dial: self,
            epoll,
            filters,
            row: (0..self.together.max(1)).map(|_| None).collect(),
            free: (0..self.together.max(1)).rev().collect(),
            numbers,
            begun: 0,
            again: Vec::new(),
            kept: Vec::new(),
            out: Dialled {
                kept: Vec::new(),
                latency: crate::report::histogram(),
                made: 0,
                failed: 0,
                why: None,
                took: Duration::ZERO,
            },
            start: Instant::now(),
            moved: Instant::now(),
        };
        row.drive(watch)?;
        let mut kept = row.kept;
        kept.sort_by_key(|(connection, _)| *connection);
        let mut out = row.out;
        out.kept = kept.into_iter().map(|(_, dialed)| dialed).collect();
        out.took = row.start.elapsed();
        Ok(out)
    }

    /// CONNECT of a connection, whose Client Identifier bears `name`.
    fn packet(&self, connection: usize, name: usize) -> Vec<u8> {
        let login = self.target.login(connection);
        let client_id = match login.and_then(|login| login.client_id.clone()) {
            Some(client_id) => client_id,
            None => format!("load-{}-{name}", self.run),
        };
        let connect = Connect {
            version: self.version,
            clean_start: true,
            keep_alive: self.keep_alive,
            client_id: &client_id,
            will: None,
            username: login.map(|login| login.username.as_str()),
            password: login.map(|login| login.password.as_bytes()),
            properties: ConnectProperties::default(),
        };
        let mut out = Vec::with_capacity(256);
        connect.encode(self.version, &mut out);
        out
    }

    /// SUBSCRIBE packets with all `filters`; how many they are.
    fn subscribe(&self, filters: &[String], out: &mut Vec<u8>) -> Result<usize, Error> {
        for (at, part) in filters.chunks(FILTERS_PER_PACKET).enumerate() {
            let mut block = Vec::new();
            for filter in part {
                let subscription = Subscription {
                    filter,
                    qos: self.qos,
                    no_local: false,
                    retain_as_published: false,
                    retain_handling: RetainHandling::Send,
                };
                subscription.put(self.version, &mut block);
            }
            let number = (at % 60_000) as u16 + 1;
            let request = Subscribe {
                packet_id: PacketId::new(number).expect("one at least"),
                subscription_identifier: None,
                user_properties: UserProperties::default(),
                filters: SubscribeFilters::parse(&block, self.version)?,
            };
            request.encode(self.version, out);
        }
        Ok(filters.len().div_ceil(FILTERS_PER_PACKET))
    }
}

/// Wires bear `base` and their place in the row while they are made, so that they cannot be taken
/// for those that are kept.
const ROW_BASE: usize = 1 << 40;

fn goodbye(version: ProtocolVersion) -> Vec<u8> {
    let mut out = Vec::new();
    let disconnect = Disconnect {
        reason: ReasonCode::NORMAL_DISCONNECTION,
        session_expiry: None,
        reason_string: None,
        server_reference: None,
        user_properties: UserProperties::default(),
    };
    disconnect.encode(version, &mut out);
    out
}

/// Connections in the making.
struct Row<'a> {
    dial: &'a Dial<'a>,
    epoll: &'a OwnedFd,
    filters: &'a dyn Fn(usize) -> Vec<String>,
    row: Vec<Option<Dialing>>,
    free: Vec<usize>,
    numbers: Numbers,
    /// Attempts begun.
    begun: usize,
    /// Connections to be tried again, and when.
    again: Vec<(Instant, usize)>,
    kept: Vec<(usize, Dialed)>,
    out: Dialled,
    start: Instant,
    /// When something last went forward.
    moved: Instant,
}

impl Row<'_> {
    fn drive(&mut self, watch: &mut dyn FnMut(u64) -> Result<(), Error>) -> Result<(), Error> {
        let mut events = Vec::with_capacity(1024);
        let mut buffer = vec![0; READ_BYTES];
        loop {
            watch(self.out.made)?;
            self.fill()?;
            if self.free.len() == self.row.len() && self.is_over() {
                return Ok(());
            }
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            let wait = crate::pace::timespec(self.wait());
            match epoll::wait(self.epoll, room, Some(&wait)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            if events.is_empty() && self.moved.elapsed() > SILENCE_MAX {
                let waits = self.row.iter().flatten().next();
                let number = waits.map_or(self.begun, |one| one.connection);
                let mut why = format!("the broker was silent for {} s", SILENCE_MAX.as_secs());
                if let Some(last) = &self.out.why {
                    why += &format!("; before, {last}");
                }
                return Err(Error::Connect { number, why });
            }
            for event in &events {
                let (data, flags) = (event.data.u64() as usize, event.flags);
                // Whoever is kept already is looked at later.
                let Some(place) = data.checked_sub(ROW_BASE) else {
                    continue;
                };
                self.moved = Instant::now();
                if let Err(error) = self.event(place, flags, &mut buffer) {
                    self.failed(place, error)?;
                }
            }
        }
    }

    fn is_over(&self) -> bool {
        match self.numbers {
            Numbers::Once { count, .. } => self.begun >= count && self.again.is_empty(),
            Numbers::Round { until, .. } => Instant::now() >= until,
        }
    }

    /// How long to sleep at most.
    fn wait(&self) -> Duration {
        if self.free.is_empty() {
            return TICK;
        }
        let now = Instant::now();
        let paced = self.dial.per_s.map(|_| self.due(self.begun, now));
        let again = self.again.iter().map(|(at, _)| *at);
        again
            .chain(paced)
            .map(|at| at.saturating_duration_since(now))
            .min()
            .unwrap_or(TICK)
            .min(TICK)
    }

    /// When an attempt is to begin; `now` without a rate.
    fn due(&self, begun: usize, now: Instant) -> Instant {
        let paced = self
            .dial
            .per_s
            .map(|per_s| Duration::from_secs_f64(begun as f64 / per_s));
        paced.map_or(now, |after| self.start + after)
    }

    /// Begins what may begin.
    fn fill(&mut self) -> Result<(), Error> {
        while let Some(place) = self.free.last().copied() {
            let now = Instant::now();
            let ripe = self.again.iter().position(|(at, _)| *at <= now);
            let (connection, intended) = if let Some(ripe) = ripe {
                let (_, connection) = self.again.swap_remove(ripe);
                (connection, now)
            } else {
                let more = match self.numbers {
                    Numbers::Once { first, count } => {
                        (self.begun < count).then(|| first + self.begun)
                    }
                    Numbers::Round {
                        first,
                        count,
                        until,
                    } => (now < until).then(|| first + self.begun % count.max(1)),
                };
                let Some(connection) = more else {
                    return Ok(());
                };
                let intended = self.due(self.begun, now);
                if intended > now {
                    return Ok(());
                }
                self.begun += 1;
                (connection, intended)
            };
            self.free.pop();
            if let Err(error) = self.begin(place, connection, intended) {
                self.free.push(place);
                self.count(connection, error)?;
            }
        }
        Ok(())
    }

    fn begin(&mut self, place: usize, connection: usize, intended: Instant) -> Result<(), Error> {
        // Of those that come and go, neither ports nor sessions are free at once.
        let (serial, name) = match self.numbers {
            Numbers::Once { .. } => (self.dial.target.first_serial + connection, connection),
            Numbers::Round { .. } => (self.dial.target.first_serial + self.begun, self.begun),
        };
        let endpoint = &self.dial.target.endpoint;
        let opened = Wire::open(endpoint, serial, ROW_BASE + place, self.epoll);
        let mut wire = opened.map_err(|error| at_connection(connection, error))?;
        wire.send(self.epoll, &self.dial.packet(connection, name))
            .map_err(|error| at_connection(connection, error))?;
        self.row[place] = Some(Dialing {
            wire,
            connection,
            intended,
            began: Instant::now(),
            receive_maximum: u16::MAX,
            subacks: None,
        });
        Ok(())
    }

    fn event(
        &mut self,
        place: usize,
        flags: epoll::EventFlags,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        let Some(Some(dialing)) = self.row.get_mut(place) else {
            return Ok(());
        };
        if flags.contains(epoll::EventFlags::OUT) {
            dialing.wire.writable(self.epoll)?;
        }
        let hung = epoll::EventFlags::IN | epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        if !flags.intersects(hung) {
            return Ok(());
        }
        let mut packets = Vec::new();
        let (dial, epoll) = (self.dial, self.epoll);
        let (connection, mut subacks) = (dialing.connection, dialing.subacks);
        let mut receive_maximum = dialing.receive_maximum;
        dialing.wire.receive(epoll, buffer, |frame| {
            let answered = Answer::read(frame, dial.version)?;
            match (answered, subacks) {
                (Answer::Connected(most), None) => {
                    receive_maximum = most;
                    let filters = (self.filters)(connection);
                    subacks = Some(dial.subscribe(&filters, &mut packets)?);
                }
                (Answer::Subscribed(codes), Some(left)) if left > 0 => {
                    if codes.iter().any(|code| *code != dial.qos.as_u8()) {
                        let why = format!(
                            "SUBSCRIBE was answered with {codes:?}, expected QoS {}",
                            dial.qos.as_u8()
                        );
                        return Err(Error::Connect {
                            number: connection,
                            why,
                        });
                    }
                    subacks = Some(left - 1);
                }
                // What is retained, or sent by others already.
                (Answer::Message, Some(_)) => {}
                (Answer::Refused(why), _) => {
                    return Err(Error::Connect {
                        number: connection,
                        why,
                    });
                }
                (_, _) => return Err(Error::Unexpected("packet while connecting")),
            }
            Ok(())
        })?;
        dialing.subacks = subacks;
        dialing.receive_maximum = receive_maximum;
        if !packets.is_empty() {
            dialing.wire.send(epoll, &packets)?;
        }
        if subacks == Some(0) {
            self.ready(place)?;
        }
        Ok(())
    }

    fn ready(&mut self, place: usize) -> Result<(), Error> {
        let Some(mut dialing) = self.row[place].take() else {
            return Ok(());
        };
        self.free.push(place);
        self.out.made += 1;
        let from = dialing.intended.min(dialing.began);
        let took = from.elapsed().as_nanos() as u64;
        self.out.latency.saturating_record(took);
        match self.numbers {
            Numbers::Once { first, .. } => {
                dialing
                    .wire
                    .renumber(self.epoll, dialing.connection - first)?;
                let dialed = Dialed {
                    wire: dialing.wire,
                    receive_maximum: dialing.receive_maximum,
                };
                self.kept.push((dialing.connection, dialed));
            }
            Numbers::Round { .. } => {
                let goodbye = goodbye(self.dial.version);
                // Whether it arrives is the broker's business: the connection ends anyhow.
                let _ = dialing.wire.send(self.epoll, &goodbye);
            }
        }
        Ok(())
    }

    fn failed(&mut self, place: usize, error: Error) -> Result<(), Error> {
        let Some(dialing) = self.row[place].take() else {
            return Err(error);
        };
        self.free.push(place);
        self.count(dialing.connection, at_connection(dialing.connection, error))
    }

    fn count(&mut self, connection: usize, error: Error) -> Result<(), Error> {
        if !self.dial.tolerant || self.out.failed >= FAILED_MAX {
            return Err(error);
        }
        self.out.failed += 1;
        self.out.why.get_or_insert_with(|| error.to_string());
        if matches!(self.numbers, Numbers::Once { .. }) {
            self.again.push((Instant::now() + AGAIN_AFTER, connection));
        }
        Ok(())
    }
}

/// The same fault, told as one of making a connection.
fn at_connection(number: usize, error: Error) -> Error {
    let why = match error {
        Error::Connect { why, .. } | Error::Lost { why, .. } => why,
        Error::Closed(_) => "the broker closed it".into(),
        other => other.to_string(),
    };
    Error::Connect { number, why }
}

/// What a broker says while a connection is made.
enum Answer {
    Connected(u16),
    Subscribed(Vec<u8>),
    Message,
    Refused(String),
}

impl Answer {
    fn read(frame: &Frame<'_>, version: ProtocolVersion) -> Result<Answer, Error> {
        Ok(match decode(frame, version)? {
            Packet::ConnAck(connack) if connack.reason.is_error() => {
                Answer::Refused(format!("refused with {:?}", connack.reason))
            }
            Packet::ConnAck(connack) => {
                Answer::Connected(connack.properties.receive_maximum.unwrap_or(u16::MAX))
            }
            Packet::SubAck(suback) => Answer::Subscribed(suback.codes.to_vec()),
            Packet::Publish(_) => Answer::Message,
            other => Answer::Refused(format!("answered with {}", other.packet_type().name())),
        })
    }
}
