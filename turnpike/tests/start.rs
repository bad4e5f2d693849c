//! The binary as an operator meets it: first and second start, mistakes, signals, provisioning.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends at the first surprise"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// The binary, in a folder and with no configuration but what the test gives.
fn turnpike(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
    command.current_dir(folder).env_clear();
    command
}

struct Server {
    process: Child,
    ready: Value,
    folder: PathBuf,
}

impl Server {
    fn start(folder: &Path, flags: &[&str]) -> Server {
        let mut process = turnpike(folder)
            .args([
                "--json",
                "--mqtt-address",
                "127.0.0.1:0",
                "--api-address",
                "127.0.0.1:0",
            ])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line:?}"));
        Server {
            process,
            ready,
            folder: folder.to_owned(),
        }
    }

    fn address(&self, listener: &str) -> &str {
        self.ready["listeners"][listener].as_str().unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-s", name, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Stops it as an init system would; the exit code.
    fn stop(mut self, name: &str) -> Option<i32> {
        self.signal(name);
        self.process.wait().unwrap().code()
    }

    fn provision(&self, arguments: &[&str]) -> Output {
        turnpike(&self.folder)
            .arg("provision")
            .args(arguments)
            .output()
            .unwrap()
    }

    /// A CONNECT of MQTT 3.1.1; the connection and the return code.
    fn connect(&self, username: &str, password: &str) -> (TcpStream, u8) {
        let mut body = b"\x00\x04MQTT\x04\xc2\x00\x3c\x00\x04test".to_vec();
        for text in [username, password] {
            body.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
            body.extend_from_slice(text.as_bytes());
        }
        let mut stream = TcpStream::connect(self.address("mqtt")).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        stream
            .write_all(&[0x10, u8::try_from(body.len()).unwrap()])
            .unwrap();
        stream.write_all(&body).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        (stream, answer[3])
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs the binary to its end and gives what it said on standard error.
fn refused(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    assert_eq!(text(&output.stdout), "");
    (output.status.code().unwrap(), text(&output.stderr))
}

#[test]
fn the_first_start_tells_logins_that_work_and_the_second_reuses_them() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let ready = server.ready.clone();
    assert_eq!(ready["admin"]["username"], "admin");
    let clients = ready["demo"]["clients"].as_array().unwrap();
    assert_eq!(clients.len(), 2);
    let (id, secret) = (
        clients[0]["id"].as_str().unwrap(),
        clients[0]["secret"].as_str().unwrap(),
    );
    assert_eq!(server.connect(id, secret).1, 0);
    assert_eq!(server.connect(id, "wrong").1, 4);
    let password = ready["admin"]["password"].as_str().unwrap();
    assert_eq!(server.connect("admin", password).1, 0);
    assert!(folder.path().join("turnpike-data/control.db").exists());
    assert_eq!(server.stop("TERM"), Some(0));

    let server = Server::start(folder.path(), &["--data-dir", "turnpike-data"]);
    assert_eq!(
        (&server.ready["admin"], &server.ready["demo"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(server.connect(id, secret).1, 0);
    assert_eq!(server.stop("INT"), Some(0));
}

#[test]
fn without_json_people_are_told_in_text() {
    let folder = folder();
    let run = |flags: &[&str]| {
        let mut process = turnpike(folder.path())
            .args([
                "serve",
                "--mqtt-address",
                "127.0.0.1:0",
                "--api-address",
                "127.0.0.1:0",
            ])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut told = String::new();
        let mut lines = BufReader::new(process.stdout.take().unwrap());
        while !told.contains("Data") || (told.contains("(new)") && !told.contains("mosquitto_pub"))
        {
            assert_ne!(lines.read_line(&mut told).unwrap(), 0, "{told}");
        }
        process.kill().unwrap();
        process.wait().unwrap();
        told
    };
    let first = run(&[]);
    for part in [
        "Password",
        "mosquitto_sub -h 127.0.0.1 -p ",
        " -u ",
        " -P ",
        " -t m/",
        " -m hello",
    ] {
        assert!(first.contains(part), "{part}: {first}");
    }
    let second = run(&[]);
    assert!(
        second.contains("reused") && !second.contains("Password"),
        "{second}"
    );
}

#[test]
fn flags_decide_what_the_first_start_makes() {
    let folder = folder();
    let server = Server::start(folder.path(), &["--no-demo", "--data-dir", "other"]);
    assert_eq!(server.ready["demo"], Value::Null);
    assert_eq!(server.ready["admin"]["username"], "admin");
    assert!(folder.path().join("other").exists() && !folder.path().join("turnpike-data").exists());
    assert_eq!(server.connect("nobody", "nothing").1, 4);
    drop(server);
    let server = Server::start(folder.path(), &["--open", "--data-dir", "other"]);
    assert_eq!(server.connect("nobody", "nothing").1, 0);
}

#[test]
fn mistakes_in_the_configuration_are_told_in_clear_sentences() {
    let folder = folder();
    let path = folder.path();
    let (code, said) = refused(turnpike(path).args(["--config", "none.toml"]));
    assert_eq!(
        (code, said.as_str()),
        (2, "configuration file none.toml does not exist\n")
    );
    std::fs::write(path.join("t.toml"), "demo = 1\n[limits]\nreceive_max = 5\n").unwrap();
    for command in [&["serve"][..], &["config", "check"], &["config", "show"]] {
        let (code, said) = refused(turnpike(path).args(command).args(["--config", "t.toml"]));
        assert_eq!(code, 2);
        assert_eq!(
            said,
            "t.toml:1: demo is 1; expected true or false\n\
             t.toml:3: limits.receive_max is no known key; did you mean limits.receive_maximum?\n"
        );
    }
    let (code, said) = refused(turnpike(path).env("TURNPIKE_LISTENERS__MQTT__ADDRES", "x"));
    assert_eq!(code, 2);
    assert!(
        said.contains("did you mean listeners.mqtt.address?"),
        "{said}"
    );
    let (code, said) = refused(turnpike(path).args(["--mqtt-address", "nowhere"]));
    assert_eq!(code, 2);
    assert!(said.contains("nowhere"), "{said}");
    assert!(
        !path.join("turnpike-data").exists(),
        "nothing is made for a start that fails"
    );
}

#[test]
fn a_configuration_that_is_valid_is_shown_with_its_origins() {
    let folder = folder();
    std::fs::write(folder.path().join("t.toml"), "demo = false\n").unwrap();
    let run = |what| {
        let mut command = turnpike(folder.path());
        command
            .args(["config", what, "--config", "t.toml"])
            .env("TURNPIKE_SHARDS", "2");
        text(&command.output().unwrap().stdout)
    };
    assert_eq!(run("check"), "the configuration is valid\n");
    let shown = run("show");
    let line = |start| shown.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(line("demo = false").ends_with("# t.toml:1"), "{shown}");
    assert!(line("shards = 2").ends_with("# TURNPIKE_SHARDS"), "{shown}");
    assert!(
        line("max_packet_size = \"1MiB\"").ends_with("# default"),
        "{shown}"
    );
}

#[test]
fn a_port_in_use_stops_the_start_before_anything_is_made() {
    let folder = folder();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (flag, other) in [
        ("--mqtt-address", "--api-address"),
        ("--api-address", "--mqtt-address"),
    ] {
        let mut command = turnpike(folder.path());
        let (code, said) = refused(command.args([flag, &address, other, "127.0.0.1:0"]));
        assert_eq!(code, 1);
        assert!(
            said.contains(&address) && said.contains("another process uses that port"),
            "{said}"
        );
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    assert!(!folder.path().join("turnpike-data").exists());
}

#[test]
fn f_10_a_second_server_on_one_data_directory_is_refused() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let mut second = turnpike(folder.path());
    second.args([
        "--mqtt-address",
        "127.0.0.1:0",
        "--api-address",
        "127.0.0.1:0",
    ]);
    let (code, said) = refused(&mut second);
    assert_eq!(code, 1);
    let process = format!("in use by process {}", server.process.id());
    assert!(said.contains(&process), "{said}");
}

#[test]
fn provision_works_with_and_without_a_server_and_shows_tables_and_json() {
    let folder = folder();
    let direct = |arguments: &[&str]| {
        turnpike(folder.path())
            .arg("provision")
            .args(arguments)
            .output()
            .unwrap()
    };
    let said = text(&direct(&["domain", "list"]).stderr);
    assert!(
        said.contains("there is no installation in ./turnpike-data"),
        "{said}"
    );

    let server = Server::start(folder.path(), &["--no-demo"]);
    let made = server.provision(&["domain", "create", "plant", "--name", "Plant 1"]);
    assert!(made.status.success());
    let made = server.provision(&["client", "create", "pump", "--domain", "plant", "--json"]);
    let client: Value = serde_json::from_slice(&made.stdout).unwrap();
    let (id, secret) = (
        client["id"].as_str().unwrap(),
        client["secret"].as_str().unwrap(),
    );
    assert_eq!(server.connect(id, secret).1, 0);
    let again = server.provision(&["domain", "create", "plant"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        text(&again.stderr).contains("route \"plant\" is taken"),
        "{again:?}"
    );
    assert_eq!(server.stop("TERM"), Some(0));

    let listed = text(&direct(&["domain", "list"]).stdout);
    let row = listed.lines().nth(1).unwrap();
    assert!(
        listed.starts_with("ID ") && row.contains("plant  Plant 1  enabled"),
        "{listed}"
    );
    for arguments in [
        &["channel", "create", "line", "--domain", "plant"][..],
        &[
            "connect",
            "--domain",
            "plant",
            "--client",
            id,
            "--channel",
            "line",
            "--type",
            "publish",
        ],
        &[
            "disconnect",
            "--domain",
            "plant",
            "--client",
            id,
            "--channel",
            "line",
        ],
        &["client", "disable", id, "--domain", "plant"],
        &["channel", "delete", "line", "--domain", "plant"],
    ] {
        let done = direct(arguments);
        assert!(
            done.status.success(),
            "{arguments:?}: {}",
            text(&done.stderr)
        );
    }
    let server = Server::start(folder.path(), &[]);
    assert_eq!(
        server.connect(id, secret).1,
        5,
        "disabled while no server ran"
    );
}

#[test]
fn more_than_a_page_is_listed_whole() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let path = folder.path().join("turnpike-data/control.sock");
    let mut socket = std::os::unix::net::UnixStream::connect(path).unwrap();
    let mut answers = BufReader::new(socket.try_clone().unwrap());
    for _ in 0..150 {
        socket
            .write_all(b"{\"operation\":\"create_channel\",\"domain\":\"demo\"}\n")
            .unwrap();
        let mut line = String::new();
        answers.read_line(&mut line).unwrap();
        assert!(line.starts_with("{\"ok\":"), "{line}");
    }
    let listed = server.provision(&["channel", "list", "--domain", "demo", "--json"]);
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 151);
}

#[test]
fn r_1_a_disabled_client_is_off_when_the_command_returns() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let client = &server.ready["demo"]["clients"][0];
    let (id, secret) = (
        client["id"].as_str().unwrap(),
        client["secret"].as_str().unwrap(),
    );
    let (mut stream, code) = server.connect(id, secret);
    assert_eq!(code, 0);
    let done = server.provision(&["client", "disable", id, "--domain", "demo"]);
    assert!(done.status.success(), "{}", text(&done.stderr));
    stream
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    let ended = stream.read(&mut [0; 16]);
    assert!(
        matches!(ended, Ok(0))
            || ended.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
    );
    assert_eq!(server.connect(id, secret).1, 5);
}

#[test]
fn f_9_a_signal_ends_the_server_in_time_though_clients_stay() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let client = &server.ready["demo"]["clients"][0];
    let (id, secret) = (
        client["id"].as_str().unwrap(),
        client["secret"].as_str().unwrap(),
    );
    let (_stays, _) = server.connect(id, secret);
    let begun = Instant::now();
    assert_eq!(server.stop("TERM"), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn f_9_a_second_signal_does_not_wait() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    server.signal("TERM");
    server.signal("INT");
    let begun = Instant::now();
    let code = server.stop("TERM");
    assert!(matches!(code, Some(0 | 130)), "{code:?}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}
