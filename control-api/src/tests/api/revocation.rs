//! What brokers hear of changes, before the answer.

use authcache::feed::{Answer, Credentials, Question};
use authcache::{Change, EntityId, Right, Status};

use super::super::{Broker, lock};
use super::*;

fn id(text: &str) -> EntityId {
    EntityId::from_text(text).unwrap()
}

/// A world with a broker, a domain of Ann's with a channel, and Bob, who may subscribe there.
struct Scene {
    world: World,
    broker: Broker,
    ann: Person,
    bob: Person,
    domain: String,
    channel: String,
    role: String,
}

async fn scene() -> Scene {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "plant").await;
    let channel = world
        .entity(&ann, &domain, "channels", json!({ "name": "line" }))
        .await;
    world
        .role(&ann, &format!("/domains/{domain}"), &["read"], &[&bob])
        .await;
    let base = format!("/{domain}/channels/{channel}");
    let role = world.role(&ann, &base, &["subscribe"], &[&bob]).await;
    let broker = Broker::join(&world.at.control, false).await;
    Scene {
        world,
        broker,
        ann,
        bob,
        domain,
        channel,
        role,
    }
}

impl Scene {
    async fn right(&self, principal: EntityId) -> Right {
        let channel = id(&self.channel);
        match self
            .broker
            .ask(Question::Rights { principal, channel })
            .await
        {
            Answer::Rights(right) => right,
            other => panic!("{other:?}"),
        }
    }

    async fn identify(&self, username: &str, password: &str) -> Answer {
        let credentials = Credentials {
            username: Some(username.to_owned()),
            password: Some(password.as_bytes().to_vec()),
            ..Credentials::default()
        };
        self.broker.ask(Question::Identify(credentials)).await
    }

    /// Carries out a call of Ann's; answers with what the broker had applied when it was answered.
    async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<Value>,
        status: u16,
    ) -> Vec<Change> {
        self.call_as(&self.ann.token, method, path, body, status)
            .await
    }

    async fn call_as(
        &self,
        token: &str,
        method: &str,
        path: &str,
        body: Option<Value>,
        status: u16,
    ) -> Vec<Change> {
        let before = self.broker.deltas().len();
        self.world.expect(method, path, token, body, status).await;
        let after = lock(&self.broker.shared).deltas.clone();
        after
            .into_iter()
            .skip(before)
            .flat_map(|(_, changes)| changes)
            .collect()
    }
}

#[tokio::test]
async fn rights_on_channels_follow_roles_wherever_they_are() {
    let at = scene().await;
    let (bob, domain) = (id(&at.bob.id), &at.domain);
    let stale = [Change::UserRightsStale { domain: id(domain) }];
    assert_eq!(at.right(bob).await, Right::SUBSCRIBE);
    assert_eq!(
        at.right(id(&at.ann.id)).await,
        Right::BOTH,
        "channel_publish of the domain"
    );
    let role = format!("/{domain}/channels/{}/roles/{}", at.channel, at.role);
    let publish = json!({ "actions": ["publish"] });
    assert_eq!(
        at.call(
            "POST",
            &format!("{role}/actions"),
            Some(publish.clone()),
            200
        )
        .await,
        stale
    );
    assert_eq!(at.right(bob).await, Right::BOTH);
    assert_eq!(
        at.call(
            "POST",
            &format!("{role}/actions/delete"),
            Some(publish),
            204
        )
        .await,
        stale
    );
    assert_eq!(at.right(bob).await, Right::SUBSCRIBE);
    let members = json!({ "members": [at.bob.id] });
    assert_eq!(
        at.call(
            "POST",
            &format!("{role}/members/delete"),
            Some(members.clone()),
            204
        )
        .await,
        stale
    );
    assert_eq!(at.right(bob).await, Right::NONE);
    assert_eq!(
        at.call("POST", &format!("{role}/members"), Some(members), 200)
            .await,
        stale
    );
    assert_eq!(at.call("DELETE", &role, None, 204).await, stale);
    assert_eq!(at.right(bob).await, Right::NONE);

    // By the group the channel is in, as long as it is in it.
    let group = at
        .world
        .entity(&at.ann, domain, "groups", json!({ "name": "g" }))
        .await;
    let base = format!("/{domain}/groups/{group}");
    at.world
        .role(&at.ann, &base, &["channel_publish"], &[&at.bob])
        .await;
    let parent = format!("/{domain}/channels/{}/parent", at.channel);
    let body = json!({ "parent_group_id": group });
    assert_eq!(at.call("POST", &parent, Some(body), 200).await, stale);
    assert_eq!(at.right(bob).await, Right::PUBLISH);
    assert_eq!(at.call("DELETE", &parent, None, 204).await, stale);
    assert_eq!(at.right(bob).await, Right::NONE);

    let disabled = at
        .call("POST", &format!("/domains/{domain}/disable"), None, 200)
        .await;
    assert!(matches!(
        disabled[..],
        [Change::DomainSet {
            status: Status::Disabled,
            ..
        }]
    ));
    assert_eq!(at.right(id(&at.ann.id)).await, Right::NONE);
}

