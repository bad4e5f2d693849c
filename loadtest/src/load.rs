//! Messages under way: one thread, one epoll, all flows of a plan.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use rustix::event::epoll;
use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};

use crate::bell::Bell;
use crate::crowd::Others;
use crate::dial::{Dial, KEEP_ALIVE_S, Numbers};
use crate::error::Error;
use crate::flow::{Running, Share};
use crate::pace::{Alarm, Clock, Pace, TICK, timespec};
use crate::plan::Plan;
use crate::report::{FlowReport, Latency, Report, histogram};
use crate::timeline::{Moment, Sample, Timeline};
use crate::verify::Verdict;
use crate::wire::{READ_BYTES, Wire};
use crate::worker::Command;

/// Carries a plan out: connects, loads, measures, and waits for what is still on its way.
///
/// # Errors
/// The plan cannot be done, or the broker ends it. Faults in what arrives are in the report.
pub fn run(plan: &Plan) -> Result<Report, Error> {
    run_watched(plan, &mut |_| {})
}

/// As [`run`], and tells `watch` of each moment that was measured.
///
/// # Errors
/// As [`run`].
pub fn run_watched(plan: &Plan, watch: &mut dyn FnMut(&Moment)) -> Result<Report, Error> {
    plan.check()?;
    let share = Share::Whole { run: run_number() };
    carry_out(plan, Load::connect(plan, 1, share)?, watch)
}

/// Loads, measures, and waits for what is still on its way.
///
/// # Errors
/// The broker ends it.
pub(crate) fn carry_out(
    plan: &Plan,
    mut load: Load<'_>,
    watch: &mut dyn FnMut(&Moment),
) -> Result<Report, Error> {
    let warm = Instant::now() + plan.warm_up;
    load.let_others_record(warm)?;
    if plan.messages.is_none() {
        load.begin();
        load.drive(&mut |_| {}, |_, now| now >= warm)?;
    }
    let before = load.sample()?;
    load.record(before, plan.duration);
    if plan.messages.is_some() {
        load.begin();
    }
    let (end, most) = (Instant::now() + plan.duration, plan.messages);
    load.drive(watch, |load, now| match most {
        Some(_) => load.left == 0 && load.is_settled(),
        None => now >= end,
    })?;
    let after = load.sample()?;
    load.finish()?;
    Ok(load.report(&before, &after))
}

/// Phases of a load that runs beside something else, and the word to stop.
#[derive(Debug, Default)]
pub(crate) struct Cues {
    /// Into which histogram latencies go.
    pub(crate) phase: AtomicUsize,
    pub(crate) stop: AtomicBool,
    /// The load has begun (or failed).
    pub(crate) begun: AtomicBool,
}

/// Runs until told to stop; latencies of each phase.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_beside(
    plan: &Plan,
    phases: usize,
    cues: &Cues,
) -> Result<(Report, Vec<Option<Latency>>), Error> {
    plan.check()?;
    let begun = Begun(cues);
    let share = Share::Whole { run: run_number() };
    let mut load = Load::connect(plan, phases, share)?;
    let before = load.sample()?;
    load.begin();
    load.record(before, plan.duration);
    drop(begun);
    load.cues = Some(cues);
    load.drive(&mut |_| {}, |_, _| cues.stop.load(Ordering::Acquire))?;
    let after = load.sample()?;
    load.finish()?;
    let phases = load.latency.iter().map(Latency::of).collect();
    Ok((load.report(&before, &after), phases))
}

/// Tells that a load has begun, or failed before it could.
struct Begun<'a>(&'a Cues);

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.begun.store(true, Ordering::Release);
    }
}

/// A load in progress.
pub(crate) struct Load<'p> {
    plan: &'p Plan,
    epoll: OwnedFd,
    alarm: Alarm,
    running: Vec<Running<'p>>,
    /// Those of the first flow come first; within it subscribers', then publishers'.
    wires: Vec<Wire>,
    /// For each flow where its wires begin; one more for the end.
    bases: Vec<usize>,
    /// Messages that may still be sent.
    left: u64,
    /// One histogram for each phase.
    latency: Vec<Histogram<u64>>,
    timeline: Option<Timeline>,
    cues: Option<&'p Cues>,
    vigil: Option<Vigil>,
    others: Others<'p>,
}

