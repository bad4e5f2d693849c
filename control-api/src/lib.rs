//! Provisioning: who exists, what they may do, and how brokers hear of it.
//!
//! [`Control`] opens a data directory and serves four sides: the [`Provision`] operations, the feed
//! for brokers, an HTTP listener and the operator socket. All of them go through one database; every
//! change is a numbered revision that brokers apply in order.
//!
//! It is deliberately not a broker: it knows no shard, no slot and no connection, and what it sees of
//! brokers is [`authcache::feed`]. Besides that it depends on no crate of the workspace.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use control_api::{Config, Control, NewDomain};
//!
//! let (control, first_run) = Control::open(Config::new("turnpike-data")).await?;
//! if let Some(first_run) = first_run {
//!     println!("log in as {}", first_run.admin.username);
//! }
//! let new = NewDomain { route: "plant".into(), ..NewDomain::default() };
//! let domain = control.provision().create_domain(new).await?;
//! control.provision().disable_domain(&domain.route).await?;
//! control.close().await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod api;
mod authz;
mod clock;
mod config;
mod data_dir;
mod explain;
mod feed;
mod first_run;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
mod grant;
mod http;
mod identify;
mod links;
mod metrics;
mod model;
mod name;
mod node;
mod oauth;
mod outbox;
mod password;
mod pat;
mod provision;
mod purge;
mod questions;
mod rates;
mod recent;
mod secret;
mod seldom;
mod snapshot;
mod socket;
mod store;
mod throttle;
mod token;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use authcache::EntityId;
use authcache::feed::LeaseTerms;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use config::{ApiSettings, Build, Config, MailSink, OauthProvider, RateLimits};
pub use first_run::{AdminLogin, Demo, DemoClient, FirstRun};
pub use http::{HttpListener, Metrics, Ready, Tls};
pub use model::{Channel, Client, Domain, Listing, Page, Time, status_word};
pub use name::{Invalid, check_username};
pub use node::Node;
pub use oauth::OauthError;
pub use provision::{
    CONNECTIONS_MAX, ClientWithSecret, Conflict, Connections, Fault, NewChannel, NewClient,
    NewDomain, Provision, ProvisionError, Request, Response, TRIPLES_MAX,
};
pub use secret::Secret;
pub use seldom::Seldom;
pub use socket::{OperatorError, OperatorSocket, Refused, operator_request};
pub use store::StoreError;
pub use store::place::Database;
pub use throttle::network;

use api::Mailer;
use clock::Clock;
use data_dir::DataDir;
use feed::Feed;
use identify::Identifier;
use oauth::Oauth;
use outbox::Outbox;
use password::Passwords;
use rates::Rates;
use secret::Pepper;
use store::{Store, users};
use token::{TokenError, Tokens};

/// Name of the operator socket in the data directory.
pub const SOCKET: &str = "control.sock";

/// Why control could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The data directory cannot be made or locked.
    #[error("data directory {} cannot be used: {source}", path.display())]
    DataDir {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another process has the data directory.
    #[error(
        "data directory {} is in use by {}; stop that one, or choose another directory with --data-dir",
        path.display(), process.map_or("another process".to_owned(), |id| format!("process {id}"))
    )]
    InUse {
        /// The directory.
        path: PathBuf,
        /// The process that has it.
        process: Option<u32>,
    },
    /// The key beside the database is missing or broken.
    #[error(
        "{} cannot be read: {source}; without the pepper that belongs to the database no secret can be checked: restore it from a backup",
        path.display()
    )]
    Pepper {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file with the node's id cannot be read or written.
    #[error("{} cannot be used: {source}; the node's id is in it: restore it, or remove it for a new node", path.display())]
    Node {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The administrator's name is not valid.
    #[error(transparent)]
    Admin(#[from] Invalid),
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A signing key does not open with the pepper.
    #[error(
        "the signing keys in the database do not open with the pepper; restore the pepper that belongs to the database from a backup"
    )]
    SigningKeys,
    /// Passwords could not be hashed.
    #[error("passwords cannot be hashed")]
    Passwords,
    /// A provider of logins cannot be used.
    #[error(transparent)]
    Oauth(#[from] OauthError),
}

/// Control of one installation. Cheap to clone; the data directory is given back when the last clone
/// and everything served through it are gone.
#[derive(Clone)]
pub struct Control(Arc<Inner>);

struct Inner {
    provision: Provision,
    feed: Feed,
    store: Store,
    identifier: Identifier,
    node: EntityId,
    incarnation: u64,
    open_domain: Option<EntityId>,
    settings: ApiSettings,
    build: Build,
    mailer: Option<Mailer>,
    rates: Rates,
    oauth: Oauth,
    socket: PathBuf,
    stopping: watch::Sender<bool>,
    outbox: JoinHandle<()>,
    purge: JoinHandle<()>,
    _data_dir: DataDir,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.outbox.abort();
        self.purge.abort();
    }
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("node", &self.0.node)
            .finish_non_exhaustive()
    }
}

