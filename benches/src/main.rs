//! One stage, so many times: `docs/performance/instructions.sh` counts its instructions from two
//! runs of different length under callgrind.

#![forbid(unsafe_code)]

use std::hint::black_box;
use std::process::ExitCode;

use authcache::{Action, ChannelIndex, OnChannel, RightCache};
use benches::{World, publishes};
use bytes::BytesMut;
use codec::mqtt::{
    Delivery, Packet, ProtocolVersion, Publish, PublishOut, decode, publish_head, split_frame,
};
use router::{Routed, TopicLimits, parse_topic};

const STAGES: &str = "frame-walk, decode-3.1.1, decode-5, decode-mqttbytes, refill-mqttbytes, \
    encode-3.1.1, encode-5, pieces-3.1.1, pieces-5, encode-mqttbytes, encode-copies, topic-ids, \
    topic-subtopic, topic-routes, permit-cached, permit-table, route-whole, route-1, route-16, \
    route-16-plus, route-100";

/// Packets in a buffer that is consumed.
const MANY: usize = 64;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let stage = arguments.next().unwrap_or_default();
    let times = arguments.next().and_then(|times| times.parse().ok());
    match times {
        Some(times)
            if decoding(&stage, times)
                | encoding(&stage, times)
                | permitting(&stage, times)
                | routing(&stage, times) =>
        {
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("expected a stage and how many times; stages: {STAGES}");
            ExitCode::FAILURE
        }
    }
}

fn repeat(times: usize, mut once: impl FnMut()) -> bool {
    for _ in 0..times {
        once();
    }
    true
}

/// A PUBLISH of 64 bytes on a topic of 77.
fn packet(version: ProtocolVersion) -> Vec<u8> {
    publishes(version, &World::topic(0, ""), 64, 1)
}

fn decode_publish(bytes: &[u8], version: ProtocolVersion) -> Option<Publish<'_>> {
    let frame = split_frame(bytes, u32::MAX).ok()??;
    match decode(&frame, version) {
        Ok(Packet::Publish(publish)) => Some(publish),
        _ => None,
    }
}

fn decoding(stage: &str, times: usize) -> bool {
    let one = |version| {
        let bytes = packet(version);
        repeat(times, || {
            black_box(&decode_publish(black_box(&bytes), version));
        })
    };
    let many = packet(ProtocolVersion::V311).repeat(MANY);
    match stage {
        "frame-walk" => {
            let bytes = packet(ProtocolVersion::V311);
            repeat(times, || {
                let frame = split_frame(black_box(&bytes), u32::MAX);
                black_box(frame.ok().flatten().and_then(|frame| publish_head(&frame)));
            })
        }
        "decode-3.1.1" => one(ProtocolVersion::V311),
        "decode-5" => one(ProtocolVersion::V5),
        "decode-mqttbytes" => repeat(times / MANY, || {
            let mut stream = BytesMut::from(&many[..]);
            for _ in 0..MANY {
                black_box(&mqttbytes::v4::read(&mut stream, usize::MAX));
            }
        }),
        "refill-mqttbytes" => repeat(times / MANY, || {
            black_box(BytesMut::from(&many[..]));
        }),
        _ => false,
    }
}

fn encoding(stage: &str, times: usize) -> bool {
    let bytes = packet(ProtocolVersion::V311);
    let Some(publish) = decode_publish(&bytes, ProtocolVersion::V311) else {
        return false;
    };
    let topic = [publish.topic];
    let pieces = PublishOut {
        dup: false,
        retain: false,
        delivery: Delivery::AtMostOnce,
        topic: &topic,
        topic_alias: None,
        message_expiry: None,
        subscription_identifiers: &[],
        forwarded: &[],
        payload: publish.payload,
    };
    let mut out = Vec::with_capacity(4096);
    let mut into = |write: &dyn Fn(&mut Vec<u8>)| {
        repeat(times, || {
            out.clear();
            write(&mut out);
            black_box(out.len());
        })
    };
    match stage {
        "encode-3.1.1" => into(&|out| black_box(&publish).encode(ProtocolVersion::V311, out)),
        "encode-5" => into(&|out| black_box(&publish).encode(ProtocolVersion::V5, out)),
        "pieces-3.1.1" => into(&|out| black_box(&pieces).encode(ProtocolVersion::V311, out)),
        "pieces-5" => into(&|out| black_box(&pieces).encode(ProtocolVersion::V5, out)),
        "encode-copies" => into(&|out| {
            out.extend_from_slice(black_box(publish.topic).as_bytes());
            out.extend_from_slice(black_box(publish.payload));
        }),
        "encode-mqttbytes" => {
            let at_most_once = mqttbytes::QoS::AtMostOnce;
            let theirs = mqttbytes::v4::Publish::new(publish.topic, at_most_once, publish.payload);
            let mut out = BytesMut::with_capacity(4096);
            let write: &dyn Fn(&mut BytesMut) = &|out| {
                let _ = black_box(&theirs).write(out);
            };
            repeat(times, || {
                out.clear();
                write(&mut out);
                black_box(out.len());
            })
        }
        _ => false,
    }
}

/// What is judged.
struct Message(ChannelIndex);

impl OnChannel for Message {
    fn channel(&self) -> ChannelIndex {
        self.0
    }
}

fn permitting(stage: &str, times: usize) -> bool {
    let permit = |keeps: bool| {
        let world = World::new(1);
        let mut rights = RightCache::default();
        repeat(times, || {
            if !keeps {
                rights.clear();
            }
            let message = Message(black_box(world.channels[0]));
            let permitted = world
                .gate
                .permit(world.who, Action::Publish, &mut rights, message);
            black_box(permitted.is_ok());
        })
    };
    match stage {
        "permit-cached" => permit(true),
        "permit-table" => permit(false),
        _ => false,
    }
}

fn routing(stage: &str, times: usize) -> bool {
    let parse = |topic: &str| {
        let limits = TopicLimits::default();
        repeat(times, || {
            let _ = black_box(parse_topic(black_box(topic), &limits));
        })
    };
    let route = |count: u32, filter: &dyn Fn(u32) -> String| {
        let world = World::new(1);
        let mut subs = world.subs();
        for slot in 0..count {
            world.subscribe(&mut subs, 0, &filter(slot), slot);
        }
        let (channel, who) = (world.channels[0], world.who);
        repeat(times, || {
            let subtopic = black_box("press/0/temp");
            let routed = subs.route(channel, None, subtopic, &world.gate, |_| who);
            black_box(match routed {
                Routed::Plain(entries) => entries.len(),
                Routed::Merged(merged) => merged.len(),
            });
        })
    };
    let exact = |slot| format!("press/{slot}/temp");
    match stage {
        "topic-ids" => parse(&World::topic(0, "")),
        "topic-subtopic" => parse(&World::topic(0, "press/4/temp")),
        "topic-routes" => parse("m/plant/c/line-4/press/4/temp"),
        "route-whole" => route(1, &|_| "#".to_owned()),
        "route-1" => route(1, &exact),
        "route-16" => route(16, &exact),
        "route-16-plus" => route(16, &|slot| format!("+/{slot}/temp")),
        "route-100" => route(100, &exact),
        _ => false,
    }
}
