//! Counters of each shard, summed when Prometheus asks.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use codec::mqtt::QoS;
use session::coap::Tally;
use session::{DropReason, OutBuffer, Refused};

/// A word that one shard writes and anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning shard may call it, so no read-modify-write is needed.
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_add(n),
            Ordering::Relaxed,
        );
    }

    /// Subtracts from a gauge; as [`Counter::add`].
    pub(crate) fn sub(&self, n: u64) {
        self.0.store(
            self.0.load(Ordering::Relaxed).wrapping_sub(n),
            Ordering::Relaxed,
        );
    }

    /// Takes over a count kept elsewhere; as [`Counter::add`].
    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Upper bounds of the duration histograms, in microseconds.
pub(crate) const BUCKETS_US: [u64; 10] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 100_000,
];

/// A histogram of durations with fixed buckets; the last one is unbounded.
#[derive(Debug, Default)]
pub(crate) struct Durations {
    buckets: [Counter; BUCKETS_US.len() + 1],
    sum_us: Counter,
}

impl Durations {
    pub(crate) fn record(&self, us: u64) {
        let at = BUCKETS_US
            .iter()
            .position(|bound| us <= *bound)
            .unwrap_or(BUCKETS_US.len());
        self.buckets[at].add(1);
        self.sum_us.add(us);
    }
}

/// Why a connection was closed or refused, for the `reason` label.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Closed {
    Client,
    Protocol,
    ConnectTimeout,
    AuthTimeout,
    KeepAlive,
    TakenOver,
    Administrative,
    CredentialsExpired,
    WriteStall,
    Refused,
    Lost,
    LeaseOver,
    Superseded,
    Shutdown,
    Internal,
}

impl Closed {
    const ALL: [(Closed, &'static str); 15] = [
        (Closed::Client, "client"),
        (Closed::Protocol, "protocol"),
        (Closed::ConnectTimeout, "connect_timeout"),
        (Closed::AuthTimeout, "auth_timeout"),
        (Closed::KeepAlive, "keep_alive"),
        (Closed::TakenOver, "taken_over"),
        (Closed::Administrative, "administrative"),
        (Closed::CredentialsExpired, "credentials_expired"),
        (Closed::WriteStall, "write_stall"),
        (Closed::Refused, "refused"),
        (Closed::Lost, "lost"),
        (Closed::LeaseOver, "lease_over"),
        (Closed::Superseded, "superseded"),
        (Closed::Shutdown, "shutdown"),
        (Closed::Internal, "internal"),
    ];
}

/// Where a peer did something wrong below MQTT, for the `layer` label.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum LayerFault {
    Proxy,
    Tls,
    WebSocket,
}

impl LayerFault {
    const ALL: [(LayerFault, &'static str); 3] = [
        (LayerFault::Proxy, "proxy"),
        (LayerFault::Tls, "tls"),
        (LayerFault::WebSocket, "websocket"),
    ];
}

const DROPS: [(DropReason, &str); 6] = [
    (DropReason::Offline, "offline"),
    (DropReason::SlowQos0, "slow_qos0"),
    (DropReason::QueueFull, "queue_full"),
    (DropReason::TooLarge, "too_large"),
    (DropReason::Expired, "expired"),
    (DropReason::Revoked, "revoked"),
];

const REFUSALS: [(Refused, &str); 3] = [
    (Refused::Denied, "denied"),
    (Refused::Topic, "topic"),
    (Refused::Limit, "limit"),
];

/// What CoAP peers did and were told.
#[derive(Debug, Default)]
pub(crate) struct CoapCounters {
    pub(crate) endpoints: Counter,
    pub(crate) observations: Counter,
    pub(crate) received: Counter,
    pub(crate) sent: Counter,
    pub(crate) unsent: Counter,
    pub(crate) turned_away: Counter,
    pub(crate) handshakes: Counter,
    pub(crate) handshake_faults: Counter,
    requests: Counter,
    repeated: Counter,
    rejected: Counter,
    errors: Counter,
    challenges: Counter,
    notifications: Counter,
    notifications_dropped: Counter,
    sent_again: Counter,
    given_up: Counter,
}

impl CoapCounters {
    /// Adds what endpoints counted.
    pub(crate) fn add(&self, tally: &Tally) {
        self.requests.add(tally.requests);
        self.repeated.add(tally.repeated);
        self.rejected.add(tally.rejected);
        self.errors.add(tally.errors);
        self.challenges.add(tally.challenges);
        self.notifications.add(tally.notifications);
        self.notifications_dropped.add(tally.notifications_dropped);
        self.sent_again.add(tally.sent_again);
        self.given_up.add(tally.given_up);
    }

