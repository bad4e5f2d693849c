//! Threads that take steps of TLS handshakes, so that many of them at once hold up nobody who is
//! connected.
//!
//! A connection's TLS goes there with the bytes that its peer sent, and comes back with what is to
//! be answered; meanwhile the connection is not read. It has one step under way at most, so as many
//! are awaited as there are places for handshakes on all shards ([`SHAKING_MAX`]), each with at most
//! 32 KiB of its peer; when those are taken, the oldest gives its own up. Steps that were given up
//! are not taken, and at most as many of them wait as there are places.

use std::collections::VecDeque;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};

use crate::reactor::tls::{Broken, Tls};
use crate::reactor::{SHAKING_MAX, Waker};
use crate::shard::wires::Token;

/// A tenth of the weight of a shard's thread: under full load handshakes go on, slowly.
const NICENESS: i32 = 10;

/// The threads of a process.
#[derive(Debug)]
pub(crate) struct Shakers {
    queue: Arc<Queue>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Twice the steps that can be awaited: past it those go that are not.
    steps_max: usize,
}

#[derive(Debug, Default)]
struct State {
    steps: VecDeque<Step>,
    over: bool,
}

/// What is to be done for a connection.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) token: Token,
    pub(crate) work: Work,
    /// Whose it is.
    pub(crate) returns: Arc<Returns>,
}

/// A step by itself.
#[derive(Debug)]
pub(crate) struct Work {
    pub(crate) tls: Box<Tls>,
    /// What the peer sent.
    pub(crate) input: Vec<u8>,
    /// Gone with the connection.
    pub(crate) awaited: Weak<()>,
}

/// A step that was taken.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) token: Token,
    pub(crate) tls: Box<Tls>,
    /// What was sealed behind the handshake.
    pub(crate) plain: Vec<u8>,
    /// What is to be sent.
    pub(crate) answers: Vec<u8>,
    pub(crate) opened: Result<(), Broken>,
    /// Whether it ended in a fault of our own.
    pub(crate) panicked: bool,
}

/// Where a shard's steps come back.
#[derive(Debug)]
pub(crate) struct Returns {
    taken: Mutex<Vec<Taken>>,
    waker: Arc<Waker>,
}

impl Returns {
    pub(crate) fn new(waker: Arc<Waker>) -> Arc<Returns> {
        Arc::new(Returns {
            taken: Mutex::default(),
            waker,
        })
    }

    /// What has come back since.
    pub(crate) fn take(&self) -> Vec<Taken> {
        std::mem::take(&mut *self.taken.lock())
    }

    fn put(&self, taken: Taken) {
        let mut all = self.taken.lock();
        all.push(taken);
        let first = all.len() == 1;
        drop(all);
        if first {
            self.waker.wake();
        }
    }
}

impl Shakers {
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(threads: usize, shards: usize) -> io::Result<Arc<Shakers>> {
        let queue = Arc::new(Queue {
            state: Mutex::default(),
            changed: Condvar::new(),
            steps_max: 2 * shards * SHAKING_MAX,
        });
        let threads = (0..threads).map(|number| {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name(format!("shaker-{number}"))
                .spawn(move || {
                    // A shard that wakes goes first, also where both share a core. A process that
                    // may not ask for that is served nevertheless.
                    let own = rustix::thread::gettid();
                    let _ = rustix::process::setpriority_process(Some(own), NICENESS);
                    queue.work();
                })
        });
        Ok(Arc::new(Shakers {
            threads: threads.collect::<io::Result<_>>()?,
            queue,
        }))
    }

    pub(crate) fn send(&self, step: Step) {
        let mut state = self.queue.state.lock();
        state.steps.push_back(step);
        if state.steps.len() > self.queue.steps_max {
            state.steps.retain(Step::is_awaited);
        }
        drop(state);
        self.queue.changed.notify_one();
    }

    /// Steps that wait.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.queue.state.lock().steps.len()
    }
}

impl Drop for Shakers {
    /// Waits for the steps that are being taken; the others are for nobody any more.
    fn drop(&mut self) {
        let mut state = self.queue.state.lock();
        state.over = true;
        state.steps.clear();
        drop(state);
        self.queue.changed.notify_all();
        for thread in self.threads.drain(..) {
            // It catches what a step panics with.
            let _ = thread.join();
        }
    }
}

impl Queue {
    fn work(&self) {
        while let Some(step) = self.next() {
            let returns = Arc::clone(&step.returns);
            returns.put(step.take());
        }
    }

    fn next(&self) -> Option<Step> {
        let mut state = self.state.lock();
        loop {
            if state.over {
                return None;
            }
            while let Some(step) = state.steps.pop_front() {
                if step.is_awaited() {
                    return Some(step);
                }
            }
            self.changed.wait(&mut state);
        }
    }
}

impl Step {
    fn is_awaited(&self) -> bool {
        self.work.awaited.strong_count() > 0
    }

    fn take(self) -> Taken {
        let Work {
            mut tls, mut input, ..
        } = self.work;
        let (mut plain, mut answers) = (Vec::new(), Vec::new());
        let opened = catch_unwind(AssertUnwindSafe(|| {
            tls.open(&mut input, &mut plain, &mut answers)
        }));
        Taken {
            token: self.token,
            tls,
            plain,
            answers,
            panicked: opened.is_err(),
            opened: opened.unwrap_or(Err(Broken::Fault)),
        }
    }
}