#[tokio::test]
async fn every_change_that_takes_something_away_is_applied_before_it_is_answered() {
    let at = scene().await;
    let domain = &at.domain;
    let client = at
        .world
        .entity(&at.ann, domain, "clients", json!({ "name": "pump" }))
        .await;
    let of_client = format!("/{domain}/clients/{client}");
    let of_channel = format!("/{domain}/channels/{}", at.channel);
    let connection = json!({ "client_ids": [client], "types": ["publish", "subscribe"] });
    let connected = at
        .call(
            "POST",
            &format!("{of_channel}/connect"),
            Some(connection.clone()),
            201,
        )
        .await;
    assert!(matches!(
        connected[..],
        [Change::RightSet {
            right: Right::BOTH,
            ..
        }]
    ));
    let taken = at
        .call(
            "POST",
            &format!("{of_channel}/disconnect"),
            Some(connection),
            204,
        )
        .await;
    assert!(matches!(
        taken[..],
        [Change::RightSet {
            right: Right::NONE,
            ..
        }]
    ));
    let changed = at
        .call(
            "PATCH",
            &format!("{of_client}/secret"),
            Some(json!({ "secret": "new" })),
            200,
        )
        .await;
    assert!(matches!(
        changed[..],
        [Change::PrincipalSet { credential: 2, .. }]
    ));
    let disabled = at
        .call("POST", &format!("{of_client}/disable"), None, 200)
        .await;
    assert!(matches!(
        disabled[..],
        [Change::PrincipalSet {
            status: Status::Disabled,
            ..
        }]
    ));
    let removed = at.call("DELETE", &of_client, None, 204).await;
    assert_eq!(removed, [Change::PrincipalRemoved { id: id(&client) }]);
    let disabled = at
        .call("POST", &format!("{of_channel}/disable"), None, 200)
        .await;
    assert!(matches!(
        disabled[..],
        [Change::ChannelSet {
            status: Status::Disabled,
            ..
        }]
    ));
    let removed = at.call("DELETE", &of_channel, None, 204).await;
    assert_eq!(
        removed,
        [Change::ChannelRemoved {
            id: id(&at.channel)
        }]
    );
    let group = at
        .world
        .entity(&at.ann, domain, "groups", json!({ "name": "g" }))
        .await;
    let stale = [Change::UserRightsStale { domain: id(domain) }];
    assert_eq!(
        at.call("DELETE", &format!("/{domain}/groups/{group}"), None, 204)
            .await,
        stale
    );
    let removed = at
        .call("DELETE", &format!("/domains/{domain}"), None, 204)
        .await;
    // It is kept for a while, disabled.
    assert!(
        matches!(&removed[..], [Change::DomainSet { status, .. }] if *status == Status::Disabled),
        "{removed:?}"
    );

    let (admin, bob) = (&at.world.admin, format!("/users/{}", at.bob.id));
    let role = Some(json!({ "role": "admin" }));
    let changed = at
        .call_as(admin, "PATCH", &format!("{bob}/role"), role, 200)
        .await;
    assert!(
        matches!(changed[..], [Change::PrincipalSet { credential: 2, .. }]),
        "{changed:?}"
    );
    let passwords = json!({ "old_secret": PASSWORD, "new_secret": "battery staple" });
    let changed = at
        .call_as(
            &at.bob.token,
            "PATCH",
            "/users/secret",
            Some(passwords),
            200,
        )
        .await;
    assert!(
        matches!(changed[..], [Change::PrincipalSet { credential: 3, .. }]),
        "{changed:?}"
    );
    let token = at.world.server.login("bob", "battery staple").await;
    let logins = at
        .world
        .expect("GET", "/users/tokens/refresh-tokens", &token, None, 200)
        .await;
    let revoked = json!({ "token_id": logins["refresh_tokens"][0]["id"] });
    let changed = at
        .call_as(&token, "POST", "/users/tokens/revoke", Some(revoked), 204)
        .await;
    assert!(
        matches!(changed[..], [Change::PrincipalSet { credential: 4, .. }]),
        "{changed:?}"
    );
    let changed = at
        .call_as(admin, "POST", &format!("{bob}/disable"), None, 200)
        .await;
    assert!(matches!(
        changed[..],
        [Change::PrincipalSet {
            status: Status::Disabled,
            ..
        }]
    ));
    let changed = at.call_as(admin, "DELETE", &bob, None, 204).await;
    assert_eq!(changed, [Change::PrincipalRemoved { id: id(&at.bob.id) }]);
}