    /// Name, help and value of each counter.
    fn each(&self) -> [(&'static str, &'static str, u64); 15] {
        [
            (
                "coap_datagrams_received",
                "Datagrams read.",
                self.received.get(),
            ),
            ("coap_datagrams_sent", "Datagrams written.", self.sent.get()),
            (
                "coap_datagrams_unsent",
                "Datagrams that the system did not take.",
                self.unsent.get(),
            ),
            (
                "coap_turned_away",
                "Datagrams of peers for whom there was no room.",
                self.turned_away.get(),
            ),
            (
                "coap_handshakes",
                "DTLS handshakes that were done.",
                self.handshakes.get(),
            ),
            (
                "coap_handshake_faults",
                "DTLS handshakes that failed or were given up.",
                self.handshake_faults.get(),
            ),
            (
                "coap_requests",
                "Requests that were new.",
                self.requests.get(),
            ),
            (
                "coap_repeated",
                "Requests that came again.",
                self.repeated.get(),
            ),
            (
                "coap_rejected",
                "Datagrams that were no message, or were rejected.",
                self.rejected.get(),
            ),
            (
                "coap_errors",
                "Answers of the classes 4 and 5.",
                self.errors.get(),
            ),
            (
                "coap_echo_challenges",
                "Peers asked to prove their address.",
                self.challenges.get(),
            ),
            (
                "coap_notifications",
                "Notifications to observers.",
                self.notifications.get(),
            ),
            (
                "coap_notifications_dropped",
                "Messages that observers were too slow for.",
                self.notifications_dropped.get(),
            ),
            (
                "coap_sent_again",
                "Confirmable messages sent again.",
                self.sent_again.get(),
            ),
            (
                "coap_given_up",
                "Peers that confirmed nothing any more.",
                self.given_up.get(),
            ),
        ]
    }
}

/// The counters of one shard. Labels are reasons, QoS and shards, never names of clients or topics.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Counters {
    pub(crate) connections: Counter,
    pub(crate) sessions: Counter,
    pub(crate) subscriptions: Counter,
    pub(crate) retained: Counter,
    pub(crate) owed: Counter,
    pub(crate) accepted: Counter,
    pub(crate) connected: Counter,
    pub(crate) takeovers: Counter,
    messages_in: [Counter; 3],
    messages_out: [Counter; 3],
    bytes_in: [Counter; 3],
    bytes_out: [Counter; 3],
    pub(crate) wire_bytes_in: Counter,
    pub(crate) wire_bytes_out: Counter,
    dropped: [Counter; DROPS.len()],
    pub(crate) dropped_handover: Counter,
    pub(crate) dropped_shared: Counter,
    refused: [Counter; REFUSALS.len()],
    pub(crate) subscribe_refused: Counter,
    pub(crate) wills_dropped: Counter,
    pub(crate) retained_refused: Counter,
    pub(crate) health: Counter,
    closed: [Counter; Closed::ALL.len()],
    layer_faults: [Counter; LayerFault::ALL.len()],
    /// Steps of handshakes that were taken outside the shard.
    pub(crate) handshakes_elsewhere: Counter,
    pub(crate) panics: Counter,
    pub(crate) rights_asked: Counter,
    pub(crate) right_cache_hits: Counter,
    pub(crate) right_cache_misses: Counter,
    pub(crate) identified_from_memory: Counter,
    pub(crate) identify_asked: Counter,
    pub(crate) coap: CoapCounters,
    pub(crate) turns: Durations,
}

