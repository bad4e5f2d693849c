//! ns per packet: PUBLISH of 64 bytes on a topic of 77, by us and by mqttbytes.
//!
//! Both are given a whole packet in a buffer, and what they make of it is looked at and dropped:
//! slices of the buffer here; a copy of the topic and a counted share of the buffer there.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use benches::{World, publishes};
use bytes::BytesMut;
use codec::mqtt::{Packet, ProtocolVersion, decode, publish_head, split_frame};
use criterion::{Criterion, criterion_group, criterion_main};

fn decode_publish(criterion: &mut Criterion) {
    let topic = World::topic(0, "");
    let v311 = publishes(ProtocolVersion::V311, &topic, 64, 1);
    let v5 = publishes(ProtocolVersion::V5, &topic, 64, 1);
    let mut group = criterion.benchmark_group("decode");
    group.bench_function("frame walk", |bencher| {
        bencher.iter(|| {
            let frame = split_frame(black_box(&v311), u32::MAX).unwrap().unwrap();
            publish_head(&frame).unwrap().topic_end
        });
    });
    for (name, version, bytes) in [
        ("3.1.1", ProtocolVersion::V311, &v311),
        ("5", ProtocolVersion::V5, &v5),
    ] {
        group.bench_function(format!("PUBLISH {name}"), |bencher| {
            bencher.iter(|| {
                let frame = split_frame(black_box(bytes), u32::MAX).unwrap().unwrap();
                let Ok(Packet::Publish(publish)) = decode(&frame, version) else {
                    unreachable!()
                };
                black_box(&publish);
            });
        });
    }
    // It consumes its input: a buffer of many packets is refilled outside the measurement.
    group.bench_function("PUBLISH 3.1.1 mqttbytes, 64 packets", |bencher| {
        let many = v311.repeat(64);
        bencher.iter_batched(
            || BytesMut::from(&many[..]),
            |mut stream| {
                for _ in 0..64 {
                    let Ok(mqttbytes::v4::Packet::Publish(publish)) =
                        mqttbytes::v4::read(&mut stream, usize::MAX)
                    else {
                        unreachable!()
                    };
                    black_box(&publish);
                }
            },
            criterion::BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group!(all, decode_publish);
criterion_main!(all);
