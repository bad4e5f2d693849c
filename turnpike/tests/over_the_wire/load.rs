//! The load generator against the broker: everything arrives once and in order.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use loadtest::{Endpoint, Flow, Login, Plan, QoS, Target, Version};
use serde_json::Value;

use crate::broker::Broker;
use crate::tls::Authority;

fn target(broker: &Broker) -> Target {
    let login = |number| {
        let client = broker.client(number);
        Login {
            username: client.username.unwrap(),
            password: client.password.unwrap(),
            client_id: None,
        }
    };
    Target {
        endpoint: Endpoint::tcp(broker.address().parse().unwrap()),
        logins: vec![login(0), login(1)],
        prefixes: vec![broker.topic("load")],
        first_serial: 0,
    }
}

#[test]
fn load_of_every_shape_version_and_qos_arrives_once_and_in_order() {
    let broker = Broker::start(&[]);
    let shapes = [
        Flow::pairs(8),
        Flow::fan_in(8),
        Flow::fan_out(8),
        Flow::shared(2, 4),
        Flow::to_devices(2, 8),
    ];
    for shape in shapes {
        for version in [Version::V311, Version::V5] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let flow = Flow {
                    version,
                    qos,
                    burst: 4,
                    window: Some(8),
                    properties: usize::from(version == Version::V5),
                    ..shape.clone()
                };
                let each = if flow.name == "fan-out" { 8 } else { 1 };
                let mut plan = Plan::new(flow, target(&broker));
                plan.messages = Some(400);
                plan.strict = true;
                let report = loadtest::run(&plan).unwrap();
                assert!(report.verdict.is_clean(), "{report}");
                assert_eq!(report.delivered, report.published * each, "{report}");
            }
        }
    }
}

/// A burst is larger than what one receive takes, and nothing follows that would tell of the rest.
#[test]
fn burst_larger_than_the_read_buffer_arrives_whole() {
    let broker = Broker::start(&[]);
    for payload_bytes in [1000, 65_400, 65_536, 100_000] {
        let flow = Flow {
            payload_bytes,
            burst: 6,
            window: Some(6),
            ..Flow::pairs(2)
        };
        let mut plan = Plan::new(flow, target(&broker));
        plan.duration = Duration::from_secs(1);
        plan.messages = Some(120);
        let report = loadtest::run(&plan).unwrap();
        assert!(report.verdict.is_clean(), "{report}");
    }
}

/// `turnpike loadtest` with arguments, against a broker whose first line is in `ready.json`.
struct Loadtest<'a> {
    broker: &'a Broker,
}