/// Connections are kept alive, and those that end are counted.
struct Vigil {
    pace: Option<Pace>,
    /// PINGREQs that were due.
    next: u64,
    dead: HashSet<usize>,
    told: Kept,
    /// Whether a connection that ends is counted, or ends the load.
    tolerant: bool,
}

impl Vigil {
    /// A PINGREQ of each connection in each `every`; none if that is zero.
    fn new(connections: usize, every: Duration, tolerant: bool) -> Vigil {
        let seconds = every.as_secs_f64();
        let per_s = connections as f64 / seconds;
        let start = Instant::now();
        Vigil {
            pace: (seconds > 0.0 && connections > 0).then(|| Pace::new(start, per_s, 1)),
            next: 0,
            dead: HashSet::new(),
            told: Kept::default(),
            tolerant,
        }
    }
}

/// Keep Alive of connections under load.
const KEEP_ALIVE: Duration = Duration::from_secs(KEEP_ALIVE_S as u64);

/// What became of connections that were held.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
pub struct Kept {
    /// PINGREQs sent.
    pub pings: u64,
    /// PINGRESPs received.
    pub pongs: u64,
    /// Connections that ended.
    pub lost: u64,
}

/// First byte of a PINGRESP.
const PINGRESP: u8 = 0xD0;

/// Between two looks at publishers whose messages do not arrive.
const STALL: Duration = Duration::from_secs(2);

/// Longest wait for what is on its way when a load ends.
const SETTLE_MAX: Duration = Duration::from_secs(60);

impl<'p> Load<'p> {
    /// Makes the connections of all flows.
    pub(crate) fn connect(plan: &'p Plan, phases: usize, share: Share) -> Result<Load<'p>, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Load::over(plan, phases, share, epoll, Vec::new())
    }

