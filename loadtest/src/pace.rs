//! When messages are due: an open loop sends by the clock, whatever the broker does.

use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
};

use crate::error::Error;

/// A fixed rate, shared by publishers in turns: tick `n` belongs to publisher `n % publishers`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    start: Instant,
    /// Between two ticks, in ns.
    interval_ns: f64,
}

impl Pace {
    /// A tick for each burst, `messages_per_s` messages in a second.
    pub(crate) fn new(start: Instant, messages_per_s: f64, burst: usize) -> Pace {
        let interval_ns = 1e9 * burst as f64 / messages_per_s;
        Pace { start, interval_ns }
    }

    /// How many ticks are due.
    #[inline]
    pub(crate) fn ticks(&self, now: Instant) -> u64 {
        let past = now.saturating_duration_since(self.start);
        (past.as_nanos() as f64 / self.interval_ns) as u64 + 1
    }

    /// The moment of a tick.
    #[inline]
    pub(crate) fn at(&self, tick: u64) -> Instant {
        self.start + Duration::from_nanos((tick as f64 * self.interval_ns) as u64)
    }
}

/// Wakes an epoll at a moment: epoll's own timeout has whole milliseconds.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: OwnedFd,
    /// When it will ring.
    set: Option<Instant>,
}

impl Alarm {
    /// Its events bear this number.
    pub(crate) const NUMBER: u64 = u64::MAX;

    /// # Errors
    /// The system gives no timer.
    pub(crate) fn new(epoll: &OwnedFd) -> Result<Alarm, Error> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let data = epoll::EventData::new_u64(Alarm::NUMBER);
        // Ringing is an edge: nobody reads it.
        epoll::add(
            epoll,
            &timer,
            data,
            epoll::EventFlags::IN | epoll::EventFlags::ET,
        )?;
        Ok(Alarm { timer, set: None })
    }

    /// Lets it ring at `due`, if that is not set already; how long epoll may sleep at most.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn set(&mut self, due: Instant, now: Instant) -> Result<Duration, Error> {
        let left = due.saturating_duration_since(now);
        if left.is_zero() || left >= TICK {
            return Ok(left.min(TICK));
        }
        if self.set != Some(due) {
            self.set = Some(due);
            let value = Itimerspec {
                it_interval: timespec(Duration::ZERO),
                it_value: timespec(left),
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &value)?;
        }
        Ok(TICK)
    }
}

/// The clock of the machine, which all its processes read alike.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    at: Instant,
    ns: u64,
}

impl Clock {
    pub(crate) fn new() -> Clock {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Clock {
            at: Instant::now(),
            ns: now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64,
        }
    }

    /// What it shows at a moment.
    pub(crate) fn ns(&self, at: Instant) -> u64 {
        match at.checked_duration_since(self.at) {
            Some(after) => self.ns.saturating_add(after.as_nanos() as u64),
            None => self.ns.saturating_sub((self.at - at).as_nanos() as u64),
        }
    }

    /// The moment at which it shows `ns`; `None` for one that has no place in time.
    pub(crate) fn moment(&self, ns: u64) -> Option<Instant> {
        match ns.checked_sub(self.ns) {
            Some(after) => self.at.checked_add(Duration::from_nanos(after)),
            None => self.at.checked_sub(Duration::from_nanos(self.ns - ns)),
        }
    }
}

/// Longest sleep.
pub(crate) const TICK: Duration = Duration::from_millis(50);

/// What the system calls want.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: duration.as_secs() as i64,
        tv_nsec: duration.subsec_nanos().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_tells_the_same_moment_before_and_after_it_was_made() {
        let before = Instant::now();
        let clock = Clock::new();
        for at in [before, before + Duration::from_secs(5)] {
            assert_eq!(clock.moment(clock.ns(at)), Some(at));
        }
    }

    #[test]
    fn ticks_are_due_at_their_moments_and_not_before() {
        let start = Instant::now();
        let pace = Pace::new(start, 1000.0, 4);
        assert_eq!(pace.ticks(start), 1, "the first at once");
        assert_eq!(pace.ticks(start + Duration::from_micros(3_999)), 1);
        assert_eq!(pace.ticks(start + Duration::from_micros(4_001)), 2);
        assert_eq!(pace.at(250) - start, Duration::from_secs(1));
    }
}
