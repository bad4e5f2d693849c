//! One control process at a time leads on a PostgreSQL database.
//!
//! Who leads holds an advisory lock in a session of its own and asks that session twice a second
//! whether it is still there. When no answer has come for as long as a lease lasts, the feed's pipes
//! are cut: somebody else may hold the lock by now. Whoever takes over after a control that was not
//! told to stop lets nothing settle before the pipes and leases of that one have ended.

use std::sync::Mutex;
use std::time::Duration;

use authcache::feed::LEASE_MS;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection as _, PgConnection};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::sql::{self, Connection};
use super::{AWAY, StoreError};
use crate::clock::lock;

/// How long a control leads on without a word from the database, in milliseconds.
pub(crate) const TRUST_MS: u64 = LEASE_MS;
const TRUST: Duration = Duration::from_millis(TRUST_MS);
/// How often it asks.
const EVERY: Duration = Duration::from_millis(500);
/// Each schema has a lock of its own.
const TAKE: &str =
    "SELECT pg_try_advisory_lock(hashtextextended('turnpike ' || current_schema(), 0))";

/// The lead, held until it is given up or this is dropped.
pub(super) struct Lead {
    leading: watch::Sender<bool>,
    options: PgConnectOptions,
    /// The session until the lead is kept, then the task that keeps it.
    held: Mutex<Held>,
}

enum Held {
    Taken(PgConnection),
    Kept(JoinHandle<()>),
    GivenUp,
}

impl Lead {
    /// Takes the lead.
    ///
    /// # Errors
    /// Another process has it, or the database cannot be reached.
    pub(super) async fn take(options: &PgConnectOptions) -> Result<Lead, StoreError> {
        // One that has just ended may still be noticed for a moment.
        let until = Instant::now() + AWAY;
        let session = loop {
            match within(AWAY, session(options)).await?? {
                Some(session) => break session,
                None if Instant::now() >= until => return Err(StoreError::Led),
                None => tokio::time::sleep(EVERY / 5).await,
            }
        };
        Ok(Lead {
            leading: watch::Sender::new(true),
            options: options.clone(),
            held: Mutex::new(Held::Taken(session)),
        })
    }

    pub(super) fn leading(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Keeps the lead from now on, for the start with this number.
    pub(super) fn keep(&self, incarnation: i64) {
        let mut held = lock(&self.held);
        if let Held::Taken(session) = std::mem::replace(&mut *held, Held::GivenUp) {
            let keeper = Keeper {
                session: Some(session),
                options: self.options.clone(),
                incarnation,
                leading: self.leading.clone(),
            };
            *held = Held::Kept(tokio::spawn(keeper.run()));
        }
    }

    /// Lets another process lead.
    pub(super) async fn give_up(&self) {
        self.leading.send_replace(false);
        let held = std::mem::replace(&mut *lock(&self.held), Held::GivenUp);
        match held {
            Held::Taken(session) => drop(session.close().await),
            Held::Kept(task) => {
                task.abort();
                // The session goes with the task.
                let _ = task.await;
            }
            Held::GivenUp => {}
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if let Held::Kept(task) = &*lock(&self.held) {
            task.abort();
        }
    }
}

/// How it stands with the lead.
enum Standing {
    Leads,
    /// Another session has the lock: another control, or our own from before that the server has
    /// not given up yet.
    Locked,
    /// Another control has led since.
    Overtaken,
}

struct Keeper {
    session: Option<PgConnection>,
    options: PgConnectOptions,
    incarnation: i64,
    leading: watch::Sender<bool>,
}

impl Keeper {
    async fn run(mut self) {
        let mut trusted_until = Instant::now() + TRUST;
        loop {
            let asked = Instant::now();
            let patience = match trusted_until.saturating_duration_since(asked) {
                Duration::ZERO => AWAY,
                left => left,
            };
            match within(patience, self.standing()).await {
                Ok(Ok(Standing::Leads)) => {
                    trusted_until = asked + TRUST;
                    if !self.leading.send_replace(true) {
                        tracing::info!("the database is there again: control leads on");
                    }
                }
                Ok(Ok(Standing::Overtaken)) => {
                    self.leading.send_replace(false);
                    tracing::error!(
                        "another control process has led on this database: this one leads no more; restart it once the other is stopped"
                    );
                    return;
                }
                Ok(Ok(Standing::Locked)) => self.session = None,
                Ok(Err(error)) | Err(error) => {
                    if self.session.take().is_some() {
                        tracing::warn!(%error, "the database does not confirm that control leads");
                    }
                }
            }
            if Instant::now() >= trusted_until && self.leading.send_replace(false) {
                tracing::error!(
                    "the database is away: brokers are cut off until it confirms that control leads"
                );
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn standing(&mut self) -> Result<Standing, StoreError> {
        let session = match self.session.take() {
            Some(session) => self.session.insert(session),
            None => match session(&self.options).await? {
                Some(session) => self.session.insert(session),
                None => return Ok(Standing::Locked),
            },
        };
        let sql = "SELECT value FROM counters WHERE name = 'incarnation'";
        let (last,): (i64,) = sqlx::query_as(sql).fetch_one(session).await?;
        Ok(if last == self.incarnation {
            Standing::Leads
        } else {
            Standing::Overtaken
        })
    }
}

/// A session that holds the lock, if nobody else does.
async fn session(options: &PgConnectOptions) -> Result<Option<PgConnection>, StoreError> {
    let mut session = options.connect().await?;
    let (taken,): (bool,) = sqlx::query_as(TAKE).fetch_one(&mut session).await?;
    Ok(taken.then_some(session))
}

async fn within<T>(patience: Duration, work: impl Future<Output = T>) -> Result<T, StoreError> {
    let done = tokio::time::timeout(patience, work).await;
    done.map_err(|_| StoreError::Silent(patience))
}

/// Notes that brokers follow from now on; answers whether they already did, so that some may still
/// follow a control that was not told to stop.
pub(super) async fn begin(connection: &mut Connection) -> Result<bool, StoreError> {
    let (followed,): (i64,) = sql::query_as("SELECT value FROM counters WHERE name = 'followed'")
        .fetch_one(connection)
        .await?;
    note(connection, 1).await?;
    Ok(followed != 0)
}

/// Notes that no broker follows any more.
pub(super) async fn end(connection: &mut Connection) -> Result<(), StoreError> {
    note(connection, 0).await
}

async fn note(connection: &mut Connection, followed: i64) -> Result<(), StoreError> {
    sql::query("UPDATE counters SET value = $1 WHERE name = 'followed'")
        .bind(followed)
        .execute(connection)
        .await?;
    Ok(())
}
