//! What each door tells an address that has failed too often.

use codec::coap::Code;
use codec::mqtt::{ProtocolVersion, ReasonCode};

use crate::broker::Broker;
use crate::channel_socket::base64;
use crate::client::{Client, Credentials, Got, Options, tcp};
use crate::coap::Peer;
use crate::http::Http;
use crate::websocket::ask;

#[test]
fn address_that_failed_ten_times_is_told_so_at_every_door_and_others_are_not() {
    let broker = Broker::start(&[]);
    let client = broker.client(0);
    let connect = |credentials: &Credentials, version| {
        let options = Options {
            version,
            ..Options::default()
        };
        match Client::try_connect(broker.address(), credentials, &options) {
            (_, Got::ConnAck { code, .. }) => code,
            (_, other) => panic!("{other:?}"),
        }
    };
    let wrong = Credentials {
        password: Some("wrong".to_owned()),
        ..client.clone()
    };
    for _ in 0..10 {
        let code = connect(&wrong, ProtocolVersion::V5);
        assert_eq!(code, ReasonCode::BAD_USER_NAME_OR_PASSWORD);
    }
    let code = connect(&client, ProtocolVersion::V5);
    assert_eq!(code, ReasonCode::CONNECTION_RATE_EXCEEDED);
    // 3.1.1 has no word for it: Server unavailable.
    let code = connect(&client, ProtocolVersion::V311);
    assert_eq!(code, ReasonCode::new(3));
    let (id, secret) = (client.username.unwrap(), client.password.unwrap());
    let basic = base64(format!("{id}:{secret}").as_bytes());
    let header = format!("Authorization: Basic {basic}\r\n");
    let topic = broker.topic("throttled");
    let path = format!("/{topic}");
    let mut http = Http::new(&broker);
    for method in ["POST", "GET"] {
        http.send(method, &path, &header, b"");
        let (status, head) = http.head();
        assert_eq!(status, 429, "{method}");
        assert!(head.contains("retry-after: "), "{head}");
        http = Http::new(&broker);
    }
    let answer = ask(&mut tcp(broker.listener("ws")), &path, &header);
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    assert!(answer.contains("Retry-After: "), "{answer}");
    let mut peer = Peer::new(&broker);
    let uri = format!("{topic}?auth={id}:{secret}");
    assert_eq!(peer.post(&uri, b"x"), Code::TOO_MANY_REQUESTS);
    let code = connect(&broker.client(1), ProtocolVersion::V5);
    assert_eq!(code, ReasonCode::SUCCESS);
}

#[test]
fn broker_that_holds_all_it_may_tells_who_comes_to_come_later() {
    let limit = "[limits]\nmax_connections = 40\n";
    let broker = Broker::configured(tempfile::tempdir().unwrap(), limit);
    let client = broker.client(0);
    let held: Vec<Client> = (0..40)
        .map(|_| Client::connect(broker.address(), &client, &Options::default()).0)
        .collect();
    for (version, code) in [
        (ProtocolVersion::V5, ReasonCode::QUOTA_EXCEEDED),
        (ProtocolVersion::V311, ReasonCode::new(3)),
    ] {
        let options = Options {
            version,
            ..Options::default()
        };
        let (_, told) = Client::try_connect(broker.address(), &client, &options);
        assert!(
            matches!(told, Got::ConnAck { code: found, .. } if found == code),
            "{told:?}"
        );
    }
    let header = crate::http::authorization(&broker, 1);
    let path = format!("/{}", broker.topic("late"));
    for method in ["POST", "GET"] {
        let mut http = Http::new(&broker);
        http.send(method, &path, &header, b"x");
        let (status, head) = http.head();
        assert_eq!(status, 429, "{method}");
        assert!(head.contains("retry-after: "), "{head}");
    }
    let answer = ask(&mut tcp(broker.listener("ws")), &path, &header);
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    drop(held);
}
