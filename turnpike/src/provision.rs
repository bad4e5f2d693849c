//! `turnpike provision`: operations on an installation, running or not.

use std::io::{Read, Write};
use std::path::Path;

use anyhow::{Context, bail};
use control_api::{
    Connections, Control, NewChannel, NewClient, NewDomain, OpenError, OperatorError, Page,
    Request, SOCKET, Secret, operator_request,
};
use serde_json::Value;

use crate::cli::{self, Channel, Client, Domain, ProvisionWhat};
use crate::config::Config;

/// Carries out one operation and prints what it gives.
///
/// # Errors
/// The operation was refused, or there is no installation.
pub(crate) async fn run(arguments: cli::Provision) -> anyhow::Result<()> {
    let config = arguments.place.config()?;
    let (request, shown) = request(arguments.what)?;
    let mut target = Target::find(&config).await?;
    let result = target.all(request).await;
    target.close().await;
    let value = result?;
    let text = if arguments.json {
        format!("{value}\n")
    } else {
        table(&value, shown)
    };
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("the result cannot be printed")
}

/// Who carries operations out.
pub(crate) enum Target<'a> {
    /// The server that runs on the data directory.
    Server(&'a Path),
    /// Ourselves: no server runs.
    Direct(Control),
}

impl Target<'_> {
    /// Finds out who.
    ///
    /// # Errors
    /// There is no installation, or it is starting or stopping.
    pub(crate) async fn find(config: &Config) -> anyhow::Result<Target<'_>> {
        let folder = &config.data_dir;
        // The pepper is made before anything else.
        if !folder.join("pepper").exists() {
            bail!(
                "there is no installation in {}: start `turnpike serve` once, or name another folder with --data-dir",
                folder.display()
            );
        }
        let probe = Request::ListDomains(Page {
            offset: 0,
            limit: 1,
        });
        match operator_request(&folder.join(SOCKET), &probe).await {
            Ok(_) => return Ok(Target::Server(folder)),
            Err(OperatorError::NotRunning) => {}
            Err(error) => return Err(error.into()),
        }
        let control = control_api::Config {
            data_dir: folder.clone(),
            database: config.database.clone(),
            admin_username: config.admin_username.clone(),
            demo: false,
            open: false,
            remote_brokers: config.serves_brokers(),
            api: config.control.clone(),
            build: control_api::Build::default(),
        };
        match Control::open(control).await {
            Ok((control, first_run)) => {
                if let Some(first_run) = first_run {
                    eprintln!(
                        "A platform administrator was made: {} with the password {}",
                        first_run.admin.username,
                        first_run.admin.password.reveal()
                    );
                }
                Ok(Target::Direct(control))
            }
            Err(OpenError::InUse { path, .. }) => {
                bail!(
                    "the server on {} is starting or stopping; try again",
                    path.display()
                )
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Carries the operation out; a list is asked for page by page and given whole.
    async fn all(&mut self, request: Request) -> anyhow::Result<Value> {
        let mut whole: Vec<Value> = Vec::new();
        loop {
            let page = Page {
                offset: whole.len() as u64,
                limit: Page::LIMIT_MAX,
            };
            let request = match &request {
                Request::ListDomains(_) => Request::ListDomains(page),
                Request::ListChannels { domain, .. } => Request::ListChannels {
                    domain: domain.clone(),
                    page,
                },
                Request::ListClients { domain, .. } => Request::ListClients {
                    domain: domain.clone(),
                    page,
                },
                other => return self.one(other).await,
            };
            let mut value = self.one(&request).await?;
            let Value::Array(items) = value["items"].take() else {
                bail!("the server's answer makes no sense; is it of the same version?");
            };
            let last = items.len() < Page::LIMIT_MAX as usize;
            whole.extend(items);
            if last {
                return Ok(Value::Array(whole));
            }
        }
    }

    /// Carries out one operation.
    ///
    /// # Errors
    /// It was refused.
    pub(crate) async fn one(&self, request: &Request) -> anyhow::Result<Value> {
        match self {
            Target::Server(folder) => Ok(operator_request(&folder.join(SOCKET), request).await?),
            Target::Direct(control) => {
                let response = control.provision().execute(request.clone()).await?;
                Ok(serde_json::to_value(response)?)
            }
        }
    }

    pub(crate) async fn close(self) {
        if let Target::Direct(control) = self {
            control.close().await;
        }
    }
}

/// Columns of a table: heading and field.
type Columns = &'static [(&'static str, &'static str)];

const DOMAIN: Columns = &[
    ("ID", "id"),
    ("ROUTE", "route"),
    ("NAME", "name"),
    ("STATUS", "status"),
];
const CHANNEL: Columns = &[
    ("ID", "id"),
    ("ROUTE", "route"),
    ("NAME", "name"),
    ("STATUS", "status"),
];
const CLIENT: Columns = &[("ID", "id"), ("NAME", "name"), ("STATUS", "status")];
const NEW_CLIENT: Columns = &[
    ("ID", "id"),
    ("NAME", "name"),
    ("STATUS", "status"),
    ("SECRET (shown this once)", "secret"),
];
const NOTHING: Columns = &[];

fn request(what: ProvisionWhat) -> anyhow::Result<(Request, Columns)> {
    Ok(match what {
        ProvisionWhat::Domain(what) => domain(what),
        ProvisionWhat::Channel(what) => channel(what),
        ProvisionWhat::Client(what) => client(what)?,
        ProvisionWhat::RotateKeys { revoke: false } => (Request::RotateKeys, NOTHING),
        ProvisionWhat::RotateKeys { revoke: true } => (Request::RevokeKeys, NOTHING),
        ProvisionWhat::Connect(what) => {
            let (domain, connections) = connections(what);
            (
                Request::Connect {
                    domain,
                    connections,
                },
                NOTHING,
            )
        }
        ProvisionWhat::Disconnect(what) => {
            let (domain, connections) = connections(what);
            (
                Request::Disconnect {
                    domain,
                    connections,
                },
                NOTHING,
            )
        }
    })
}

fn domain(what: Domain) -> (Request, Columns) {
    match what {
        Domain::Create { route, name, id } => {
            let new = NewDomain {
                id,
                name: name.unwrap_or_default(),
                route,
            };
            (Request::CreateDomain(new), DOMAIN)
        }
        Domain::List => (Request::ListDomains(Page::default()), DOMAIN),
        Domain::Enable { domain } => (Request::EnableDomain { domain }, DOMAIN),
        Domain::Disable { domain } => (Request::DisableDomain { domain }, DOMAIN),
        Domain::Delete { domain } => (Request::DeleteDomain { domain }, NOTHING),
    }
}

fn channel(what: Channel) -> (Request, Columns) {
    match what {
        Channel::Create {
            within,
            route,
            name,
            id,
        } => {
            let new = NewChannel {
                id,
                name: name.unwrap_or_default(),
                route,
            };
            (
                Request::CreateChannel {
                    domain: within.domain,
                    new,
                },
                CHANNEL,
            )
        }
        Channel::List { within } => (
            Request::ListChannels {
                domain: within.domain,
                page: Page::default(),
            },
            CHANNEL,
        ),
        Channel::Enable { within, channel } => (
            Request::EnableChannel {
                domain: within.domain,
                channel,
            },
            CHANNEL,
        ),
        Channel::Disable { within, channel } => (
            Request::DisableChannel {
                domain: within.domain,
                channel,
            },
            CHANNEL,
        ),
        Channel::Delete { within, channel } => (
            Request::DeleteChannel {
                domain: within.domain,
                channel,
            },
            NOTHING,
        ),
    }
}

fn client(what: Client) -> anyhow::Result<(Request, Columns)> {
    Ok(match what {
        Client::Create {
            within,
            name,
            id,
            secret_file,
        } => {
            let secret = secret_file.as_deref().map(read_secret).transpose()?;
            let new = NewClient {
                id,
                name: name.unwrap_or_default(),
                secret,
            };
            (
                Request::CreateClient {
                    domain: within.domain,
                    new,
                },
                NEW_CLIENT,
            )
        }
        Client::List { within } => (
            Request::ListClients {
                domain: within.domain,
                page: Page::default(),
            },
            CLIENT,
        ),
        Client::Enable { within, client } => (
            Request::EnableClient {
                domain: within.domain,
                client,
            },
            CLIENT,
        ),
        Client::Disable { within, client } => (
            Request::DisableClient {
                domain: within.domain,
                client,
            },
            CLIENT,
        ),
        Client::Delete { within, client } => (
            Request::DeleteClient {
                domain: within.domain,
                client,
            },
            NOTHING,
        ),
    })
}

fn connections(what: cli::Connections) -> (String, Connections) {
    let cli::Connections {
        within,
        clients,
        channels,
        types,
    } = what;
    (
        within.domain,
        Connections {
            clients,
            channels,
            types,
        },
    )
}

/// A secret on the command line would be seen by everybody on the machine.
fn read_secret(path: &Path) -> anyhow::Result<Secret> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("the secret cannot be read")?;
    } else {
        text = std::fs::read_to_string(path)
            .with_context(|| format!("the secret cannot be read from {}", path.display()))?;
    }
    let length = text.trim_end_matches(['\r', '\n']).len();
    text.truncate(length);
    Ok(Secret::new(text))
}

