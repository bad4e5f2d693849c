//! A shard's thread: drives the shard, and begins it anew when it has panicked.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use router::Subs;
use rustix::event::epoll;

use crate::ferry::{Dock, Ferry, own_descriptors};
use crate::reactor::admission::Admission;
use crate::reactor::coap::{Coap, CoapDoor};
use crate::reactor::listener::Listener;
use crate::reactor::shakers::Shakers;
use crate::reactor::tcp::{NetWires, Wire};
use crate::reactor::{Reactor, Waker};
use crate::shard::Shard;
use crate::shard::env::Env;
use crate::start::random;

/// What a shard's thread needs, first and at every new beginning.
pub(crate) struct ShardThread {
    pub(crate) env: Env<Wire>,
    pub(crate) incarnation: u64,
    pub(crate) sys_interval_s: u32,
    pub(crate) admission: Arc<Admission>,
    pub(crate) waker: Arc<Waker>,
    pub(crate) listeners: Vec<Listener>,
    /// Who takes steps of handshakes for it.
    pub(crate) shakers: Arc<Shakers>,
    /// The ends of the UDP listeners.
    pub(crate) doors: Vec<Arc<CoapDoor>>,
    /// Between two turns, where that pays.
    pub(crate) rest: Duration,
    pub(crate) start: Instant,
    /// There if the thread is to have a table of descriptors of its own.
    pub(crate) ferry: Option<Arc<Ferry>>,
}

/// Exit code of a process that cannot go on (sysexits: an internal software error).
const EX_SOFTWARE: i32 = 70;

/// Nanoseconds by which the kernel may let a shard's timers be late.
const TIMER_SLACK_NS: u64 = 1000;

impl ShardThread {
    /// Drives the shard until it has shut down.
    ///
    /// # Errors
    ///
    /// When epoll fails.
    pub(crate) fn run(self) -> io::Result<()> {
        let ShardThread {
            env,
            incarnation,
            sys_interval_s,
            admission,
            waker,
            listeners,
            shakers,
            doors,
            start,
            ferry,
            rest,
        } = self;
        if !rest.is_zero() {
            // A rest is about as short as what a timer may be late by otherwise.
            rustix::thread::set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS))?;
        }
        let (id, shared) = (env.id, Arc::clone(&env.shared));
        if ferry.is_some() {
            own_descriptors()?;
        }
        let dock = || {
            let ferry = ferry.as_ref().map(Arc::clone);
            ferry.map(|ferry| Dock::new(ferry, id.index()))
        };
        let subs = || {
            let (interest, groups) = (Arc::clone(&shared.interest), Arc::clone(&shared.groups));
            Subs::new(id, shared.shards(), interest, groups, random())
        };
        let coap = || {
            Coap::new(
                doors.clone(),
                &shared.limits,
                Arc::clone(&admission),
                random(),
                start,
            )
        };
        let epoll = new_epoll()?;
        let wires = NetWires::new(Arc::clone(&epoll), Arc::clone(&admission), coap(), dock());
        let shard = Shard::new(env, wires, subs(), incarnation, sys_interval_s);
        let new_reactor = |shard, epoll, listeners| {
            let (waker, shakers) = (Arc::clone(&waker), Arc::clone(&shakers));
            Reactor::new(shard, epoll, waker, listeners, shakers, rest, start)
        };
        let mut reactor = new_reactor(shard, epoll, listeners)?;
        loop {
            if let Ok(ended) = catch_unwind(AssertUnwindSafe(|| reactor.run())) {
                return ended;
            }
            // Its connections close and its sessions are lost; the others know nothing of it.
            let (shard, listeners) = reactor.into_parts();
            let begun = catch_unwind(AssertUnwindSafe(|| -> io::Result<Reactor> {
                let remains = shard.abandon();
                let epoll = new_epoll()?;
                let wires =
                    NetWires::new(Arc::clone(&epoll), Arc::clone(&admission), coap(), dock());
                let shard = Shard::anew(remains, wires, subs(), random());
                new_reactor(shard, epoll, listeners)
            }));
            shared.counters[id.index()].panics.add(1);
            reactor = match begun {
                Ok(begun) => begun?,
                Err(_) => {
                    tracing::error!(shard = id.index(), "a shard cannot begin anew");
                    std::process::exit(EX_SOFTWARE);
                }
            };
            tracing::error!(
                shard = id.index(),
                "a shard panicked: its connections are closed and its sessions lost"
            );
        }
    }
}

fn new_epoll() -> io::Result<Arc<OwnedFd>> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    Ok(Arc::new(epoll))
}