#[tokio::test]
async fn a_personal_access_token_publishes_what_scope_and_owner_allow_and_ends_alone() {
    let at = scene().await;
    let scope = |operation: &str, entity: &str| {
        json!({ "domain_id": at.domain, "entity_type": "messages",
            "entity_id": entity, "operation": operation })
    };
    let body = json!({ "name": "p", "duration": "1h",
        "scopes": [scope("publish", &at.channel), scope("subscribe", "*")] });
    let made = at
        .world
        .expect("POST", "/pats", &at.bob.token, Some(body), 201)
        .await;
    let (pat, secret) = (text(&made["id"]), text(&made["secret"]));
    for username in ["", at.bob.id.as_str()] {
        let Answer::Identity(identity, Some(_)) = at.identify(username, &secret).await else {
            panic!("identified");
        };
        assert_eq!(identity.id, id(&pat));
    }
    let question = Question::Token(secret.as_bytes().to_vec());
    let Answer::Identity(identity, Some(_)) = at.broker.ask(question).await else {
        panic!("identified");
    };
    assert_eq!(identity.id, id(&pat));
    assert!(matches!(
        at.identify(&at.ann.id, &secret).await,
        Answer::Refused(_)
    ));
    // The owner may only subscribe, so the scope for publishing is of no use.
    assert_eq!(at.right(id(&pat)).await, Right::SUBSCRIBE);
    let actions = format!(
        "/{}/channels/{}/roles/{}/actions",
        at.domain, at.channel, at.role
    );
    at.call(
        "POST",
        &actions,
        Some(json!({ "actions": ["publish"] })),
        200,
    )
    .await;
    assert_eq!(at.right(id(&pat)).await, Right::BOTH);
    let scopes = at
        .world
        .expect(
            "GET",
            &format!("/pats/{pat}/scope"),
            &at.bob.token,
            None,
            200,
        )
        .await;
    let publish = scopes["scopes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|s| s["operation"] == "publish");
    let body = json!({ "scopes_id": [publish.unwrap()["id"]] });
    let path = format!("/pats/{pat}/scope/remove");
    let changed = at
        .call_as(&at.bob.token, "PATCH", &path, Some(body), 200)
        .await;
    assert!(
        matches!(changed[..], [Change::PrincipalSet { credential: 2, .. }]),
        "{changed:?}"
    );
    assert_eq!(at.right(id(&pat)).await, Right::SUBSCRIBE);
    let path = format!("/pats/{pat}/secret/revoke");
    let changed = at.call_as(&at.bob.token, "PATCH", &path, None, 204).await;
    assert_eq!(changed, [Change::PrincipalRemoved { id: id(&pat) }]);
    assert_eq!(at.right(id(&pat)).await, Right::NONE);
    assert!(matches!(at.identify("", &secret).await, Answer::Refused(_)));
}

#[tokio::test]
async fn an_answer_waits_for_a_broker_that_has_not_applied_the_change() {
    let at = scene().await;
    at.broker.hold_back(true);
    let path = format!("/{}/channels/{}/roles/{}", at.domain, at.channel, at.role);
    let waiting = at.world.expect("DELETE", &path, &at.ann.token, None, 204);
    let mut waiting = std::pin::pin!(waiting);
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "answered before the broker had applied it");
    at.broker.hold_back(false);
    waiting.await;
}

