//! What came out.

use std::fmt;
use std::time::Duration;

use codec::mqtt::ProtocolVersion;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::flow::Running;
use crate::measure::Machine;
use crate::plan::Plan;
use crate::timeline::{Moment, Sample};
use crate::verify::Verdict;
use crate::worker::{Done, gather};

/// What came out of a load. `Display` is text for people, `Serialize` for programs.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was done.
    pub shape: String,
    /// Where and when.
    pub machine: Machine,
    /// Address of the broker with its scheme.
    pub broker_url: String,
    /// What flowed.
    pub flows: Vec<FlowReport>,
    /// How long was measured.
    pub seconds: f64,
    /// Messages sent meanwhile.
    pub published: u64,
    /// Messages received meanwhile.
    pub delivered: u64,
    /// Messages received in a second; the sum of what each process received in one.
    pub deliveries_per_s: f64,
    /// Processes of the load generator.
    pub processes: usize,
    /// CPU time of the load generator for each message received.
    pub own_cpu_us_per_delivery: f64,
    /// CPU time of the load generator by time: 1 is one core. Near the number of its processes, it
    /// was the load generator that could do no more.
    pub own_cores: f64,
    /// The broker, if its process was named.
    pub broker: Option<Broker>,
    /// From the intended moment of sending to receiving.
    pub latency: Option<Latency>,
    /// What was wrong, over the whole run.
    pub verdict: Verdict,
    /// How it went.
    pub timeline: Vec<Moment>,
}

/// One flow of a load.
#[derive(Clone, Debug, Serialize)]
pub struct FlowReport {
    /// Its name.
    pub name: String,
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
    /// Topics.
    pub topics: usize,
    /// Messages sent with one system call.
    pub burst: usize,
    /// Messages of a publisher that might be on their way.
    pub window: Option<usize>,
    /// Messages in a second that were intended, if the clock sent them.
    pub rate: Option<f64>,
    /// Messages sent over the whole run, warm-up included.
    pub published: u64,
    /// Messages received over the whole run.
    pub delivered: u64,
    /// What was wrong.
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

/// Percentiles in microseconds, and what they were read from.
#[derive(Clone, Debug, Serialize)]
pub struct Latency {
    /// Half are below.
    pub p50_us: f64,
    /// 90 of 100 are below.
    pub p90_us: f64,
    /// 99 of 100 are below.
    pub p99_us: f64,
    /// 999 of 1000 are below.
    pub p999_us: f64,
    /// The longest.
    pub max_us: f64,
    /// Mean.
    pub mean_us: f64,
    /// How many there were.
    pub count: u64,
    /// Part of all that lie below, with the latency in us: the distribution.
    pub distribution: Vec<(f64, f64)>,
}

/// Longest latency told apart: ten minutes.
const LATENCY_MAX_NS: u64 = 600_000_000_000;

/// An empty histogram for latencies in ns: three digits, up to ten minutes.
pub(crate) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(100, LATENCY_MAX_NS, 3).expect("bounds that are allowed")
}

impl Latency {
    /// `None` if nothing was recorded.
    pub(crate) fn of(recorded: &Histogram<u64>) -> Option<Latency> {
        let us = |quantile| recorded.value_at_quantile(quantile) as f64 / 1000.0;
        (!recorded.is_empty()).then(|| Latency {
            p50_us: us(0.5),
            p90_us: us(0.9),
            p99_us: us(0.99),
            p999_us: us(0.999),
            max_us: us(1.0),
            mean_us: recorded.mean() / 1000.0,
            count: recorded.len(),
            distribution: recorded
                .iter_quantiles(2)
                .map(|step| (step.quantile(), step.value_iterated_to() as f64 / 1000.0))
                .collect(),
        })
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {:.0} us, p99 {:.0} us, p99.9 {:.0} us, longest {:.0} us",
            self.p50_us, self.p99_us, self.p999_us, self.max_us
        )
    }
}

/// How a version is written.
pub(crate) const fn version_name(version: ProtocolVersion) -> &'static str {
    match version {
        ProtocolVersion::V31 => "3.1",
        ProtocolVersion::V311 => "3.1.1",
        ProtocolVersion::V5 => "5",
    }
}

