//! The same tests on both databases: this process runs them on SQLite, and one of them runs the
//! whole process again on PostgreSQL.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::postgres::Server;
use crate::{Config, Database};

/// URL of the server on which the tests of this process run; SQLite without.
const SERVER: &str = "TURNPIKE_TEST_POSTGRES";

#[test]
fn every_test_passes_on_postgresql_too() {
    let Some(server) = Server::start() else {
        return;
    };
    let tests = Command::new(std::env::current_exe().unwrap())
        .args(["tests::", "store::", "--skip", "passes_on_postgresql_too"])
        .env(SERVER, server.url())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&tests.stdout);
    assert!(tests.status.success(), "on PostgreSQL: {told}");
    assert!(!told.contains(" 0 passed"), "{told}");
}

/// Whether the tests of this process run on PostgreSQL.
pub(crate) fn on_postgres() -> bool {
    server().is_some()
}

/// URL of the server on which the tests of this process run.
pub(crate) fn server() -> Option<String> {
    std::env::var(SERVER).ok()
}

/// The schema that belongs to a folder.
pub(crate) fn schema(folder: &Path) -> String {
    let mut hasher = DefaultHasher::new();
    folder.hash(&mut hasher);
    format!("t{:016x}", hasher.finish())
}

/// The configuration of an installation in a folder; on PostgreSQL its schema goes by the folder.
pub(crate) fn config(folder: impl Into<PathBuf>) -> Config {
    let folder = folder.into();
    Config {
        database: database(&folder),
        ..Config::new(folder)
    }
}

/// The database that belongs to a folder; none for SQLite, where it is inside.
pub(crate) fn database(folder: &Path) -> Option<Database> {
    let server = server()?;
    let schema = schema(folder);
    let url = format!("{server}?application_name={schema}&options[search_path]={schema}");
    // In a thread of its own, as the caller may be in a runtime already.
    let made = std::thread::spawn(move || {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().build().unwrap();
        runtime.block_on(async {
            use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};
            let mut connection = PgConnection::connect(&server).await.unwrap();
            let sql = format!("CREATE SCHEMA IF NOT EXISTS {schema}");
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
            connection.close().await.unwrap();
        });
    });
    made.join().unwrap();
    Database::parse(&url)
}
