//! What each change of rights does to sessions that are there: which end, and with which Reason
//! Code, and whose subscriptions sleep. One row for each kind of change that control makes.

use codec::mqtt::{QoS, ReasonCode};
use serde_json::{Value, json};

use crate::broker::Broker;
use crate::client::{Client, Credentials, Got, Options};

const PASSWORD: &str = "correct horse";

/// What becomes of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fate {
    /// DISCONNECT with this code.
    Ends(ReasonCode),
    /// It stays, and its subscription gets nothing.
    Sleeps,
    /// Nothing.
    Stays,
}

const CLOSED: Fate = Fate::Ends(ReasonCode::ADMINISTRATIVE_ACTION);
const SHUT_OUT: Fate = Fate::Ends(ReasonCode::NOT_AUTHORIZED);

/// A domain of its own in a broker: a channel in a group, a client that is connected with it, and a
/// user who may subscribe there by a role on the group.
struct Scene<'a> {
    broker: &'a Broker,
    admin: String,
    domain: String,
    channel: String,
    group: String,
    role: String,
    client: Credentials,
    user: String,
    name: String,
    topic: String,
}

impl<'a> Scene<'a> {
    fn new(broker: &'a Broker, number: usize) -> Scene<'a> {
        let admin = broker.token();
        let make = |path: &str, body: Value| broker.call("POST", path, &admin, &body);
        let id = |made: &Value| made["id"].as_str().unwrap().to_owned();
        let name = format!("user-{number}");
        let route = format!("scene-{number}");
        let domain = id(&make("/domains", json!({ "name": route, "route": route })));
        let group = id(&make(&format!("/{domain}/groups"), json!({ "name": "g" })));
        let channel = json!({ "name": "c", "parent_group_id": group });
        let channel = id(&make(&format!("/{domain}/channels"), channel));
        let client = make(&format!("/{domain}/clients"), json!({ "name": "d" }));
        let both = json!({ "client_ids": [id(&client)], "types": ["publish", "subscribe"] });
        make(&format!("/{domain}/channels/{channel}/connect"), both);
        let user = json!({ "first_name": "f", "last_name": "l", "email": format!("{name}@x"),
            "credentials": { "username": name, "secret": PASSWORD } });
        let user = id(&make("/users", user));
        let members = json!({ "role_name": "m", "optional_actions": ["read"],
            "optional_members": [user] });
        make(&format!("/domains/{domain}/roles"), members);
        let role = json!({ "role_name": "r", "optional_actions": ["channel_subscribe"],
            "optional_members": [user] });
        let role = id(&make(&format!("/{domain}/groups/{group}/roles"), role));
        Scene {
            broker,
            topic: format!("m/{domain}/c/{channel}"),
            client: Credentials {
                username: Some(id(&client)),
                password: client["credentials"]["secret"].as_str().map(str::to_owned),
            },
            admin,
            domain,
            channel,
            group,
            role,
            user,
            name,
        }
    }

    /// A call of the administrator.
    fn call(&self, method: &str, path: &str, body: Value) {
        self.broker.call(method, path, &self.admin, &body);
    }

    fn device(&self) -> String {
        self.client.username.clone().unwrap()
    }

    /// A login of the user: its access token.
    fn token(&self) -> String {
        let login = json!({ "username": self.name, "password": PASSWORD });
        let tokens = self.broker.call("POST", "/users/tokens/issue", "", &login);
        tokens["access_token"].as_str().unwrap().to_owned()
    }

    /// A personal access token of the user for messages: its id and its text.
    fn pat(&self) -> (String, String) {
        let token = self.token();
        let body = json!({ "name": "p", "duration": "1h" });
        let made = self.broker.call("POST", "/pats", &token, &body);
        let id = made["id"].as_str().unwrap().to_owned();
        let scope = json!({ "scopes": [{ "domain_id": self.domain, "entity_type": "messages",
            "entity_id": "*", "operation": "subscribe" }] });
        self.broker
            .call("PATCH", &format!("/pats/{id}/scope/add"), &token, &scope);
        (id, made["secret"].as_str().unwrap().to_owned())
    }

    /// Sessions that subscribe: of the client, of the user by token, of its access token for
    /// programs.
    fn sessions(&self, pat: &str) -> [Client; 3] {
        let by = |secret: &str| Credentials {
            username: Some(self.user.clone()),
            password: Some(secret.to_owned()),
        };
        [self.client.clone(), by(&self.token()), by(pat)].map(|credentials| {
            let address = self.broker.address();
            let (mut session, _) = Client::connect(address, &credentials, &Options::default());
            assert_eq!(session.subscribe(&self.topic, QoS::AtMostOnce), 0);
            session
        })
    }

    /// Publishes as the administrator, whether or not anything can be published there.
    fn publish(&self) {
        let admin = self.broker.admin();
        let (mut publisher, _) =
            Client::connect(self.broker.address(), &admin, &Options::default());
        publisher.publish_only(&self.topic, b"now", QoS::AtLeastOnce, false, None);
    }
}

/// What became of a session since, where this is expected.
fn fate(session: &mut Client, expected: Fate) -> Fate {
    // A session that ends says so unasked; a question to it could cut what it says.
    if let Fate::Ends(_) = expected {
        return match session.next() {
            Got::Disconnect(code) => Fate::Ends(code),
            Got::Publish(_) => Fate::Stays,
            other => panic!("{other:?}"),
        };
    }
    match &session.ping()[..] {
        [] => Fate::Sleeps,
        [Got::Publish(_)] => Fate::Stays,
        [Got::Disconnect(code), ..] => Fate::Ends(*code),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_change_of_rights_ends_or_silences_the_sessions_that_it_concerns_and_no_other() {
    use Fate::{Sleeps, Stays};
    type Change = fn(&Scene<'_>, &str);
    // What is changed, and what becomes of client, user, and the user's token for programs.
    let rows: Vec<(&str, Change, [Fate; 3])> = vec![
        (
            "disconnect",
            |at, _| {
                let path = format!("/{}/channels/{}/disconnect", at.domain, at.channel);
                at.call(
                    "POST",
                    &path,
                    json!({ "client_ids": [at.device()], "types": ["subscribe"] }),
                );
            },
            [Sleeps, Stays, Stays],
        ),
        (
            "disable channel",
            |at, _| {
                at.call(
                    "POST",
                    &format!("/{}/channels/{}/disable", at.domain, at.channel),
                    json!(null),
                );
            },
            [Sleeps, Sleeps, Sleeps],
        ),
        (
            "delete channel",
            |at, _| {
                at.call(
                    "DELETE",
                    &format!("/{}/channels/{}", at.domain, at.channel),
                    json!(null),
                );
            },
            [Sleeps, Sleeps, Sleeps],
        ),
        (
            "disable client",
            |at, _| {
                at.call(
                    "POST",
                    &format!("/{}/clients/{}/disable", at.domain, at.device()),
                    json!(null),
                );
            },
            [CLOSED, Stays, Stays],
        ),
        (
            "delete client",
            |at, _| {
                at.call(
                    "DELETE",
                    &format!("/{}/clients/{}", at.domain, at.device()),
                    json!(null),
                );
            },
            [CLOSED, Stays, Stays],
        ),
        (
            "change secret",
            |at, _| {
                let path = format!("/{}/clients/{}/secret", at.domain, at.device());
                at.call(
                    "PATCH",
                    &path,
                    json!({ "secret": format!("new-{}", at.name) }),
                );
            },
            [SHUT_OUT, Stays, Stays],
        ),
        (
            "disable domain",
            |at, _| {
                at.call(
                    "POST",
                    &format!("/domains/{}/disable", at.domain),
                    json!(null),
                );
            },
            [CLOSED, Sleeps, Sleeps],
        ),
        (
            "freeze domain",
            |at, _| {
                at.call(
                    "POST",
                    &format!("/domains/{}/freeze", at.domain),
                    json!(null),
                );
            },
            [CLOSED, Sleeps, Sleeps],
        ),
        (
            "delete domain",
            |at, _| {
                at.call("DELETE", &format!("/domains/{}", at.domain), json!(null));
            },
            [CLOSED, Sleeps, Sleeps],
        ),
        (
            "remove role member",
            |at, _| {
                let path = format!(
                    "/{}/groups/{}/roles/{}/members/delete",
                    at.domain, at.group, at.role
                );
                at.call("POST", &path, json!({ "members": [at.user] }));
            },
            [Stays, Sleeps, Sleeps],
        ),
        (
            "remove role action",
            |at, _| {
                let path = format!(
                    "/{}/groups/{}/roles/{}/actions/delete",
                    at.domain, at.group, at.role
                );
                at.call("POST", &path, json!({ "actions": ["channel_subscribe"] }));
            },
            [Stays, Sleeps, Sleeps],
        ),
        (
            "delete role",
            |at, _| {
                at.call(
                    "DELETE",
                    &format!("/{}/groups/{}/roles/{}", at.domain, at.group, at.role),
                    json!(null),
                );
            },
            [Stays, Sleeps, Sleeps],
        ),
        (
            "move channel",
            |at, _| {
                at.call(
                    "DELETE",
                    &format!("/{}/channels/{}/parent", at.domain, at.channel),
                    json!(null),
                );
            },
            [Stays, Sleeps, Sleeps],
        ),
        (
            "delete group",
            |at, _| {
                at.call(
                    "DELETE",
                    &format!("/{}/groups/{}", at.domain, at.group),
                    json!(null),
                );
            },
            [Stays, Sleeps, Sleeps],
        ),
        (
            "disable user",
            |at, _| {
                at.call("POST", &format!("/users/{}/disable", at.user), json!(null));
            },
            [Stays, CLOSED, CLOSED],
        ),
        (
            "delete user",
            |at, _| {
                at.call("DELETE", &format!("/users/{}", at.user), json!(null));
            },
            [Stays, CLOSED, CLOSED],
        ),
        (
            "change password",
            |at, _| {
                let body = json!({ "old_secret": PASSWORD, "new_secret": "battery staple" });
                at.broker.call("PATCH", "/users/secret", &at.token(), &body);
            },
            [Stays, SHUT_OUT, Stays],
        ),
        (
            "revoke refresh token",
            |at, _| {
                let token = at.token();
                let logins = at.broker.get("/users/tokens/refresh-tokens", &token);
                let body = json!({ "token_id": logins["refresh_tokens"][0]["id"] });
                at.broker
                    .call("POST", "/users/tokens/revoke", &token, &body);
            },
            [Stays, SHUT_OUT, Stays],
        ),
        (
            "revoke PAT",
            |at, pat| {
                at.broker.call(
                    "PATCH",
                    &format!("/pats/{pat}/secret/revoke"),
                    &at.token(),
                    &json!(null),
                );
            },
            [Stays, Stays, CLOSED],
        ),
        (
            "reset PAT",
            |at, pat| {
                let body = json!({ "duration": "1h" });
                at.broker.call(
                    "PATCH",
                    &format!("/pats/{pat}/secret/reset"),
                    &at.token(),
                    &body,
                );
            },
            [Stays, Stays, SHUT_OUT],
        ),
        (
            "delete PAT",
            |at, pat| {
                at.broker
                    .call("DELETE", &format!("/pats/{pat}"), &at.token(), &json!(null));
            },
            [Stays, Stays, CLOSED],
        ),
        (
            "remove scopes",
            |at, pat| {
                at.broker.call(
                    "DELETE",
                    &format!("/pats/{pat}/scope"),
                    &at.token(),
                    &json!(null),
                );
            },
            [Stays, Stays, SHUT_OUT],
        ),
        (
            "revoke signing keys",
            |at, _| {
                at.broker.provision(&["rotate-keys", "--revoke"]);
            },
            [Stays, SHUT_OUT, Stays],
        ),
    ];
    let broker = Broker::start(&[]);
    for (number, (what, change, expected)) in rows.into_iter().enumerate() {
        // Shown if it fails.
        println!("{what}");
        let scene = Scene::new(&broker, number);
        let (pat, secret) = scene.pat();
        let mut sessions = scene.sessions(&secret);
        change(&scene, &pat);
        scene.publish();
        for ((session, expected), whose) in sessions
            .iter_mut()
            .zip(expected)
            .zip(["client", "user", "token"])
        {
            assert_eq!(
                fate(session, expected),
                expected,
                "{what}: the {whose}'s session"
            );
        }
    }
}
