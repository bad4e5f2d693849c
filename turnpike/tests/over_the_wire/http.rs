//! Messages over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use codec::mqtt::{ProtocolVersion, QoS, ReasonCode};
use codec::ws::Opcode;
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::channel_socket::{Came, Socket, base64};
use crate::client::{Client, Got, Options, tcp};
use crate::websocket::ask;

/// One connection over which requests follow each other.
pub(crate) struct Http {
    stream: BufReader<TcpStream>,
}

impl Http {
    pub(crate) fn new(broker: &Broker) -> Http {
        Http {
            stream: BufReader::new(tcp(broker.listener("http"))),
        }
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, headers: &str, body: &[u8]) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        );
        let stream = self.stream.get_mut();
        stream.write_all(head.as_bytes()).unwrap();
        // What is refused by its head may be answered, and closed, before its body is there.
        let _ = stream.write_all(body);
    }

    /// Status and head of an answer.
    pub(crate) fn head(&mut self) -> (u16, String) {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(self.stream.read_line(&mut head).unwrap() > 0, "{head}");
        }
        (head[9..12].parse().unwrap(), head.to_ascii_lowercase())
    }

    /// Sends a request and reads its answer.
    pub(crate) fn ask(
        &mut self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String) {
        self.send(method, path, headers, body);
        let (status, head) = self.head();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).unwrap();
        (status, String::from_utf8(body).unwrap())
    }

    pub(crate) fn post(&mut self, path: &str, headers: &str, body: &[u8]) -> u16 {
        self.ask("POST", path, headers, body).0
    }

    /// The data lines of the next event, of a chunked answer.
    pub(crate) fn event(&mut self) -> String {
        let mut event = String::new();
        loop {
            let mut line = String::new();
            assert!(self.stream.read_line(&mut line).unwrap() > 0, "{event}");
            let line = line.trim_end_matches(['\r', '\n']);
            if let Some(data) = line.strip_prefix("data: ") {
                event.push_str(data);
            } else if line.starts_with("event: ") {
                event.push_str(line);
                event.push(' ');
            } else if line.is_empty() && !event.is_empty() {
                return event;
            }
        }
    }
}

pub(crate) fn authorization(broker: &Broker, number: usize) -> String {
    let secret = broker.client(number).password.unwrap();
    format!("Authorization: Client {secret}\r\n")
}