impl Loadtest<'_> {
    fn file(&self, name: &str) -> PathBuf {
        self.broker.folder().join(name)
    }

    fn output(&self, arguments: &[&str]) -> Output {
        let ready = self.file("ready.json");
        std::fs::write(&ready, self.broker.ready().to_string()).unwrap();
        Command::new(env!("CARGO_BIN_EXE_turnpike"))
            .current_dir(self.broker.folder())
            .arg("loadtest")
            .args(arguments)
            .output()
            .unwrap()
    }

    /// The result in JSON of a run that has to succeed; its page is written as well.
    fn result(&self, arguments: &[&str]) -> Value {
        let files = ["--quiet", "--json", "result.json", "--html", "result.html"];
        let output = self.output(&[arguments, &files[..]].concat());
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {told}");
        let page = std::fs::read_to_string(self.file("result.html")).unwrap();
        assert!(page.contains("</html>"));
        let text = std::fs::read_to_string(self.file("result.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// What a run that has to fail says.
    fn refusal(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

const OWN: &[&str] = &["--credentials", "ready.json", "--provision"];

#[test]
fn each_kind_of_messages_runs_in_a_domain_of_its_own_and_leaves_nothing_behind() {
    let broker = Broker::start(&[]);
    let tool = Loadtest { broker: &broker };
    let before = broker.provision(&["domain", "list"]);
    let kinds: [&[&str]; 6] = [
        &["pairs", "--pairs", "4", "--verify", "strict"],
        &[
            "pairs",
            "--pairs",
            "4",
            "--channels",
            "2",
            "--topics",
            "8",
            "--qos",
            "1",
        ],
        &["fan-in", "--publishers", "4", "--filters", "10"],
        &[
            "fan-out",
            "--subscribers",
            "4",
            "--mqtt",
            "5",
            "--properties",
            "2",
        ],
        &[
            "shared",
            "--publishers",
            "2",
            "--members",
            "4",
            "--qos",
            "2",
        ],
        // As somebody writes it who knows emqtt-bench.
        &["pairs", "-c", "2", "-q", "1", "-s", "100", "-V", "5"],
    ];
    for kind in kinds {
        let result = tool.result(&[kind, OWN, &["--messages", "200"]].concat());
        assert_eq!(result["published"], 200, "{kind:?}");
        assert_eq!(result["verdict"]["lost"], 0);
        assert!(result["own_cores"].is_number(), "its own cost is told");
    }
    assert_eq!(broker.provision(&["domain", "list"]), before);
}

#[test]
fn domain_of_its_own_is_made_over_a_control_api_in_tls() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "server", "localhost");
    for (name, authority) in [("ca.pem", &authority), ("stranger.pem", &stranger)] {
        std::fs::write(folder.path().join(name), &authority.pem).unwrap();
    }
    let api = "[listeners.api]\ncertificate = \"server.pem\"\nkey = \"server.key\"\n";
    let broker = Broker::configured(folder, api);
    let tool = Loadtest { broker: &broker };
    let port = broker
        .listener("api")
        .rsplit_once(':')
        .unwrap()
        .1
        .to_owned();
    let address = format!("https://localhost:{port}");
    let pairs = [
        "pairs",
        "--pairs",
        "2",
        "--messages",
        "100",
        "--api",
        &address,
    ];
    let with = |ca: &[&'static str]| [&pairs[..], OWN, ca].concat();
    let result = tool.result(&with(&["--api-ca", "ca.pem"]));
    assert_eq!(result["published"], 100);
    for (ca, told) in [
        (&[][..], "--api-ca"),
        (&["--api-ca", "stranger.pem"], "certificate"),
        (&["--api-ca", "none.pem"], "none.pem"),
    ] {
        let refusal = tool.refusal(&with(ca));
        assert!(refusal.contains(told), "{ca:?}: {refusal}");
    }
}

#[test]
fn messages_by_the_clock_are_as_many_as_the_clock_says() {
    let broker = Broker::start(&[]);
    let tool = Loadtest { broker: &broker };
    let result = tool.result(
        &[
            &[
                "pairs",
                "--pairs",
                "2",
                "--rate",
                "1000",
                "--messages",
                "100",
            ],
            OWN,
        ]
        .concat(),
    );
    assert_eq!(result["published"], 100);
    assert_eq!(result["latency"]["count"], 100);
    // 99 intervals of a millisecond lie between the first and the last.
    assert!(result["seconds"].as_f64().unwrap() >= 0.098);
}

#[test]
fn a_mix_and_a_file_run_several_flows_and_churn_at_once() {
    let broker = Broker::start(&[]);
    let tool = Loadtest { broker: &broker };
    let file = "name = \"two\"\nduration = 0.3\nwarm_up = 0.0\n\
        [[flow]]\nshape = \"pairs\"\npublishers = 2\n\
        [[flow]]\nshape = \"shared\"\npublishers = 2\nsubscribers = 3\nrate = 200.0\nqos = 1\n\
        [churn]\nclients = 3\nrate = 50.0\n";
    std::fs::write(tool.file("scenario.toml"), file).unwrap();
    let result = tool.result(&[&["scenario", "scenario.toml", "--strict"], OWN].concat());
    assert_eq!(result["shape"], "two");
    assert_eq!(result["flows"].as_array().unwrap().len(), 2);
    assert!(result["churn"]["connections"].as_u64().unwrap() > 0);
    let result = tool.result(&[&["mixed"], OWN].concat());
    for flow in result["flows"].as_array().unwrap() {
        assert!(flow["delivered"].as_u64().unwrap() > 0, "{flow}");
    }
    let told = tool.refusal(&["scenario", "ready.json"]);
    assert!(told.contains("ready.json"), "{told}");
}

#[test]
fn connections_in_several_processes_are_held_and_reached_by_messages() {
    let broker = Broker::start(&[]);
    let tool = Loadtest { broker: &broker };
    let kept = [
        "connections",
        "--connections",
        "30",
        "--processes",
        "2",
        "--hold",
        "1.2",
        "--keep-alive",
        "1",
        "--rate",
        "200",
        "--duration",
        "0.5",
    ];
    let result = tool.result(&[&kept[..], OWN, &["--save-clients", "fleet"]].concat());
    assert_eq!(result["connections"], 30);
    assert_eq!(result["processes"], 2);
    assert_eq!(result["held"]["lost"], 0);
    assert!(result["held"]["pongs"].as_u64().unwrap() >= 30, "{result}");
    assert!(result["traffic"]["delivered"].as_u64().unwrap() > 0);
    assert_eq!(result["traffic"]["verdict"]["lost"], 0);
    // Those who were made once serve again, and for nothing else.
    let address = ["--address", broker.address(), "--clients-file", "fleet"];
    let again = tool.result(&[&kept[..], &address[..]].concat());
    assert_eq!(again["connections"], 30);
    let told = tool.refusal(&[&["pairs"], &address[..]].concat());
    assert!(told.contains("another load"), "{told}");
}

#[test]
fn subscribers_in_several_processes_hear_everything_and_are_counted_as_in_one() {
    let broker = Broker::start(&[]);
    let tool = Loadtest { broker: &broker };
    let in_one = ["fan-out", "--subscribers", "7"];
    let messages = ["--messages", "60"];
    let kinds: [&[&str]; 4] = [
        &["--verify", "strict", "--burst", "4", "--window", "8"],
        &["--qos", "1", "--mqtt", "5", "--topics", "2"],
        &["--qos", "2", "--filters", "2", "--window", "3"],
        &["--rate", "1000", "--payload", "24"],
    ];
    for kind in kinds {
        let in_three = ["--processes", "3", "--save-clients", "fleet"];
        let result = tool.result(&[&in_one[..], kind, &messages, &in_three, OWN].concat());
        assert_eq!(result["processes"], 3, "{kind:?}");
        assert_eq!(result["published"], 60, "{kind:?}");
        assert_eq!(result["delivered"], 7 * 60, "{kind:?}");
        assert_eq!(result["latency"]["count"], 7 * 60, "{kind:?}");
        assert_eq!(result["flows"][0]["subscribers"], 7, "{kind:?}");
        assert_eq!(result["flows"][0]["delivered"], 7 * 60, "{kind:?}");
        // The clients that one process needs are the same.
        let address = ["--address", broker.address(), "--clients-file", "fleet"];
        let result = tool.result(&[&in_one[..], kind, &messages, &address].concat());
        assert_eq!(result["processes"], 1, "{kind:?}");
        assert_eq!(result["delivered"], 7 * 60, "{kind:?}");
    }
    // Each process records for the same time, more or less, and counts what it records.
    let load = ["fan-out", "--subscribers", "4", "--processes", "2"];
    let timed = ["--warm-up", "0.1", "--duration", "0.3"];
    let result = tool.result(&[&load[..], &timed, OWN].concat());
    assert_eq!(result["latency"]["count"], result["delivered"]);
    assert!(result["delivered"].as_u64().unwrap() > 0);
}

/// What is lost, the sender hears only from the process of the subscriber; of the last message it
/// hears nothing, and goes on when it has waited.
#[test]
fn what_a_subscriber_in_another_process_does_not_get_is_told() {
    let broker = Broker::start(&["--open"]);
    let tool = Loadtest { broker: &broker };
    // Two subscribers and the publisher connect first, then those of the worker.
    let address = losing(broker.address().to_owned(), 4, &[10, 40]);
    let load = ["fan-out", "--subscribers", "4", "--processes", "2"];
    let told = tool.refusal(
        &[
            &load[..],
            &["--messages", "40", "--window", "4", "--address", &address],
            &["--quiet", "--json", "result.json"],
        ]
        .concat(),
    );
    assert!(told.contains("not everything arrived"), "{told}");
    let text = std::fs::read_to_string(tool.file("result.json")).unwrap();
    let result: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(result["verdict"]["lost"], 2, "{text}");
    assert_eq!(result["delivered"], 4 * 40 - 2, "{text}");
}

/// A way to the broker at `broker` that loses PUBLISH packets of these numbers to the connection
/// with this number, both counted from 1. All of them are QoS 0 and short.
fn losing(broker: String, connection: usize, packets: &'static [usize]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let mut client = client.unwrap();
            let mut server = TcpStream::connect(&broker).unwrap();
            let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut up, &mut server));
            std::thread::spawn(move || -> std::io::Result<()> {
                let mut published = 0;
                loop {
                    let mut head = [0; 2];
                    down.read_exact(&mut head)?;
                    assert!(head[1] < 128, "a length of one byte");
                    let mut packet = vec![0; head[1].into()];
                    down.read_exact(&mut packet)?;
                    published += usize::from(head[0] >> 4 == 3);
                    if number + 1 == connection && packets.contains(&published) {
                        continue;
                    }
                    client.write_all(&[&head[..], &packet].concat())?;
                }
            });
        }
    });
    address
}

