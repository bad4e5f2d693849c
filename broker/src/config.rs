//! What the broker is told at its start.

use std::net::SocketAddr;

use authcache::EntityId;
pub use session::{Limits, QueuePolicy};

/// A checked configuration of the broker.
#[derive(Clone, Debug)]
pub struct Config {
    /// Shard threads, 1 to 64; each gets a listener on every port.
    pub shards: usize,
    /// Where clients come in.
    pub listeners: Vec<Listener>,
    /// Bounds of connections and sessions.
    pub limits: Limits,
    /// The node, the same in every start.
    pub node: EntityId,
    /// Number of this start, higher than that of the last.
    pub incarnation: u64,
    /// Seconds between two publications of `$SYS/broker/…`; 0 for none.
    pub sys_interval_s: u32,
}

/// A plain TCP listener.
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
}
