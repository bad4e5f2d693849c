//! What brokers hear, and when a call returns.

use std::time::{Duration, Instant};

use authcache::feed::{Credentials, LEASE_MS, LEASE_SKEW_MS};
use authcache::{Change, EntityId, Right};

use super::*;

fn who(at: &Plant) -> Question {
    Question::Identify(Credentials {
        username: Some(at.client.client.id.to_string()),
        password: Some(at.client.secret.reveal().as_bytes().to_vec()),
        ..Credentials::default()
    })
}

#[tokio::test]
async fn a_broker_gets_a_snapshot_and_then_every_revision_in_order() {
    let at = plant().await;
    let broker = Broker::join(at.control(), false).await;
    let (changes, identities) = lock(&broker.shared).snapshot.clone().unwrap();
    assert!(matches!(
        changes[..],
        [Change::DomainSet { .. }, Change::ChannelSet { .. }]
    ));
    assert!(identities.is_empty());
    let begun = at.control().0.feed.revision();
    for _ in 0..5 {
        at.control()
            .provision()
            .connect("plant", &at.connections(&["publish"]))
            .await
            .unwrap();
        at.control()
            .provision()
            .disconnect("plant", &at.connections(&["publish"]))
            .await
            .unwrap();
    }
    let deltas = broker.deltas();
    assert!(
        deltas
            .iter()
            .map(|(revision, _)| *revision)
            .eq(begun + 1..=begun + 10)
    );
}