#[test]
fn churn_and_storms_count_every_connection() {
    let broker = Broker::start(&[]);
    let tool = Loadtest { broker: &broker };
    let churn = [
        "churn",
        "--clients",
        "8",
        "--together",
        "4",
        "--duration",
        "0.3",
    ];
    let result = tool.result(&[&churn[..], OWN].concat());
    assert!(result["connections"].as_u64().unwrap() > 8);
    assert_eq!(result["failed"], 0);
    let storm = [
        "reconnect-storm",
        "--connections",
        "40",
        "--processes",
        "2",
        "--storms",
        "2",
        "--rate",
        "200",
        "--pairs",
        "2",
        "--calm",
        "0.2",
    ];
    let result = tool.result(&[&storm[..], OWN].concat());
    assert_eq!(result["first"]["connections"], 40);
    assert_eq!(result["connections"], 40);
    assert_eq!(result["storms_per_s"].as_array().unwrap().len(), 2);
    assert_eq!(result["beside"]["verdict"]["lost"], 0);
    assert!(result["beside"]["before"]["count"].as_u64().unwrap() > 0);
}

#[test]
fn revocations_let_no_later_message_pass() {
    let broker = Broker::start(&[]);
    let tool = Loadtest { broker: &broker };
    let result = tool.result(&[&["revocation", "--rounds", "20", "--rate", "2000"], OWN].concat());
    assert_eq!(result["late"], 0);
    assert_eq!(result["latency"]["count"], 20);
}

