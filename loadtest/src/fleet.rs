//! Clients and channels in a file, so that what was made once serves many runs.
//!
//! The first line is a JSON object that says what follows: a line for each client, then a line for
//! each channel.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::endpoint::Endpoint;
use crate::error::Error;
use crate::plan::Need;
use crate::target::{Login, Target};

/// Clients that may connect, and what their topics begin with.
#[derive(Clone, Debug)]
pub struct Fleet {
    logins: Vec<Login>,
    prefixes: Vec<String>,
    rights: String,
}

#[derive(Deserialize, Serialize)]
struct Head {
    clients: usize,
    channels: usize,
    /// Tells apart who may do what: a fleet serves only loads that need the same.
    rights: String,
}

impl Fleet {
    /// What `need` asked for and `target` has.
    pub fn new(need: &Need, target: &Target) -> Fleet {
        Fleet {
            logins: target.logins.clone(),
            prefixes: target.prefixes.clone(),
            rights: fingerprint(need),
        }
    }

    /// Writes it into a file that only its owner may read, for it holds secrets.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> Result<(), Error> {
        let write = || -> std::io::Result<()> {
            let opened = File::options()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(file)?;
            let mut out = BufWriter::new(opened);
            let head = Head {
                clients: self.logins.len(),
                channels: self.prefixes.len(),
                rights: self.rights.clone(),
            };
            writeln!(out, "{}", serde_json::to_string(&head)?)?;
            for login in &self.logins {
                writeln!(out, "{}", serde_json::to_string(login)?)?;
            }
            for prefix in &self.prefixes {
                writeln!(out, "{prefix}")?;
            }
            out.flush()
        };
        write().map_err(|error| fault(file, error.to_string()))
    }

    /// Reads one that was written.
    ///
    /// # Errors
    /// The file is none, or is cut.
    pub fn read(file: &Path) -> Result<Fleet, Error> {
        let opened = File::open(file).map_err(|error| fault(file, error.to_string()))?;
        let mut lines = BufReader::new(opened).lines().enumerate();
        let mut line = || match lines.next() {
            Some((_, Ok(line))) => Ok(line),
            Some((at, Err(error))) => Err(fault(file, format!("line {}: {error}", at + 1))),
            None => Err(fault(file, "it ends too early".into())),
        };
        let head: Head = serde_json::from_str(&line()?).map_err(|error| {
            let expected = "expected a file that --save-clients wrote";
            fault(file, format!("line 1: {error}; {expected}"))
        })?;
        let mut logins = Vec::new();
        for at in 0..head.clients {
            let login = serde_json::from_str(&line()?);
            logins.push(login.map_err(|error| fault(file, format!("line {}: {error}", at + 2)))?);
        }
        let mut prefixes = Vec::new();
        for _ in 0..head.channels {
            prefixes.push(line()?);
        }
        if prefixes.is_empty() {
            return Err(fault(file, "it has no channel".into()));
        }
        Ok(Fleet {
            logins,
            prefixes,
            rights: head.rights,
        })
    }

    /// The broker at `endpoint` with these clients and channels.
    ///
    /// # Errors
    /// The fleet was made for another load.
    pub fn target(self, need: &Need, endpoint: Endpoint) -> Result<Target, Error> {
        let wanted = fingerprint(need);
        if wanted != self.rights {
            let why = format!(
                "the clients of the file were made for another load ({}); this one needs {wanted}",
                self.rights
            );
            return Err(Error::Plan(why));
        }
        Ok(Target {
            endpoint,
            logins: self.logins,
            prefixes: self.prefixes,
            first_serial: 0,
        })
    }
}

fn fault(file: &Path, why: String) -> Error {
    let path = file.to_owned();
    Error::File { path, why }
}

/// What a need asks for, in words, with a number that differs when the rights do.
fn fingerprint(need: &Need) -> String {
    // FNV-1a over the rights in their order.
    let mut hash = 0xCBF2_9CE4_8422_2325_u64;
    for right in &need.rights {
        for part in [right.client, right.channel, usize::from(right.publishes)] {
            hash = (hash ^ part as u64).wrapping_mul(0x100_0000_01B3);
        }
    }
    let (clients, channels, rights) = (need.clients, need.channels, need.rights.len());
    format!("{clients} clients, {channels} channels, {rights} rights, {hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Flow, Plan};

    #[test]
    fn a_fleet_is_read_as_it_was_written_and_serves_its_own_load_only() {
        let endpoint = Endpoint::tcp(([127, 0, 0, 1], 1883).into());
        let login = |at: usize| Login {
            username: format!("id-{at}"),
            password: format!("secret \" {at}"),
            client_id: (at == 3).then(|| "of its own".into()),
        };
        let target = Target {
            endpoint: endpoint.clone(),
            logins: (0..4).map(login).collect(),
            prefixes: vec!["m/d/c/0".into(), "m/d/c/1".into()],
            first_serial: 0,
        };
        let need = Plan::new(Flow::pairs(2), target.clone()).need();
        let other = Plan::new(Flow::pairs(3), target.clone()).need();
        let file = std::env::temp_dir().join(format!("loadtest-fleet-{}", std::process::id()));
        Fleet::new(&need, &target).write(&file).unwrap();
        let read = Fleet::read(&file).unwrap();
        assert!(read.clone().target(&other, endpoint.clone()).is_err());
        let found = read.target(&need, endpoint).unwrap();
        assert_eq!(found.logins[3].password, "secret \" 3");
        assert_eq!(found.logins[2].client_id, None);
        assert_eq!(found.logins[3].client_id.as_deref(), Some("of its own"));
        assert_eq!(found.prefixes, target.prefixes);
        let text = std::fs::read_to_string(&file).unwrap();
        let cut = text.rsplit_once("m/d").unwrap().0;
        std::fs::write(&file, cut).unwrap();
        assert!(
            Fleet::read(&file)
                .unwrap_err()
                .to_string()
                .contains("ends too early")
        );
        std::fs::remove_file(&file).unwrap();
    }
}