fn subscriber(broker: &Broker, filter: &str) -> Client {
    let (mut client, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    client.subscribe(&broker.topic(filter), QoS::AtLeastOnce);
    client
}

#[test]
fn raw_bodies_are_published_and_answered_202() {
    let broker = Broker::start(&[]);
    let mut mqtt = subscriber(&broker, "#");
    let mut http = Http::new(&broker);
    let auth = authorization(&broker, 0);
    let topic = broker.topic("http");
    let path = format!("/{topic}");
    for (query, qos) in [("", 0), ("?qos=0", 0), ("?qos=1", 1)] {
        assert_eq!(http.post(&format!("{path}{query}"), &auth, b"raw"), 202);
        let got = mqtt.message();
        assert_eq!(
            (got.topic, got.payload, got.qos),
            (topic.clone(), b"raw".to_vec(), qos)
        );
    }
    assert_eq!(
        http.post("/m/demo/c/demo/a%2Fb/", &auth, &[0, 255]),
        202,
        "by route"
    );
    let got = mqtt.message();
    assert_eq!(
        (got.topic, got.payload),
        (broker.topic("a/b"), vec![0, 255])
    );
    // An empty body is accepted and publishes nothing.
    assert_eq!(http.post(&path, &auth, b""), 202);
    assert_eq!(
        http.post(&format!("{path}?retain=true"), &auth, b"kept"),
        202
    );
    assert_eq!(mqtt.message().payload, b"kept");
    let (mut late, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    late.subscribe(&topic, QoS::AtMostOnce);
    let kept = late.message();
    assert_eq!((kept.payload, kept.retain), (b"kept".to_vec(), true));
    assert_eq!(http.post(&format!("{path}?retain=1"), &auth, b""), 202);
}

#[test]
fn other_forms_have_their_own_success_codes() {
    let broker = Broker::start(&[]);
    let mut mqtt = subscriber(&broker, "#");
    let mut http = Http::new(&broker);
    let auth = authorization(&broker, 0);
    let demo = broker.topic("");
    let domain = demo.split('/').nth(1).unwrap().to_owned();
    let topic = broker.topic("forms/x");
    assert_eq!(
        http.post(&format!("/hc/{domain}"), &auth, b""),
        202,
        "health"
    );
    assert_eq!(
        http.post("/hc/none", &auth, b""),
        401,
        "no client has that secret there"
    );
    // The bridge's JSON.
    let body = json!({"topic": topic, "payload": base64(b"json"), "qos": 1}).to_string();
    let (status, answer) = http.ask("POST", "/publish", &auth, body.as_bytes());
    assert_eq!((status, &*answer), (200, r#"{"published":1}"#));
    assert_eq!(mqtt.message().payload, b"json");
    // A domain beside the secret, whatever the scheme.
    let secret = broker.client(0).password.unwrap();
    let head = format!("X-FluxMQ-Username: {domain}\r\nAuthorization: Bearer {secret}\r\n");
    assert_eq!(http.post("/publish", &head, body.as_bytes()), 200);
    assert_eq!(mqtt.message().payload, b"json");
    // The channel alone, levels joined by dots.
    let channel = broker.channel();
    for (behind, expected) in [(".forms.x", "forms/x"), ("/forms/x", "forms/x")] {
        let path = format!("/channels/{channel}/messages{behind}");
        assert_eq!(http.post(&path, &auth, b"alias"), 202);
        assert_eq!(mqtt.message().topic, broker.topic(expected));
    }
    // A user's JSON.
    let user = format!("Authorization: Bearer {}\r\n", broker.token());
    let path = format!("/{domain}/channels/{channel}/messages");
    let body = br#"{"client_id":"x","subtopic":"forms/x","payload":"by a user"}"#;
    let (status, answer) = http.ask("POST", &path, &user, body);
    assert_eq!((status, &*answer), (202, r#"{"status":"accepted"}"#));
    assert_eq!(mqtt.message().payload, b"by a user");
}

#[test]
fn batches_are_published_in_order_as_a_list_or_in_lines() {
    let broker = Broker::start(&[]);
    let mut mqtt = subscriber(&broker, "batch/#");
    let mut http = Http::new(&broker);
    let auth = authorization(&broker, 0);
    let message = |number: u32| {
        let topic = broker.topic("batch/x");
        json!({"topic": topic, "payload": base64(number.to_string().as_bytes()), "qos": 1})
    };
    let list = Value::Array((0..100).map(message).collect()).to_string();
    let lines: Vec<String> = (100..200)
        .map(|number| message(number).to_string())
        .collect();
    for body in [list, lines.join("\n")] {
        let (status, answer) = http.ask("POST", "/publish", &auth, body.as_bytes());
        assert_eq!((status, &*answer), (200, r#"{"published":100}"#));
    }
    for number in 0..200 {
        assert_eq!(mqtt.payload(), number.to_string());
    }
    let foreign = json!([message(1), {"topic": "m/demo/c/none", "payload": "", "qos": 1}]);
    let (status, answer) = http.ask("POST", "/publish", &auth, foreign.to_string().as_bytes());
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(status, 403);
    assert_eq!(
        (&answer["published"], &answer["errors"][0]["index"]),
        (&json!(1), &json!(1))
    );
    let many = Value::Array((0..1001).map(message).collect()).to_string();
    assert_eq!(http.post("/publish", &auth, many.as_bytes()), 400);
}

#[test]
fn refusals_say_what_is_wrong() {
    let broker = Broker::start(&[]);
    let auth = authorization(&broker, 0);
    let path = format!("/{}", broker.topic("x"));
    let mut http = Http::new(&broker);
    assert_eq!(http.post(&path, "", b"x"), 401);
    assert_eq!(
        http.post(&path, "Authorization: Client wrong\r\n", b"x"),
        401
    );
    for qos in ["?qos=0", "?qos=1"] {
        assert_eq!(
            http.post(&format!("/m/demo/c/none{qos}"), &auth, b"x"),
            403,
            "{qos}"
        );
    }
    for bad in [
        "/m/demo/c/",
        "/m/demo/c/demo/+/x",
        "/m/demo/c/demo/a//x",
        "/m/demo/c/demo/%23",
    ] {
        assert_eq!(http.post(bad, &auth, b"x"), 400, "{bad}");
    }
    assert_eq!(http.post(&format!("{path}?qos=2"), &auth, b"x"), 400);
    assert_eq!(http.post("/publish", &auth, b"no json"), 400);
    assert_eq!(http.post("/nowhere", &auth, b"x"), 404);
    assert_eq!(http.ask("PUT", &path, &auth, b"x").0, 405);
    assert_eq!(http.ask("GET", "/publish", &auth, b"").0, 405);
    let mut large = Http::new(&broker);
    large.send("POST", &path, &auth, &[]);
    assert_eq!(large.head().0, 202);
    let claim =
        format!("POST {path} HTTP/1.1\r\nHost: x\r\n{auth}Content-Length: 1099511627776\r\n\r\n");
    large.stream.get_mut().write_all(claim.as_bytes()).unwrap();
    assert_eq!(large.head().0, 413, "a claim of 1 TiB");
    // After all that the first connection still publishes.
    let mut mqtt = subscriber(&broker, "x");
    assert_eq!(http.post(&path, &auth, b"still here"), 202);
    assert_eq!(mqtt.message().payload, b"still here");
}

#[test]
fn revoked_client_is_refused_on_a_connection_that_was_let_in() {
    let broker = Broker::start(&[]);
    let mut http = Http::new(&broker);
    let auth = authorization(&broker, 0);
    let path = format!("/{}", broker.topic("x"));
    assert_eq!(http.post(&path, &auth, b"x"), 202);
    let id = broker.client(0).username.unwrap();
    let channel = broker.channel().to_owned();
    let connection = ["--domain", "demo", "--client", &id, "--channel", &channel];
    broker.provision(&[&["disconnect"][..], &connection, &["--type", "publish"]].concat());
    assert_eq!(http.post(&path, &auth, b"x"), 403);
    assert_eq!(http.post(&format!("{path}?qos=1"), &auth, b"x"), 403);
    broker.provision(&["client", "disable", "--domain", "demo", &id]);
    assert_eq!(http.post(&path, &auth, b"x"), 403);
}

#[test]
fn events_begin_with_what_is_retained_and_go_on_with_what_comes() {
    let broker = Broker::start(&[]);
    let auth = authorization(&broker, 0);
    let path = format!("/{}", broker.topic("events"));
    let mut http = Http::new(&broker);
    assert_eq!(http.post(&format!("{path}?retain=1"), &auth, b"kept"), 202);
    let mut events = Http::new(&broker);
    let accept = format!("{auth}Accept: text/event-stream\r\n");
    events.send("GET", &path, &accept, b"");
    let (status, head) = events.head();
    assert_eq!(status, 200);
    assert!(head.contains("content-type: text/event-stream"), "{head}");
    assert_eq!(events.event(), "kept");
    assert_eq!(http.post(&path, &auth, b"one\ntwo"), 202);
    assert_eq!(events.event(), "onetwo", "two lines of one event");
    assert_eq!(http.post(&path, &auth, &[255]), 202);
    assert_eq!(events.event(), "event: binary /w==");
    // By query, with a wildcard, as JSON: what a browser's EventSource can do.
    let secret = broker.client(1).password.unwrap();
    let wild = format!("/{}?authorization={secret}&format=json", broker.topic("+"));
    let mut all = Http::new(&broker);
    all.send("GET", &wild, "", b"");
    assert_eq!(all.head().0, 200);
    let kept: Value = serde_json::from_str(&all.event()).unwrap();
    assert_eq!(kept["topic"], broker.topic("events"));
    assert_eq!(
        (&kept["payload"], &kept["retain"]),
        (&json!("kept"), &json!(true))
    );
    let typed = format!("{auth}Content-Type: application/senml+json\r\n");
    assert_eq!(http.post(&path, &typed, b"[]"), 202);
    let got: Value = serde_json::from_str(&all.event()).unwrap();
    assert_eq!(got["content_type"], "application/senml+json");
    assert_eq!(events.event(), "[]");
    for (path, headers, status) in [
        (&*path, "", 401),
        (&*path, "Authorization: Client wrong\r\n", 401),
        ("/m/demo/c/none", &*auth, 403),
    ] {
        assert_eq!(http.ask("GET", path, headers, b"").0, status);
    }
    // A disabled client's events end.
    let id = broker.client(0).username.unwrap();
    broker.provision(&["client", "disable", "--domain", "demo", &id]);
    assert!(events.event().starts_with("event: closed"));
}

#[test]
fn channel_socket_opens_on_the_http_port_too() {
    let broker = Broker::start(&[]);
    let path = format!("/{}", broker.topic("both"));
    let auth = authorization(&broker, 0);
    let mut socket = Socket::open(tcp(broker.listener("http")), &path, &auth);
    let mut http = Http::new(&broker);
    let other = authorization(&broker, 1);
    assert_eq!(http.post(&path, &other, b"over http"), 202);
    assert_eq!(socket.next(), Came::Text("over http".into()));
    let mut mqtt = subscriber(&broker, "both");
    socket.send(Opcode::Text, b"over a socket");
    assert_eq!(mqtt.message().payload, b"over a socket");
}

/// Requests come to the shards from another thread, whose descriptors are not theirs.
#[test]
fn shards_with_descriptors_of_their_own_are_reached_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::configured(folder, "own_descriptors = true\n");
    let (mut reader, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    let topic = broker.topic("over");
    reader.subscribe(&topic, QoS::AtMostOnce);
    let client = broker.client(0);
    let (id, secret) = (client.username.unwrap(), client.password.unwrap());
    let login = base64(format!("{id}:{secret}").as_bytes());
    for _ in 0..4 {
        let mut http = Http::new(&broker);
        let headers = format!("Authorization: Basic {login}\r\n");
        let status = http.post(&format!("/{topic}"), &headers, b"hello");
        assert!((200..300).contains(&status), "{status}");
        assert_eq!(reader.payload(), "hello");
    }
}

#[test]
fn request_that_is_sent_again_under_its_key_is_published_once() {
    let broker = Broker::start(&[]);
    let mut mqtt = subscriber(&broker, "#");
    let auth = authorization(&broker, 0);
    let path = format!("/{}", broker.topic("once"));
    let keyed = |key: &str| format!("{auth}Idempotency-Key: {key}\r\n");
    let (mut http, mut other) = (Http::new(&broker), Http::new(&broker));
    for connection in [&mut http, &mut other] {
        let status = connection.post(&format!("{path}?qos=1"), &keyed("\"one\""), b"first");
        assert_eq!(status, 202);
    }
    assert_eq!(mqtt.payload(), "first");
    // Another body, another query, and a key that is none.
    let again = format!("{path}?qos=1");
    assert_eq!(http.post(&again, &keyed("\"one\""), b"second"), 422);
    assert_eq!(http.post(&path, &keyed("\"one\""), b"first"), 422);
    assert_eq!(http.post(&path, &keyed("a b"), b"x"), 400);
    assert_eq!(http.post(&path, &keyed(&"x".repeat(256)), b"x"), 400);
    // The same key of another client is another one.
    let foreign = authorization(&broker, 1) + "Idempotency-Key: \"one\"\r\n";
    assert_eq!(http.post(&path, &foreign, b"of the other"), 202);
    assert_eq!(mqtt.payload(), "of the other");
    // Of a batch the whole answer is repeated, refusals included.
    let message = |topic: String| json!({"topic": topic, "payload": base64(b"batch"), "qos": 1});
    let batch = json!([
        message(broker.topic("batch")),
        message("m/demo/c/none".into())
    ]);
    let ask = |http: &mut Http| {
        let body = batch.to_string();
        http.ask("POST", "/publish", &keyed("batch"), body.as_bytes())
    };
    let first = ask(&mut http);
    assert_eq!(first.0, 403);
    assert!(first.1.contains(r#""published":1"#), "{}", first.1);
    assert_eq!(mqtt.payload(), "batch");
    assert_eq!(ask(&mut other), first);
    // What was refused was not done, so its key is free; and a wrong secret learns nothing.
    let none = "/m/demo/c/none?qos=1";
    for _ in 0..2 {
        assert_eq!(http.post(none, &keyed("refused"), b"x"), 403);
    }
    assert_eq!(http.post(&path, &keyed("refused"), b"now"), 202);
    assert_eq!(mqtt.payload(), "now");
    let wrong = "Authorization: Client wrong\r\nIdempotency-Key: \"one\"\r\n";
    assert_eq!(http.post(&again, wrong, b"first"), 401);
    assert_eq!(mqtt.ping(), []);
    let metrics = broker.metrics();
    assert!(
        metrics.contains("turnpike_idempotency_keys 4\n"),
        "{metrics}"
    );
}

#[test]
fn request_whose_sender_did_not_wait_is_carried_out_and_answered_later() {
    let broker = Broker::start(&[]);
    let mut mqtt = subscriber(&broker, "left");
    let headers = authorization(&broker, 0) + "Idempotency-Key: left\r\n";
    let path = format!("/{}?qos=1", broker.topic("left"));
    let mut hasty = Http::new(&broker);
    hasty.send("POST", &path, &headers, b"once");
    assert_eq!(mqtt.payload(), "once");
    drop(hasty);
    let mut http = Http::new(&broker);
    // It may be under way still.
    let status = std::iter::repeat_with(|| http.post(&path, &headers, b"once"));
    assert_eq!(status.into_iter().find(|status| *status != 409), Some(202));
    assert_eq!(mqtt.ping(), []);
}

#[test]
fn listed_pages_may_read_answers_and_events_and_others_may_not() {
    let folder = tempfile::tempdir().unwrap();
    let listed = "https://console.example";
    let broker = Broker::configured(
        folder,
        &format!("[listeners.http]\ncors_origins = \"http://localhost:3000, {listed}\"\n"),
    );
    let auth = authorization(&broker, 0);
    let path = format!("/{}", broker.topic("page"));
    let mut http = Http::new(&broker);
    let mut head = |method: &str, path: &str, headers: &str| {
        http.send(method, path, headers, b"");
        let (status, head) = http.head();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        http.stream.read_exact(&mut body).unwrap();
        (status, head)
    };
    let allows = format!("access-control-allow-origin: {listed}\r\n");
    let asks = "Access-Control-Request-Method: POST\r\n\
                Access-Control-Request-Headers: authorization\r\n";
    let from = |origin: &str| format!("Origin: {origin}\r\n");
    let (status, told) = head("OPTIONS", &path, &(from(listed) + asks));
    assert_eq!(status, 204);
    for line in [
        &*allows,
        "access-control-allow-methods: get, post\r\n",
        "vary: origin\r\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
    assert!(
        told.contains("access-control-allow-headers: authorization,"),
        "{told}"
    );
    // Answers and refusals can be read; a page that is not listed is told nothing.
    assert!(
        head("POST", &path, &(auth.clone() + &from(listed)))
            .1
            .contains(&allows)
    );
    let refused = head("POST", &path, &from(listed));
    assert_eq!(refused.0, 401);
    assert!(refused.1.contains(&allows), "{}", refused.1);
    for origin in [
        "https://evil.example",
        "null",
        "https://console.example.evil",
    ] {
        let (_, told) = head("OPTIONS", &path, &(from(origin) + asks));
        assert!(!told.contains("access-control"), "{told}");
        let (status, told) = head("POST", &path, &(auth.clone() + &from(origin)));
        assert_eq!(status, 202);
        assert!(!told.contains("access-control"), "{told}");
    }
    let (_, told) = head("POST", &path, &auth);
    assert!(
        told.contains("vary: origin") && !told.contains("access-control"),
        "{told}"
    );
    let mut events = Http::new(&broker);
    events.send("GET", &path, &(auth + &from(listed)), b"");
    let (status, told) = events.head();
    assert_eq!(status, 200);
    assert!(told.contains(&allows), "{told}");
}

#[test]
fn answers_of_older_servers_are_given_where_they_are_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::configured(
        folder,
        "[compat]\nhttp_401 = true\nhttp_content_types = true\nclose_on_denied = true\n\
         websocket_403 = true\n",
    );
    let auth = authorization(&broker, 0);
    let path = format!("/{}", broker.topic("older"));
    let mut http = Http::new(&broker);
    let typed = |name: &str| format!("{auth}Content-Type: {name}\r\n");
    for name in [
        "application/json",
        "application/senml+cbor",
        "Application/SenML+JSON; v=1",
    ] {
        assert_eq!(http.post(&path, &typed(name), b"{}"), 202, "{name}");
    }
    for headers in [
        typed("text/plain"),
        typed("application/jsonx"),
        auth.clone(),
    ] {
        assert_eq!(http.post(&path, &headers, b"x"), 415, "{headers}");
    }
    let none = "/m/demo/c/none?qos=1";
    assert_eq!(http.post(none, &typed("application/json"), b"{}"), 401);
    assert_eq!(http.ask("GET", "/m/demo/c/none", &auth, b"").0, 401);
    for listener in ["ws", "http"] {
        let status =
            |more: &str| ask(&mut tcp(broker.listener(listener)), &path, more)[9..12].to_owned();
        assert_eq!(status(""), "403", "{listener}");
        assert_eq!(
            status("Authorization: Client wrong\r\n"),
            "401",
            "{listener}"
        );
    }
    // MQTT: who cannot be told that a message was refused is closed.
    for version in [ProtocolVersion::V311, ProtocolVersion::V5] {
        let options = Options {
            version,
            ..Options::default()
        };
        let (mut client, _) = Client::connect(broker.address(), &broker.client(0), &options);
        client.publish_only("m/demo/c/none", b"x", QoS::AtMostOnce, false, None);
        if version.is_v5() {
            assert_eq!(client.next(), Got::Disconnect(ReasonCode::NOT_AUTHORIZED));
        }
        assert_eq!(client.next(), Got::Closed);
    }
}