#[tokio::test]
async fn a_call_returns_only_when_every_broker_has_applied_it() {
    let at = plant().await;
    let quick = Broker::join(at.control(), false).await;
    let slow = Broker::join(at.control(), false).await;
    at.control()
        .provision()
        .connect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    slow.hold_back(true);
    let provision = at.control().provision().clone();
    let connections = at.connections(&["publish"]);
    let mut call = tokio::spawn(async move { provision.disconnect("plant", &connections).await });
    let early = tokio::time::timeout(Duration::from_millis(200), &mut call).await;
    assert!(early.is_err(), "one broker has not applied it");
    assert!(matches!(
        quick.deltas().last().unwrap().1[..],
        [Change::RightSet { .. }]
    ));
    slow.hold_back(false);
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_repeated_revoke_waits_for_the_first_one() {
    let at = plant().await;
    let broker = Broker::join(at.control(), false).await;
    at.control()
        .provision()
        .connect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    broker.hold_back(true);
    let calls: Vec<_> = (0..2)
        .map(|_| {
            let provision = at.control().provision().clone();
            let connections = at.connections(&["publish"]);
            tokio::spawn(async move { provision.disconnect("plant", &connections).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(
        calls.iter().all(|call| !call.is_finished()),
        "nothing is revoked yet"
    );
    broker.hold_back(false);
    for call in calls {
        call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn r_4_a_silent_broker_delays_a_revoke_by_its_lease_and_no_more() {
    let at = plant().await;
    let broker = Broker::join(at.control(), true).await;
    at.control()
        .provision()
        .connect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    broker.hold_back(true);
    let begun = Instant::now();
    at.control()
        .provision()
        .disconnect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    let took = begun.elapsed();
    let lease = Duration::from_millis(LEASE_MS + LEASE_SKEW_MS);
    // The last renewal may be one interval and a turn old.
    assert!(took > lease - Duration::from_millis(600), "{took:?}");
    assert!(took < lease + Duration::from_millis(500), "{took:?}");
}

#[tokio::test]
async fn a_broker_whose_pipe_ended_holds_nobody_up() {
    let at = plant().await;
    let broker = Broker::join(at.control(), false).await;
    broker.leave().await;
    let begun = Instant::now();
    at.control()
        .provision()
        .disable_channel("plant", "line")
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn r_3_an_identity_asked_for_after_a_grant_has_it() {
    let at = plant().await;
    let broker = Broker::join(at.control(), false).await;
    for round in 0..20 {
        let right = if round % 2 == 0 {
            at.control()
                .provision()
                .connect("plant", &at.connections(&["subscribe"]))
                .await
                .unwrap();
            vec![(at.channel.id, Right::SUBSCRIBE)]
        } else {
            at.control()
                .provision()
                .disconnect("plant", &at.connections(&["subscribe"]))
                .await
                .unwrap();
            vec![]
        };
        let Answer::Identity(identity, None) = broker.ask(who(&at)).await else {
            panic!("identified");
        };
        assert_eq!(identity.rights, right);
    }
}

#[tokio::test]
async fn a_rejoining_broker_gets_the_principals_it_holds_and_not_those_that_are_gone() {
    let at = plant().await;
    at.control()
        .provision()
        .connect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    let held = [at.client.client.id, EntityId::from_u128(99)];
    let snapshot = crate::snapshot::read(&at.control().0.store, (None, 0), &held)
        .await
        .unwrap();
    assert_eq!(snapshot.revision, at.control().0.feed.revision());
    assert_eq!(snapshot.identities.len(), 1);
    assert_eq!(
        snapshot.identities[0].rights,
        [(at.channel.id, Right::PUBLISH)]
    );
}

#[tokio::test]
async fn a_pipe_that_speaks_nonsense_is_closed() {
    let at = installation().await;
    let (mut ours, theirs) = tokio::io::duplex(1024);
    ours.write_all(&[0xff; 64]).await.unwrap();
    let error = at.control.serve_feed(theirs).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!(at.control.0.feed.leased(), 0);
}

#[tokio::test]
async fn restored_backup_is_noticed_before_anything_is_answered_under_it() {
    let at = plant().await;
    let (control, store) = (at.control(), &at.control().0.store);
    let provision = control.provision();
    let broker = Broker::join(control, false).await;
    let (_, backup) = store.read_at().await.unwrap();
    provision
        .connect("plant", &at.connections(&["publish", "subscribe"]))
        .await
        .unwrap();
    provision
        .disconnect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    let (_, newest) = store.read_at().await.unwrap();
    assert_eq!(newest, backup + 2);
    let lineage = {
        let mut tx = store.read().await.unwrap();
        let row = crate::store::sql::query("SELECT id FROM lineages").fetch_optional(&mut tx);
        row.await.unwrap().unwrap().get::<Vec<u8>>("id").unwrap()
    };
    let lineage = EntityId::from_bytes(lineage.try_into().unwrap());
    let mut write = store.write().await.unwrap();
    crate::store::sql::query("DELETE FROM connections")
        .execute(write.connection())
        .await
        .unwrap();
    write.restore(backup).await.unwrap();
    // Whatever asks first is refused; then the feed begins anew, and the old pipe is closed.
    let gone = tokio::time::timeout(Duration::from_secs(10), broker.feed).await;
    assert!(gone.unwrap().is_ok(), "its pipe is closed");
    let begun = Instant::now();
    while provision
        .connect("plant", &at.connections(&["publish"]))
        .await
        .is_err()
    {
        assert!(begun.elapsed() < Duration::from_secs(10), "never again");
    }
    // Numbers that were told before come again, and are applied before they are answered.
    let broker = Broker::join(control, false).await;
    broker.hold_back(true);
    let (revoking, connections) = (control.clone(), at.connections(&["publish"]));
    let revoke =
        tokio::spawn(async move { revoking.provision().disconnect("plant", &connections).await });
    broker.until(|told| !told.deltas.is_empty()).await;
    assert!(broker.deltas()[0].0 <= newest && !revoke.is_finished());
    broker.hold_back(false);
    revoke.await.unwrap().unwrap();
    // A broker that was told what is gone begins anew, one that was not does not.
    for (told, afresh) in [
        ((None, 0), false),
        ((Some(lineage), backup), false),
        ((Some(lineage), backup + 1), true),
        ((Some(EntityId::from_u128(9)), 1), true),
    ] {
        let snapshot = crate::snapshot::read(store, told, &[]).await.unwrap();
        assert_eq!(snapshot.afresh, afresh, "{told:?}");
    }
}

#[tokio::test]
async fn database_that_is_older_is_neither_read_nor_written_for_brokers() {
    let folder = tempfile::tempdir().unwrap();
    let database = super::both::database(folder.path())
        .unwrap_or_else(|| crate::Database::file(folder.path().join("control.db")));
    let store = crate::store::Store::open(database.place()).await.unwrap();
    store.start().await.unwrap();
    let commit = async || {
        let mut write = store.write().await.unwrap();
        write.change(Change::UserRightsStale {
            domain: EntityId::from_u128(1),
        });
        write.commit().await
    };
    let before = commit().await.unwrap();
    let newest = commit().await.unwrap();
    store.write().await.unwrap().restore(before).await.unwrap();
    let older = |error: Option<crate::StoreError>| {
        matches!(error, Some(crate::StoreError::Older { revision, newest: told })
            if revision == before && told == newest)
    };
    assert!(older(store.read_at().await.err()));
    assert!(older(store.outbox(newest, 1).await.err()));
    assert!(older(commit().await.err()));
    let write = store.write().await.unwrap();
    assert!(
        older(write.commit().await.err()),
        "nor what brokers do not hear of"
    );
    let mut told = None;
    store
        .begin_lineage(|_, revision| told = Some(revision))
        .await
        .unwrap();
    assert_eq!(told, Some(before));
    assert_eq!(commit().await.unwrap(), newest);
    assert_eq!(store.read_at().await.unwrap().1, newest);
}

#[tokio::test]
async fn reports_that_a_slow_database_has_no_room_for_are_lost_and_counted() {
    let at = plant().await;
    let broker = Broker::join(at.control(), false).await;
    let store = &at.control().0.store;
    // The start of the broker is noted first, then nothing more for a while.
    let noted = async || {
        let mut connection = store.read().await.unwrap();
        let row = crate::store::sql::query("SELECT node_id FROM brokers");
        row.fetch_optional(&mut connection).await.unwrap().is_some()
    };
    while !noted().await {
        tokio::task::yield_now().await;
    }
    let slow = store.write().await.unwrap();
    let did = authcache::feed::Activity {
        client: at.client.client.id,
        inbound: 1,
        outbound: 0,
        subscriptions: 0,
    };
    lock(&broker.shared).reports.extend(vec![vec![did]; 20]);
    // Its answer comes behind the reports.
    let (principal, channel) = (EntityId::from_u128(99), at.channel.id);
    broker.ask(Question::Rights { principal, channel }).await;
    let lost = &at.control().0.identifier.counts().reports_lost;
    assert_eq!(lost.load(std::sync::atomic::Ordering::Relaxed), 4);
    drop(slow);
    let begun = Instant::now();
    loop {
        let mut connection = store.read().await.unwrap();
        let row = crate::store::sql::query("SELECT inbound FROM client_activity");
        let row = row.fetch_optional(&mut connection).await.unwrap();
        let inbound = row.map_or(0, |row| row.get::<i64>("inbound").unwrap());
        if inbound == 16 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(10), "{inbound} of 16");
        drop(connection);
        tokio::task::yield_now().await;
    }
}
