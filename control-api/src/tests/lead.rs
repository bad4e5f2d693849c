//! Who leads on PostgreSQL. On SQLite the data directory's lock says so (`start.rs`).

use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::*;
use crate::store::sql;
use crate::{OpenError, StoreError};

#[tokio::test]
async fn one_process_at_a_time_leads_on_a_schema() {
    if !both::on_postgres() {
        return;
    }
    let at = installation().await;
    let data = at.folder.path().join("data");
    let elsewhere = || Config {
        data_dir: at.folder.path().join("elsewhere"),
        ..config(&data)
    };
    let refused = Control::open(elsewhere()).await.err().unwrap();
    assert!(
        matches!(refused, OpenError::Store(StoreError::Led)),
        "{refused}"
    );
    assert!(refused.to_string().starts_with("another control process"));
    at.control.close().await;
    std::fs::create_dir_all(at.folder.path().join("elsewhere")).unwrap();
    std::fs::copy(
        data.join("pepper"),
        at.folder.path().join("elsewhere/pepper"),
    )
    .unwrap();
    let (next, _) = Control::open(elsewhere()).await.unwrap();
    // The one before ended in order, so nobody's lease has to be waited for.
    let begun = Instant::now();
    let new = NewDomain {
        route: "plant".into(),
        ..NewDomain::default()
    };
    next.provision().create_domain(new).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn control_that_was_overtaken_writes_nothing_and_lets_its_brokers_go() {
    if !both::on_postgres() {
        return;
    }
    let at = plant().await;
    let broker = Broker::join(at.control(), false).await;
    let store = &at.control().0.store;
    let mut write = store.write().await.unwrap();
    // What a start of another process does, once it has the lock.
    sql::query("UPDATE counters SET value = value + 1 WHERE name = 'incarnation'")
        .execute(write.connection())
        .await
        .unwrap();
    write.commit().await.unwrap();
    let refused = store.write().await.err().unwrap();
    assert!(matches!(refused, StoreError::Led), "{refused}");
    let gone = tokio::time::timeout(Duration::from_secs(10), broker.feed).await;
    assert!(gone.is_ok(), "the pipe is cut");
    let (_, theirs) = tokio::io::duplex(1 << 10);
    assert!(at.control().serve_feed(theirs).await.is_err());
}

#[tokio::test]
async fn sessions_that_the_server_ends_are_made_again_and_the_lead_is_kept() {
    let at = plant().await;
    let Some(server) = both::server() else {
        return;
    };
    let broker = Broker::join(at.control(), false).await;
    let schema = both::schema(&at.at.folder.path().join("data"));
    let sql = format!(
        "SELECT COUNT(pg_terminate_backend(pid)) FROM pg_stat_activity \
         WHERE application_name = '{schema}'"
    );
    let mut session = PgConnection::connect(&server).await.unwrap();
    let (ended,): (i64,) = sqlx::query_as(AssertSqlSafe(sql))
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert!(ended >= 2, "the writer and the lead");
    let begun = Instant::now();
    let connections = at.connections(&["publish"]);
    while at
        .control()
        .provision()
        .connect("plant", &connections)
        .await
        .is_err()
    {
        assert!(begun.elapsed() < Duration::from_secs(10), "never again");
    }
    let connected = |told: &Told| !told.deltas.is_empty();
    broker.until(connected).await;
    let disconnected = at
        .control()
        .provision()
        .disconnect("plant", &connections)
        .await;
    disconnected.unwrap();
    assert_eq!(broker.deltas().len(), 2);
    assert!(!broker.feed.is_finished(), "its pipe was not cut");
}