#[tokio::test]
async fn revoked_keys_close_the_connections_of_their_tokens_before_the_answer() {
    let at = scene().await;
    let token = at.bob.token.clone();
    let by_token = || at.broker.ask(Question::Token(token.clone().into_bytes()));
    assert!(matches!(by_token().await, Answer::Identity(..)));
    let before = at.broker.deltas().len();
    // What is not applied yet is not answered.
    at.broker.hold_back(true);
    let control = at.world.at.control.clone();
    let revoking = tokio::spawn(async move { control.provision().revoke_keys().await });
    at.broker.until(|told| told.deltas.len() > before).await;
    assert!(!revoking.is_finished(), "answered before the fence");
    at.broker.hold_back(false);
    revoking.await.unwrap().unwrap();
    let told: Vec<Change> = at.broker.deltas()[before..]
        .iter()
        .flat_map(|(_, changes)| changes.clone())
        .collect();
    for person in [&at.ann, &at.bob] {
        let raised = told.iter().any(|change| {
            matches!(change, Change::PrincipalSet { id: user, status: Status::Enabled, .. }
                if *user == id(&person.id))
        });
        assert!(raised, "{}: {told:?}", person.username);
    }
    assert!(matches!(by_token().await, Answer::Refused(_)));
    assert!(matches!(
        at.identify("bob", PASSWORD).await,
        Answer::Identity(..)
    ));
}

#[tokio::test]
async fn revocation_of_keys_that_was_cut_short_is_finished_at_the_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::Config {
        demo: false,
        ..super::super::both::config(folder.path().join("data"))
    };
    let (control, first_run) = Control::open(config.clone()).await.unwrap();
    let admin = first_run.unwrap().admin;
    let server = serve(&control).await;
    let login =
        async |server: &Server| server.login(&admin.username, admin.password.reveal()).await;
    login(&server).await;
    // As if the process had been killed once the keys were gone.
    let identifier = &control.0.identifier;
    let revoked = identifier
        .tokens()
        .revoke(&control.0.store, identifier.pepper());
    revoked.await.unwrap();
    let user = async |control: &Control| {
        let mut connection = control.0.store.read().await.unwrap();
        let found = crate::store::users::user_auth_by_login(&mut connection, "admin").await;
        found.unwrap().unwrap()
    };
    let before = user(&control).await.credential;
    control.close().await;
    drop(control);

    let (control, _) = reopened(&config).await;
    assert_eq!(user(&control).await.credential, before + 1);
    // Logins under the new key are left alone.
    let server = serve(&control).await;
    let token = login(&server).await;
    control.close().await;
    drop(control);
    let (control, _) = reopened(&config).await;
    assert_eq!(user(&control).await.credential, before + 1);
    let server = serve(&control).await;
    let (status, _) = server.call("GET", "/users/profile", &token, None).await;
    assert_eq!(status, 200);
}

/// The installation again, once everything that it served before has ended.
async fn reopened(config: &crate::Config) -> (Control, Option<crate::FirstRun>) {
    loop {
        match Control::open(config.clone()).await {
            Err(crate::OpenError::InUse { .. }) => tokio::task::yield_now().await,
            opened => return opened.unwrap(),
        }
    }
}
