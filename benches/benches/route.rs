//! ns per message: from a channel and a subtopic to its subscribers.
#![allow(missing_docs)]

use std::hint::black_box;

use benches::World;
use criterion::{Criterion, criterion_group, criterion_main};
use router::Routed;

fn found(routed: &Routed<'_>) -> usize {
    match routed {
        Routed::Plain(entries) => entries.len(),
        Routed::Merged(merged) => merged.len(),
    }
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for subscribers in [1, 10, 500] {
        let world = World::new(1);
        let mut subs = world.subs();
        for slot in 0..subscribers {
            world.subscribe(&mut subs, 0, "#", slot);
        }
        let (channel, who) = (world.channels[0], world.who);
        group.bench_function(format!("{subscribers} on the whole channel"), |bencher| {
            bencher.iter(|| {
                let subtopic = black_box("press/4/temp");
                let gate = &world.gate;
                found(&subs.route(channel, None, subtopic, gate, |_| who))
            });
        });
    }
    for filters in [1, 16, 100] {
        let world = World::new(1);
        let mut subs = world.subs();
        for slot in 0..filters {
            world.subscribe(&mut subs, 0, &format!("press/{slot}/temp"), slot);
        }
        let (channel, who) = (world.channels[0], world.who);
        group.bench_function(format!("1 of {filters} filters"), |bencher| {
            bencher.iter(|| {
                let subtopic = black_box("press/0/temp");
                let gate = &world.gate;
                found(&subs.route(channel, None, subtopic, gate, |_| who))
            });
        });
    }
    group.finish();
}

criterion_group!(all, route);
criterion_main!(all);