    /// As `connect`, with `wires` that are there already and bear the first numbers; without a
    /// flow they idle.
    pub(crate) fn over(
        plan: &'p Plan,
        phases: usize,
        share: Share,
        epoll: OwnedFd,
        mut wires: Vec<Wire>,
    ) -> Result<Load<'p>, Error> {
        let (mut running, mut bases) = (Vec::new(), vec![0]);
        let (mut topic_base, mut base) = (0, 0);
        for flow in &plan.flows {
            let mut state = Running::new(flow, &plan.target, topic_base, share, plan.strict);
            let dial = Dial {
                run: share.run(),
                // Among very many, one that is refused while the broker is busy tries again.
                tolerant: !wires.is_empty() && bases.len() == 1,
                ..Dial::new(&plan.target, flow.version, flow.qos)
            };
            let first = wires.len();
            let numbers = Numbers::Once {
                first,
                count: base + share.connections(flow) - first,
            };
            let filters =
                |connection: usize| flow.filters_of(&plan.target, topic_base, connection - base);
            let dialled = dial.connect(&epoll, numbers, &filters, &mut |_| Ok(()))?;
            for (at, mut dialed) in (first..).zip(dialled.kept) {
                if let Some(publisher) = (at - base).checked_sub(flow.subscribers) {
                    state.allow(publisher, dialed.receive_maximum)?;
                }
                dialed.wire.renumber(&epoll, at)?;
                wires.push(dialed.wire);
            }
            running.push(state);
            base = wires.len();
            bases.push(base);
            topic_base += flow.topics;
        }
        // Sleeps end when they should, for those who send by the clock.
        rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1))?;
        let vigil = Some(Vigil::new(wires.len(), KEEP_ALIVE / 3, false));
        Ok(Load {
            alarm: Alarm::new(&epoll)?,
            epoll,
            running,
            wires,
            bases,
            left: plan.messages.unwrap_or(u64::MAX),
            latency: (0..phases).map(|_| histogram()).collect(),
            timeline: None,
            cues: None,
            vigil,
            others: Others::Nobody,
            plan,
        })
    }

    /// Other processes carry a part of the first flow.
    ///
    /// # Errors
    /// The system refuses to listen to them.
    pub(crate) fn join(&mut self, others: Others<'p>) -> Result<(), Error> {
        others.wake(&self.epoll)?;
        self.others = others;
        Ok(())
    }

    /// From now on connections that end are counted, and every connection sends a PINGREQ in each
    /// `keep_alive`, if it is not zero.
    pub(crate) fn watch_over(&mut self, keep_alive: Duration) {
        self.vigil = Some(Vigil::new(self.wires.len(), keep_alive, true));
    }

    /// The wires, and what became of them since [`Load::watch_over`].
    pub(crate) fn into_wires(self) -> (OwnedFd, Vec<Wire>, Kept) {
        let kept = self.vigil.map(|vigil| vigil.told).unwrap_or_default();
        (self.epoll, self.wires, kept)
    }

    /// Latencies of the first phase.
    pub(crate) fn latency(&self) -> &Histogram<u64> {
        &self.latency[0]
    }

    /// What was sent, what arrived, and what was wrong with it.
    pub(crate) fn carried(&self) -> (u64, u64, Verdict) {
        let mut all = (0, 0, Verdict::default());
        for running in &self.running {
            all.0 += running.published;
            all.1 += running.delivered;
            all.2 += running.verdict();
        }
        all
    }

    /// Serves events for so long.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn serve(&mut self, duration: Duration) -> Result<(), Error> {
        let until = Instant::now() + duration;
        self.drive(&mut |_| {}, |_, now| now >= until)
    }

    /// Sends the PINGREQs that are due.
    fn keep_alive(&mut self, now: Instant) -> Result<(), Error> {
        const PINGREQ: [u8; 2] = [0xC0, 0];
        let Some(vigil) = &mut self.vigil else {
            return Ok(());
        };
        let due = vigil.pace.map_or(0, |pace| pace.ticks(now));
        let mut lost = Vec::new();
        while vigil.next < due {
            let number = (vigil.next % self.wires.len().max(1) as u64) as usize;
            vigil.next += 1;
            if vigil.dead.contains(&number) || number >= self.wires.len() {
                continue;
            }
            vigil.told.pings += 1;
            if self.wires[number].send(&self.epoll, &PINGREQ).is_err() {
                lost.push(number);
            }
        }
        lost.into_iter()
            .try_for_each(|number| self.lost(number, Error::Closed(number)))
    }

    /// A connection has ended.
    ///
    /// # Errors
    /// Nobody counts them.
    fn lost(&mut self, number: usize, error: Error) -> Result<(), Error> {
        let ended = matches!(error, Error::Closed(_) | Error::Lost { .. });
        match &mut self.vigil {
            Some(vigil) if ended && vigil.tolerant => {
                if vigil.dead.insert(number) {
                    vigil.told.lost += 1;
                    self.wires[number].abandon(&self.epoll);
                }
                Ok(())
            }
            _ => Err(error),
        }
    }

    pub(crate) fn begin(&mut self) {
        let now = Instant::now();
        for running in &mut self.running {
            running.begin(now);
        }
    }

    /// From now on latencies are recorded.
    pub(crate) fn record(&mut self, first: Sample, duration: Duration) {
        self.timeline = Some(Timeline::new(first, duration));
    }

    /// Tells other processes to record, from `begin` on for as long as this one will, or all there
    /// is; waits until they know.
    fn let_others_record(&mut self, begin: Instant) -> Result<(), Error> {
        let window = match self.plan.messages {
            Some(_) => 0..u64::MAX,
            None => {
                let clock = Clock::new();
                clock.ns(begin)..clock.ns(begin + self.plan.duration)
            }
        };
        self.others.tell(&Command::Record { window })?;
        self.drive(&mut |_| {}, |load, _| load.others.know_their_window())
    }

    /// Hears what another process sends, until that says that it was all.
    ///
    /// # Errors
    /// The broker or the other process ends it.
    pub(crate) fn hear(&mut self) -> Result<(), Error> {
        self.drive(&mut |_| {}, |load, _| load.left == 0)
    }

    /// Listens to other processes, and tells them what they have to know.
    fn exchange(&mut self) -> Result<(), Error> {
        match &mut self.others {
            Others::Nobody => Ok(()),
            Others::Hearers(crowd) => crowd.listen(&mut self.running[0]),
            Others::Sender(sender) => {
                let running = &mut self.running[0];
                while let Some(command) = sender.heard()? {
                    match command {
                        Command::Record { window } => {
                            let first = Sample::take(None, 0, 0)?;
                            self.timeline = Some(Timeline::new(first, Duration::MAX));
                            sender.records(window);
                        }
                        Command::GiveUp { before } => {
                            running.give_up(&before);
                            sender.gave_up();
                        }
                        Command::End { sent } => {
                            running.was_sent(&sent);
                            self.left = 0;
                        }
                        Command::Connect { .. }
                        | Command::Drop
                        | Command::Hold { .. }
                        | Command::Traffic { .. }
                        | Command::Begin
                        | Command::Hear => {
                            return Err(Error::Plan("this load has begun".into()));
                        }
                    }
                }
                sender.tell(Instant::now(), running)
            }
        }
    }

    /// Nothing more is sent; waits for what is on its way.
    pub(crate) fn finish(&mut self) -> Result<(), Error> {
        self.left = 0;
        for running in &mut self.running {
            running.end();
        }
        self.cues = None;
        let timeline = self.timeline.take();
        let until = Instant::now() + SETTLE_MAX;
        self.drive(&mut |_| {}, |load, now| load.is_settled() || now >= until)?;
        self.timeline = timeline;
        let running = &self.running;
        self.others.end(|| running[0].sent())
    }

    /// Serves events until `done`.
    fn drive(
        &mut self,
        watch: &mut dyn FnMut(&Moment),
        done: impl Fn(&Load<'_>, Instant) -> bool,
    ) -> Result<(), Error> {
        let mut events = Vec::with_capacity(1024);
        let mut buffer = vec![0; READ_BYTES];
        let mut answers = Vec::new();
        let mut looked = Instant::now();
        loop {
            self.exchange()?;
            let now = Instant::now();
            if done(self, now) {
                return Ok(());
            }
            if now - looked > STALL {
                looked = now;
                for running in &mut self.running {
                    let before = running.give_up_stalled();
                    if !before.is_empty() {
                        self.others.tell(&Command::GiveUp { before })?;
                    }
                }
            }
            if self
                .timeline
                .as_ref()
                .is_some_and(|timeline| timeline.is_due(now))
            {
                let sample = self.sample()?;
                if let Some(timeline) = &mut self.timeline {
                    watch(&timeline.add(sample));
                }
            }
            self.keep_alive(now)?;
            for at in 0..self.running.len() {
                self.running[at].tick(now);
                self.send(at, now)?;
            }
            let sleep = timespec(self.sleep()?);
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            match epoll::wait(&self.epoll, room, Some(&sleep)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            for event in &events {
                let (number, flags) = (event.data.u64() as usize, event.flags);
                if matches!(event.data.u64(), Alarm::NUMBER | Bell::NUMBER) {
                    continue;
                }
                if let Err(error) = self.event(number, flags, &mut buffer, &mut answers) {
                    answers.clear();
                    self.lost(number, error)?;
                }
            }
        }
    }

    /// How long nothing has to be done by the clock.
    fn sleep(&mut self) -> Result<Duration, Error> {
        let due = self.running.iter().filter_map(Running::due);
        let ping = self
            .vigil
            .as_ref()
            .and_then(|vigil| Some(vigil.pace?.at(vigil.next)));
        let due = due
            .chain(ping)
            .chain(self.others.due())
            .chain(self.timeline.as_ref().map(Timeline::due));
        match due.min() {
            Some(due) => self.alarm.set(due, Instant::now()),
            None => Ok(TICK),
        }
    }

    #[inline]
    fn event(
        &mut self,
        number: usize,
        flags: epoll::EventFlags,
        buffer: &mut [u8],
        answers: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let Some(at) = self.bases[1..].iter().position(|end| number < *end) else {
            return self.idle(number, flags, buffer);
        };
        let connection = number - self.bases[at];
        let (running, wire) = (&mut self.running[at], &mut self.wires[number]);
        if flags.contains(epoll::EventFlags::OUT) && wire.writable(&self.epoll)? {
            running.unclogged(connection);
        }
        let vigil = &mut self.vigil;
        let now = Instant::now();
        let phase = self
            .cues
            .map_or(0, |cues| cues.phase.load(Ordering::Relaxed));
        let mut recorded = self
            .timeline
            .as_mut()
            .filter(|_| self.others.are_recorded(now))
            .map(|timeline| (&mut timeline.latency, &mut self.latency[phase]));
        let mut note = |took: Duration| {
            if let Some((moment, whole)) = &mut recorded {
                let ns = took.as_nanos() as u64;
                moment.saturating_record(ns);
                whole.saturating_record(ns);
            }
        };
        wire.receive(&self.epoll, buffer, |frame| {
            if frame.first == PINGRESP {
                if let Some(vigil) = vigil {
                    vigil.told.pongs += 1;
                }
                return Ok(());
            }
            running.packet(connection, frame, now, answers, &mut note)
        })?;
        if !answers.is_empty() {
            wire.send(&self.epoll, answers)?;
            answers.clear();
        }
        self.send(at, now)
    }

    /// Something for a connection of no flow.
    fn idle(
        &mut self,
        number: usize,
        flags: epoll::EventFlags,
        buffer: &mut [u8],
    ) -> Result<(), Error> {
        let wire = &mut self.wires[number];
        if flags.contains(epoll::EventFlags::OUT) {
            wire.writable(&self.epoll)?;
        }
        let vigil = &mut self.vigil;
        wire.receive(&self.epoll, buffer, |frame| {
            if let Some(vigil) = vigil.as_mut().filter(|_| frame.first == PINGRESP) {
                vigil.told.pongs += 1;
            }
            Ok(())
        })
    }

    #[inline]
    fn send(&mut self, at: usize, now: Instant) -> Result<(), Error> {
        let wires = &mut self.wires[self.bases[at]..self.bases[at + 1]];
        self.running[at].send(&self.epoll, wires, now, &mut self.left)
    }

    fn is_settled(&self) -> bool {
        self.running.iter().all(Running::is_settled)
    }

    pub(crate) fn sample(&self) -> Result<Sample, Error> {
        let published = self.running.iter().map(|one| one.published).sum();
        let delivered: u64 = self.running.iter().map(|one| one.delivered).sum();
        let (elsewhere, cpu) = self.others.carried();
        let own = Sample::take(self.plan.pid, published, delivered + elsewhere)?;
        Ok(Sample {
            elsewhere,
            own_cpu: own.own_cpu + cpu,
            ..own
        })
    }

    fn report(self, before: &Sample, after: &Sample) -> Report {
        let mut whole = histogram();
        for phase in &self.latency {
            // Both have the same bounds.
            let _ = whole.add(phase);
        }
        let ended = self.others.ended();
        let mut flows: Vec<FlowReport> = self.running.iter().map(FlowReport::of).collect();
        if let Some(shared_out) = flows.first_mut() {
            for done in ended {
                shared_out.delivered += done.delivered;
                shared_out.verdict += done.verdict;
            }
        }
        let moments = self.timeline.map(|timeline| timeline.moments);
        Report::new(
            self.plan,
            (before, after),
            &whole,
            flows,
            moments.unwrap_or_default(),
            ended,
        )
    }
}

/// Tells the messages of this run from those of others.
pub(crate) fn run_number() -> u32 {
    use std::hash::BuildHasher;
    std::collections::hash_map::RandomState::new().hash_one(std::process::id()) as u32
}
