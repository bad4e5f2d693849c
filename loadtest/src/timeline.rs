//! How a run went, moment by moment.

use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::measure::{Usage, own_cpu};
use crate::report::histogram;

/// What was counted between two moments.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Moment {
    /// End of the interval, in seconds since the measurement began.
    pub at_s: f64,
    /// Deliveries (or connections) in a second.
    pub per_s: f64,
    /// Messages sent in a second.
    pub published_per_s: f64,
    /// 99 of 100 latencies of the interval are below; `None` without any. Of several processes,
    /// those of the first.
    pub p99_us: Option<f64>,
    /// CPU time of the broker by time: 1 is one core.
    pub broker_cores: Option<f64>,
    /// Resident memory of the broker.
    pub broker_rss_bytes: Option<u64>,
    /// CPU time of the load generator by time.
    pub own_cores: f64,
}

/// Counts up to one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) published: u64,
    pub(crate) delivered: u64,
    /// Those of them that other processes told of.
    pub(crate) elsewhere: u64,
    pub(crate) own_cpu: Duration,
    pub(crate) broker: Option<Usage>,
}

impl Sample {
    /// # Errors
    /// The broker's process cannot be read.
    pub(crate) fn take(pid: Option<u32>, published: u64, delivered: u64) -> Result<Sample, Error> {
        Ok(Sample {
            at: Instant::now(),
            published,
            delivered,
            elsewhere: 0,
            own_cpu: own_cpu(),
            broker: pid.map(Usage::of).transpose()?,
        })
    }
}

/// Samples at equal distances.
pub(crate) struct Timeline {
    start: Instant,
    every: Duration,
    last: Sample,
    /// Latencies since the last sample, in ns.
    pub(crate) latency: Histogram<u64>,
    pub(crate) moments: Vec<Moment>,
}

/// Distances that are looked at; the shortest that gives at most [`MOMENTS`] for a run is taken.
const EVERY: [Duration; 4] = [
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(10),
];
const MOMENTS: u32 = 240;

/// Moments kept; later ones are left out.
const MOMENTS_MAX: usize = 10_000;

impl Timeline {
    pub(crate) fn new(first: Sample, duration: Duration) -> Timeline {
        let fits = EVERY.into_iter().find(|every| *every * MOMENTS >= duration);
        Timeline {
            start: first.at,
            every: fits.unwrap_or(EVERY[3]),
            last: first,
            latency: histogram(),
            moments: Vec::new(),
        }
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        now >= self.last.at + self.every
    }

    /// When the next sample is to be taken.
    pub(crate) fn due(&self) -> Instant {
        self.last.at + self.every
    }

    /// Adds what was counted since the last sample.
    pub(crate) fn add(&mut self, now: Sample) -> Moment {
        let last = std::mem::replace(&mut self.last, now);
        let seconds = (now.at - last.at).as_secs_f64().max(1e-9);
        let p99 = self.latency.value_at_quantile(0.99) as f64 / 1000.0;
        let used = now.broker.zip(last.broker);
        let moment = Moment {
            at_s: (now.at - self.start).as_secs_f64(),
            per_s: now.delivered.saturating_sub(last.delivered) as f64 / seconds,
            published_per_s: now.published.saturating_sub(last.published) as f64 / seconds,
            p99_us: (!self.latency.is_empty()).then_some(p99),
            broker_cores: used
                .map(|(now, last)| now.cpu().saturating_sub(last.cpu()).as_secs_f64() / seconds),
            broker_rss_bytes: now.broker.map(|broker| broker.rss_bytes),
            own_cores: now.own_cpu.saturating_sub(last.own_cpu).as_secs_f64() / seconds,
        };
        self.latency.reset();
        if self.moments.len() < MOMENTS_MAX {
            self.moments.push(moment);
        }
        moment
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_taken_between_samples() {
        let start = Instant::now();
        let sample = |ms, delivered| Sample {
            at: start + Duration::from_millis(ms),
            published: delivered / 2,
            delivered,
            elsewhere: 0,
            own_cpu: Duration::from_millis(ms / 2),
            broker: None,
        };
        let mut timeline = Timeline::new(sample(0, 0), Duration::from_secs(3));
        assert!(!timeline.is_due(start + Duration::from_millis(99)));
        assert!(timeline.is_due(start + Duration::from_millis(100)));
        timeline.latency.saturating_record(5_000);
        timeline.add(sample(100, 1000));
        let second = timeline.add(sample(300, 3000));
        assert!((timeline.moments[0].per_s - 10_000.0).abs() < 1.0);
        assert!(
            timeline.moments[0]
                .p99_us
                .is_some_and(|p99| (p99 - 5.0).abs() < 0.1)
        );
        assert!((second.published_per_s - 5_000.0).abs() < 1.0);
        assert!((second.own_cores - 0.5).abs() < 0.01);
        assert_eq!(second.p99_us, None, "latencies belong to their interval");
    }
}
