//! Deleted domains that are kept a while, and groups that stop messages.

use std::time::Duration;

use authcache::{Change, EntityId, Status};

use super::super::Broker;
use super::*;
use crate::model::Time;

fn keeps(kept: Duration) -> ApiSettings {
    ApiSettings {
        deleted_domains_kept: kept,
        ..ApiSettings::default()
    }
}

#[tokio::test]
async fn a_deleted_domain_is_gone_for_its_members_and_can_be_brought_back() {
    let world = World::with(keeps(Duration::from_secs(3_600))).await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let client = world
        .entity(&ann, &domain, "clients", json!({ "name": "pump" }))
        .await;
    let broker = Broker::join(&world.at.control, false).await;
    let path = format!("/domains/{domain}");
    world.expect("DELETE", &path, &ann.token, None, 204).await;
    let told = broker.deltas();
    let stopped = told.iter().flat_map(|(_, changes)| changes).any(
        |change| matches!(change, Change::DomainSet { status, .. } if *status == Status::Disabled),
    );
    assert!(stopped, "{told:?}");
    for name in [domain.as_str(), "plant"] {
        let path = format!("/domains/{name}");
        world.expect("GET", &path, &ann.token, None, 403).await;
        world.expect("GET", &path, &world.admin, None, 404).await;
    }
    let clients = format!("/{domain}/clients");
    world.expect("GET", &clients, &ann.token, None, 403).await;
    let all = world.expect("GET", "/domains", &ann.token, None, 200).await;
    assert_eq!(all["total"], 0);
    let body = json!({ "name": "other", "route": "plant" });
    world
        .expect("POST", "/domains", &ann.token, Some(body), 409)
        .await;
    let gone = "/domains?status=deleted";
    let gone = world.expect("GET", gone, &world.admin, None, 200).await;
    assert_eq!(gone["domains"][0]["status"], "deleted");
    let enable = format!("{path}/enable");
    world.expect("POST", &enable, &ann.token, None, 403).await;
    world.expect("POST", &enable, &world.admin, None, 200).await;
    let path = format!("/{domain}/clients/{client}");
    world.expect("GET", &path, &ann.token, None, 200).await;
    broker.leave().await;
}

#[tokio::test]
async fn a_deleted_domain_is_removed_for_good_in_time() {
    let world = World::with(keeps(Duration::from_secs(3_600))).await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    world
        .entity(&ann, &domain, "clients", json!({ "name": "pump" }))
        .await;
    let path = format!("/domains/{domain}");
    world.expect("DELETE", &path, &ann.token, None, 204).await;
    let provision = world.at.control.provision();
    let long_ago = Time::now().plus_seconds(-10);
    assert_eq!(provision.purge_domains(long_ago).await.unwrap(), 0);
    let broker = Broker::join(&world.at.control, false).await;
    let soon = Time::now().plus_seconds(10);
    assert_eq!(provision.purge_domains(soon).await.unwrap(), 1);
    let told = broker.deltas();
    let id = EntityId::from_text(&domain).unwrap();
    assert_eq!(told.last().unwrap().1, [Change::DomainRemoved { id }]);
    let body = json!({ "name": "other", "route": "plant" });
    world
        .expect("POST", "/domains", &ann.token, Some(body), 201)
        .await;
    broker.leave().await;
}

#[tokio::test]
async fn administrators_of_the_platform_remove_a_domain_at_once() {
    let world = World::with(keeps(Duration::from_secs(3_600))).await;
    let ann = world.person("ann").await;
    let path = format!("/domains/{}?purge=true", world.domain(&ann, "plant").await);
    world.expect("DELETE", &path, &ann.token, None, 403).await;
    world.expect("DELETE", &path, &world.admin, None, 204).await;
    let gone = "/domains?status=all&route=plant";
    let gone = world.expect("GET", gone, &world.admin, None, 200).await;
    assert_eq!(gone["total"], 0);
}

#[tokio::test]
async fn without_a_time_to_keep_it_a_domain_is_removed_at_once() {
    let world = World::with(keeps(Duration::ZERO)).await;
    let ann = world.person("ann").await;
    for _ in 0..2 {
        let domain = world.domain(&ann, "plant").await;
        let path = format!("/domains/{domain}");
        world.expect("DELETE", &path, &ann.token, None, 204).await;
    }
}

