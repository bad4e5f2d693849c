//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Faults, RawConfig};
use crate::loadtest::Loadtest;

/// Turnpike, an IoT message broker.
///
/// Without a command the broker is started. Settings come from a file, then from TURNPIKE_...
/// variables (TURNPIKE_LISTENERS__MQTT__ADDRESS is listeners.mqtt.address), then from flags.
#[derive(Debug, Parser)]
#[command(name = "turnpike", version, args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) serve: Serve,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start broker and control API (the default).
    Serve(Serve),
    /// Manage domains, channels, clients and their connections.
    Provision(Provision),
    /// Explain why somebody may do something, or what is missing.
    Explain(Explain),
    /// Put load on a broker and check what arrives.
    Loadtest(Box<Loadtest>),
    /// Check or show the configuration.
    Config(ConfigCommand),
}

/// What `serve` may be told. Also tells `config` what to check.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Serve {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Which half to run [default: all]: "control" serves brokers over the feed, "broker" serves
    /// clients with rights from there.
    #[arg(long, value_name = "all|control|broker")]
    pub(crate) role: Option<String>,
    /// Make no demo domain at the first start.
    #[arg(long)]
    pub(crate) no_demo: bool,
    /// Serve topics outside m/... too, to everybody: a drop-in for other brokers.
    #[arg(long)]
    pub(crate) open: bool,
    /// When ready, print one line of JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    /// Where MQTT clients come in.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) mqtt_address: Option<SocketAddr>,
    /// Where control API, health and metrics are served.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) api_address: Option<SocketAddr>,
}

/// Which installation is meant.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Place {
    /// Folder for everything Turnpike keeps [default: ./turnpike-data].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, value_name = "FILE", env = "TURNPIKE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct ConfigCommand {
    #[command(subcommand)]
    pub(crate) what: ConfigWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigWhat {
    /// Say whether the configuration is valid, and everything that is wrong with it.
    Check(Serve),
    /// Print every setting with its value and where that comes from.
    Show(Serve),
}

/// Operations go to the server that runs on the data directory, or straight to the directory if none
/// runs.
#[derive(Args, Debug)]
pub(crate) struct Provision {
    #[command(flatten)]
    pub(crate) place: GlobalPlace,
    /// Print JSON instead of a table.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    #[command(subcommand)]
    pub(crate) what: ProvisionWhat,
}

/// One decision.
#[derive(Args, Debug)]
pub(crate) struct Explain {
    #[command(flatten)]
    pub(crate) place: GlobalPlace,
    /// Print JSON instead of text.
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) within: Within,
    /// Who: id or name of a user, or id of a client.
    #[arg(long, value_name = "ID|NAME")]
    pub(crate) subject: String,
    /// What it wants to do, such as publish or read.
    #[arg(long)]
    pub(crate) action: String,
    /// With what: id of a channel, client, group or of the domain.
    #[arg(long, value_name = "ID")]
    pub(crate) object: String,
}

