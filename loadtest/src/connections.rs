//! Idle connections: how fast they are made and what they cost.

use std::fmt;
use std::time::{Duration, Instant};

use codec::mqtt::{ProtocolVersion, QoS};
use rustix::process::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use crate::client::Dialer;
use crate::error::Error;
use crate::measure::Usage;
use crate::target::Target;

/// Connections that do nothing.
#[derive(Clone, Debug)]
pub struct ConnectionsPlan {
    /// Which broker, as whom, below which topic.
    pub target: Target,
    /// Protocol version of all connections.
    pub version: ProtocolVersion,
    /// How many.
    pub count: usize,
    /// How long they stay.
    pub hold: Duration,
    /// A process whose CPU time and memory are measured: the broker.
    pub pid: Option<u32>,
}

/// What connections cost.
#[derive(Clone, Debug, Serialize)]
pub struct ConnectionsReport {
    /// How many were made, each with one subscription.
    pub connections: usize,
    /// How long that took.
    pub seconds: f64,
    /// Connections made and subscribed in a second.
    pub connections_per_s: f64,
    /// Growth of the broker's resident memory for each, if its process was named.
    pub rss_bytes_per_connection: Option<f64>,
    /// CPU time of the broker for each.
    pub cpu_us_per_connection: Option<f64>,
}

/// Makes connections with one subscription each, and holds them.
///
/// # Errors
/// One cannot be made.
pub fn connections(plan: &ConnectionsPlan) -> Result<ConnectionsReport, Error> {
    allow_descriptors(plan.count)?;
    let before = plan.pid.map(Usage::of).transpose()?;
    let began = Instant::now();
    let mut dialer = Dialer::new(&plan.target, plan.version);
    let mut dialed = dialer.connect(plan.count)?;
    let prefix = &plan.target.topic_prefix;
    dialer.subscribe(&mut dialed, QoS::AtMostOnce, |at| format!("{prefix}/{at}"))?;
    let seconds = began.elapsed().as_secs_f64();
    std::thread::sleep(plan.hold);
    let after = plan.pid.map(Usage::of).transpose()?;
    let count = plan.count.max(1) as f64;
    let used = before.zip(after);
    Ok(ConnectionsReport {
        connections: plan.count,
        seconds,
        connections_per_s: count / seconds,
        rss_bytes_per_connection: used
            .map(|(before, after)| (after.rss_bytes as f64 - before.rss_bytes as f64) / count),
        cpu_us_per_connection: used.map(|(before, after)| {
            after.cpu().saturating_sub(before.cpu()).as_secs_f64() * 1e6 / count
        }),
    })
}

/// Raises this process's own limit as far as it may.
fn allow_descriptors(count: usize) -> Result<(), Error> {
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = count as u64 + 64;
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(limit.maximum.map_or(wanted, |most| most.min(wanted)));
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(())
}

impl fmt::Display for ConnectionsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections with a subscription each\n  made in        {:.2} s: {:.0} per second",
            self.connections, self.seconds, self.connections_per_s
        )?;
        if let Some(bytes) = self.rss_bytes_per_connection {
            write!(f, "\n  memory         {bytes:.0} bytes for each")?;
        }
        if let Some(us) = self.cpu_us_per_connection {
            write!(f, "\n  broker         {us:.1} us CPU for each")?;
        }
        Ok(())
    }
}
