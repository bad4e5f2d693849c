//! ns per packet: PUBLISH of 64 bytes on a topic of 77, by us and by mqttbytes, each into a buffer
//! that is there and large enough; and what two copies cost without any encoding.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use benches::{World, publishes};
use bytes::BytesMut;
use codec::mqtt::{Delivery, Packet, ProtocolVersion, PublishOut, decode, split_frame};
use criterion::{Criterion, criterion_group, criterion_main};

fn encode_publish(criterion: &mut Criterion) {
    let topic = World::topic(0, "");
    let bytes = publishes(ProtocolVersion::V311, &topic, 64, 1);
    let frame = split_frame(&bytes, u32::MAX).unwrap().unwrap();
    let Packet::Publish(publish) = decode(&frame, ProtocolVersion::V311).unwrap() else {
        unreachable!()
    };
    let mut group = criterion.benchmark_group("encode");
    let mut out = Vec::with_capacity(4096);
    for (name, version) in [("3.1.1", ProtocolVersion::V311), ("5", ProtocolVersion::V5)] {
        group.bench_function(format!("PUBLISH {name}"), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&publish).encode(version, &mut out);
                black_box(out.len())
            });
        });
    }
    let pieces = [publish.topic];
    let pieces = PublishOut {
        dup: false,
        retain: false,
        delivery: Delivery::AtMostOnce,
        topic: &pieces,
        topic_alias: None,
        message_expiry: None,
        subscription_identifiers: &[],
        forwarded: &[],
        payload: publish.payload,
    };
    for (name, version) in [("3.1.1", ProtocolVersion::V311), ("5", ProtocolVersion::V5)] {
        group.bench_function(format!("PUBLISH {name} of pieces"), |bencher| {
            bencher.iter(|| {
                out.clear();
                black_box(&pieces).encode(version, &mut out);
                black_box(out.len())
            });
        });
    }
    group.bench_function("topic and payload copied, nothing else", |bencher| {
        bencher.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(publish.topic).as_bytes());
            out.extend_from_slice(black_box(publish.payload));
            black_box(out.len())
        });
    });
    group.bench_function("run of 16, one copy", |bencher| {
        let run = bytes.repeat(16);
        bencher.iter(|| {
            out.clear();
            out.extend_from_slice(black_box(&run));
            black_box(out.len())
        });
    });
    let theirs = mqttbytes::v4::Publish::new(&topic, mqttbytes::QoS::AtMostOnce, vec![b'x'; 64]);
    let mut buffer = BytesMut::with_capacity(4096);
    group.bench_function("PUBLISH 3.1.1 mqttbytes", |bencher| {
        bencher.iter(|| {
            buffer.clear();
            black_box(&theirs).write(&mut buffer).unwrap();
            black_box(buffer.len())
        });
    });
    group.finish();
}

criterion_group!(all, encode_publish);
criterion_main!(all);