/// The status that brokers were told last of a channel or client.
fn told(broker: &Broker, id: &str) -> Option<Status> {
    let wanted = EntityId::from_text(id).unwrap();
    let deltas = broker.deltas();
    let changes = deltas.iter().flat_map(|(_, changes)| changes);
    changes.rev().find_map(|change| match change {
        Change::ChannelSet { id, status, .. } | Change::PrincipalSet { id, status, .. }
            if *id == wanted =>
        {
            Some(*status)
        }
        _ => None,
    })
}

#[tokio::test]
async fn a_disabled_group_stops_what_is_below_it_where_the_domain_says_so() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let group = |name: &str, parent: Option<&str>| json!({ "name": name, "parent_id": parent });
    let top = world
        .entity(&ann, &domain, "groups", group("top", None))
        .await;
    let low = world
        .entity(&ann, &domain, "groups", group("low", Some(&top)))
        .await;
    let inside = json!({ "name": "x", "parent_group_id": low });
    let channel = world
        .entity(&ann, &domain, "channels", inside.clone())
        .await;
    let client = world.entity(&ann, &domain, "clients", inside).await;
    let outside = world
        .entity(&ann, &domain, "channels", json!({ "name": "y" }))
        .await;
    let broker = Broker::join(&world.at.control, false).await;
    let switch = async |group: &str, verb: &str| {
        let path = format!("/{domain}/groups/{group}/{verb}");
        world.expect("POST", &path, &ann.token, None, 200).await;
    };
    let set = async |block: bool| {
        let body = json!({ "disabled_group_blocks_messaging": block });
        let path = format!("/domains/{domain}");
        let shown = world
            .expect("PATCH", &path, &ann.token, Some(body), 200)
            .await;
        assert_eq!(shown["disabled_group_blocks_messaging"], block);
    };
    // As it is by default: nothing.
    switch(&top, "disable").await;
    assert_eq!(told(&broker, &channel), None);
    set(true).await;
    assert_eq!(told(&broker, &channel), Some(Status::Disabled));
    assert_eq!(told(&broker, &client), Some(Status::Disabled));
    assert_eq!(told(&broker, &outside), None);
    // Its own status is another matter.
    let path = format!("/{domain}/channels/{channel}");
    let shown = world.expect("GET", &path, &ann.token, None, 200).await;
    assert_eq!(shown["status"], "enabled");
    for (verb, status) in [("disable", 200), ("enable", 200)] {
        let path = format!("{path}/{verb}");
        world.expect("POST", &path, &ann.token, None, status).await;
        assert_eq!(told(&broker, &channel), Some(Status::Disabled));
    }
    switch(&top, "enable").await;
    assert_eq!(told(&broker, &channel), Some(Status::Enabled));
    assert_eq!(told(&broker, &client), Some(Status::Enabled));
    // Moving the group below it out frees what is in it, and so does leaving the group.
    switch(&top, "disable").await;
    let path = format!("/{domain}/groups/{low}/parent");
    world.expect("DELETE", &path, &ann.token, None, 204).await;
    assert_eq!(told(&broker, &channel), Some(Status::Enabled));
    switch(&low, "disable").await;
    assert_eq!(told(&broker, &client), Some(Status::Disabled));
    let path = format!("/{domain}/clients/{client}/parent");
    world.expect("DELETE", &path, &ann.token, None, 204).await;
    assert_eq!(told(&broker, &client), Some(Status::Enabled));
    assert_eq!(told(&broker, &channel), Some(Status::Disabled));
    // A broker that joins is told the same.
    let late = Broker::join(&world.at.control, false).await;
    let id = EntityId::from_text(&channel).unwrap();
    let snapshot = super::super::lock(&late.shared).snapshot.clone().unwrap().0;
    let known = snapshot.iter().find_map(|change| match change {
        Change::ChannelSet { id: of, status, .. } if *of == id => Some(*status),
        _ => None,
    });
    assert_eq!(known, Some(Status::Disabled));
    set(false).await;
    assert_eq!(told(&broker, &channel), Some(Status::Enabled));
    broker.leave().await;
    late.leave().await;
}
