//! One flow whose subscribers are in several processes: what this process sends, workers hear too,
//! check as it does, and tell how far they are, so that its window and its rates count them.

use std::io::Write;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fd::OwnedFd;
use serde::{Deserialize, Serialize};

use crate::dial::{KEEP_ALIVE_S, TOGETHER};
use crate::error::Error;
use crate::flow::{Running, Share};
use crate::frames::TIMED_PAYLOAD_MIN;
use crate::limits;
use crate::load::{Load, carry_out, run_number, run_watched};
use crate::measure::own_cpu;
use crate::pace::Clock;
use crate::plan::{Audience, Flow, Plan};
use crate::report::Report;
use crate::squad::Squad;
use crate::timeline::Moment;
use crate::worker::{Command, Commands, Done, Hearing, Order, Told, say};

/// As [`run_watched`], with the subscribers of a flow to all of them shared out among `processes`
/// (`None` for as many as descriptors demand). This process holds the publishers and the first
/// part; `program` with the arguments `loadtest worker` holds each other part.
///
/// # Errors
/// As [`run_watched`], or a process failed.
pub fn run_in_processes(
    plan: &Plan,
    processes: Option<usize>,
    program: &Path,
    watch: &mut dyn FnMut(&Moment),
) -> Result<Report, Error> {
    plan.check()?;
    let [flow] = &plan.flows[..] else {
        return Err(Error::Plan("one flow is shared out, and no more".into()));
    };
    let parts = parts(flow, processes)?;
    if parts.len() == 1 {
        return run_watched(plan, watch);
    }
    check(flow)?;
    let run = run_number();
    let own = own_part(plan, flow, parts[0]);
    let share = Share::Sent {
        run,
        elsewhere: flow.subscribers - parts[0],
    };
    let connect = || -> Result<Load<'_>, Error> {
        let mut load = Load::connect(&own, 1, share)?;
        let orders = orders(plan, flow, &parts, run);
        load.join(Others::Hearers(Crowd::connect(program, orders)?))?;
        Ok(load)
    };
    let loopback = plan.target.endpoint.address.ip().is_loopback();
    let missing = limits::missing(flow.connections(), parts.len(), loopback);
    let load = connect().map_err(|error| limits::explained(error, &missing))?;
    carry_out(&own, load, watch)
}

/// # Errors
/// The flow cannot be heard in several processes.
fn check(flow: &Flow) -> Result<(), Error> {
    let fault = if flow.audience != Audience::All {
        "only a flow to all its subscribers can be heard in several processes".into()
    } else if flow.payload_bytes < TIMED_PAYLOAD_MIN {
        format!(
            "in several processes a payload tells when it was sent, and needs {TIMED_PAYLOAD_MIN} \
             bytes"
        )
    } else {
        return Ok(());
    };
    Err(Error::Plan(format!("{}: {fault}", flow.name)))
}

/// How many subscribers each process holds; the first holds the publishers as well.
fn parts(flow: &Flow, processes: Option<usize>) -> Result<Vec<usize>, Error> {
    if processes == Some(0) {
        return Err(Error::Plan("there has to be 1 process at least".into()));
    }
    let most = limits::per_process()?
        .saturating_sub(flow.publishers)
        .max(1);
    let processes = processes.unwrap_or(flow.subscribers.div_ceil(most));
    let each = flow.subscribers.div_ceil(processes);
    let firsts = (0..flow.subscribers).step_by(each);
    Ok(firsts
        .map(|first| each.min(flow.subscribers - first))
        .collect())
}

/// What this process does: all publishers, and the first subscribers.
fn own_part(plan: &Plan, flow: &Flow, subscribers: usize) -> Plan {
    let mut own = plan.clone();
    own.flows = vec![Flow {
        subscribers,
        ..flow.clone()
    }];
    let target = &plan.target;
    own.target.logins = target.logins_of(0..subscribers);
    let publishers = target.logins_of(flow.subscribers..flow.connections());
    own.target.logins.extend(publishers);
    own
}

/// What the workers do: each part but the first.
fn orders(plan: &Plan, flow: &Flow, parts: &[usize], run: u32) -> Vec<Order> {
    let target = &plan.target;
    let mut first = parts[0];
    let order = |subscribers: &usize| {
        let order = Order {
            broker: target.endpoint.source.0.clone(),
            tls: target.endpoint.source.1.clone(),
            logins: target.logins_of(first..first + subscribers),
            prefixes: target.prefixes.clone(),
            first_serial: target.first_serial + flow.publishers + first,
            stride: 0,
            v5: flow.version.is_v5(),
            qos: flow.qos.as_u8(),
            devices: *subscribers,
            publishers: flow.publishers,
            payload_bytes: flow.payload_bytes,
            keep_alive: KEEP_ALIVE_S,
            hears: Some(Hearing {
                run,
                topics: flow.topics,
                burst: flow.burst,
                filters: flow.filters,
                strict: plan.strict,
            }),
        };
        first += subscribers;
        order
    };
    parts[1..].iter().map(order).collect()
}