impl Counters {
    #[inline]
    pub(crate) fn message_in(&self, qos: QoS, count: u64, bytes: u64) {
        self.messages_in[usize::from(qos.as_u8())].add(count);
        self.bytes_in[usize::from(qos.as_u8())].add(bytes);
    }

    /// Counts the PUBLISH packets that a machine wrote, and says how many there are.
    #[inline]
    pub(crate) fn published(&self, out: &mut OutBuffer) -> u32 {
        let mut count = 0;
        for (at, published) in out.take_published().into_iter().enumerate() {
            if published.count > 0 {
                self.messages_out[at].add(published.count);
                self.bytes_out[at].add(published.bytes);
                count += published.count as u32;
            }
        }
        count
    }

    pub(crate) fn message_out(&self, qos: QoS, count: u64, bytes: u64) {
        self.messages_out[usize::from(qos.as_u8())].add(count);
        self.bytes_out[usize::from(qos.as_u8())].add(bytes);
    }

    pub(crate) fn dropped(&self, reason: DropReason, count: u64) {
        if let Some(at) = DROPS.iter().position(|(known, _)| *known == reason) {
            self.dropped[at].add(count);
        }
    }

    pub(crate) fn refused(&self, why: Refused, count: u64) {
        if let Some(at) = REFUSALS.iter().position(|(known, _)| *known == why) {
            self.refused[at].add(count);
        }
    }

    pub(crate) fn closed(&self, why: Closed) {
        if let Some(at) = Closed::ALL.iter().position(|(known, _)| *known == why) {
            self.closed[at].add(1);
        }
    }

    pub(crate) fn layer_faulted(&self, layer: LayerFault) {
        self.layer_faults[layer as usize].add(1);
    }

    pub(crate) fn messages_in_total(&self) -> u64 {
        self.messages_in.iter().map(Counter::get).sum()
    }

    pub(crate) fn messages_out_total(&self) -> u64 {
        self.messages_out.iter().map(Counter::get).sum()
    }

    pub(crate) fn dropped_total(&self) -> u64 {
        self.dropped.iter().map(Counter::get).sum::<u64>()
            + self.dropped_handover.get()
            + self.dropped_shared.get()
    }
}

/// What control-side tasks measure.
#[derive(Debug, Default)]
pub(crate) struct ControlCounters {
    pub(crate) fences: Durations,
    pub(crate) revision: AtomicU64,
    pub(crate) lease: AtomicU64,
    /// Changes behind which users' rights had to be asked for on use.
    pub(crate) rights_voided: AtomicU64,
}

