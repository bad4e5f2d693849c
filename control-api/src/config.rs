//! What control is started with.

use std::path::PathBuf;
use std::time::Duration;

use crate::model::Time;
use crate::oauth::web::Endpoint;
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
    /// What the program was built from.
    pub build: Build,
}

/// What a program was built from, as far as its builder knew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Build {
    /// Hash of the commit.
    pub commit: Option<&'static str>,
    /// When the sources were made, which is the same for every build of them.
    pub time: Option<Time>,
}

impl Build {
    /// What `/health` says of it, in a process of its own or with the rest.
    #[must_use]
    pub fn shown(&self) -> [(&'static str, String); 2] {
        let unknown = || "unknown".to_owned();
        [
            ("commit", self.commit.map_or_else(unknown, str::to_owned)),
            (
                "build_time",
                self.time.map_or_else(unknown, |time| time.to_string()),
            ),
        ]
    }
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
    /// Providers at which people may log in instead of here.
    pub oauth: Vec<OauthProvider>,
    /// Pages to which a login at a provider may return; the first if none is asked for.
    pub return_urls: Vec<String>,
    /// How often mails are caused and people registered.
    pub rates: RateLimits,
}

/// How often mails are caused and people registered. IPv6 addresses count by /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateLimits {
    /// Mails that a user causes in an hour: invitations and answers to them, and links that verify its
    /// own address.
    pub mails_per_user: u32,
    /// Invitations that are mailed to one e-mail address in an hour.
    pub invitations_per_address: u32,
    /// Links of each kind (for another password, to verify it) that go to one e-mail address in 15
    /// minutes.
    pub links_per_address: u32,
    /// Links of each kind that are asked for from one address in 15 minutes.
    pub links_per_source: u32,
    /// Users who register themselves from one address in an hour.
    pub registrations_per_source: u32,
    /// Users who register themselves in a minute without an invitation.
    pub registrations: u32,
}

impl Default for RateLimits {
    fn default() -> RateLimits {
        RateLimits {
            mails_per_user: 100,
            invitations_per_address: 10,
            links_per_address: 5,
            links_per_source: 50,
            registrations_per_source: 50,
            registrations: 120,
        }
    }
}

/// A provider of logins: OAuth 2.0 with PKCE, and the user info endpoint of OpenID Connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OauthProvider {
    /// Its name in paths and in the database.
    pub name: String,
    /// What this installation is called there.
    pub client_id: String,
    /// A file with the secret that belongs to it; none for a public client.
    pub client_secret_file: Option<PathBuf>,
    /// Whether the secret stands in the form instead of in the header.
    pub secret_in_body: bool,
    /// Where browsers are sent.
    pub authorize_url: String,
    /// Where an authorization code becomes a token.
    pub token_url: String,
    /// Where a token becomes a profile.
    pub userinfo_url: String,
    /// What is asked for.
    pub scope: String,
    /// Authorities of its certificates, besides those of the Web.
    pub ca: Option<PathBuf>,
    /// Whether people whom nobody knows here are registered.
    pub register: bool,
    /// Whether its addresses are verified though it does not say so.
    pub emails_verified: bool,
}

impl OauthProvider {
    /// Whether secrets may be sent to this URL.
    #[must_use]
    pub fn is_url(text: &str) -> bool {
        Endpoint::parse(text).is_some()
    }

    /// A provider of this name, with its endpoints where those are known: `google`.
    #[must_use]
    pub fn new(name: &str) -> OauthProvider {
        let endpoints = match name {
            "google" => [
                "https://accounts.google.com/o/oauth2/v2/auth",
                "https://oauth2.googleapis.com/token",
                "https://openidconnect.googleapis.com/v1/userinfo",
            ],
            _ => [""; 3],
        };
        let [authorize_url, token_url, userinfo_url] = endpoints.map(str::to_owned);
        OauthProvider {
            name: name.to_owned(),
            client_id: String::new(),
            client_secret_file: None,
            secret_in_body: false,
            authorize_url,
            token_url,
            userinfo_url,
            scope: "openid email profile".to_owned(),
            ca: None,
            register: false,
            emails_verified: false,
        }
    }
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
            oauth: Vec::new(),
            return_urls: Vec::new(),
            rates: RateLimits::default(),
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
            build: Build::default(),
        }
    }
}