/// Other processes that carry a part of a load's first flow.
pub(crate) enum Others<'p> {
    /// There are none.
    Nobody,
    /// They hear what this one sends.
    Hearers(Crowd),
    /// It sends what this one hears.
    Sender(Sender<'p>),
}

impl Others<'_> {
    /// Lets `epoll` wake when they say something.
    ///
    /// # Errors
    /// The system refuses.
    pub(crate) fn wake(&self, epoll: &OwnedFd) -> Result<(), Error> {
        match self {
            Others::Nobody => Ok(()),
            Others::Hearers(crowd) => crowd.squad.bell().wake(epoll),
            Others::Sender(sender) => sender.commands.bell().wake(epoll),
        }
    }

    /// Tells those who hear what to do.
    ///
    /// # Errors
    /// One of them is gone.
    pub(crate) fn tell(&mut self, command: &Command) -> Result<(), Error> {
        match self {
            Others::Hearers(crowd) => crowd.squad.tell(|_| command.clone()),
            Others::Nobody | Others::Sender(_) => Ok(()),
        }
    }

    /// When something has to be told.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self {
            Others::Sender(sender) if sender.is_behind => Some(sender.told + TELL_EVERY),
            Others::Nobody | Others::Hearers(_) | Others::Sender(_) => None,
        }
    }

    /// Deliveries and CPU time that hearers have told of.
    pub(crate) fn carried(&self) -> (u64, Duration) {
        let Others::Hearers(crowd) = self else {
            return (0, Duration::ZERO);
        };
        let us = crowd.carried.iter().map(|one| one.own_cpu_us).sum();
        let delivered = crowd.carried.iter().map(|one| one.delivered).sum();
        (delivered, Duration::from_micros(us))
    }

    /// Whether all who hear know when to record.
    pub(crate) fn know_their_window(&self) -> bool {
        match self {
            Others::Hearers(crowd) => crowd.carried.iter().all(|one| one.knows_window),
            Others::Nobody | Others::Sender(_) => true,
        }
    }

    /// Whether a sender wants that recorded which arrives `now`.
    #[inline]
    pub(crate) fn are_recorded(&self, now: Instant) -> bool {
        match self {
            Others::Sender(sender) => sender.window.contains(&sender.clock.ns(now)),
            Others::Nobody | Others::Hearers(_) => true,
        }
    }

    /// Ends the hearers, who then judge by what was `sent` on each stream.
    ///
    /// # Errors
    /// One of them failed.
    pub(crate) fn end(&mut self, sent: impl Fn() -> Vec<u64>) -> Result<(), Error> {
        if let Others::Hearers(crowd) = self {
            let end = |_| Command::End { sent: sent() };
            crowd.ended = crowd
                .squad
                .carry_out(end, Duration::ZERO, &mut |_| Ok(()))?;
        }
        Ok(())
    }

    /// What came out at each hearer, after the end.
    pub(crate) fn ended(&self) -> &[Done] {
        match self {
            Others::Hearers(crowd) => &crowd.ended,
            Others::Nobody | Others::Sender(_) => &[],
        }
    }
}

/// What a worker has heard so far.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Carried {
    /// Deliveries of each publisher that came, were passed over or given up.
    settled: Vec<u64>,
    delivered: u64,
    /// CPU time of its process, in us.
    own_cpu_us: u64,
    /// It knows when to record.
    knows_window: bool,
}

/// The workers that hear, seen from the process that sends.
pub(crate) struct Crowd {
    squad: Squad,
    /// The last word of each.
    carried: Vec<Carried>,
    ended: Vec<Done>,
}

impl Crowd {
    /// Starts them and lets them subscribe.
    fn connect(program: &Path, orders: Vec<Order>) -> Result<Crowd, Error> {
        let carried = vec![Carried::default(); orders.len()];
        let together = (TOGETHER / orders.len()).max(1);
        let mut squad = Squad::start(program, orders)?;
        let connect = |_| Command::Connect {
            together,
            per_s: None,
        };
        squad.carry_out(connect, Duration::ZERO, &mut |_| Ok(()))?;
        squad.tell(|_| Command::Hear)?;
        Ok(Crowd {
            squad,
            carried,
            ended: Vec::new(),
        })
    }

    /// Takes in what they say.
    ///
    /// # Errors
    /// One of them failed.
    pub(crate) fn listen(&mut self, running: &mut Running<'_>) -> Result<(), Error> {
        while let Some((number, told)) = self.squad.heard()? {
            let Told::Carried(now) = told else { continue };
            let before = std::mem::replace(&mut self.carried[number], now);
            for (publisher, now) in self.carried[number].settled.iter().enumerate() {
                let before = before.settled.get(publisher).copied().unwrap_or(0);
                running.settled_elsewhere(publisher, now.saturating_sub(before));
            }
        }
        Ok(())
    }
}

