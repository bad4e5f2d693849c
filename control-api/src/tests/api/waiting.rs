//! Calls that wait for the database's one writer while what they came with is taken away.

use super::*;
use crate::model::Time;
use crate::name::parse_id;
use crate::store::{Write, access, people};
use authcache::{EntityId, Status};

/// Holds the writer until a call waits for it, takes something away, and lets the call go on.
async fn meanwhile(
    world: &World,
    (method, path, token, body): (&str, &str, &str, Option<Value>),
    change: impl AsyncFnOnce(&mut Write),
    status: u16,
) -> Value {
    let store = &world.at.control.0.store;
    let mut held = store.write().await.unwrap();
    let changed = async {
        while store.waiting() == 0 {
            tokio::task::yield_now().await;
        }
        change(&mut held).await;
        held.commit().await.unwrap();
    };
    let call = world.expect(method, path, token, body, status);
    tokio::join!(call, changed).0
}

fn id(text: &str) -> EntityId {
    parse_id("id", text).unwrap()
}

async fn end_logins(write: &mut Write, user: EntityId) {
    let found = access::sessions(write.connection(), user, Time::now());
    for session in found.await.unwrap() {
        assert!(write.delete_session(user, session.id).await.unwrap());
    }
}

async fn set_person(write: &mut Write, user: EntityId, set: impl FnOnce(&mut people::Person)) {
    let found = people::person(write.connection(), user).await.unwrap();
    let mut person = found.unwrap();
    set(&mut person);
    write.update_person(&person).await.unwrap();
}

/// What a domain is called, so that a refused call is seen to have changed nothing.
async fn domain_name(world: &World, domain: &str) -> String {
    let path = format!("/domains/{domain}");
    text(&world.expect("GET", &path, &world.admin, None, 200).await["name"])
}

#[tokio::test]
async fn call_that_waits_to_write_is_refused_once_its_login_or_user_has_ended() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let path = format!("/domains/{domain}");
    let rename = |token: &str| {
        let body = Some(json!({ "name": "renamed" }));
        ("PATCH", path.clone(), token.to_owned(), body)
    };
    let user = id(&ann.id);

    let (method, path_of, token, body) = rename(&ann.token);
    let call = (method, &*path_of, &*token, body);
    meanwhile(
        &world,
        call,
        async |write| end_logins(write, user).await,
        401,
    )
    .await;
    assert_eq!(domain_name(&world, &domain).await, "plant");

    let again = world.server.login("ann", PASSWORD).await;
    let (method, path_of, token, body) = rename(&again);
    let call = (method, &*path_of, &*token, body);
    let disable = async |write: &mut Write| {
        set_person(write, user, |ann| ann.status = Status::Disabled).await;
    };
    meanwhile(&world, call, disable, 401).await;
    assert_eq!(domain_name(&world, &domain).await, "plant");

    let enable = async |write: &mut Write| {
        set_person(write, user, |ann| ann.status = Status::Enabled).await;
    };
    let mut write = world.at.control.0.store.write().await.unwrap();
    enable(&mut write).await;
    write.commit().await.unwrap();
    let (method, path_of, token, body) = rename(&again);
    let call = (method, &*path_of, &*token, body);
    let password = async |write: &mut Write| {
        write.raise_credential(user, true).await.unwrap();
    };
    meanwhile(&world, call, password, 401).await;
    assert_eq!(domain_name(&world, &domain).await, "plant");

    // What changes nothing for it does not stop it.
    let again = world.server.login("ann", PASSWORD).await;
    let (method, path_of, token, body) = rename(&again);
    let call = (method, &*path_of, &*token, body);
    meanwhile(&world, call, async |_| (), 200).await;
    assert_eq!(domain_name(&world, &domain).await, "renamed");
}

#[tokio::test]
async fn call_that_waits_to_write_is_refused_once_its_user_administers_no_more() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let path = format!("/users/{}/role", ann.id);
    let body = Some(json!({ "role": "admin" }));
    world.expect("PATCH", &path, &world.admin, body, 200).await;
    let token = world.server.login("ann", PASSWORD).await;
    let path = format!("/users/{}/disable", bob.id);
    let demote = async |write: &mut Write| {
        set_person(write, id(&ann.id), |ann| ann.administrator = false).await;
    };
    meanwhile(&world, ("POST", &path, &token, None), demote, 403).await;
    let path = format!("/users/{}", bob.id);
    let bob = world.expect("GET", &path, &world.admin, None, 200).await;
    assert_eq!(bob["status"], "enabled");
}

#[tokio::test]
async fn call_that_waits_to_write_is_refused_once_its_personal_access_token_has_ended() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let token = async |name: &str| {
        let body = json!({ "name": name, "duration": "1h" });
        let made = world.server.made("/pats", &ann.token, 201, body).await;
        let pat = text(&made["id"]);
        let scope = json!({ "scopes": [{ "domain_id": domain, "entity_type": "clients",
            "entity_id": "*", "operation": "create" }] });
        let path = format!("/pats/{pat}/scope/add");
        world
            .expect("PATCH", &path, &ann.token, Some(scope), 200)
            .await;
        // Its first use is noted, so that the calls below wait only once.
        let secret = text(&made["secret"]);
        let path = format!("/{domain}/clients");
        world
            .expect("POST", &path, &secret, Some(json!({ "name": name })), 201)
            .await;
        (id(&pat), secret)
    };
    let path = format!("/{domain}/clients");
    let create = |secret: &str| (secret.to_owned(), Some(json!({ "name": "late" })));

    let (pat, secret) = token("revoked").await;
    let (secret, body) = create(&secret);
    let revoke = async |write: &mut Write| {
        let found = access::pat(write.connection(), pat).await.unwrap();
        let mut found = found.unwrap();
        found.revoked_at = Some(Time::now());
        write.put_pat(&found).await.unwrap();
    };
    meanwhile(&world, ("POST", &path, &secret, body), revoke, 401).await;

    let (pat, secret) = token("narrowed").await;
    let (secret, body) = create(&secret);
    let narrow = async |write: &mut Write| write.delete_scope(pat, None).await.unwrap();
    meanwhile(&world, ("POST", &path, &secret, body), narrow, 403).await;

    let listed = world.expect("GET", &path, &ann.token, None, 200).await;
    let mut made = names(&listed, "clients");
    made.sort();
    assert_eq!(made, ["narrowed", "revoked"]);
}
