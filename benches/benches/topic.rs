//! ns per topic: a name that the connection has not used before, taken apart.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use benches::World;
use criterion::{Criterion, criterion_group, criterion_main};
use router::{TopicLimits, parse_topic};

fn topic(criterion: &mut Criterion) {
    let limits = TopicLimits::default();
    let mut group = criterion.benchmark_group("topic");
    for (name, topic) in [
        ("two ids", World::topic(0, "")),
        ("two ids, subtopic of 12", World::topic(0, "press/4/temp")),
        ("two routes", "m/plant/c/line-4/press/4/temp".to_owned()),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| black_box(parse_topic(black_box(&topic), &limits).unwrap()));
        });
    }
    group.finish();
}

criterion_group!(all, topic);
criterion_main!(all);
