//! Where the database is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};

use super::fold;

/// How long a statement waits for another process that holds an SQLite database.
const BUSY: Duration = Duration::from_secs(5);
/// Pages that each connection to SQLite keeps, in KiB below zero: 64 MiB for the writer and as much
/// for each reader, of which only what is used is taken. Ids are random, so a bulk call touches
/// pages everywhere.
const CACHE: &str = "-65536";
/// Changed pages that a transaction keeps in memory, beyond the cache too: 256 MiB. A bulk call in a
/// domain of a million changes 32 000; those that were written early would be read and written again.
const SPILLED: &str = "65536";
/// Bytes of an SQLite database that are read without a copy; beyond, through the cache.
const MAPPED: &str = "2147483648";
/// What a URL of PostgreSQL may say behind its question mark. Other words are refused, so that a
/// misspelt password is neither ignored nor logged.
const PARAMETERS: [&str; 14] = [
    "sslmode",
    "sslrootcert",
    "sslcert",
    "sslkey",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "statement-cache-capacity",
    "options",
    "options[search_path]",
];
/// What a server should know of us: that it is no use to keep a plan for a filter that finds
/// something else each time, and that a peer which vanished holds its locks for seconds only.
const SESSION: [(&str, &str); 5] = [
    ("plan_cache_mode", "force_custom_plan"),
    ("tcp_keepalives_idle", "2"),
    ("tcp_keepalives_interval", "1"),
    ("tcp_keepalives_count", "3"),
    ("idle_in_transaction_session_timeout", "60000"),
];

/// A database, as a URL names it. Neither what is shown of it nor its `Debug` has a password.
#[derive(Clone)]
pub struct Database {
    place: Place,
    shown: String,
}

#[derive(Clone)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres(Box<PgConnectOptions>),
}

impl Database {
    /// What a URL may look like.
    pub const EXPECTED: &str = "\"sqlite:PATH\" or \"postgres://USER:PASSWORD@HOST/DATABASE\"";

    /// What a URL names; none if it names no database that is supported.
    #[must_use]
    pub fn parse(url: &str) -> Option<Database> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.trim_start_matches("//");
            return (!path.is_empty()).then(|| Database::file(PathBuf::from(path)));
        }
        if !url.starts_with("postgres://") && !url.starts_with("postgresql://") {
            return None;
        }
        let parameters = url.split_once('?').map_or("", |(_, parameters)| parameters);
        let known = parameters.split('&').all(|parameter| {
            let name = parameter.split('=').next().unwrap_or_default();
            let name = name.replace("%5B", "[").replace("%5D", "]");
            name.is_empty() || PARAMETERS.contains(&name.as_str())
        });
        let options: PgConnectOptions = url.parse().ok().filter(|_| known)?;
        let host = options.get_socket().map_or_else(
            || format!("{}:{}", options.get_host(), options.get_port()),
            |folder| folder.display().to_string().replace('/', "%2F"),
        );
        let shown = format!(
            "postgres://{host}/{}",
            options.get_database().unwrap_or_default()
        );
        let place = Place::Postgres(Box::new(options.options(SESSION)));
        Some(Database { place, shown })
    }

    pub(crate) fn file(path: PathBuf) -> Database {
        Database {
            shown: format!("sqlite:{}", path.display()),
            place: Place::Sqlite(path),
        }
    }

    /// A URL without user and password.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Database").field(&self.shown).finish()
    }
}

/// How a file of SQLite is opened.
pub(super) fn sqlite(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        .busy_timeout(BUSY)
        .pragma("cache_size", CACHE)
        .pragma("cache_spill", SPILLED)
        .pragma("mmap_size", MAPPED)
        .pragma("temp_store", "MEMORY")
        .pragma("wal_autocheckpoint", fold::PAGES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_databases_and_are_shown_without_passwords() {
        for (url, shown) in [
            ("sqlite:a.db", "sqlite:a.db"),
            ("sqlite:///var/a.db", "sqlite:/var/a.db"),
            (
                "postgres://turnpike:secret@db.example:5433/turnpike?sslmode=verify-full",
                "postgres://db.example:5433/turnpike",
            ),
            (
                "postgresql://%2Frun%2Fpostgresql/turnpike?options[search_path]=control",
                "postgres://%2Frun%2Fpostgresql/turnpike",
            ),
            (
                "postgres://db/turnpike?user=ann&password=secret&options%5Bsearch_path%5D=control",
                "postgres://db:5432/turnpike",
            ),
        ] {
            let database = Database::parse(url).unwrap();
            assert_eq!(database.shown(), shown);
            assert!(!format!("{database:?}").contains("secret"));
        }
        for url in [
            "",
            "sqlite:",
            "mysql://db/turnpike",
            "postgres:turnpike",
            "postgres://db:port/turnpike",
            "postgres://db/turnpike?pasword=secret",
        ] {
            assert!(Database::parse(url).is_none(), "{url}");
        }
    }
}