/// The process that sends, seen from a worker that hears.
pub(crate) struct Sender<'p> {
    commands: &'p Commands,
    output: &'p mut dyn Write,
    /// When it was last told how far this one is.
    told: Instant,
    delivered: u64,
    clock: Clock,
    /// When is recorded, in ns by the clock; empty before that is known.
    window: Range<u64>,
    /// Something besides deliveries is to be told.
    is_changed: bool,
    /// There is something to tell.
    is_behind: bool,
}

/// Between two words about how far one is.
const TELL_EVERY: Duration = Duration::from_millis(1);

impl<'p> Sender<'p> {
    pub(crate) fn new(commands: &'p Commands, output: &'p mut dyn Write) -> Sender<'p> {
        Sender {
            commands,
            output,
            told: Instant::now(),
            delivered: 0,
            clock: Clock::new(),
            window: 0..0,
            is_changed: false,
            is_behind: false,
        }
    }

    /// What it wants; `None` if there is nothing new.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn heard(&self) -> Result<Option<Command>, Error> {
        self.commands.heard()
    }

    /// Something was settled without a delivery.
    pub(crate) fn gave_up(&mut self) {
        self.is_changed = true;
    }

    /// Latencies are recorded in this `window`.
    pub(crate) fn records(&mut self, window: Range<u64>) {
        self.window = window;
        self.is_changed = true;
    }

    /// Tells it how far this one is, if that is new and a while has passed.
    ///
    /// # Errors
    /// It is gone.
    pub(crate) fn tell(&mut self, now: Instant, running: &Running<'_>) -> Result<(), Error> {
        self.is_behind = self.is_changed || running.delivered != self.delivered;
        if !self.is_behind || now < self.told + TELL_EVERY {
            return Ok(());
        }
        self.told = now;
        self.delivered = running.delivered;
        self.is_changed = false;
        self.is_behind = false;
        let carried = Carried {
            settled: running.settled(),
            delivered: running.delivered,
            own_cpu_us: own_cpu().as_micros() as u64,
            knows_window: !self.window.is_empty(),
        };
        say(self.output, &Told::Carried(carried))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::Endpoint;
    use crate::target::{Login, Target};

    fn plan(subscribers: usize, logins: usize) -> Plan {
        let login = |at| Login {
            username: format!("id-{at}"),
            password: String::new(),
            client_id: None,
        };
        let endpoint = Endpoint::tcp(([127, 0, 0, 1], 1).into());
        let target = Target {
            logins: (0..logins).map(login).collect(),
            ..Target::anonymous(endpoint, "t")
        };
        Plan::new(Flow::fan_out(subscribers), target)
    }

    #[test]
    fn few_subscribers_stay_in_one_process_and_many_are_shared_out_whole() {
        let parts = |count, processes| parts(&Flow::fan_out(count), processes).unwrap();
        assert_eq!(parts(500, None), [500]);
        assert_eq!(parts(5, Some(2)), [3, 2]);
        assert_eq!(parts(2, Some(5)), [1, 1], "none without a subscriber");
        let many = parts(100_000, None);
        assert_eq!(many.iter().sum::<usize>(), 100_000);
        let most = limits::per_process().unwrap();
        assert!(many.iter().all(|part| *part < most), "{many:?}");
        assert!(super::parts(&Flow::fan_out(1), Some(0)).is_err());
    }

    #[test]
    fn each_subscriber_has_its_own_login_and_serial_number_in_whatever_process() {
        let plan = plan(5, 6);
        let flow = &plan.flows[0];
        let names = |logins: &[Login]| -> Vec<String> {
            logins.iter().map(|login| login.username.clone()).collect()
        };
        let own = own_part(&plan, flow, 2);
        assert_eq!(names(&own.target.logins), ["id-0", "id-1", "id-5"]);
        assert_eq!(own.flows[0].subscribers, 2);
        let orders = orders(&plan, flow, &[2, 2, 1], 7);
        assert_eq!(names(&orders[0].logins), ["id-2", "id-3"]);
        assert_eq!(names(&orders[1].logins), ["id-4"]);
        let serials: Vec<usize> = orders.iter().map(|order| order.first_serial).collect();
        assert_eq!(serials, [3, 5], "behind the three connections of this one");
    }

    #[test]
    fn what_cannot_be_heard_in_several_processes_is_refused() {
        let program = Path::new("/nowhere");
        let mut short = plan(4, 0);
        short.flows[0].payload_bytes = 16;
        let run = |plan: &Plan| run_in_processes(plan, Some(2), program, &mut |_| {});
        assert!(run(&short).unwrap_err().to_string().contains("24 bytes"));
        let mut pairs = plan(4, 0);
        pairs.flows = vec![Flow::pairs(4)];
        assert!(run(&pairs).unwrap_err().to_string().contains("all its"));
    }
}
