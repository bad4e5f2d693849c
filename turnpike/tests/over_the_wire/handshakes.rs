//! More handshakes at once than a turn takes.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use codec::mqtt::QoS;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

use crate::broker::Broker;
use crate::client::{Client, Options, tcp};
use crate::tls::{Authority, BOTH, config};
use crate::websocket::{MQTT, WebSocket};

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A connection whose hello is sent.
pub(crate) fn hello(broker: &Broker, authority: &Authority, door: &str, number: usize) -> Tls {
    let versions = &BOTH[number % 2..=number % 2];
    let name = ServerName::try_from("localhost").unwrap();
    let config = Arc::new(config(authority, None, versions));
    let mut connection = ClientConnection::new(config, name).unwrap();
    let mut socket = tcp(broker.listener(door));
    while connection.wants_write() {
        connection.write_tls(&mut socket).unwrap();
    }
    StreamOwned::new(connection, socket)
}

#[test]
fn storm_of_handshakes_is_served_beside_the_shards_and_faults_in_it_harm_nobody() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "server", "localhost");
    let doors = ["mqtts", "wss"].map(|door| {
        let pair = "certificate = \"server.pem\"\nkey = \"server.key\"\n";
        format!("[listeners.{door}]\n{pair}")
    });
    fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    let broker = Broker::configured(folder, &doors.concat());
    let topic = broker.topic("storm");
    let (mut watcher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    watcher.subscribe(&topic, QoS::AtMostOnce);

    // While the process stands still the hellos gather, so that one turn meets them all.
    broker.signal("STOP");
    let mut storm: Vec<(usize, Tls)> = (0..96)
        .map(|number| {
            let door = ["mqtts", "wss"][number / 2 % 2];
            (number, hello(&broker, &authority, door, number))
        })
        .collect();
    let mut broken: Vec<(usize, Tls)> = storm.split_off(64);
    for (number, tls) in &mut broken {
        // Some are gone before they are answered, others send what is no TLS.
        if *number % 2 == 0 {
            tls.sock.write_all(&[0x55; 100]).unwrap();
        }
    }
    broken.retain(|(number, _)| number % 2 == 0);
    broker.signal("CONT");

    for (number, tls) in storm {
        let options = &Options::default();
        let mut client = if number / 2 % 2 == 0 {
            Client::connect_over(tls, &broker.client(0), options)
        } else {
            let stream = WebSocket::open(tls, "/mqtt", MQTT);
            Client::connect_over(stream, &broker.client(0), options)
        };
        let payload = number.to_string();
        client.publish(&topic, payload.as_bytes(), QoS::AtLeastOnce, false);
        assert_eq!(watcher.payload(), payload);
    }
    for (_, tls) in &mut broken {
        // An alert behind the answer to the hello, then the end.
        let _ = tls.sock.read_to_end(&mut Vec::new());
    }
    let metrics = broker.metrics();
    let elsewhere = "turnpike_handshake_steps_elsewhere_total ";
    let count = metrics
        .lines()
        .find_map(|line| line.strip_prefix(elsewhere));
    assert!(count.unwrap().parse::<u64>().unwrap() > 32, "{metrics}");
    assert!(
        metrics.contains("turnpike_task_panics_total 0"),
        "{metrics}"
    );
}