/// As [`Place`], also behind the inner command.
#[derive(Args, Clone, Debug)]
pub(crate) struct GlobalPlace {
    /// Folder of the installation [default: ./turnpike-data].
    #[arg(long, value_name = "DIR", global = true)]
    pub(crate) data_dir: Option<PathBuf>,
    /// Configuration file.
    #[arg(long, value_name = "FILE", env = "TURNPIKE_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ProvisionWhat {
    /// Domains: separate customers or sites.
    #[command(subcommand)]
    Domain(Domain),
    /// Channels: what messages pass through.
    #[command(subcommand)]
    Channel(Channel),
    /// Clients: devices and services that connect with an id and a secret.
    #[command(subcommand)]
    Client(Client),
    /// Let clients publish to or subscribe on channels.
    Connect(Connections),
    /// Take that away again; returns when no message passes any more.
    Disconnect(Connections),
    /// Sign tokens with a new key; those signed with the old one are good until they end.
    RotateKeys {
        /// Void every token signed so far: the old key may be in other hands. Returns when none is
        /// good and no message passes under one any more.
        #[arg(long)]
        revoke: bool,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Domain {
    /// Make a domain.
    Create {
        /// Short name in topics.
        route: String,
        /// Name for people [default: the route].
        #[arg(long)]
        name: Option<String>,
        /// Id (UUID) [default: a new one].
        #[arg(long)]
        id: Option<String>,
    },
    /// List all domains.
    List,
    /// Let its messages pass again.
    Enable {
        /// Id or route.
        domain: String,
    },
    /// Stop all its messages and close its clients' connections.
    Disable {
        /// Id or route.
        domain: String,
    },
    /// Remove it with everything inside.
    Delete {
        /// Id or route.
        domain: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Channel {
    /// Make a channel.
    Create {
        #[command(flatten)]
        within: Within,
        /// Short name in topics, unique in the domain.
        route: Option<String>,
        /// Name for people.
        #[arg(long)]
        name: Option<String>,
        /// Id (UUID) [default: a new one].
        #[arg(long)]
        id: Option<String>,
    },
    /// List the channels of a domain.
    List {
        #[command(flatten)]
        within: Within,
    },
    /// Let its messages pass again.
    Enable {
        #[command(flatten)]
        within: Within,
        /// Id or route.
        channel: String,
    },
    /// Stop all its messages.
    Disable {
        #[command(flatten)]
        within: Within,
        /// Id or route.
        channel: String,
    },
    /// Remove it and its connections.
    Delete {
        #[command(flatten)]
        within: Within,
        /// Id or route.
        channel: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Client {
    /// Make a client; its secret is shown this once.
    Create {
        #[command(flatten)]
        within: Within,
        /// Name for people.
        name: Option<String>,
        /// Id (UUID) [default: a new one].
        #[arg(long)]
        id: Option<String>,
        /// File that holds its secret, "-" for standard input [default: a new secret].
        #[arg(long, value_name = "FILE")]
        secret_file: Option<PathBuf>,
    },
    /// List the clients of a domain.
    List {
        #[command(flatten)]
        within: Within,
    },
    /// Let it connect again.
    Enable {
        #[command(flatten)]
        within: Within,
        /// Id.
        client: String,
    },
    /// Close its connections and admit no new one.
    Disable {
        #[command(flatten)]
        within: Within,
        /// Id.
        client: String,
    },
    /// Remove it with its connections and sessions.
    Delete {
        #[command(flatten)]
        within: Within,
        /// Id.
        client: String,
    },
}

#[derive(Args, Debug)]
pub(crate) struct Within {
    /// Id or route of the domain.
    #[arg(long)]
    pub(crate) domain: String,
}

/// Every client with every channel, for every type.
#[derive(Args, Debug)]
pub(crate) struct Connections {
    #[command(flatten)]
    pub(crate) within: Within,
    /// Id of a client; may be repeated.
    #[arg(long = "client", value_name = "CLIENT", required = true)]
    pub(crate) clients: Vec<String>,
    /// Id or route of a channel; may be repeated.
    #[arg(long = "channel", value_name = "CHANNEL", required = true)]
    pub(crate) channels: Vec<String>,
    /// publish or subscribe; may be repeated.
    #[arg(long = "type", value_name = "TYPE", default_values = ["publish", "subscribe"])]
    pub(crate) types: Vec<String>,
}

impl Serve {
    /// Reads file, variables and flags into the configuration, and what it came from.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn config(&self) -> Result<(Config, RawConfig), Faults> {
        let mut raw = layers(self.place.config.as_deref())?;
        if let Some(folder) = &self.place.data_dir {
            raw.flag("--data-dir", "data_dir", folder.to_string_lossy());
        }
        if let Some(role) = &self.role {
            raw.flag("--role", "role", role.clone());
        }
        if self.no_demo {
            raw.flag("--no-demo", "demo", "false");
        }
        if self.open {
            raw.flag("--open", "listeners.mqtt.open", "true");
            raw.flag("--open", "listeners.mqtt.anonymous", "true");
            raw.flag("--open", "listeners.ws.open", "true");
            raw.flag("--open", "listeners.ws.anonymous", "true");
        }
        if let Some(address) = self.mqtt_address {
            raw.flag(
                "--mqtt-address",
                "listeners.mqtt.address",
                address.to_string(),
            );
        }
        if let Some(address) = self.api_address {
            raw.flag(
                "--api-address",
                "listeners.api.address",
                address.to_string(),
            );
        }
        Ok((Config::check(&raw)?, raw))
    }
}

impl GlobalPlace {
    /// The configuration as `serve` would see it, for the data directory.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub(crate) fn config(&self) -> Result<Config, Faults> {
        let place = Place {
            data_dir: self.data_dir.clone(),
            config: self.config.clone(),
        };
        Serve {
            place,
            ..Serve::default()
        }
        .config()
        .map(|(config, _)| config)
    }
}

fn layers(file: Option<&std::path::Path>) -> Result<RawConfig, Faults> {
    let mut raw = RawConfig::default();
    if let Some(path) = file {
        raw.file(path)?;
    }
    let variables = std::env::vars_os().map(|(name, value)| {
        (
            name.to_string_lossy().into_owned(),
            value.to_string_lossy().into_owned(),
        )
    });
    raw.variables(variables);
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_contradicts_itself_nowhere() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_and_takes_the_same_flags() {
        for prefix in [&["turnpike"][..], &["turnpike", "serve"]] {
            let arguments = [
                prefix,
                &["--data-dir", "d", "--no-demo", "--open", "--json"],
            ]
            .concat();
            let cli = Cli::try_parse_from(arguments).unwrap();
            let serve = match cli.command {
                Some(Command::Serve(serve)) => serve,
                None => cli.serve,
                other => panic!("{other:?}"),
            };
            assert!(serve.no_demo && serve.open && serve.json);
            assert_eq!(serve.place.data_dir, Some(PathBuf::from("d")));
        }
    }

    #[test]
    fn provision_takes_its_flags_in_any_place() {
        for arguments in [
            [
                "turnpike",
                "provision",
                "--json",
                "--data-dir",
                "d",
                "domain",
                "list",
            ],
            [
                "turnpike",
                "provision",
                "domain",
                "list",
                "--json",
                "--data-dir",
                "d",
            ],
        ] {
            let cli = Cli::try_parse_from(arguments).unwrap();
            let Some(Command::Provision(provision)) = cli.command else {
                panic!("provision");
            };
            assert!(provision.json);
            assert_eq!(provision.place.data_dir, Some(PathBuf::from("d")));
        }
    }
}
