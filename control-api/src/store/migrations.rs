//! The schema's history in both databases.

use sqlx::SqlSafeStr;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// A step: its number, its name and its text.
type Step = (i64, &'static str, &'static str);

const SQLITE: [Step; 14] = [
    (
        1,
        "control",
        include_str!("../../migrations/sqlite/0001_control.sql"),
    ),
    (
        2,
        "model",
        include_str!("../../migrations/sqlite/0002_model.sql"),
    ),
    (
        3,
        "names",
        include_str!("../../migrations/sqlite/0003_names.sql"),
    ),
    (
        4,
        "names and states",
        include_str!("../../migrations/sqlite/0004_names_and_states.sql"),
    ),
    (
        5,
        "marks",
        include_str!("../../migrations/sqlite/0005_marks.sql"),
    ),
    (
        6,
        "large lists",
        include_str!("../../migrations/sqlite/0006_large_lists.sql"),
    ),
    (
        7,
        "activity and keys",
        include_str!("../../migrations/sqlite/0007_activity_and_keys.sql"),
    ),
    (
        8,
        "marks in order",
        include_str!("../../migrations/sqlite/0008_marks_in_order.sql"),
    ),
    (
        9,
        "certificates",
        include_str!("../../migrations/sqlite/0009_certificates.sql"),
    ),
    (
        10,
        "logins elsewhere",
        include_str!("../../migrations/sqlite/0010_logins_elsewhere.sql"),
    ),
    (
        11,
        "mailed invitations",
        include_str!("../../migrations/sqlite/0011_mailed_invitations.sql"),
    ),
    (
        12,
        "lineages",
        include_str!("../../migrations/sqlite/0012_lineages.sql"),
    ),
    (
        13,
        "spans",
        include_str!("../../migrations/sqlite/0013_spans.sql"),
    ),
    (
        14,
        "activity in order",
        include_str!("../../migrations/sqlite/0014_activity_in_order.sql"),
    ),
];

/// PostgreSQL came later: its first step is where SQLite stood then.
const POSTGRES: [Step; 9] = [
    (
        1,
        "control",
        include_str!("../../migrations/postgres/0001_control.sql"),
    ),
    (
        2,
        "large lists",
        include_str!("../../migrations/postgres/0002_large_lists.sql"),
    ),
    (
        3,
        "activity and keys",
        include_str!("../../migrations/postgres/0003_activity_and_keys.sql"),
    ),
    (
        4,
        "marks in order",
        include_str!("../../migrations/postgres/0004_marks_in_order.sql"),
    ),
    (
        5,
        "certificates",
        include_str!("../../migrations/postgres/0005_certificates.sql"),
    ),
    (
        6,
        "logins elsewhere",
        include_str!("../../migrations/postgres/0006_logins_elsewhere.sql"),
    ),
    (
        7,
        "mailed invitations",
        include_str!("../../migrations/postgres/0007_mailed_invitations.sql"),
    ),
    (
        8,
        "lineages",
        include_str!("../../migrations/postgres/0008_lineages.sql"),
    ),
    (
        9,
        "spans",
        include_str!("../../migrations/postgres/0009_spans.sql"),
    ),
];

pub(super) fn sqlite() -> Migrator {
    migrator(&SQLITE)
}

/// Without a lock of its own: who migrates leads.
pub(super) fn postgres() -> Migrator {
    let mut migrator = migrator(&POSTGRES);
    migrator.set_locking(false);
    migrator
}

