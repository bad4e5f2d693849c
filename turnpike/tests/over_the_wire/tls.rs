//! MQTT over TLS, alone and below a WebSocket.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use codec::mqtt::{QoS, ReasonCode};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName,
    DnType, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned};

use crate::broker::Broker;
use crate::client::{Client, Credentials, Got, Options, tcp};
use crate::websocket::WebSocket;

/// An authority of the test's own, and what it signs.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    pub(crate) pem: String,
}

/// What a client shows.
pub(crate) type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

impl Authority {
    pub(crate) fn new() -> Authority {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "the authority of a test");
        params.distinguished_name = name;
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Authority {
            pem: certificate.pem(),
            certificate: certificate.der().clone(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Writes a server's chain and key as `NAME.pem` and `NAME.key`.
    pub(crate) fn server(&self, folder: &Path, file: &str, name: &str) {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        fs::write(folder.join(format!("{file}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{file}.key")), key.serialize_pem()).unwrap();
    }

    pub(crate) fn client(&self, common_name: &str, uri: Option<&str>, serial: u64) -> Shown {
        let mut params = CertificateParams::new([]).unwrap();
        let mut name = DistinguishedName::new();
        name.push(DnType::OrganizationName, "devices");
        name.push(DnType::CommonName, common_name);
        params.distinguished_name = name;
        params.serial_number = Some(SerialNumber::from(serial));
        if let Some(uri) = uri {
            params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        (certificate.der().clone(), key)
    }

    fn revoked(&self, serials: &[u64]) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2094, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials
                .iter()
                .map(|serial| RevokedCertParams {
                    serial_number: SerialNumber::from(*serial),
                    revocation_time: date_time_ymd(2024, 1, 1),
                    reason_code: Some(RevocationReason::KeyCompromise),
                    invalidity_date: None,
                })
                .collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

pub(crate) fn config(
    authority: &Authority,
    shown: Option<Shown>,
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(roots);
    match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => builder
            .with_client_auth_cert(vec![certificate], key)
            .unwrap(),
    }
}

pub(crate) type Tls = StreamOwned<ClientConnection, TcpStream>;

pub(crate) fn open(address: &str, config: &Arc<ClientConfig>, name: &str) -> std::io::Result<Tls> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let connection = ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, tcp(address));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

pub(crate) const BOTH: &[&rustls::SupportedProtocolVersion] =
    &[&rustls::version::TLS13, &rustls::version::TLS12];

/// A broker with a certificate for `localhost` on both TLS listeners, and `more` for MQTT's.
fn broker(authority: &Authority, more: &str) -> Broker {
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "server", "localhost");
    fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    fs::write(folder.path().join("revoked.pem"), authority.revoked(&[666])).unwrap();
    let pair = "certificate = \"server.pem\"\nkey = \"server.key\"\n";
    let configuration = format!("[listeners.wss]\n{pair}[listeners.mqtts]\n{pair}{more}\n");
    Broker::configured(folder, &configuration)
}

#[test]
fn both_versions_carry_messages_and_agree_on_mqtt() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    let (up, down) = (broker.topic("up"), broker.topic("down"));
    let (mut plain, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    plain.subscribe(&up, QoS::AtLeastOnce);
    for (version, alpn) in [
        (&rustls::version::TLS13, true),
        (&rustls::version::TLS12, true),
        (&rustls::version::TLS13, false),
    ] {
        let mut config = config(&authority, None, &[version]);
        if alpn {
            config.alpn_protocols = vec![b"mqtt".to_vec()];
        }
        let stream = open(broker.listener("mqtts"), &Arc::new(config), "localhost").unwrap();
        assert_eq!(stream.conn.protocol_version(), Some(version.version));
        assert_eq!(stream.conn.alpn_protocol(), alpn.then_some(&b"mqtt"[..]));
        let mut client = Client::connect_over(stream, &broker.client(0), &Options::default());
        client.subscribe(&down, QoS::AtLeastOnce);
        for len in [1, 20_000, 300_000] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let payload = vec![b'x'; len];
                client.publish(&up, &payload, qos, false);
                assert_eq!(plain.message().payload, payload);
                plain.publish(&down, &payload, qos, false);
                assert_eq!(client.message().payload, payload);
            }
        }
        assert!(client.ping().is_empty());
    }
    let mut other = config(&authority, None, BOTH);
    other.alpn_protocols = vec![b"h2".to_vec()];
    assert!(open(broker.listener("mqtts"), &Arc::new(other), "localhost").is_err());
}

