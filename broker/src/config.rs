//! What the broker is told at its start.

use std::net::SocketAddr;
use std::time::Duration;

use authcache::EntityId;
pub use session::{Limits, QueuePolicy};

pub use crate::reactor::door::Network;
pub use crate::shard::wires::SlowPolicy;
pub use crate::tls::TlsOptions;

/// A checked configuration of the broker.
#[derive(Clone, Debug)]
pub struct Config {
    /// Shard threads, 1 to 64; each gets a listener on every port.
    pub shards: usize,
    /// Whether each shard has a table of descriptors of its own, so that the process may hold as
    /// many connections as all of them. Connections are not counted per address then.
    pub own_descriptors: bool,
    /// Microseconds for which a shard rests between turns while many connections wake it often; 0
    /// for never.
    pub rest_us: u32,
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// Where messages come in over HTTP.
    pub http: Option<HttpListener>,
    /// Where peers come in that speak CoAP.
    pub coap: Vec<CoapListener>,
    /// Where MQTT clients come in over QUIC.
    pub quic: Option<QuicListener>,
    /// Bounds of connections and sessions.
    pub limits: Limits,
    /// The node, the same in every start.
    pub node: EntityId,
    /// Number of this start, higher than that of the last.
    pub incarnation: u64,
    /// Seconds between two publications of `$SYS/broker/…`; 0 for none.
    pub sys_interval_s: u32,
}

/// Messages over HTTP: publishing, Server-Sent Events, channel sockets.
#[derive(Clone, Debug)]
pub struct HttpListener {
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Who may open a WebSocket.
    pub websocket: WebSocketOptions,
    /// TLS; plain without. WebSockets are refused in it.
    pub tls: Option<TlsOptions>,
    /// Origins of pages that may read answers, or `*` for all.
    pub cors_origins: Vec<String>,
    /// What is answered as older servers do.
    pub compat: HttpCompat,
}

/// Answers over HTTP for programs that expect those of older servers.
#[derive(Clone, Copy, Debug, Default)]
pub struct HttpCompat {
    /// 401 instead of 403 for who is known and has no right.
    pub denied_is_401: bool,
    /// 415 for bodies that are neither JSON nor SenML.
    pub known_content_types_only: bool,
}

/// Where peers come in that speak CoAP over UDP.
#[derive(Clone, Debug)]
pub struct CoapListener {
    /// Its name in logs and in what the broker reports.
    pub name: String,
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Whether credentials are taken from peers elsewhere though others can read along.
    pub insecure: bool,
    /// Whether peers elsewhere prove their address (RFC 9175) before they observe anything or get
    /// more than three times what they sent.
    pub echo: bool,
    /// Whether POST on a channel is answered 2.01 instead of 2.04.
    pub created: bool,
    /// DTLS, where everything is in it.
    pub dtls: Option<DtlsOptions>,
}

/// Where MQTT clients come in over QUIC.
#[derive(Clone, Debug)]
pub struct QuicListener {
    /// The address, of UDP; port 0 lets the system choose.
    pub address: SocketAddr,
    /// As [`Listener::open`].
    pub open: Option<String>,
    /// As [`Listener::anonymous`].
    pub anonymous: bool,
    /// As [`Listener::close_on_revoked`].
    pub close_on_revoked: bool,
    /// Its certificates; always TLS 1.3.
    pub tls: TlsOptions,
    /// Silence after which a connection is over; 0 for never. A client may ask for less.
    pub idle_timeout: Duration,
}

/// DTLS 1.2 of a listener: always with pre-shared keys.
#[derive(Clone, Debug, Default)]
pub struct DtlsOptions {
    /// With certificates too; of several the first, which has to be of an elliptic curve.
    pub certificates: Option<TlsOptions>,
}

/// Where MQTT clients come in over TCP, and what lies between.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in logs and in what the broker reports.
    pub name: String,
    /// The address; port 0 lets the system choose.
    pub address: SocketAddr,
    /// Id or route of the domain whose open channel takes all topics outside `m/…`.
    pub open: Option<String>,
    /// Whether the open namespace lets in clients that nobody knows.
    pub anonymous: bool,
    /// Whether losing the right of a subscription ends the connection; otherwise the subscription
    /// sleeps until the right is back. Channel sockets always end.
    pub close_on_revoked: bool,
    /// TLS; plain without.
    pub tls: Option<TlsOptions>,
    /// MQTT in WebSocket messages; directly without.
    pub websocket: Option<WebSocketOptions>,
    /// Proxies in front that say for whom they speak (PROXY protocol, version 1 or 2). With any,
    /// nobody else is let in.
    pub proxies: Vec<Network>,
}

impl Listener {
    /// A plain listener without an open namespace.
    pub fn plain(name: &str, address: SocketAddr) -> Listener {
        Listener {
            name: name.to_owned(),
            address,
            open: None,
            anonymous: false,
            close_on_revoked: false,
            tls: None,
            websocket: None,
            proxies: Vec::new(),
        }
    }
}

/// Who may open a WebSocket.
#[derive(Clone, Debug, Default)]
pub struct WebSocketOptions {
    /// Origins of pages, such as `https://console.example.com`, that may connect; all if empty.
    /// Clients that are no browsers send none and always may.
    pub origins: Vec<String>,
    /// What becomes of messages that a channel socket has no room for.
    pub slow_consumer: SlowPolicy,
    /// Whether a channel socket without a credential is answered 403 instead of 401.
    pub missing_is_403: bool,
}