/// Rows under headings, as wide as they must be.
fn table(value: &Value, columns: Columns) -> String {
    let rows = match value {
        Value::Array(rows) => rows.as_slice(),
        row => std::slice::from_ref(row),
    };
    if columns.is_empty() {
        return "done\n".to_owned();
    }
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or("-").to_owned();
    let cells: Vec<Vec<String>> =
        std::iter::once(columns.iter().map(|(name, _)| (*name).to_owned()).collect())
            .chain(
                rows.iter()
                    .map(|row| columns.iter().map(|(_, field)| text(row, field)).collect()),
            )
            .collect();
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| {
            cells
                .iter()
                .map(|row| row[at].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut out = String::new();
    for row in &cells {
        let padded = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(padded.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tables_are_as_wide_as_their_widest_cell() {
        let value = json!([
            { "id": "1", "name": "pump", "status": "enabled" },
            { "id": "22", "name": "Küche", "status": "disabled" },
        ]);
        let expected = "ID  NAME   STATUS\n1   pump   enabled\n22  Küche  disabled\n";
        assert_eq!(table(&value, CLIENT), expected);
        assert_eq!(
            table(&json!({ "id": "1" }), CLIENT),
            "ID  NAME  STATUS\n1   -     -\n"
        );
        assert_eq!(table(&json!([]), CLIENT), "ID  NAME  STATUS\n");
        assert_eq!(table(&json!({}), NOTHING), "done\n");
    }

    #[test]
    fn a_secret_is_read_without_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "s e c\r\n").unwrap();
        assert_eq!(read_secret(&path).unwrap().reveal(), "s e c");
        assert!(read_secret(&folder.path().join("none")).is_err());
    }
}