/// Writes metrics in the Prometheus text format.
pub(crate) fn render(
    shards: &[Arc<Counters>],
    control: &ControlCounters,
    repeats: (usize, u64),
    ready: bool,
) -> String {
    let mut text = Text::default();
    let sum = |of: &dyn Fn(&Counters) -> u64| shards.iter().map(|shard| of(shard)).sum::<u64>();

    text.gauge(
        "connections",
        "MQTT connections past CONNACK.",
        sum(&|s| s.connections.get()),
    );
    text.head(
        "shard_connections",
        "gauge",
        "MQTT connections past CONNACK, by the shard that serves them.",
    );
    for (at, shard) in shards.iter().enumerate() {
        let count = shard.connections.get();
        text.row("shard_connections", "shard", &at.to_string(), count);
    }
    text.gauge(
        "sessions",
        "Sessions, parked ones included.",
        sum(&|s| s.sessions.get()),
    );
    text.gauge(
        "subscriptions",
        "Subscriptions, those of parked sessions and dormant ones included.",
        sum(&|s| s.subscriptions.get()),
    );
    text.gauge(
        "retained_messages",
        "Retained messages.",
        sum(&|s| s.retained.get()),
    );
    text.gauge(
        "fanout_owed_deliveries",
        "Deliveries too many for one turn that are still to be made; one of more than 4 KiB counts as several.",
        sum(&|s| s.owed.get()),
    );
    text.gauge(
        "ready",
        "1 while the broker serves clients.",
        u64::from(ready),
    );
    text.gauge(
        "control_revision",
        "Control's last revision that is in force.",
        control.revision.load(Ordering::Relaxed),
    );
    text.gauge(
        "control_lease_state",
        "1 while the broker may trust its rights.",
        control.lease.load(Ordering::Relaxed),
    );

    text.counter(
        "connections_accepted",
        "Accepted connections.",
        sum(&|s| s.accepted.get()),
    );
    text.counter(
        "connects",
        "CONNECT packets answered with 0x00.",
        sum(&|s| s.connected.get()),
    );
    text.counter(
        "takeovers",
        "Sessions taken over.",
        sum(&|s| s.takeovers.get()),
    );
    text.by_qos("messages_received", "PUBLISH packets taken.", |qos| {
        sum(&|s| s.messages_in[qos].get())
    });
    text.by_qos(
        "messages_sent",
        "PUBLISH packets written to clients.",
        |qos| sum(&|s| s.messages_out[qos].get()),
    );
    text.by_qos(
        "message_received_bytes",
        "Bytes of PUBLISH packets taken.",
        |qos| sum(&|s| s.bytes_in[qos].get()),
    );
    text.by_qos(
        "message_sent_bytes",
        "Bytes of PUBLISH packets written.",
        |qos| sum(&|s| s.bytes_out[qos].get()),
    );
    text.counter(
        "wire_received_bytes",
        "Bytes read.",
        sum(&|s| s.wire_bytes_in.get()),
    );
    text.counter(
        "wire_sent_bytes",
        "Bytes written.",
        sum(&|s| s.wire_bytes_out.get()),
    );
    text.head(
        "messages_dropped",
        "counter",
        "Messages that did not reach a subscriber.",
    );
    for (at, (_, name)) in DROPS.iter().enumerate() {
        text.row(
            "messages_dropped_total",
            "reason",
            name,
            sum(&|s| s.dropped[at].get()),
        );
    }
    let handover = sum(&|s| s.dropped_handover.get());
    text.row(
        "messages_dropped_total",
        "reason",
        "handover_full",
        handover,
    );
    let shared = sum(&|s| s.dropped_shared.get());
    text.row(
        "messages_dropped_total",
        "reason",
        "shared_without_member",
        shared,
    );
    text.head(
        "layer_faults",
        "counter",
        "Connections that ended below MQTT by a fault of their peer.",
    );
    for (at, (_, name)) in LayerFault::ALL.iter().enumerate() {
        text.row(
            "layer_faults_total",
            "layer",
            name,
            sum(&|s| s.layer_faults[at].get()),
        );
    }
    text.counter(
        "handshake_steps_elsewhere",
        "Steps of TLS handshakes that were more than a turn takes.",
        sum(&|s| s.handshakes_elsewhere.get()),
    );
    text.head(
        "publishes_refused",
        "counter",
        "PUBLISH packets whose content was not routed.",
    );
    for (at, (_, name)) in REFUSALS.iter().enumerate() {
        text.row(
            "publishes_refused_total",
            "reason",
            name,
            sum(&|s| s.refused[at].get()),
        );
    }
    text.counter(
        "subscriptions_refused",
        "Topic Filters answered with a failure.",
        sum(&|s| s.subscribe_refused.get()),
    );
    text.counter(
        "wills_dropped",
        "Wills without a right.",
        sum(&|s| s.wills_dropped.get()),
    );
    text.counter(
        "retained_refused",
        "Messages not retained because of a limit.",
        sum(&|s| s.retained_refused.get()),
    );
    text.counter(
        "health_messages",
        "Messages on hc/<domain>.",
        sum(&|s| s.health.get()),
    );
    text.head("connections_closed", "counter", "Connections that ended.");
    for (at, (_, name)) in Closed::ALL.iter().enumerate() {
        text.row(
            "connections_closed_total",
            "reason",
            name,
            sum(&|s| s.closed[at].get()),
        );
    }
    text.counter(
        "user_rights_voided",
        "Changes behind which control did not tell the rights of a domain's users in time, or they \
         were too many: they are asked for on use.",
        control.rights_voided.load(Ordering::Relaxed),
    );
    text.counter(
        "task_panics",
        "Faults of our own.",
        sum(&|s| s.panics.get()),
    );
    text.counter(
        "right_cache_hits",
        "Publishes and subscribes judged by what the connection had cached.",
        sum(&|s| s.right_cache_hits.get()),
    );
    text.counter(
        "right_cache_misses",
        "Publishes and subscribes judged by the shared table.",
        sum(&|s| s.right_cache_misses.get()),
    );
    text.counter(
        "right_questions",
        "Rights of users asked of control.",
        sum(&|s| s.rights_asked.get()),
    );
    text.counter(
        "credential_cache_hits",
        "CONNECT packets identified from memory.",
        sum(&|s| s.identified_from_memory.get()),
    );
    text.counter(
        "credential_cache_misses",
        "CONNECT packets identified by control.",
        sum(&|s| s.identify_asked.get()),
    );
    text.gauge(
        "coap_endpoints",
        "CoAP peers that are remembered.",
        sum(&|s| s.coap.endpoints.get()),
    );
    text.gauge(
        "coap_observations",
        "Observations of CoAP peers.",
        sum(&|s| s.coap.observations.get()),
    );
    let first = CoapCounters::default().each();
    for (at, (name, help, _)) in first.into_iter().enumerate() {
        text.counter(name, help, sum(&|s| s.coap.each()[at].2));
    }
    text.gauge(
        "idempotency_keys",
        "Idempotency-Keys of HTTP requests that are remembered.",
        repeats.0 as u64,
    );
    text.counter(
        "idempotency_refused",
        "HTTP requests with an Idempotency-Key that there was no room for.",
        repeats.1,
    );
    let turns: Vec<&Durations> = shards.iter().map(|shard| &shard.turns).collect();
    text.durations("turn_seconds", "Length of a shard's turn.", &turns);
    text.durations(
        "fence_seconds",
        "From a revision's arrival to its two-round fence.",
        &[&control.fences],
    );
    text.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let name = if kind == "counter" {
            format!("{name}_total")
        } else {
            name.to_owned()
        };
        self.0 += &format!("# HELP turnpike_{name} {help}\n# TYPE turnpike_{name} {kind}\n");
    }

    fn row(&mut self, name: &str, label: &str, value: &str, n: u64) {
        self.0 += &format!("turnpike_{name}{{{label}=\"{value}\"}} {n}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, n: u64) {
        self.head(name, "gauge", help);
        self.0 += &format!("turnpike_{name} {n}\n");
    }

    fn counter(&mut self, name: &str, help: &str, n: u64) {
        self.head(name, "counter", help);
        self.0 += &format!("turnpike_{name}_total {n}\n");
    }

    fn by_qos(&mut self, name: &str, help: &str, of: impl Fn(usize) -> u64) {
        self.head(name, "counter", help);
        for qos in 0..3 {
            self.row(&format!("{name}_total"), "qos", &qos.to_string(), of(qos));
        }
    }

    fn durations(&mut self, name: &str, help: &str, parts: &[&Durations]) {
        self.head(name, "histogram", help);
        let mut total = 0;
        for at in 0..=BUCKETS_US.len() {
            total += parts.iter().map(|part| part.buckets[at].get()).sum::<u64>();
            let bound = match BUCKETS_US.get(at) {
                Some(us) => format!("{}", *us as f64 / 1e6),
                None => "+Inf".to_owned(),
            };
            self.row(&format!("{name}_bucket"), "le", &bound, total);
        }
        let sum_us: u64 = parts.iter().map(|part| part.sum_us.get()).sum();
        self.0 += &format!("turnpike_{name}_sum {}\n", sum_us as f64 / 1e6);
        self.0 += &format!("turnpike_{name}_count {total}\n");
    }
}