#[test]
fn websocket_over_tls_carries_messages() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    let topic = broker.topic("wss");
    let config = Arc::new(config(&authority, None, BOTH));
    let stream = open(broker.listener("wss"), &config, "localhost").unwrap();
    let stream = WebSocket::open(stream, "/mqtt", "Sec-WebSocket-Protocol: mqtt\r\n");
    let mut client = Client::connect_over(stream, &broker.client(0), &Options::default());
    client.subscribe(&topic, QoS::AtLeastOnce);
    for len in [1, 70_000, 400_000] {
        let payload = vec![b'x'; len];
        client.publish(&topic, &payload, QoS::AtMostOnce, false);
        assert_eq!(client.message().payload, payload);
    }
}

#[test]
fn backlog_leaves_whole_through_tls() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    let topic = broker.topic("large");
    let config = Arc::new(config(&authority, None, BOTH));
    let stream = open(broker.listener("mqtts"), &config, "localhost").unwrap();
    let mut slow = Client::connect_over(stream, &broker.client(0), &Options::default());
    slow.subscribe(&topic, QoS::AtLeastOnce);
    let (mut publisher, _) =
        Client::connect(broker.address(), &broker.client(1), &Options::default());
    let payload: Vec<u8> = (0..400_000u32).map(|n| (n % 251) as u8).collect();
    for _ in 0..40 {
        publisher.publish(&topic, &payload, QoS::AtLeastOnce, false);
    }
    for _ in 0..40 {
        assert_eq!(slow.message().payload, payload);
    }
}

#[test]
fn server_name_chooses_the_certificate() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "one", "one.example");
    authority.server(folder.path(), "two", "two.example");
    let broker = Broker::configured(
        folder,
        "[listeners.mqtts]\ncertificate = \"one.pem, two.pem\"\nkey = \"one.key, two.key\"\n",
    );
    let config = Arc::new(config(&authority, None, BOTH));
    for name in ["one.example", "two.example"] {
        open(broker.listener("mqtts"), &config, name).unwrap();
    }
    let other = open(broker.listener("mqtts"), &config, "three.example");
    assert!(other.is_err(), "the first certificate is not for that name");
}

#[test]
fn ticket_resumes_without_the_certificate_being_sent_again() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    for version in BOTH {
        let config = Arc::new(config(&authority, None, &[*version]));
        let kind = || {
            let stream = open(broker.listener("mqtts"), &config, "localhost").unwrap();
            let kind = stream.conn.handshake_kind();
            // The ticket comes with the first bytes.
            Client::connect_over(stream, &broker.client(0), &Options::default());
            kind
        };
        assert_eq!(kind(), Some(HandshakeKind::Full));
        assert_eq!(kind(), Some(HandshakeKind::Resumed));
    }
}

#[test]
fn certificate_says_which_client_it_is_until_it_is_revoked() {
    let authority = Authority::new();
    let stranger = Authority::new();
    let broker = broker(
        &authority,
        "client_ca = \"ca.pem\"\nidentity = true\nrevoked = \"revoked.pem\"",
    );
    let id = broker.client(0).username.unwrap();
    let connect = |shown: Option<Shown>, credentials: &Credentials| {
        let config = Arc::new(config(&authority, shown, BOTH));
        let stream = open(broker.listener("mqtts"), &config, "localhost").ok()?;
        Some(Client::try_connect_over(
            stream,
            credentials,
            &Options::default(),
        ))
    };
    let nobody = Credentials::default();
    let code = |shown: Shown, credentials: &Credentials| match connect(Some(shown), credentials) {
        Some((_, Got::ConnAck { code, .. })) => Some(code),
        _ => None,
    };
    // By Common Name, by URI, with its own name besides.
    assert_eq!(
        code(authority.client(&id, None, 1), &nobody),
        Some(ReasonCode::SUCCESS)
    );
    let uri = format!("urn:uuid:{id}");
    let by_uri = authority.client("a device", Some(&uri), 2);
    assert_eq!(code(by_uri, &nobody), Some(ReasonCode::SUCCESS));
    let named = Credentials {
        username: Some(id.clone()),
        password: None,
    };
    assert_eq!(
        code(authority.client(&id, None, 3), &named),
        Some(ReasonCode::SUCCESS)
    );
    // It has the client's rights.
    let (mut client, _) = connect(Some(authority.client(&id, None, 4)), &nobody).unwrap();
    client.subscribe(&broker.topic("m"), QoS::AtLeastOnce);
    client.publish(
        &broker.topic("m"),
        b"by certificate",
        QoS::AtMostOnce,
        false,
    );
    assert_eq!(client.message().payload, b"by certificate");
    // Somebody else's name, nobody's name, no name, a revoked one, another authority's.
    let refused = Some(ReasonCode::BAD_USER_NAME_OR_PASSWORD);
    assert_eq!(
        code(authority.client(&id, None, 5), &broker.client(1)),
        refused
    );
    assert_eq!(
        code(authority.client("a device", None, 6), &nobody),
        refused
    );
    let unknown = "0199e0a8-0000-7000-8000-000000000000";
    assert_eq!(code(authority.client(unknown, None, 7), &nobody), refused);
    assert_eq!(code(authority.client(&id, None, 666), &nobody), None);
    assert_eq!(code(stranger.client(&id, None, 8), &nobody), None);
    assert!(!matches!(
        connect(None, &broker.client(0)),
        Some((_, Got::ConnAck { .. }))
    ));
}

