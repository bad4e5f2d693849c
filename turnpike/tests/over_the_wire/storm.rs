//! A thousand connections that want the same few sessions, over real sockets and two shards.

use std::sync::Barrier;

use codec::mqtt::{ConnectProperties, ProtocolVersion, QoS};

use crate::broker::Broker;
use crate::client::{Client, Got, Options, will};

/// Connections in all, and the sessions they fight for.
const CLIENTS: usize = 1000;
const SESSIONS: usize = 50;
const THREADS: usize = 8;

#[test]
fn takeover_storm_leaves_one_owner_for_each_session_and_loses_no_will() {
    let broker = Broker::start(&[]);
    let (mut watcher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    watcher.subscribe(&broker.topic("storm/#"), QoS::AtLeastOnce);
    let credentials = broker.client(0);
    let start = Barrier::new(THREADS);
    let mut held: Vec<(String, Client)> = std::thread::scope(|scope| {
        let storms: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (broker, credentials, start) = (&broker, &credentials, &start);
                scope.spawn(move || {
                    start.wait();
                    let mut held = Vec::new();
                    for number in (thread..CLIENTS).step_by(THREADS) {
                        let client_id = format!("storm-{}", number % SESSIONS);
                        let topic = broker.topic("storm/will");
                        let payload = number.to_string();
                        let options = Options {
                            version: ProtocolVersion::V5,
                            client_id: &client_id,
                            clean_start: number % 3 == 0,
                            properties: ConnectProperties {
                                session_expiry: if number % 2 == 0 { 300 } else { 0 },
                                ..ConnectProperties::default()
                            },
                            will: Some(will(&topic, payload.as_bytes(), QoS::AtLeastOnce, 0)),
                            keep_alive: 60,
                        };
                        let (client, _) = Client::connect(broker.address(), credentials, &options);
                        held.push((client_id, client));
                    }
                    held
                })
            })
            .collect();
        storms
            .into_iter()
            .flat_map(|storm| storm.join().unwrap())
            .collect()
    });
    // Every connection but the last of its session was told, or closed; none is left hanging.
    let mut owners = vec![0; SESSIONS];
    let mut ended = Vec::new();
    for (client_id, client) in &mut held {
        let session: usize = client_id.rsplit('-').next().unwrap().parse().unwrap();
        match client.alive() {
            true => owners[session] += 1,
            false => ended.push(session),
        }
    }
    assert!(owners.iter().all(|owners| *owners == 1), "{owners:?}");
    assert_eq!(ended.len(), CLIENTS - SESSIONS);
    // Each ended connection's will was sent, once.
    let mut wills: Vec<u32> = (0..CLIENTS - SESSIONS)
        .map(|_| watcher.payload().parse().unwrap())
        .collect();
    wills.sort_unstable();
    wills.dedup();
    assert_eq!(wills.len(), CLIENTS - SESSIONS);
    let rest = watcher.ping();
    assert!(
        !rest.iter().any(|got| matches!(got, Got::Publish(_))),
        "{rest:?}"
    );
}