/// Connections move to their sessions' homes.
#[test]
fn shards_with_descriptors_of_their_own_serve_every_way_in() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Broker::configured(folder, "own_descriptors = true\n");
    let tool = Loadtest { broker: &broker };
    for address in [
        format!("mqtt://{}", broker.address()),
        format!("ws://{}", broker.listener("ws")),
    ] {
        let load = ["pairs", "-c", "20", "--messages", "200", "-q", "1"];
        let result = tool.result(&[&load[..], OWN, &["--address", &address]].concat());
        assert_eq!(result["delivered"], 200);
    }
}

#[test]
fn another_transport_carries_the_same_load() {
    let broker = Broker::start(&["--open"]);
    let tool = Loadtest { broker: &broker };
    let address = format!("ws://{}", broker.listener("ws"));
    for payload in ["64", "70000"] {
        let arguments = ["pairs", "-c", "3", "--messages", "60", "--payload", payload];
        let result = tool.result(&[&arguments[..], &["--address", &address]].concat());
        assert_eq!(result["delivered"], 60);
    }
}

#[test]
fn tls_carries_the_same_load_with_the_authority_or_without_a_check_and_not_else() {
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.server(folder.path(), "server", "localhost");
    std::fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    let pair = "certificate = \"server.pem\"\nkey = \"server.key\"\n";
    let configuration = format!("[listeners.wss]\n{pair}[listeners.mqtts]\n{pair}");
    let broker = Broker::configured(folder, &configuration);
    let tool = Loadtest { broker: &broker };
    let port = |listener| broker.listener(listener).rsplit_once(':').unwrap().1;
    for (scheme, listener) in [("mqtts", "mqtts"), ("wss", "wss")] {
        let address = format!("{scheme}://localhost:{}", port(listener));
        let load = ["pairs", "-c", "2", "--messages", "40", "--payload", "20000"];
        let at = ["--credentials", "ready.json", "--address", &address];
        let result = tool.result(&[&load[..], &at[..], &["--tls-ca", "ca.pem"]].concat());
        assert_eq!(result["delivered"], 40, "{scheme}");
        tool.result(&[&load[..], &at[..], &["--tls-insecure"]].concat());
        std::fs::write(tool.file("other.pem"), Authority::new().pem).unwrap();
        let told = tool.refusal(&[&load[..], &at[..], &["--tls-ca", "other.pem"]].concat());
        assert!(told.contains("certificate"), "{told}");
    }
}

#[test]
fn what_cannot_be_done_is_refused_with_what_is_expected() {
    let broker = Broker::start(&[]);
    let tool = Loadtest { broker: &broker };
    let cases: [(&[&str], &str); 9] = [
        (&["pairs", "--address", "http://x"], "mqtt://"),
        (&["pairs", "--address", "mqtts://127.0.0.1"], "--tls-ca"),
        (&["pairs", "--payload", "3"], "16"),
        (&["fan-out", "--processes", "0"], "1 process at least"),
        (&["pairs", "--credentials", "missing.json"], "missing.json"),
        (&["pairs", "--provision"], "--api"),
        (
            &["pairs", "--provision", "--api", "127.0.0.1:1"],
            "--admin-password-file",
        ),
        (&["pairs", "--json", "/nowhere/x.json"], "/nowhere/x.json"),
        (&["compare", "ready.json", "ready.json"], "different loads"),
    ];
    for (arguments, expected) in cases {
        let told = tool.refusal(arguments);
        assert!(told.contains(expected), "{arguments:?}: {told}");
    }
    // Nobody is let in without a login.
    let told = tool.refusal(&["pairs", "--address", broker.address()]);
    assert!(told.contains("could not be made"), "{told}");
}

#[test]
fn two_results_are_shown_beside_each_other() {
    let broker = Broker::start(&[]);
    let tool = Loadtest { broker: &broker };
    let run = [
        "pairs",
        "--pairs",
        "2",
        "--messages",
        "20",
        "--credentials",
        "ready.json",
    ];
    tool.result(&run);
    let output = tool.output(&["compare", "result.json", "result.json"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("deliveries_per_s") && text.contains("1.000x"),
        "{text}"
    );
}