fn migrator(history: &[Step]) -> Migrator {
    let migrations = history.iter().map(|(version, name, text)| {
        let (name, kind) = ((*name).into(), MigrationType::Simple);
        Migration::new(*version, name, kind, text.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

#[cfg(test)]
mod tests {
    use authcache::{EntityId, Status};
    use sqlx::SqlitePool;
    use sqlx::sqlite::SqliteConnectOptions;

    use super::*;
    use crate::grant::{Actions, Kind};
    use crate::model::{Page, Time};
    use crate::store::place::Database;
    use crate::store::{Store, activity, entities, listing, roles, users};

    #[tokio::test]
    async fn a_database_of_the_first_schema_is_brought_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        migrator(&SQLITE[..1]).run(&pool).await.unwrap();
        for sql in [
            "INSERT INTO users (id, username, administrator, password, credential, status, created_at) \
             VALUES (x'00000000000000000000000000000001', 'ann', 0, 'x', 3, 0, 7)",
            "INSERT INTO domains (id, route, name, status, created_at) \
             VALUES (x'00000000000000000000000000000002', 'plant', 'Plant', 0, 7)",
            "INSERT INTO channels (id, domain_id, name, status, open, created_at) \
             VALUES (x'00000000000000000000000000000003', x'00000000000000000000000000000002', 'line', 0, 0, 7)",
            "INSERT INTO clients (id, domain_id, name, anonymous, credential, status, created_at) \
             VALUES (x'00000000000000000000000000000004', x'00000000000000000000000000000002', 'pump', 0, 1, 0, 7)",
        ] {
            sqlx::query(sql).execute(&pool).await.unwrap();
        }
        migrator(&SQLITE[..4]).run(&pool).await.unwrap();
        sqlx::query("UPDATE clients SET metadata = '{\"site\":{\"hall\":3}}'")
            .execute(&pool)
            .await
            .unwrap();
        sqlx::query("INSERT INTO entity_tags SELECT domain_id, 3, 'hot', id FROM clients")
            .execute(&pool)
            .await
            .unwrap();
        migrator(&SQLITE[..13]).run(&pool).await.unwrap();
        sqlx::query(
            "INSERT INTO client_activity (client_id, node_id, incarnation, inbound, outbound, \
             subscriptions, first_seen, last_seen) SELECT id, x'09', 1, 2, 3, 4, 5, 6 FROM clients",
        )
        .execute(&pool)
        .await
        .unwrap();
        pool.close().await;

        let store = Store::open(Database::file(path).place()).await.unwrap();
        let mut connection = store.read().await.unwrap();
        for (number, kind) in [(2, Kind::Domain), (3, Kind::Channel), (4, Kind::Client)] {
            let id = EntityId::from_u128(number);
            let (total, found) = roles::list(&mut connection, id, Page::default())
                .await
                .unwrap();
            assert_eq!((total, found[0].kind, found[0].builtin), (1, kind, true));
            assert_eq!(found[0].actions, Actions::all(kind));
        }
        let user = users::user_auth(&mut connection, EntityId::from_u128(1)).await;
        assert_eq!(user.unwrap().unwrap().tokens_from, 3);
        let (domain, client) = (EntityId::from_u128(2), EntityId::from_u128(4));
        let found = entities::entity(&mut connection, Kind::Client, domain, client).await;
        assert_eq!(found.unwrap().unwrap().name, "pump");
        let did = activity::telemetry(&mut connection, client).await.unwrap();
        assert_eq!((did.inbound, did.outbound), (2, 3));
        assert_eq!(did.last_seen, Some(Time::from_micros(6)));
        for (name, hall, total) in [("ump", 3, 1), ("ump", 4, 0), ("umb", 3, 0)] {
            let filter = listing::Filter {
                name: Some(name.to_owned()),
                metadata: vec![("$.\"site\".\"hall\"".to_owned(), hall.into())],
                order: "e.name",
                ..listing::Filter::default()
            };
            let page = Page::default();
            let client = Kind::Client;
            let found =
                listing::list(&mut connection, client, domain, &filter, None, page, false).await;
            assert_eq!(found.unwrap().0, total, "{name} in hall {hall}");
        }
        for (tag, total) in [(None, 1), (Some("hot"), 1), (Some("cold"), 0)] {
            let filter = listing::Filter {
                tags: tag.map(|tag| listing::Tags::Any(vec![tag.to_owned()])),
                status: Some(Status::Enabled),
                order: listing::MOVED,
                ..listing::Filter::default()
            };
            let (kind, page) = (Kind::Client, Page::default());
            let found =
                listing::list(&mut connection, kind, domain, &filter, None, page, false).await;
            let (counted, found) = found.unwrap();
            assert_eq!((counted, found.len()), (total, total as usize), "{tag:?}");
        }
    }
}
