//! What came out.

use std::fmt;
use std::time::{Duration, Instant};

use codec::mqtt::ProtocolVersion;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::measure::Usage;
use crate::plan::Plan;
use crate::verify::Verdict;

/// What came out of a load. `Display` is text for people, `Serialize` for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Who sent to whom.
    pub shape: &'static str,
    /// Protocol version: 3.1, 3.1.1 or 5.
    pub mqtt: &'static str,
    /// QoS of messages and subscriptions.
    pub qos: u8,
    /// Size of a payload.
    pub payload_bytes: usize,
    /// Connections that published.
    pub publishers: usize,
    /// Connections that subscribed.
    pub subscribers: usize,
    /// Messages sent with one system call.
    pub burst: usize,
    /// Messages of a publisher that might be on their way.
    pub window: usize,
    /// How long was measured.
    pub seconds: f64,
    /// Messages sent meanwhile.
    pub published: u64,
    /// Messages received meanwhile.
    pub delivered: u64,
    /// Messages received in a second.
    pub deliveries_per_s: f64,
    /// CPU time of this process for each message received.
    pub own_cpu_us_per_delivery: f64,
    /// The broker, if its process was named.
    pub broker: Option<Broker>,
    /// From send to receive, if never more than one message of a publisher was on its way.
    pub latency: Option<Latency>,
    /// What was wrong, over the whole run.
    pub verdict: Verdict,
}

/// What the kernel said about the broker's process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Broker {
    /// CPU time for each message received, user space and kernel.
    pub cpu_us_per_delivery: f64,
    /// The part of it in user space.
    pub user_us_per_delivery: f64,
    /// CPU time by time: 1 is one core.
    pub cores: f64,
    /// Resident memory at the end.
    pub rss_bytes: u64,
}

/// Percentiles in microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Half are below.
    pub p50_us: f64,
    /// 99 of 100 are below.
    pub p99_us: f64,
    /// 999 of 1000 are below.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
}

/// Counts at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    pub(crate) own_cpu: Duration,
    pub(crate) broker: Option<Usage>,
}

impl Latency {
    /// `None` if nothing was recorded.
    pub(crate) fn of(recorded: &Histogram<u64>) -> Option<Latency> {
        let us = |quantile| recorded.value_at_quantile(quantile) as f64 / 1000.0;
        (!recorded.is_empty()).then(|| Latency {
            p50_us: us(0.5),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: us(1.0),
        })
    }
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        before: &Sample,
        after: &Sample,
        latency: Option<Latency>,
        verdict: Verdict,
    ) -> Report {
        let seconds = (after.at - before.at).as_secs_f64();
        let delivered = after.delivered - before.delivered;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / delivered.max(1) as f64;
        let broker = before.broker.zip(after.broker).map(|(before, after)| {
            let used = after.cpu().saturating_sub(before.cpu());
            Broker {
                cpu_us_per_delivery: each(used),
                user_us_per_delivery: each(after.user.saturating_sub(before.user)),
                cores: used.as_secs_f64() / seconds,
                rss_bytes: after.rss_bytes,
            }
        });
        Report {
            shape: plan.shape.name(),
            mqtt: match plan.version {
                ProtocolVersion::V31 => "3.1",
                ProtocolVersion::V311 => "3.1.1",
                ProtocolVersion::V5 => "5",
            },
            qos: plan.qos.as_u8(),
            payload_bytes: plan.payload_bytes,
            publishers: plan.publishers,
            subscribers: plan.subscribers,
            burst: plan.burst,
            window: plan.window,
            seconds,
            published: after.published - before.published,
            delivered,
            deliveries_per_s: delivered as f64 / seconds,
            own_cpu_us_per_delivery: each(after.own_cpu.saturating_sub(before.own_cpu)),
            broker,
            latency,
            verdict,
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} {} -> {}, MQTT {}, QoS {}, {} bytes, bursts of {}, window {}",
            self.shape,
            self.publishers,
            self.subscribers,
            self.mqtt,
            self.qos,
            self.payload_bytes,
            self.burst,
            self.window
        )?;
        writeln!(
            f,
            "  deliveries     {} in {:.2} s: {:.0} per second",
            self.delivered, self.seconds, self.deliveries_per_s
        )?;
        if let Some(broker) = &self.broker {
            writeln!(
                f,
                "  broker         {:.3} us CPU per delivery ({:.3} in user space), {:.2} cores, {:.1} MiB",
                broker.cpu_us_per_delivery,
                broker.user_us_per_delivery,
                broker.cores,
                broker.rss_bytes as f64 / f64::from(1 << 20)
            )?;
        }
        writeln!(
            f,
            "  load generator {:.3} us CPU per delivery",
            self.own_cpu_us_per_delivery
        )?;
        if let Some(latency) = &self.latency {
            writeln!(
                f,
                "  latency        p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, longest {:.0} us",
                latency.p50_us, latency.p99_us, latency.p999_us, latency.max_us
            )?;
        }
        write!(f, "  verdict        {}", self.verdict)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("everything arrived once and in order");
        }
        write!(
            f,
            "{} lost, {} twice, {} out of order, {} altered, {} refused, {} not acknowledged",
            self.lost,
            self.duplicates,
            self.out_of_order,
            self.altered,
            self.refused,
            self.unacknowledged
        )
    }
}
