//! The broker: shards, each with its own reactor, joined by inboxes and by control's feed.
//!
//! A [`Broker`] is started with a checked [`Config`] and a pipe to the control side. It knows
//! nothing of databases or the control API: who a client is and what it may do comes over the feed. The rules
//! of the protocols are in `session`, this crate carries bytes to them and out again.
//!
//! Three types to know: [`Config`], [`Broker`], and inside `shard::Shard`, the value that reactor
//! and simulator drive.
//!
//! May depend on `session`, `router`, `authcache`, `codec`; never on `control-api` or sqlx.

mod activity;
mod certificates;
mod config;
mod control;
mod feed;
mod ferry;
mod http;
mod link;
mod metrics;
mod quic;
mod reactor;
mod renewal;
mod shard;
#[cfg(test)]
mod simulation;
mod start;
mod sys;
mod thread;
mod tls;

pub use certificates::Certificates;
pub use config::{
    CoapListener, Config, DtlsOptions, HttpCompat, HttpListener, Limits, Listener, Network,
    QueuePolicy, QuicListener, SlowPolicy, TlsOptions, WebSocketOptions,
};
pub use feed::{Connecting, Feed, FeedPipe};
pub use start::{Broker, StartError, start};
pub use tls::TlsError;
