//! Which broker, as whom, and below which topic.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;

use crate::error::Error;

/// Which broker is loaded, as whom, below which topic.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// Who connects: connections take these in turn. None for anonymous connections.
    pub logins: Vec<Login>,
    /// Topics begin with this, without a slash behind it.
    pub topic_prefix: String,
}

/// A user name with its password.
#[derive(Clone, Deserialize)]
pub struct Login {
    /// User name; for a client of Turnpike its id.
    #[serde(rename = "id")]
    pub username: String,
    /// Password; for a client of Turnpike its secret.
    #[serde(rename = "secret")]
    pub password: String,
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
#[derive(Deserialize)]
struct Line {
    listeners: Listeners,
    demo: Option<Demo>,
}

#[derive(Deserialize)]
struct Listeners {
    mqtt: SocketAddr,
}

#[derive(Deserialize)]
struct Demo {
    domain: String,
    channel: String,
    clients: Vec<Login>,
}

impl Target {
    /// A broker that asks for no login.
    pub fn anonymous(address: SocketAddr, topic_prefix: impl Into<String>) -> Target {
        Target {
            address,
            logins: Vec::new(),
            topic_prefix: topic_prefix.into(),
        }
    }

    /// The demo channel of a Turnpike, from the line that `turnpike serve --json` printed into
    /// `file`: every message passes the permission checks.
    ///
    /// # Errors
    /// The file cannot be read or has no demo in it.
    pub fn demo(file: &Path) -> Result<Target, Error> {
        let fault = |why: String| Error::Credentials {
            path: file.to_owned(),
            why,
        };
        let text = fs::read_to_string(file).map_err(|error| fault(error.to_string()))?;
        let line: Line = serde_json::from_str(&text).map_err(|error| fault(error.to_string()))?;
        let Some(demo) = line.demo.filter(|demo| !demo.clients.is_empty()) else {
            return Err(fault("no demo: it is told at the first start only".into()));
        };
        Ok(Target {
            address: line.listeners.mqtt,
            logins: demo.clients,
            topic_prefix: format!("m/{}/c/{}", demo.domain, demo.channel),
        })
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
        fs::write(&file, line).unwrap();
        let target = Target::demo(&file).unwrap();
        assert_eq!(target.topic_prefix, "m/d/c/c");
        assert_eq!(target.logins[0].username, "i");
        assert!(!format!("{target:?}").contains("\"s\""));
        fs::write(&file, line.replace("\"demo\"", "\"other\"")).unwrap();
        assert!(Target::demo(&file).is_err());
        fs::remove_file(&file).unwrap();
    }
}
