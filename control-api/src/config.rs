//! What control is started with.

use std::path::PathBuf;
use std::time::Duration;

use crate::store::place::Database;

/// Configuration of control, checked where it was read.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder for the database, the pepper, the lock and the operator socket.
    pub data_dir: PathBuf,
    /// Where the database is; `control.db` in the data directory if absent.
    pub database: Option<Database>,
    /// User name of the platform administrator made at the first start.
    pub admin_username: String,
    /// Whether the first start makes a demo domain.
    pub demo: bool,
    /// Whether the domain of the open namespace is made.
    pub open: bool,
    /// Whether brokers in other processes are served: those of an earlier start may hold leases.
    pub remote_brokers: bool,
    /// How the control API behaves.
    pub api: ApiSettings,
}

/// How the control API behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiSettings {
    /// Whether people register themselves; otherwise administrators register them.
    pub self_registration: bool,
    /// Whether secrets of clients are kept, sealed, to be read back by those who may see the client.
    pub reveal_client_secrets: bool,
    /// Whether users may put into roles what they do not hold themselves, as older servers let them.
    pub unchecked_role_grants: bool,
    /// Whether the journal notes what is looked at, besides what is changed and what is denied.
    pub journal_views: bool,
    /// Whether users must verify their e-mail address before they may do anything else.
    pub require_verified_email: bool,
    /// How long a deleted domain can be brought back; zero removes it at once.
    pub deleted_domains_kept: Duration,
    /// Where mail goes; none is sent without.
    pub mail: Option<MailSink>,
    /// Address that mail comes from.
    pub mail_from: String,
    /// Where people reach this installation, without a slash at the end; links in mails begin with it.
    pub public_url: String,
}

impl Default for ApiSettings {
    fn default() -> ApiSettings {
        ApiSettings {
            self_registration: false,
            reveal_client_secrets: true,
            unchecked_role_grants: false,
            journal_views: false,
            require_verified_email: false,
            deleted_domains_kept: Duration::from_secs(720 * 3_600),
            mail: None,
            mail_from: "turnpike@localhost".to_owned(),
            public_url: "http://127.0.0.1:9000".to_owned(),
        }
    }
}

/// Where mail goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MailSink {
    /// Files in this folder, one for each mail.
    Folder(PathBuf),
    /// A relay that speaks SMTP, as host and port.
    Relay(String),
}

impl Config {
    /// The defaults, in this folder.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Config {
        Config {
            data_dir: data_dir.into(),
            database: None,
            admin_username: "admin".to_owned(),
            demo: true,
            open: false,
            remote_brokers: false,
            api: ApiSettings::default(),
        }
    }
}
