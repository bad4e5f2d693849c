//! A broker process of its own: ephemeral ports, a temporary folder, ended with the test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::client::Credentials;

pub(crate) struct Broker {
    process: Child,
    ready: Value,
    folder: TempDir,
}

impl Broker {
    /// Two shards, the demo domain, and `flags`.
    pub(crate) fn start(flags: &[&str]) -> Broker {
        Broker::start_in(tempfile::tempdir().unwrap(), "2", flags)
    }

    /// As [`Broker::start`], with one shard: who is at home where does not matter.
    pub(crate) fn start_on_one_shard() -> Broker {
        Broker::start_in(tempfile::tempdir().unwrap(), "1", &[])
    }

    /// As [`Broker::start`], in a folder that holds a `turnpike.toml`.
    pub(crate) fn configured(folder: TempDir, configuration: &str) -> Broker {
        std::fs::write(folder.path().join("turnpike.toml"), configuration).unwrap();
        Broker::start_in(folder, "2", &["--config", "turnpike.toml"])
    }

    fn start_in(folder: TempDir, shards: &str, flags: &[&str]) -> Broker {
        let mut process = command(&folder)
            .env("TURNPIKE_SHARDS", shards)
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
        let ready = serde_json::from_str(&line).unwrap();
        Broker {
            process,
            ready,
            folder,
        }
    }

    /// What `serve --json` printed.
    pub(crate) fn ready(&self) -> &Value {
        &self.ready
    }

    pub(crate) fn address(&self) -> &str {
        self.listener("mqtt")
    }

    /// The address of the listener with this name.
    pub(crate) fn listener(&self, name: &str) -> &str {
        self.ready["listeners"][name].as_str().unwrap()
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, name: &str) {
        let told = Command::new("kill")
            .args(["-s", name, &self.process.id().to_string()])
            .status()
            .unwrap();
        assert!(told.success());
    }

    /// What the API answers to `token`.
    pub(crate) fn get(&self, path: &str, token: &str) -> Value {
        let path = format!("{path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nX-Rest:");
        let answer = self.http("GET", &path, "");
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    /// What Prometheus would read.
    pub(crate) fn metrics(&self) -> String {
        self.http("GET", "/metrics", "")
    }

    /// What `/health` says, with its head.
    pub(crate) fn health(&self) -> String {
        self.http("GET", "/health", "")
    }

    /// A fresh access token of the administrator.
    pub(crate) fn token(&self) -> String {
        self.issue("access_token")
    }

    /// A fresh refresh token of the administrator.
    pub(crate) fn refresh_token(&self) -> String {
        self.issue("refresh_token")
    }

    /// The answer to a login of the administrator.
    pub(crate) fn login(&self) -> String {
        let admin = self.admin();
        let login = serde_json::json!({"username": admin.username, "password": admin.password});
        self.http("POST", "/users/tokens/issue", &login.to_string())
    }

    fn issue(&self, kind: &str) -> String {
        let answer = self.login();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let tokens: Value = serde_json::from_str(body).unwrap();
        tokens[kind].as_str().unwrap().to_owned()
    }

    /// A call of the API with a token, which has to succeed; what it answers.
    pub(crate) fn call(&self, method: &str, path: &str, token: &str, body: &Value) -> Value {
        let line = format!("{path} HTTP/1.1\r\nAuthorization: Bearer {token}\r\nX-Rest:");
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = self.http(method, &line, &body);
        assert!(
            answer.starts_with("HTTP/1.1 20"),
            "{method} {path}: {answer}"
        );
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        serde_json::from_str(body).unwrap_or(Value::Null)
    }

    fn http(&self, method: &str, path: &str, body: &str) -> String {
        let address = self.ready["listeners"]["api"].as_str().unwrap();
        let mut stream = TcpStream::connect(address).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// Its working folder.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Asks the process to end in an orderly way.
    pub(crate) fn terminate(&self) {
        let told = Command::new("kill")
            .arg(self.process.id().to_string())
            .status()
            .unwrap();
        assert!(told.success());
    }

    pub(crate) fn admin(&self) -> Credentials {
        let admin = &self.ready["admin"];
        Credentials {
            username: Some(admin["username"].as_str().unwrap().to_owned()),
            password: Some(admin["password"].as_str().unwrap().to_owned()),
        }
    }

    /// One of the two demo clients.
    pub(crate) fn client(&self, number: usize) -> Credentials {
        let client = &self.ready["demo"]["clients"][number];
        Credentials {
            username: Some(client["id"].as_str().unwrap().to_owned()),
            password: Some(client["secret"].as_str().unwrap().to_owned()),
        }
    }

    /// The demo channel's topic, with `subtopic` below it.
    pub(crate) fn topic(&self, subtopic: &str) -> String {
        let demo = &self.ready["demo"];
        let (domain, channel) = (&demo["domain"], &demo["channel"]);
        format!(
            "m/{}/c/{}/{subtopic}",
            domain.as_str().unwrap(),
            channel.as_str().unwrap()
        )
    }

    pub(crate) fn domain(&self) -> &str {
        self.ready["demo"]["domain"].as_str().unwrap()
    }

    pub(crate) fn channel(&self) -> &str {
        self.ready["demo"]["channel"].as_str().unwrap()
    }

    /// `turnpike provision` against this broker.
    pub(crate) fn provision(&self, arguments: &[&str]) -> Value {
        let Output {
            status,
            stdout,
            stderr,
        } = command(&self.folder)
            .args(["provision", "--json"])
            .args(arguments)
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&stderr).into_owned();
        assert!(status.success(), "provision {arguments:?}: {told}");
        serde_json::from_slice(&stdout).unwrap_or(Value::Null)
    }
}

fn command(folder: &TempDir) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_turnpike"));
    command
        .current_dir(folder.path())
        .env_clear()
        .env("TURNPIKE_SYS_INTERVAL", "1s");
    command
}

impl Broker {
    /// Kills the process; its folder is for another one.
    pub(crate) fn kill(mut self) -> TempDir {
        let _ = self.process.kill();
        let _ = self.process.wait();
        std::mem::replace(&mut self.folder, tempfile::tempdir().unwrap())
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