#[test]
fn new_certificates_are_shown_to_new_connections_and_old_ones_stay() {
    let authority = Authority::new();
    let next = Authority::new();
    let broker = broker(&authority, "");
    let old = Arc::new(config(&authority, None, BOTH));
    let new = Arc::new(config(&next, None, BOTH));
    let stream = open(broker.listener("mqtts"), &old, "localhost").unwrap();
    let mut client = Client::connect_over(stream, &broker.client(0), &Options::default());
    assert!(open(broker.listener("mqtts"), &new, "localhost").is_err());
    // Files that are wrong leave everything as it is.
    fs::write(broker.folder().join("server.pem"), "no certificate").unwrap();
    broker.signal("HUP");
    assert!(client.ping().is_empty());
    open(broker.listener("mqtts"), &old, "localhost").unwrap();
    next.server(broker.folder(), "server", "localhost");
    broker.signal("HUP");
    // The signal is taken some time after it was sent.
    while open(broker.listener("mqtts"), &new, "localhost").is_err() {
        std::thread::yield_now();
    }
    // Without a signal the change is seen a few seconds later.
    authority.server(broker.folder(), "server", "localhost");
    while open(broker.listener("mqtts"), &old, "localhost").is_err() {
        std::thread::yield_now();
    }
    assert!(client.ping().is_empty(), "the old connection lives");
}

#[test]
fn t_tls_1_garbage_is_closed_and_others_are_served() {
    let authority = Authority::new();
    let broker = broker(&authority, "");
    for garbage in [
        &b"\x10\x0c\x00\x04MQTT"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x40\x00\xFF",
        &[0x80; 3000],
    ] {
        let mut stream = tcp(broker.listener("mqtts"));
        stream.write_all(garbage).unwrap();
        let mut answer = Vec::new();
        // An alert, or nothing; then the end.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer[0] == 0x15, "{answer:?}");
    }
    let mut long = tcp(broker.listener("mqtts"));
    // A handshake message that never ends, in whole records.
    let record = [
        &[0x16, 3, 1, 0x40, 0][..],
        &[1, 0xFF, 0xFF, 0xFF],
        &[0; 0x4000 - 4],
    ]
    .concat();
    while long.write_all(&record).is_ok() {}
    let metrics = broker.metrics();
    assert!(!metrics.contains("layer_faults_total{layer=\"tls\"} 0"));
    let config = Arc::new(config(&authority, None, BOTH));
    let stream = open(broker.listener("mqtts"), &config, "localhost").unwrap();
    Client::connect_over(stream, &broker.client(0), &Options::default());
}

#[test]
fn proxy_says_for_whom_it_speaks_and_nobody_else_is_let_in() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "server", "localhost");
    let broker = Broker::configured(
        folder,
        "[listeners.mqtt]\nproxies = \"127.0.0.1\"\n\
         [listeners.ws]\nproxies = \"192.0.2.0/24\"\n\
         [listeners.mqtts]\nproxies = \"127.0.0.0/8, ::1\"\ncertificate = \"server.pem\"\nkey = \"server.key\"\n",
    );
    let v2 = [
        &b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"[..],
        &[203, 0, 113, 7, 127, 0, 0, 1, 0x12, 0x34, 7, 91],
    ]
    .concat();
    for header in [&b"PROXY TCP4 203.0.113.7 127.0.0.1 4660 1883\r\n"[..], &v2] {
        let mut stream = tcp(broker.address());
        stream.write_all(header).unwrap();
        Client::connect_over(stream, &broker.client(0), &Options::default());
        // Byte by byte as well.
        let mut stream = tcp(broker.address());
        for byte in header {
            stream.write_all(&[*byte]).unwrap();
        }
        Client::connect_over(stream, &broker.client(0), &Options::default());
        // In front of TLS.
        let name = ServerName::try_from("localhost").unwrap();
        let config = Arc::new(config(&authority, None, BOTH));
        let mut socket = tcp(broker.listener("mqtts"));
        socket.write_all(header).unwrap();
        let connection = ClientConnection::new(config, name).unwrap();
        let stream = StreamOwned::new(connection, socket);
        Client::connect_over(stream, &broker.client(0), &Options::default());
    }
    let (_, got) = Client::try_connect(broker.address(), &broker.client(0), &Options::default());
    assert_eq!(got, Got::Closed, "without a header");
    let mut untrusted = tcp(broker.listener("ws"));
    let mut answer = [0];
    assert!(matches!(untrusted.read(&mut answer), Ok(0) | Err(_)));
}

