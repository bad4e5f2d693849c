//! ns per receive: bytes of a publisher through machine, gate and router into the subscriber's
//! out-buffer, without a kernel. Divide by the run's length for ns per message.
#![allow(missing_docs)]

use std::hint::black_box;

use benches::{World, publishes};
use codec::mqtt::ProtocolVersion;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use router::Routed;
use session::{OutBuffer, Step};

fn end_to_end(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("end_to_end");
    let cases = [
        ("whole channel", "#", ""),
        ("one of 100 filters", "press/0/temp", "press/0/temp"),
    ];
    for (version, version_name) in [(ProtocolVersion::V311, "3.1.1"), (ProtocolVersion::V5, "5")] {
        for (name, filter, subtopic) in cases {
            for count in [1, 16] {
                let world = World::new(1);
                let mut subs = world.subs();
                world.subscribe(&mut subs, 0, filter, 0);
                if !subtopic.is_empty() {
                    for slot in 1..100 {
                        world.subscribe(&mut subs, 0, &format!("press/{slot}/temp"), slot);
                    }
                }
                let mut publisher = world.publisher(version);
                let bytes = publishes(version, &World::topic(0, subtopic), 64, count);
                let (mut answers, mut out) = (Vec::new(), OutBuffer::default());
                let who = world.who;
                group.throughput(Throughput::Elements(count as u64));
                group.bench_function(format!("{version_name}, {name}, run of {count}"), |b| {
                    b.iter(|| {
                        out.clear();
                        let rules = world.rules();
                        let input = black_box(&bytes);
                        let (_, step) = publisher.machine().step(input, &rules, &mut answers);
                        let Step::Run(run) = step else {
                            unreachable!("a run")
                        };
                        let (channel, wild) = (run.address.channel, run.address.wild);
                        let routed =
                            subs.route(channel, wild, run.subtopic(), &world.gate, |_| who);
                        let found = match &routed {
                            Routed::Plain(entries) => entries.len(),
                            Routed::Merged(merged) => merged.len(),
                        };
                        for _ in 0..found {
                            out.mark(Some(channel));
                            out.bytes.extend_from_slice(run.frames);
                        }
                        black_box(out.bytes.len())
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(all, end_to_end);
criterion_main!(all);
