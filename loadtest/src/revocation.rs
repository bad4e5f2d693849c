//! Rights that are taken away while messages flow: how long the answer takes, and whether a message
//! that was sent after it is delivered.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use codec::mqtt::{Delivery, Packet, ProtocolVersion, Publish, PublishProperties, QoS, decode};
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use serde::Serialize;
use serde_json::{Value, json};

use crate::control::Control;
use crate::dial::{Dial, Numbers};
use crate::error::Error;
use crate::measure::Machine;
use crate::pace::{Alarm, timespec};
use crate::provision::Provisioned;
use crate::report::{Latency, histogram, version_name};
use crate::target::Target;
use crate::wire::{READ_BYTES, Wire};

/// A right that is taken and given back, again and again.
#[derive(Clone, Debug)]
pub struct RevocationPlan {
    /// The broker with the clients of [`RevocationPlan::provisioned`].
    pub target: Target,
    /// A domain of its own: the first client subscribes to the first channel, the second publishes.
    pub provisioned: Provisioned,
    /// Protocol version.
    pub version: ProtocolVersion,
    /// How often.
    pub rounds: usize,
    /// Messages in a second meanwhile.
    pub rate: f64,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct RevocationReport {
    /// What was done.
    pub shape: &'static str,
    /// Where and when.
    pub machine: Machine,
    /// Address of the broker with its scheme.
    pub broker_url: String,
    /// Protocol version: 3.1, 3.1.1 or 5.
    pub mqtt: &'static str,
    /// How often the right was taken.
    pub rounds: usize,
    /// Messages in a second that were intended.
    pub rate: f64,
    /// Messages sent.
    pub published: u64,
    /// Messages received.
    pub delivered: u64,
    /// Messages sent after an answer and delivered although the right was gone.
    pub late: u64,
    /// From asking for the right to be taken to the answer.
    pub latency: Option<Latency>,
    /// From asking for the right to be given back to the first message.
    pub back: Option<Latency>,
}

/// Moments in ns since the start, for the two threads.
#[derive(Default)]
struct Clock {
    /// The right is gone for messages sent after this and before `until`.
    from: AtomicU64,
    until: AtomicU64,
    /// When the newest message that was delivered had been sent.
    newest: AtomicU64,
    late: AtomicU64,
    delivered: AtomicU64,
    published: AtomicU64,
    stop: AtomicBool,
}

/// A right that is given back is in force after this, or something is wrong.
const PATIENCE: Duration = Duration::from_secs(10);

/// Takes a right away and gives it back while messages flow.
///
/// # Errors
/// The control side refuses, a connection ends, or messages do not flow again.
pub fn revocation(plan: &RevocationPlan, control: &mut Control) -> Result<RevocationReport, Error> {
    if plan.rounds == 0 || !(1.0..=1e7).contains(&plan.rate) {
        let why = "1 round at least is expected, and a rate of 1 to 10000000";
        return Err(Error::Plan(why.into()));
    }
    let start = Instant::now();
    let clock = Clock::default();
    clock.until.store(u64::MAX, Ordering::Relaxed);
    clock.from.store(u64::MAX, Ordering::Relaxed);
    std::thread::scope(|scope| {
        let flow = scope.spawn(|| {
            let result = flow(plan, start, &clock);
            clock.stop.store(true, Ordering::Release);
            result
        });
        let rounds = rounds(plan, control, start, &clock);
        clock.stop.store(true, Ordering::Release);
        let joined = flow
            .join()
            .map_err(|_| Error::Plan("the load failed".into()))?;
        joined?;
        let (taken, back) = rounds?;
        Ok(RevocationReport {
            shape: "revocation",
            machine: Machine::here(),
            broker_url: plan.target.endpoint.url(),
            mqtt: version_name(plan.version),
            rounds: plan.rounds,
            rate: plan.rate,
            published: clock.published.load(Ordering::Relaxed),
            delivered: clock.delivered.load(Ordering::Relaxed),
            late: clock.late.load(Ordering::Relaxed),
            latency: taken,
            back,
        })
    })
}

type Latencies = (Option<Latency>, Option<Latency>);

fn rounds(
    plan: &RevocationPlan,
    control: &mut Control,
    start: Instant,
    clock: &Clock,
) -> Result<Latencies, Error> {
    let made = &plan.provisioned;
    let body = json!({
        "client_ids": [made.logins[0].username],
        "channel_ids": [made.channels[0]],
        "types": ["subscribe"],
    });
    let path = |verb| format!("/{}/channels/{verb}", made.domain);
    let mut call = |verb| -> Result<Duration, Error> {
        let began = Instant::now();
        let answer: Value = control.call("POST", &path(verb), &body)?;
        drop(answer);
        Ok(began.elapsed())
    };
    let (mut taken, mut back) = (histogram(), histogram());
    for _ in 0..plan.rounds {
        // Messages flow: one arrives that is sent from now on.
        flows_again(clock, now_ns(start))?;
        clock.from.store(u64::MAX, Ordering::SeqCst);
        clock.until.store(u64::MAX, Ordering::SeqCst);
        taken.saturating_record(call("disconnect")?.as_nanos() as u64);
        clock.from.store(now_ns(start), Ordering::SeqCst);
        // Some messages are refused.
        std::thread::sleep(Duration::from_millis(2));
        let given = now_ns(start);
        clock.until.store(given, Ordering::SeqCst);
        call("connect")?;
        flows_again(clock, given)?;
        back.saturating_record(now_ns(start) - given);
    }
    Ok((Latency::of(&taken), Latency::of(&back)))
}

fn now_ns(start: Instant) -> u64 {
    start.elapsed().as_nanos() as u64
}

/// Waits for a message that was sent later than `since`.
fn flows_again(clock: &Clock, since: u64) -> Result<(), Error> {
    let began = Instant::now();
    while clock.newest.load(Ordering::Acquire) <= since {
        if clock.stop.load(Ordering::Acquire) {
            return Err(Error::Plan("the connections ended".into()));
        }
        if began.elapsed() > PATIENCE {
            let why = format!("no message came within {} s of a grant", PATIENCE.as_secs());
            return Err(Error::Plan(why));
        }
        std::thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Sends by the clock, each message with the moment it is sent, and looks at what arrives.
fn flow(plan: &RevocationPlan, start: Instant, clock: &Clock) -> Result<(), Error> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let dial = Dial::new(&plan.target, plan.version, QoS::AtMostOnce);
    let numbers = Numbers::Once { first: 0, count: 2 };
    let topic = plan.target.topic(0);
    let filters = |connection: usize| match connection {
        0 => vec![topic.clone()],
        _ => Vec::new(),
    };
    let mut kept = dial
        .connect(&epoll, numbers, &filters, &mut |_| Ok(()))?
        .kept;
    let mut alarm = Alarm::new(&epoll)?;
    let interval = Duration::from_secs_f64(1.0 / plan.rate);
    let mut due = Instant::now();
    let mut events = Vec::with_capacity(8);
    let mut buffer = vec![0; READ_BYTES];
    let mut packets = Vec::new();
    while !clock.stop.load(Ordering::Acquire) {
        packets.clear();
        let now = Instant::now();
        while due <= now {
            due += interval;
            let stamp = now_ns(start).to_be_bytes();
            let publish = Publish {
                dup: false,
                retain: false,
                delivery: Delivery::AtMostOnce,
                topic: &topic,
                properties: PublishProperties::default(),
                payload: &stamp,
            };
            publish.encode(plan.version, &mut packets);
            clock.published.fetch_add(1, Ordering::Relaxed);
        }
        let [subscriber, publisher] = &mut kept[..] else {
            return Err(Error::Plan("two connections are needed".into()));
        };
        if !packets.is_empty() && !publisher.wire.is_clogged() {
            publisher.wire.send(&epoll, &packets)?;
        }
        events.clear();
        let wait = alarm.set(due, Instant::now())?;
        let room = rustix::buffer::spare_capacity(&mut events);
        match epoll::wait(&epoll, room, Some(&timespec(wait))) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        for event in &events {
            let (number, flags) = (event.data.u64() as usize, event.flags);
            if event.data.u64() == Alarm::NUMBER {
                continue;
            }
            let wire = if number == 0 {
                &mut subscriber.wire
            } else {
                &mut publisher.wire
            };
            if flags.contains(epoll::EventFlags::OUT) {
                wire.writable(&epoll)?;
            }
            arrived(plan, clock, wire, &epoll, &mut buffer)?;
        }
    }
    Ok(())
}

fn arrived(
    plan: &RevocationPlan,
    clock: &Clock,
    wire: &mut Wire,
    epoll: &OwnedFd,
    buffer: &mut [u8],
) -> Result<(), Error> {
    wire.receive(epoll, buffer, |frame| {
        let Packet::Publish(publish) = decode(frame, plan.version)? else {
            return Ok(());
        };
        let Some(stamp) = publish.payload.first_chunk::<8>() else {
            return Err(Error::Unexpected("payload"));
        };
        let sent = u64::from_be_bytes(*stamp);
        clock.delivered.fetch_add(1, Ordering::Relaxed);
        let (from, until) = (
            clock.from.load(Ordering::SeqCst),
            clock.until.load(Ordering::SeqCst),
        );
        if sent > from && sent < until {
            clock.late.fetch_add(1, Ordering::Relaxed);
        }
        clock.newest.store(sent, Ordering::Release);
        Ok(())
    })
}

impl fmt::Display for RevocationReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} revocations, MQTT {}, {} messages per second\n  messages       {} sent, {} received\n  late           {}",
            self.rounds, self.mqtt, self.rate, self.published, self.delivered, self.late
        )?;
        if let Some(latency) = &self.latency {
            write!(f, "\n  answered in    {latency}")?;
        }
        match &self.back {
            Some(back) => write!(f, "\n  flows again in {back}"),
            None => Ok(()),
        }
    }
}
