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
    let snapshot = crate::snapshot::read(&at.control().0.store, &held)
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
