//! What a peer may ask of one connection or session.

use router::TopicLimits;

/// Bounds of connections and sessions; the defaults are safe for the open internet.
///
/// Each field says what happens at the bound.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Largest packet accepted, in bytes; announced in CONNACK, a larger one closes with 0x95.
    pub max_packet_size: u32,
    /// Largest CONNECT accepted, in bytes; a larger one is closed from its header alone.
    pub max_connect_packet_size: u32,
    /// Milliseconds from accept to a whole CONNECT; then the connection is closed without a word.
    pub connect_timeout_ms: u64,
    /// Milliseconds that identification may take; then CONNACK 0x88 (3.1.1: 0x03).
    pub auth_timeout_ms: u64,
    /// Connections of the whole process; further ones get CONNACK 0x97 (3.1.1: 0x03).
    pub max_connections: usize,
    /// Longest Client Identifier in bytes; a longer one gets CONNACK 0x85 (3.1.1: 0x02).
    pub max_client_id_bytes: usize,
    /// Longest User Name in bytes; a longer one gets CONNACK 0x86 (3.1.1: 0x04).
    pub max_username_bytes: usize,
    /// Longest Password in bytes; a longer one gets CONNACK 0x86 (3.1.1: 0x04).
    pub max_password_bytes: usize,
    /// Parked and live sessions with an expiry that one principal may hold; further ones get 0x97.
    pub max_sessions_per_principal: usize,
    /// Longest Session Expiry Interval in seconds; a longer one is lowered and told in CONNACK.
    pub session_expiry_max: u32,
    /// Seconds that a 3.1.1 session with Clean Session 0 outlives its connection.
    pub session_expiry_v311: u32,
    /// Longest Keep Alive in seconds; 0 and longer ones are replaced (Server Keep Alive in MQTT 5).
    pub keepalive_max: u16,
    /// QoS 1 and 2 messages a client may have unacknowledged; announced, beyond it 0x93.
    pub receive_maximum: u16,
    /// Unreleased QoS 2 identifiers of a 3.1.1 client; beyond it the connection is closed.
    pub max_unreleased_v311: usize,
    /// QoS 1 and 2 messages in flight to one client (at most its own Receive Maximum); more wait.
    pub max_inflight_out: u16,
    /// Bytes that may wait for a slow connection; then QoS 0 messages are dropped, newest first.
    pub outbound_queue_bytes: usize,
    /// Milliseconds without progress on a blocked connection before it is closed.
    pub write_stall_timeout_ms: u64,
    /// Messages that may wait in one session.
    pub session_queue_messages: usize,
    /// Bytes that may wait in one session.
    pub session_queue_bytes: usize,
    /// What a full session queue does.
    pub queue_policy: QueuePolicy,
    /// Longest topic and number of levels; beyond it 0x90, 0x8F or a close in 3.1.1.
    pub topic: TopicLimits,
    /// Subscriptions of one session; further ones get 0x97 (3.1.1: 0x80).
    pub max_subscriptions_per_client: usize,
    /// Topic Filters looked at in one SUBSCRIBE; the rest get 0x97 (3.1.1: 0x80).
    pub max_filters_per_packet: usize,
    /// Topic aliases a client may use; announced, beyond it 0x94.
    pub topic_alias_max: u16,
    /// Topic aliases the broker uses towards a client at most.
    pub topic_alias_out_max: u16,
    /// User Properties of one packet; beyond it 0x97.
    pub max_user_properties: usize,
    /// Bytes of User Properties of one packet; beyond it 0x97.
    pub max_property_bytes: usize,
    /// Retained messages of the whole process; QoS 1 and 2 get 0x97, QoS 0 is delivered only.
    pub max_retained: u64,
    /// Bytes of retained messages of the whole process; as `max_retained`.
    pub max_retained_bytes: u64,
    /// Largest retained payload in bytes; as `max_retained`.
    pub max_retained_payload: usize,
    /// Longest Message Expiry Interval in seconds; 0 means any, a longer one is lowered.
    pub message_expiry_max: u32,
    /// Largest Will Message in bytes; a larger one gets CONNACK 0x95 (3.1.1: 0x03).
    pub max_will_bytes: usize,
    /// Longest Will Delay Interval in seconds; a longer one is lowered.
    pub will_delay_max: u32,
    /// Whether a refused PUBLISH that cannot be answered ends its connection.
    pub close_on_denied: bool,
    /// Milliseconds that connections are kept, silent, while the lease on rights is over; then they
    /// are closed with 0x89.
    pub lease_grace_ms: u64,
    /// Milliseconds between two takeovers of one session; who comes earlier waits.
    pub takeover_interval_ms: u64,
    /// Deliveries that a shard makes in one turn, and of one message in one piece; the rest follows
    /// in the next turns.
    pub fanout_slice: usize,
    /// Connections accepted from one address per second, and the burst; 0 means any.
    pub connect_rate_per_ip: u32,
    /// Connections of one address at a time; 0 means any.
    pub max_connections_per_ip: u32,
    /// CoAP peers that a shard remembers; of more one makes room that is idle, or the newcomer is
    /// not heard.
    pub coap_endpoints: usize,
    /// Milliseconds of silence after which a CoAP peer that observes nothing is forgotten.
    pub coap_idle_timeout_ms: u64,
    /// Bytes that a shard keeps of CoAP bodies in blocks; then 5.03.
    pub coap_block_bytes: usize,
}

/// What happens to a message for a session whose queue is full.
#[derive(Copy, Clone, Debug, Default, Eq, PartialEq)]
pub enum QueuePolicy {
    /// The oldest waiting message makes room.
    #[default]
    DropOldest,
    /// The message that does not fit is dropped.
    DropNewest,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_packet_size: 1 << 20,
            max_connect_packet_size: 64 << 10,
            connect_timeout_ms: 5_000,
            auth_timeout_ms: 5_000,
            max_connections: 1_000_000,
            max_client_id_bytes: 256,
            max_username_bytes: 1 << 10,
            max_password_bytes: 8 << 10,
            max_sessions_per_principal: 100,
            session_expiry_max: 7 * 24 * 3600,
            session_expiry_v311: 24 * 3600,
            keepalive_max: 3600,
            receive_maximum: 64,
            max_unreleased_v311: 1024,
            max_inflight_out: 64,
            outbound_queue_bytes: 1 << 20,
            write_stall_timeout_ms: 30_000,
            session_queue_messages: 10_000,
            session_queue_bytes: 16 << 20,
            queue_policy: QueuePolicy::DropOldest,
            topic: TopicLimits::default(),
            max_subscriptions_per_client: 1000,
            max_filters_per_packet: 256,
            topic_alias_max: 32,
            topic_alias_out_max: 16,
            max_user_properties: 64,
            max_property_bytes: 32 << 10,
            max_retained: 1_000_000,
            max_retained_bytes: 1 << 30,
            max_retained_payload: 256 << 10,
            message_expiry_max: 0,
            max_will_bytes: 64 << 10,
            will_delay_max: 3600,
            close_on_denied: false,
            lease_grace_ms: 10_000,
            takeover_interval_ms: 100,
            fanout_slice: 4096,
            connect_rate_per_ip: 100,
            max_connections_per_ip: 500,
            coap_endpoints: 100_000,
            coap_idle_timeout_ms: 300_000,
            coap_block_bytes: 64 << 20,
        }
    }
}
