//! `$SYS/broker/…`: the broker's own figures under mosquitto's names.

use std::time::Duration;

use crate::metrics::Counters;
use crate::shard::Shard;
use crate::shard::wires::Wires;

/// When the figures are published next.
#[derive(Debug)]
pub(crate) struct Sys {
    interval_s: u32,
    next_s: u32,
    published: bool,
}

impl Sys {
    pub(crate) fn new(interval_s: u32) -> Sys {
        Sys {
            interval_s,
            next_s: 0,
            published: false,
        }
    }

    pub(crate) fn interval_s(&self) -> u32 {
        self.interval_s
    }

    /// Whether it is time; then the next time is set.
    fn is_due(&mut self, now_s: u32) -> bool {
        if self.interval_s == 0 || (self.published && now_s < self.next_s) {
            return false;
        }
        self.published = true;
        self.next_s = now_s + self.interval_s;
        true
    }
}

impl<W: Wires> Shard<W> {
    /// Publishes the broker's figures if it is time; the first shard does it for all.
    pub(crate) fn publish_sys(&mut self) {
        let now_s = self.env.now.as_secs();
        if self.env.id.index() != 0 || !self.accepts() || !self.sys.is_due(now_s) {
            return;
        }
        let shards = &self.env.shared.counters;
        let sum = |of: &dyn Fn(&Counters) -> u64| shards.iter().map(|s| of(s)).sum::<u64>();
        let connected = sum(&|s| s.connections.get());
        let sessions = sum(&|s| s.sessions.get());
        let received = sum(&|s| s.messages_in_total());
        let sent = sum(&|s| s.messages_out_total());
        let uptime = Duration::from_millis(self.env.now.as_millis()).as_secs();
        let figures = [
            ("version", format!("Turnpike {}", env!("CARGO_PKG_VERSION"))),
            ("uptime", format!("{uptime} seconds")),
            ("clients/connected", connected.to_string()),
            ("clients/active", connected.to_string()),
            (
                "clients/disconnected",
                sessions.saturating_sub(connected).to_string(),
            ),
            (
                "clients/inactive",
                sessions.saturating_sub(connected).to_string(),
            ),
            ("clients/total", sessions.to_string()),
            (
                "subscriptions/count",
                sum(&|s| s.subscriptions.get()).to_string(),
            ),
            (
                "retained messages/count",
                sum(&|s| s.retained.get()).to_string(),
            ),
            ("publish/messages/received", received.to_string()),
            ("publish/messages/sent", sent.to_string()),
            (
                "publish/messages/dropped",
                sum(&|s| s.dropped_total()).to_string(),
            ),
            (
                "bytes/received",
                sum(&|s| s.wire_bytes_in.get()).to_string(),
            ),
            ("bytes/sent", sum(&|s| s.wire_bytes_out.get()).to_string()),
        ];
        for (name, value) in figures {
            self.publish_own(&format!("$SYS/broker/{name}"), value.as_bytes());
        }
    }
}
