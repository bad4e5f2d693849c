//! The load generator against the broker: everything arrives once and in order.

use std::time::Duration;

use loadtest::{Login, Plan, QoS, Shape, Target, Version};

use crate::broker::Broker;

fn target(broker: &Broker) -> Target {
    let login = |number| {
        let client = broker.client(number);
        Login {
            username: client.username.unwrap(),
            password: client.password.unwrap(),
        }
    };
    Target {
        address: broker.address().parse().unwrap(),
        logins: vec![login(0), login(1)],
        topic_prefix: broker.topic("load"),
    }
}

#[test]
fn load_of_every_shape_version_and_qos_arrives_once_and_in_order() {
    let broker = Broker::start(&[]);
    for shape in [Shape::Pairs, Shape::FanIn, Shape::FanOut] {
        for version in [Version::V311, Version::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let usual = Plan::new(shape, target(&broker));
                let plan = Plan {
                    version,
                    qos,
                    publishers: usual.publishers.min(8),
                    subscribers: usual.subscribers.min(8),
                    burst: 4,
                    window: 8,
                    messages: Some(400),
                    ..usual
                };
                let report = loadtest::run(&plan).unwrap();
                assert!(report.verdict.is_clean(), "{report}");
                let each = plan.subscribers as u64 / plan.publishers.min(8) as u64;
                assert_eq!(report.delivered, report.published * each.max(1), "{report}");
            }
        }
    }
}

/// A burst is larger than what one receive takes, and nothing follows that would tell of the rest.
#[test]
fn burst_larger_than_the_read_buffer_arrives_whole() {
    let broker = Broker::start(&[]);
    for payload_bytes in [1000, 65_400, 65_536, 100_000] {
        let plan = Plan {
            publishers: 2,
            subscribers: 2,
            payload_bytes,
            burst: 6,
            window: 6,
            duration: Duration::from_secs(1),
            messages: Some(120),
            ..Plan::new(Shape::Pairs, target(&broker))
        };
        let report = loadtest::run(&plan).unwrap();
        assert!(report.verdict.is_clean(), "{report}");
    }
}