#[test]
fn t_exh_1_who_stops_before_a_whole_connect_is_closed_at_every_door() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "server", "localhost");
    let pair = "certificate = \"server.pem\"\nkey = \"server.key\"\n";
    let configuration = format!(
        "[limits]\nconnect_timeout = \"500ms\"\n[listeners.mqtts]\n{pair}[listeners.wss]\n{pair}"
    );
    let broker = Broker::configured(folder, &configuration);
    // Half a hello, half a request, and nothing at all.
    let hello = [0x16, 3, 1, 2, 0, 1, 0, 1];
    for (door, said) in [
        ("mqtt", &b"\x10"[..]),
        ("mqtts", &hello),
        ("mqtts", b""),
        ("wss", &hello),
        ("ws", b"GET /mqtt HTTP/1.1\r\nHost: x\r\n"),
        ("ws", b""),
    ] {
        let mut stream = tcp(broker.listener(door));
        stream.write_all(said).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.is_empty(), "{door}: {answer:?}");
    }
    // A handshake that is done buys no more time.
    let config = Arc::new(config(&authority, None, BOTH));
    let mut stream = open(broker.listener("mqtts"), &config, "localhost").unwrap();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap(), 0);
}

#[test]
fn control_api_passes_in_tls_and_its_certificate_changes_while_it_runs() {
    let (first, second) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    first.server(folder.path(), "server", "localhost");
    let api = "[listeners.api]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";
    let broker = Broker::configured(folder, api);
    let admin = broker.admin();
    let ask = |authority: &Authority, request: &str| {
        let config = Arc::new(config(authority, None, BOTH));
        let mut stream = open(broker.listener("api"), &config, "localhost")?;
        write!(stream, "{request}")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    let login = serde_json::json!({"username": admin.username, "password": admin.password});
    let login = login.to_string();
    let request = format!(
        "POST /users/tokens/issue HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{login}",
        login.len()
    );
    let answer = ask(&first, &request).unwrap();
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(ask(&second, &request).is_err(), "a certificate of nobody's");
    let mut plain = tcp(broker.listener("api"));
    write!(plain, "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer);
    assert!(!answer.starts_with(b"HTTP"), "answered in the clear");

    second.server(broker.folder(), "server", "localhost");
    broker.signal("HUP");
    let health = "GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    // The signal is taken some time after it was sent.
    let answer = loop {
        if let Ok(answer) = ask(&second, health) {
            break answer;
        }
        std::thread::yield_now();
    };
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn messages_over_http_pass_in_tls_and_websockets_are_sent_elsewhere() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "server", "localhost");
    let http = "[listeners.http]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";
    let broker = Broker::configured(folder, http);
    let topic = broker.topic("https");
    let (mut client, _) = Client::connect(broker.address(), &broker.client(1), &Options::default());
    client.subscribe(&topic, QoS::AtLeastOnce);
    let config = Arc::new(config(&authority, None, BOTH));
    let secret = broker.client(0).password.unwrap();
    let ask = |rest: &str| {
        let mut stream = open(broker.listener("http"), &config, "localhost").unwrap();
        write!(stream, "{rest}").unwrap();
        let mut answer = [0; 4096];
        let taken = stream.read(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..taken]).into_owned()
    };
    let answer = ask(&format!(
        "POST /{topic} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Client {secret}\r\n\
         Content-Length: 6\r\n\r\nsealed"
    ));
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(client.payload(), "sealed");
    let answer = ask(&format!(
        "GET /{topic} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\n\r\n"
    ));
    assert!(answer.starts_with("HTTP/1.1 421"), "{answer}");
    assert!(answer.contains("listener wss"), "{answer}");
}