impl Control {
    /// Opens the data directory, and makes what is missing. On the first start the second value holds
    /// the logins that were made; they are shown nowhere else.
    ///
    /// # Errors
    /// The directory is in use or cannot be made, or database or pepper are damaged.
    pub async fn open(config: Config) -> Result<(Control, Option<FirstRun>), OpenError> {
        let username = name::Username::parse(&config.admin_username)?;
        let api = &config.api;
        let oauth = Oauth::open(&api.oauth, &api.return_urls, &api.public_url)?;
        let data_dir = DataDir::open(&config.data_dir)?;
        let database = config
            .database
            .unwrap_or_else(|| Database::file(data_dir.file("control.db")));
        let store = Store::open(database.place()).await?;
        let is_new = !users::any_user(&mut store.read().await?).await?;
        let pepper_path = data_dir.file("pepper");
        let pepper = Pepper::open(&pepper_path, is_new).map_err(|source| OpenError::Pepper {
            path: pepper_path,
            source,
        })?;
        let clock = Clock::start();
        let start = store.start().await?;
        let passwords = Passwords::new(clock)
            .await
            .map_err(|_| OpenError::Passwords)?;
        let first_run =
            first_run::ensure(&store, &pepper, &passwords, &username, config.demo).await?;
        let open_domain = if config.open {
            Some(first_run::ensure_open(&store).await?)
        } else {
            None
        };
        let tokens = Tokens::open(&store, &pepper)
            .await
            .map_err(|error| match error {
                TokenError::Store(error) => OpenError::Store(error),
                TokenError::Sealed | TokenError::Refused => OpenError::SigningKeys,
            })?;
        // What a process that was killed had half done.
        for domain in store.domains_that_hold().await? {
            let mut more = true;
            while more {
                let mut write = store.write().await?;
                more = write.settle_held(domain).await?;
                write.commit().await?;
            }
        }
        if let Some(since) = tokens.since() {
            let mut more = true;
            while more {
                let mut write = store.write().await?;
                more = provision::end_void_logins(&mut write, since).await?;
                write.commit().await?;
            }
        }
        let mut revision = 0;
        let lineage = store.begin_lineage(|_, at| revision = at).await?;
        let identifier = Identifier::new(store.clone(), pepper, passwords, tokens, clock);
        let feed = Feed::new(
            lineage,
            revision,
            start.followed,
            config.remote_brokers,
            clock,
            store.clone(),
            identifier.clone(),
        );
        let outbox = Outbox::default();
        let publishing = tokio::spawn(outbox.clone().run(store.clone(), feed.clone()));
        let provision = Provision::new(store.clone(), feed.clone(), outbox, identifier.clone());
        let kept = config.api.deleted_domains_kept;
        let purge = tokio::spawn(purge::run(store.clone(), provision.clone(), kept));
        let mailer = config.api.mail.as_ref().map(|sink| {
            let (from, url) = (config.api.mail_from.clone(), config.api.public_url.clone());
            Mailer::new(sink.clone(), from, url)
        });
        let control = Control(Arc::new(Inner {
            provision,
            feed,
            store,
            identifier,
            node: start.node,
            incarnation: start.incarnation,
            open_domain,
            mailer,
            rates: Rates::new(config.api.rates, clock),
            oauth,
            settings: config.api,
            build: config.build,
            socket: data_dir.file(SOCKET),
            stopping: watch::Sender::new(false),
            outbox: publishing,
            purge,
            _data_dir: data_dir,
        }));
        Ok((control, first_run))
    }

    /// The operations.
    #[must_use]
    pub fn provision(&self) -> &Provision {
        &self.0.provision
    }

    /// Id of this installation's node, made at the first start.
    #[must_use]
    pub fn node(&self) -> EntityId {
        self.0.node
    }

    /// Number of this start, from 1.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        self.0.incarnation
    }

    /// Domain of the open namespace, if it was asked for.
    #[must_use]
    pub fn open_domain(&self) -> Option<EntityId> {
        self.0.open_domain
    }

    /// Where [`serve_socket`](Self::serve_socket) listens.
    #[must_use]
    pub fn socket_path(&self) -> &Path {
        &self.0.socket
    }

    /// Resolves once this control leads: at once, unless its database is on PostgreSQL and away.
    pub async fn leads(&self) {
        // An error means that the lead cannot be lost.
        let _ = self.0.store.leading().wait_for(|leading| *leading).await;
    }

    /// Serves the broker of this process until the pipe ends. Its lease is the pipe's life.
    ///
    /// # Errors
    /// The pipe failed, or carried what no follower says.
    pub async fn serve_feed<P: AsyncRead + AsyncWrite>(&self, pipe: P) -> io::Result<()> {
        self.0.feed.serve(pipe, LeaseTerms::Pipe).await
    }

    /// Serves a broker elsewhere until the pipe ends. Its lease is timed.
    ///
    /// # Errors
    /// The pipe failed, or carried what no follower says.
    pub async fn serve_remote_feed<P: AsyncRead + AsyncWrite>(&self, pipe: P) -> io::Result<()> {
        self.0.feed.serve(pipe, LeaseTerms::Timed).await
    }

    /// Stops what is served: listeners take nothing new, requests in progress finish, and the
    /// futures that serve them end. Feeds end with their pipes.
    pub fn stop(&self) {
        self.0.stopping.send_replace(true);
    }

    /// [Stops](Self::stop), and closes the database.
    pub async fn close(&self) {
        self.stop();
        self.0.outbox.abort();
        self.0.purge.abort();
        self.0.store.close().await;
    }

    fn settings(&self) -> &ApiSettings {
        &self.0.settings
    }

    fn mailer(&self) -> Option<&Mailer> {
        self.0.mailer.as_ref()
    }

    /// Resolves once [`stop`](Self::stop) is called.
    async fn stopped(&self) {
        let mut stopping = self.0.stopping.subscribe();
        // An error means that the sender is gone, which holds us up no longer either.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}

#[cfg(test)]
mod tests;
