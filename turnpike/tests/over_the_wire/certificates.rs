//! Clients that are known by a registered certificate, at every door in TLS and DTLS.

use std::fs;
use std::io::{Read, Write};
use std::sync::Arc;

use codec::coap::Code;
use codec::mqtt::{QoS, ReasonCode};
use serde_json::json;

use crate::broker::Broker;
use crate::client::{Client, Credentials, Got, Options, Stream};
use crate::coap::Peer;
use crate::coaps::Session;
use crate::quic;
use crate::tls::{Authority, BOTH, Shown, config, open};
use crate::websocket::{MQTT, WebSocket};

fn broker(authority: &Authority) -> Broker {
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "server", "localhost");
    fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    let doors = ["mqtts", "wss", "quic", "http", "coaps"].map(|door| {
        format!(
            "[listeners.{door}]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n\
             client_ca = \"ca.pem\"\nidentity = true\n"
        )
    });
    Broker::configured(folder, &doors.concat())
}

fn clone(shown: &Shown) -> Shown {
    (shown.0.clone(), shown.1.clone_key())
}

fn pem(shown: &Shown) -> String {
    let base64 = crate::channel_socket::base64(&shown.0);
    format!("-----BEGIN CERTIFICATE-----\n{base64}\n-----END CERTIFICATE-----\n")
}

/// Where MQTT is spoken in TLS.
const MQTT_DOORS: [&str; 3] = ["mqtts", "wss", "quic"];

fn stream(broker: &Broker, authority: &Authority, shown: &Shown, door: &str) -> Box<dyn Stream> {
    if door == "quic" {
        return Box::new(quic::stream(broker, authority, Some(clone(shown))));
    }
    let config = Arc::new(config(authority, Some(clone(shown)), BOTH));
    let stream = open(broker.listener(door), &config, "localhost").unwrap();
    match door {
        "wss" => Box::new(WebSocket::open(stream, "/mqtt", MQTT)),
        _ => Box::new(stream),
    }
}

/// The answer to a CONNECT with a certificate and this User Name.
fn connect(
    broker: &Broker,
    authority: &Authority,
    shown: &Shown,
    door: &str,
    username: Option<String>,
) -> (Client, Option<ReasonCode>) {
    let credentials = Credentials {
        username,
        password: None,
    };
    let stream = stream(broker, authority, shown, door);
    let (client, got) = Client::try_connect_over(stream, &credentials, &Options::default());
    match got {
        Got::ConnAck { code, .. } => (client, Some(code)),
        _ => (client, None),
    }
}

/// The status of a request with a certificate and no credential.
fn post(broker: &Broker, authority: &Authority, shown: &Shown) -> u16 {
    post_with(broker, authority, shown, "")
}

/// As [`post`], with more headers.
fn post_with(broker: &Broker, authority: &Authority, shown: &Shown, headers: &str) -> u16 {
    let config = Arc::new(config(authority, Some(clone(shown)), BOTH));
    let mut stream = open(broker.listener("http"), &config, "localhost").unwrap();
    let topic = broker.topic("certified");
    write!(
        stream,
        "POST /{topic} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: 1\r\n\r\nx"
    )
    .unwrap();
    let mut answer = [0; 1024];
    let taken = stream.read(&mut answer).unwrap();
    String::from_utf8_lossy(&answer[9..taken.min(12)])
        .parse()
        .unwrap()
}

#[test]
fn registered_certificate_opens_every_door_until_it_is_taken_away() {
    let authority = Authority::new();
    let broker = broker(&authority);
    let id = broker.client(0).username.unwrap();
    let other = broker.client(1).username.unwrap();
    // It bears no id.
    let shown = authority.client("press 4", None, 0x4A3F);
    let refused = Some(ReasonCode::BAD_USER_NAME_OR_PASSWORD);
    for door in MQTT_DOORS {
        assert_eq!(
            connect(&broker, &authority, &shown, door, None).1,
            refused,
            "{door}"
        );
    }
    assert_eq!(post(&broker, &authority, &shown), 401);

    let path = format!("/{}/clients/{id}/certs", broker.domain());
    let token = broker.token();
    let answer = broker.call("POST", &path, &token, &json!({"certificate": pem(&shown)}));
    assert_eq!(answer["serial_number"], "4a:3f", "{answer}");

    let topic = broker.topic("certified");
    let mut clients: Vec<Client> = MQTT_DOORS
        .into_iter()
        .map(|door| {
            let (mut client, code) = connect(&broker, &authority, &shown, door, Some(id.clone()));
            assert_eq!(code, Some(ReasonCode::SUCCESS), "{door}");
            client.subscribe(&topic, QoS::AtLeastOnce);
            // Somebody else's certificate is of no use with another name.
            let claims = connect(&broker, &authority, &shown, door, Some(other.clone()));
            assert_eq!(claims.1, refused, "{door}");
            client
        })
        .collect();
    let mut peer = Peer::over(Session::certified(&broker, clone(&shown)).unwrap());
    assert_eq!(peer.post(&topic, b"x"), Code::CHANGED);
    assert_eq!(post(&broker, &authority, &shown), 202);
    for client in &mut clients {
        assert_eq!(
            (client.payload(), client.payload()),
            ("x".into(), "x".into())
        );
    }

    broker.call("DELETE", &format!("{path}/4a:3f"), &token, &json!({}));
    for client in &mut clients {
        assert_eq!(client.next(), Got::Disconnect(ReasonCode::NOT_AUTHORIZED));
    }
    for door in MQTT_DOORS {
        assert_eq!(
            connect(&broker, &authority, &shown, door, None).1,
            refused,
            "{door}"
        );
    }
    assert_eq!(peer.post(&topic, b"x"), Code::UNAUTHORIZED);
    assert_eq!(post(&broker, &authority, &shown), 401);
}

#[test]
fn idempotency_key_of_one_certificate_is_another_ones_too() {
    let authority = Authority::new();
    let broker = broker(&authority);
    let (mut reader, _) = Client::connect(broker.address(), &broker.client(0), &Options::default());
    reader.subscribe(&broker.topic("certified"), QoS::AtMostOnce);
    for (number, times) in [(0, 2), (1, 1)] {
        let id = broker.client(number).username.unwrap();
        let shown = authority.client(&id, None, number as u64 + 1);
        for _ in 0..times {
            let status = post_with(&broker, &authority, &shown, "Idempotency-Key: 1\r\n");
            assert_eq!(status, 202);
        }
        assert_eq!(reader.payload(), "x", "client {number}");
    }
    assert_eq!(reader.ping(), []);
}
