//! ns per judgement: cached, after the epoch moved, from the table, denied.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use authcache::{Action, ChannelIndex, OnChannel, RightCache};
use benches::World;
use criterion::{Criterion, criterion_group, criterion_main};

struct Message(ChannelIndex);

impl OnChannel for Message {
    fn channel(&self) -> ChannelIndex {
        self.0
    }
}

fn permit(criterion: &mut Criterion) {
    let world = World::new(1000);
    let (gate, who) = (&world.gate, world.who);
    let mut group = criterion.benchmark_group("permit");
    group.bench_function("cached", |bencher| {
        let mut rights = RightCache::default();
        let channel = world.channels[0];
        bencher.iter(|| {
            let message = Message(black_box(channel));
            gate.permit(who, Action::Publish, &mut rights, message)
                .is_ok()
        });
    });
    group.bench_function("cache missed, table hit", |bencher| {
        let mut rights = RightCache::default();
        let mut channels = world.channels.iter().cycle();
        bencher.iter(|| {
            rights.clear();
            let message = Message(*channels.next().unwrap());
            gate.permit(who, Action::Publish, &mut rights, message)
                .is_ok()
        });
    });
    group.bench_function("table alone", |bencher| {
        let mut channels = world.channels.iter().cycle();
        bencher.iter(|| {
            let channel = *channels.next().unwrap();
            gate.allows(who, Action::Subscribe, channel).is_ok()
        });
    });
    group.finish();
}

criterion_group!(all, permit);
criterion_main!(all);
