//! What an installation may decide for itself.

use super::*;

/// Somebody who may manage the roles of a domain and read it, and tries to give away more.
async fn gives_away_more(world: &World) -> (String, u16) {
    let ann = world.person("ann").await;
    let bob = world.person("bob").await;
    let domain = world.domain(&ann, "plant").await;
    let base = format!("/domains/{domain}");
    world
        .role(&ann, &base, &["manage_role", "read"], &[&bob])
        .await;
    let body = json!({ "role_name": "more", "optional_actions": ["delete"] });
    let path = format!("{base}/roles");
    (domain, world.server.post(&path, &bob.token, &body).await.0)
}

#[tokio::test]
async fn roles_are_given_unchecked_only_where_the_installation_says_so() {
    assert_eq!(gives_away_more(&World::new().await).await.1, 403);
    let settings = ApiSettings {
        unchecked_role_grants: true,
        ..ApiSettings::default()
    };
    assert_eq!(gives_away_more(&World::with(settings).await).await.1, 201);
}

#[tokio::test]
async fn looks_are_in_the_journal_only_where_the_installation_says_so() {
    for journal_views in [false, true] {
        let world = World::with(ApiSettings {
            journal_views,
            ..ApiSettings::default()
        })
        .await;
        let ann = world.person("ann").await;
        let domain = world.domain(&ann, "plant").await;
        let client = world
            .entity(&ann, &domain, "clients", json!({ "name": "pump" }))
            .await;
        for path in [
            format!("/{domain}/clients/{client}"),
            format!("/{domain}/clients"),
        ] {
            world.expect("GET", &path, &ann.token, None, 200).await;
        }
        let of_client = format!("/{domain}/journal/client/{client}?operation=client.view");
        let seen = world.expect("GET", &of_client, &ann.token, None, 200).await;
        assert_eq!(seen["total"], u64::from(journal_views));
        let of_ann = format!("/journal/user/{}?operation=client.list", ann.id);
        let seen = world.expect("GET", &of_ann, &ann.token, None, 200).await;
        assert_eq!(seen["total"], u64::from(journal_views));
    }
}
