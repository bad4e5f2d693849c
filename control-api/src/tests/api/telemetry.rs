//! What clients did, as brokers tell it.

use authcache::EntityId;
use authcache::feed::Activity;

use super::*;
use crate::model::Time;

async fn tell(world: &World, node: u128, incarnation: u64, clients: &[Activity], at: i64) {
    let mut write = world.at.control.0.store.write().await.unwrap();
    let (node, at) = (EntityId::from_u128(node), Time::from_micros(at));
    write.broker_began(node, incarnation).await.unwrap();
    write
        .add_activity(node, incarnation, clients, at)
        .await
        .unwrap();
    write.commit().await.unwrap();
}

#[tokio::test]
async fn activity_adds_up_over_brokers_and_their_starts() {
    let world = World::new().await;
    let (ann, eve) = (world.person("ann").await, world.person("eve").await);
    let domain = world.domain(&ann, "plant").await;
    let client = world
        .entity(&ann, &domain, "clients", json!({ "name": "pump" }))
        .await;
    let path = format!("/{domain}/journal/client/{client}/telemetry");
    let seen = world.expect("GET", &path, &ann.token, None, 200).await;
    assert_eq!(
        seen,
        json!({
            "client_id": client, "domain_id": domain, "subscriptions": 0,
            "inbound_messages": 0, "outbound_messages": 0,
        })
    );
    let did = |inbound, outbound, subscriptions| Activity {
        client: EntityId::from_text(&client).unwrap(),
        inbound,
        outbound,
        subscriptions,
    };
    let stranger = Activity {
        client: EntityId::from_u128(99),
        ..did(1, 1, 1)
    };
    tell(&world, 1, 1, &[did(2, 3, 4), stranger], 1_000_000).await;
    // A report may name a client twice.
    tell(&world, 2, 1, &[did(9, 0, 7), did(1, 0, 1)], 2_000_000).await;
    tell(&world, 1, 1, &[did(1, 0, 5)], 3_000_000).await;
    let seen = world.expect("GET", &path, &ann.token, None, 200).await;
    assert_eq!(seen["inbound_messages"], 13);
    assert_eq!(seen["outbound_messages"], 3);
    assert_eq!(seen["subscriptions"], 6);
    assert_eq!(seen["first_seen"], "1970-01-01T00:00:01.000000Z");
    assert_eq!(seen["last_seen"], "1970-01-01T00:00:03.000000Z");
    // A broker that starts again has no sessions of the start before.
    tell(&world, 1, 2, &[], 4_000_000).await;
    let seen = world.expect("GET", &path, &ann.token, None, 200).await;
    assert_eq!(seen["inbound_messages"], 13);
    assert_eq!(seen["subscriptions"], 1);
    world.expect("GET", &path, &eve.token, None, 403).await;
    let gone = format!("/{domain}/clients/{client}");
    world.expect("DELETE", &gone, &ann.token, None, 204).await;
    world.expect("GET", &path, &ann.token, None, 404).await;
}
