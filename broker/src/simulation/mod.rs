//! The whole broker in one thread, from one seed.
//!
//! Shards, inboxes, link and leader are the shipped ones; wires, clients, control's database and
//! time are models. A scheduler picks who acts next, so that a failing seed fails again.
//! `TURNPIKE_SEED=<n>` runs one seed and tells its story, `TURNPIKE_SEEDS=<n>` runs so many.

mod actors;
mod bounds;
mod broker;
mod client;
mod conversation;
mod database;
mod deliveries;
mod dice;
mod finish;
mod invariants;
mod leases;
mod ledger;
mod long_lists;
mod net;
mod panics;
mod probe;
mod queues;
mod scenes;
mod stage;
mod watch;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use world::World;

fn run(seed: u64, trace: bool) {
    let mut world = World::new(seed, trace);
    let played = catch_unwind(AssertUnwindSafe(|| {
        for _ in 0..world.shape.steps {
            world.step();
        }
        world.quiesce();
    }));
    if let Err(fault) = played {
        if trace {
            // Alone it is told whole.
            let lines = number("TURNPIKE_SEED").map_or(400, |_| usize::MAX);
            eprintln!("{}\n{:?}", world.story(lines), world.shape);
            eprintln!("seed {seed} fails; run it alone with TURNPIKE_SEED={seed}");
        }
        resume_unwind(fault);
    }
}

/// Runs a seed; a failing one once more, to tell what happened.
fn play(seed: u64) {
    if let Err(fault) = catch_unwind(|| run(seed, false)) {
        run(seed, true);
        eprintln!("seed {seed} does not fail again: something in it is left to chance");
        resume_unwind(fault);
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Seeds that once failed, by now perhaps for other reasons than then.
const FORMER: [u64; 12] = [
    513, 726, 834, 1343, 1712, 1893, 2139, 2487, 2674, 6230, 11630, 22524,
];

#[test]
fn seeds_that_failed_once_keep_every_promise() {
    for seed in FORMER {
        play(seed);
    }
}

#[test]
fn seeds_keep_every_promise() {
    if let Some(seed) = number("TURNPIKE_SEED") {
        return run(seed, true);
    }
    for seed in 0..number("TURNPIKE_SEEDS").unwrap_or(1_000) {
        play(seed);
    }
}

#[test]
fn seed_tells_the_same_story_each_time() {
    for seed in 0..20 {
        let story = || {
            let mut world = World::new(seed, true);
            for _ in 0..world.shape.steps {
                world.step();
            }
            world.quiesce();
            world.story(usize::MAX)
        };
        assert_eq!(
            story(),
            story(),
            "something in seed {seed} is left to chance"
        );
    }
}
