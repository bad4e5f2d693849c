//! API keys.

use authcache::feed::{Answer, Credentials, Question};
use authcache::{EntityId, Right};

use super::super::Broker;
use super::*;

async fn key(world: &World, by: &Person, body: Value) -> (String, String) {
    let made = world.server.made("/keys", &by.token, 201, body).await;
    (text(&made["id"]), text(&made["value"]))
}

#[tokio::test]
async fn a_key_does_what_its_owner_may_but_manages_no_tokens() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let (id, value) = key(&world, &ann, json!({ "type": 3, "duration": 60 })).await;
    let domain = world
        .server
        .made(
            "/domains",
            &value,
            201,
            json!({ "name": "d", "route": "plant" }),
        )
        .await;
    let clients = format!("/{}/clients", text(&domain["id"]));
    let body = json!({ "name": "pump" });
    world
        .expect("POST", &clients, &value, Some(body), 201)
        .await;
    for (path, body) in [
        ("/keys", json!({ "type": 3 })),
        ("/pats", json!({ "name": "p", "duration": "1h" })),
        ("/users/tokens/revoke", json!({ "token_id": id })),
    ] {
        world.expect("POST", path, &value, Some(body), 401).await;
    }
    let logins = "/users/tokens/refresh-tokens";
    world.expect("GET", logins, &value, None, 401).await;
    let path = format!("/keys/{id}");
    let shown = world.expect("GET", &path, &ann.token, None, 200).await;
    assert_eq!(shown["issuer_id"], ann.id);
    assert_eq!(shown["subject"], "ann@example.com");
    assert_eq!(shown["type"], 3);
    assert!(shown["value"].is_null());
    world.expect("GET", &path, &bob.token, None, 404).await;
    // It is no personal access token.
    let of_pats = format!("/pats/{id}");
    world.expect("GET", &of_pats, &ann.token, None, 404).await;
    let all = world.expect("GET", "/pats", &ann.token, None, 200).await;
    assert_eq!(all["total"], 0);
    world.expect("DELETE", "/pats", &ann.token, None, 200).await;
    world
        .expect("GET", "/users/profile", &value, None, 200)
        .await;
    world.expect("DELETE", &path, &ann.token, None, 204).await;
    world
        .expect("GET", "/users/profile", &value, None, 401)
        .await;
}

#[tokio::test]
async fn wrong_keys_are_refused_with_what_is_expected() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    for body in [
        json!({ "type": 2 }),
        json!({ "type": 7 }),
        json!({ "type": "3" }),
        json!({ "duration": -1 }),
        json!({ "duration": 1.5 }),
        json!({ "duration": 1_000_000_000_000_i64 }),
    ] {
        world
            .expect("POST", "/keys", &ann.token, Some(body), 400)
            .await;
    }
}

#[tokio::test]
async fn a_key_opens_channels_to_messages_as_its_owner_does() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let channel = world
        .entity(&ann, &domain, "channels", json!({ "name": "line" }))
        .await;
    let (_, value) = key(&world, &ann, json!({})).await;
    let broker = Broker::join(&world.at.control, false).await;
    let asked = Question::Identify(Credentials {
        username: Some(String::new()),
        password: Some(value.into_bytes()),
        ..Credentials::default()
    });
    let Answer::Identity(identity, Some(_)) = broker.ask(asked).await else {
        panic!("a key is a credential");
    };
    let asked = Question::Rights {
        principal: identity.id,
        channel: EntityId::from_text(&channel).unwrap(),
    };
    let both = Right::PUBLISH | Right::SUBSCRIBE;
    assert_eq!(broker.ask(asked).await, Answer::Rights(both));
    // What the broker says of itself is for administrators, and for their keys.
    for (owner, right) in [
        (ann.token, Right::NONE),
        (world.admin.clone(), Right::SUBSCRIBE),
    ] {
        let made = world.server.made("/keys", &owner, 201, json!({})).await;
        let asked = Question::Rights {
            principal: EntityId::from_text(&text(&made["id"])).unwrap(),
            channel: EntityId::SYS,
        };
        assert_eq!(broker.ask(asked).await, Answer::Rights(right));
    }
    broker.leave().await;
}
