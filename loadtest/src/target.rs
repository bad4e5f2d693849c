//! Which broker, as whom, and below which topics.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::error::Error;

/// Which broker is loaded, as whom, below which topics.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Who connects: connections take these in turn. None for anonymous connections.
    pub logins: Vec<Login>,
    /// What topics begin with, without a slash behind it: topics take these in turn. Never empty.
    pub prefixes: Vec<String>,
    /// Connections that others make beside these, from the same addresses of this machine: those
    /// counted before the first of ours.
    pub first_serial: usize,
}

/// A user name with its password.
#[derive(Clone, Deserialize, Serialize)]
pub struct Login {
    /// User name; for a client of Turnpike its id.
    #[serde(rename = "id")]
    pub username: String,
    /// Password; for a client of Turnpike its secret.
    #[serde(rename = "secret")]
    pub password: String,
    /// Client Identifier to come with; otherwise each connection has one of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
}

impl std::fmt::Debug for Login {
    /// Leaves out the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Login")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

/// The part of `turnpike serve --json`'s line that is needed here.
#[derive(Clone, Debug, Deserialize)]
pub struct Ready {
    /// Where the broker and the control side listen.
    pub listeners: Listeners,
    /// The administrator, told at the first start only.
    pub admin: Option<Admin>,
    demo: Option<Demo>,
}

/// Where the broker and the control side listen.
#[derive(Clone, Debug, Deserialize)]
pub struct Listeners {
    /// MQTT over TCP; none, where the process is a control side without a broker.
    pub mqtt: Option<String>,
    /// The control API.
    pub api: String,
}

/// Who administers the platform.
#[derive(Clone, Deserialize)]
pub struct Admin {
    /// Name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Admin {
    /// Leaves out the password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin")
            .field("username", &self.username)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Debug, Deserialize)]
struct Demo {
    domain: String,
    channel: String,
    clients: Vec<Login>,
}

impl Ready {
    /// Reads the line that `turnpike serve --json` printed into `file`.
    ///
    /// # Errors
    /// The file cannot be read or holds something else.
    pub fn read(file: &Path) -> Result<Ready, Error> {
        let text = fs::read_to_string(file).map_err(|error| fault(file, error.to_string()))?;
        serde_json::from_str(&text).map_err(|error| {
            let why = format!("{error}; expected the line that `turnpike serve --json` prints");
            fault(file, why)
        })
    }
}

fn fault(file: &Path, why: String) -> Error {
    let path = file.to_owned();
    Error::File { path, why }
}

impl Target {
    /// A broker that asks for no login.
    pub fn anonymous(endpoint: Endpoint, topic_prefix: impl Into<String>) -> Target {
        Target {
            endpoint,
            logins: Vec::new(),
            prefixes: vec![topic_prefix.into()],
            first_serial: 0,
        }
    }

    /// The demo channel of a Turnpike, from the line that `turnpike serve --json` printed into
    /// `file`: every message passes the permission checks.
    ///
    /// # Errors
    /// The file cannot be read or has no demo in it.
    pub fn demo(file: &Path, endpoint: Endpoint) -> Result<Target, Error> {
        let ready = Ready::read(file)?;
        let Some(demo) = ready.demo.filter(|demo| !demo.clients.is_empty()) else {
            let why = "no demo: it is told at the first start only, without --no-demo";
            return Err(fault(file, why.into()));
        };
        Ok(Target {
            endpoint,
            logins: demo.clients,
            prefixes: vec![format!("m/{}/c/{}", demo.domain, demo.channel)],
            first_serial: 0,
        })
    }

    pub(crate) fn login(&self, connection: usize) -> Option<&Login> {
        let len = self.logins.len();
        (len > 0).then(|| &self.logins[connection % len])
    }

    /// Those of some connections, in their order; none for anonymous ones.
    pub(crate) fn logins_of(&self, connections: std::ops::Range<usize>) -> Vec<Login> {
        let logins = connections.filter_map(|connection| self.login(connection));
        logins.cloned().collect()
    }

    pub(crate) fn topic(&self, topic: usize) -> String {
        format!("{}/{topic}", self.prefixes[topic % self.prefixes.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn demo_is_read_from_the_line_of_serve() {
        let file = std::env::temp_dir().join(format!("loadtest-line-{}", std::process::id()));
        let line = r#"{"listeners":{"mqtt":"127.0.0.1:1883","api":"127.0.0.1:9000"},
            "admin":{"username":"admin","password":"p"},
            "demo":{"domain":"d","channel":"c","clients":[{"id":"i","secret":"s"}]}}"#;
        let endpoint = Endpoint::tcp("127.0.0.1:1883".parse().unwrap());
        fs::write(&file, line).unwrap();
        let target = Target::demo(&file, endpoint.clone()).unwrap();
        assert_eq!(target.topic(5), "m/d/c/c/5");
        assert_eq!(target.login(3).unwrap().username, "i");
        assert!(!format!("{target:?}").contains("\"s\""));
        assert!(!format!("{:?}", Ready::read(&file).unwrap()).contains("\"p\""));
        fs::write(&file, line.replace("\"demo\"", "\"other\"")).unwrap();
        assert!(Target::demo(&file, endpoint).is_err());
        fs::remove_file(&file).unwrap();
    }
}