impl FlowReport {
    /// What this process knows of it.
    pub(crate) fn of(running: &Running<'_>) -> FlowReport {
        let flow = running.flow;
        FlowReport {
            name: flow.name.clone(),
            mqtt: version_name(flow.version),
            qos: flow.qos.as_u8(),
            payload_bytes: flow.payload_bytes,
            publishers: flow.publishers,
            subscribers: flow.subscribers + running.share.elsewhere(),
            topics: flow.topics,
            burst: flow.burst,
            window: flow.window,
            rate: flow.rate,
            published: running.published,
            delivered: running.delivered,
            verdict: running.verdict(),
        }
    }
}

impl Report {
    pub(crate) fn new(
        plan: &Plan,
        (before, after): (&Sample, &Sample),
        latency: &Histogram<u64>,
        flows: Vec<FlowReport>,
        timeline: Vec<Moment>,
        ended: &[Done],
    ) -> Report {
        let mut verdict = Verdict::default();
        flows.iter().for_each(|flow| verdict += flow.verdict);
        let seconds = (after.at - before.at).as_secs_f64();
        let here = |sample: &Sample| sample.delivered - sample.elsewhere;
        let mut delivered = here(after) - here(before);
        let mut deliveries_per_s = delivered as f64 / seconds;
        // Other processes count what they receive while they record: as long as was planned to the
        // nanosecond, where this one may be in the middle of something.
        let mut whole = gather(ended);
        delivered += whole.len();
        let recorded = match plan.messages {
            Some(_) => seconds,
            None => plan.duration.as_secs_f64(),
        };
        deliveries_per_s += whole.len() as f64 / recorded;
        // Both have the same bounds.
        let _ = whole.add(latency);
        let meanwhile = (deliveries_per_s * seconds).max(1.0);
        let each = |time: Duration| time.as_secs_f64() * 1e6 / meanwhile;
        let broker = before.broker.zip(after.broker).map(|(before, after)| {
            let used = after.cpu().saturating_sub(before.cpu());
            Broker {
                cpu_us_per_delivery: each(used),
                user_us_per_delivery: each(after.user.saturating_sub(before.user)),
                cores: used.as_secs_f64() / seconds,
                rss_bytes: after.rss_bytes,
            }
        });
        let own = after.own_cpu.saturating_sub(before.own_cpu);
        Report {
            shape: plan.name.clone(),
            machine: Machine::here(),
            broker_url: plan.target.endpoint.url(),
            flows,
            seconds,
            published: after.published - before.published,
            delivered,
            deliveries_per_s,
            processes: 1 + ended.len(),
            own_cpu_us_per_delivery: each(own),
            own_cores: own.as_secs_f64() / seconds,
            broker,
            latency: Latency::of(&whole),
            verdict,
            timeline,
        }
    }
}

impl fmt::Display for FlowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {} -> {}, {} topics, MQTT {}, QoS {}, {} bytes, bursts of {}",
            self.name,
            self.publishers,
            self.subscribers,
            self.topics,
            self.mqtt,
            self.qos,
            self.payload_bytes,
            self.burst,
        )?;
        if let Some(window) = self.window {
            write!(f, ", window {window}")?;
        }
        match self.rate {
            Some(rate) => write!(f, ", {rate} messages/s by the clock"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for flow in &self.flows {
            writeln!(f, "{flow}")?;
            if self.flows.len() > 1 {
                let (sent, got) = (flow.published, flow.delivered);
                writeln!(f, "  sent {sent}, received {got}: {}", flow.verdict)?;
            }
        }
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
        write!(
            f,
            "  load generator {:.3} us CPU per delivery, {:.2} cores",
            self.own_cpu_us_per_delivery, self.own_cores
        )?;
        match self.processes {
            1 => writeln!(f)?,
            processes => writeln!(f, " in {processes} processes")?,
        }
        if let Some(latency) = &self.latency {
            writeln!(f, "  latency        {latency}")?;
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
            "{} lost, {} twice, {} out of order, {} altered, {} at the wrong subscriber, \
             {} read otherwise by a second decoder, {} refused, {} not acknowledged",
            self.lost,
            self.duplicates,
            self.out_of_order,
            self.altered,
            self.misdirected,
            self.disputed,
            self.refused,
            self.unacknowledged
        )
    }
}
