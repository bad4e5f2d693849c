//! The operations and their rules.

use authcache::{Change, EntityId, Right, Status};

use super::{installation, plant};
use crate::{
    Conflict, Connections, Fault, Invalid, NewChannel, NewClient, NewDomain, Page, ProvisionError,
    Request, Secret, TRIPLES_MAX,
};

const ID: &str = "0190a5f3-7c1e-4b22-9f00-0123456789ab";

fn domain(route: &str) -> NewDomain {
    NewDomain {
        route: route.into(),
        ..NewDomain::default()
    }
}

fn message<T: std::fmt::Debug>(result: Result<T, ProvisionError>) -> String {
    result.unwrap_err().to_string()
}

fn conflict<T: std::fmt::Debug>(result: Result<T, ProvisionError>) -> Conflict {
    match result.unwrap_err() {
        ProvisionError::Conflict(conflict) => conflict,
        other => panic!("{other} instead of a conflict"),
    }
}

#[tokio::test]
async fn domains_are_made_listed_switched_and_removed() {
    let at = installation().await;
    let provision = at.control.provision();
    let new = NewDomain {
        id: Some(ID.into()),
        name: "Plant 1".into(),
        route: "plant".into(),
    };
    let made = provision.create_domain(new).await.unwrap();
    assert_eq!(
        (made.id.to_string().as_str(), made.status),
        (ID, Status::Enabled)
    );
    assert_eq!(
        provision.create_domain(domain("other")).await.unwrap().name,
        "other"
    );
    let listed = provision
        .list_domains(Page {
            offset: 0,
            limit: 1,
        })
        .await
        .unwrap();
    assert_eq!((listed.total, listed.items), (2, vec![made]));

    let disabled = provision.disable_domain("plant").await.unwrap();
    assert_eq!(disabled.status, Status::Disabled);
    assert!(disabled.updated_at.is_some());
    assert_eq!(
        message(provision.disable_domain(ID).await),
        "domain \"plant\" is already disabled"
    );
    assert_eq!(
        provision.enable_domain(ID).await.unwrap().status,
        Status::Enabled
    );
    provision.delete_domain("plant").await.unwrap();
    assert_eq!(
        message(provision.delete_domain("plant").await),
        "domain \"plant\" does not exist"
    );
}

#[tokio::test]
async fn names_ids_and_routes_that_are_wrong_or_taken_are_refused() {
    let at = plant().await;
    let provision = at.control().provision();
    let cases = [
        (domain(""), Fault::Invalid),
        (domain("a b"), Fault::Invalid),
        (domain(ID), Fault::Invalid),
        (domain("plant"), Fault::Conflict),
        (
            NewDomain {
                id: Some("7".into()),
                ..domain("x")
            },
            Fault::Invalid,
        ),
        (
            NewDomain {
                name: "n".repeat(255),
                ..domain("x")
            },
            Fault::Invalid,
        ),
    ];
    for (new, fault) in cases {
        let error = provision.create_domain(new.clone()).await.unwrap_err();
        assert_eq!(error.fault(), fault, "{new:?}: {error}");
    }
    let taken = at.channel.domain_id;
    let new = NewDomain {
        id: Some(taken.to_string()),
        ..domain("x")
    };
    assert_eq!(
        conflict(provision.create_domain(new).await),
        Conflict::IdTaken(taken)
    );

    let channel = |route: &str| NewChannel {
        route: Some(route.into()),
        ..NewChannel::default()
    };
    let cases = [
        (channel("a/b"), Fault::Invalid),
        (channel(ID), Fault::Invalid),
        (channel("line"), Fault::Conflict),
        (
            NewChannel {
                id: Some("x".into()),
                ..NewChannel::default()
            },
            Fault::Invalid,
        ),
        (
            NewChannel {
                id: Some(at.channel.id.to_string()),
                ..NewChannel::default()
            },
            Fault::Conflict,
        ),
        (
            NewChannel {
                name: "n".repeat(1025),
                ..NewChannel::default()
            },
            Fault::Invalid,
        ),
    ];
    for (new, fault) in cases {
        let error = provision
            .create_channel("plant", new.clone())
            .await
            .unwrap_err();
        assert_eq!(error.fault(), fault, "{new:?}: {error}");
    }

    let client = |secret: &str| NewClient {
        secret: Some(Secret::new(secret.into())),
        ..NewClient::default()
    };
    provision
        .create_client("plant", client("given"))
        .await
        .unwrap();
    let cases = [
        (client(""), Fault::Invalid),
        (client(&"s".repeat(4097)), Fault::Invalid),
        (client("given"), Fault::Conflict),
        (
            NewClient {
                id: Some("x".into()),
                ..NewClient::default()
            },
            Fault::Invalid,
        ),
        (
            NewClient {
                id: Some(at.client.client.id.to_string()),
                ..NewClient::default()
            },
            Fault::Conflict,
        ),
        (
            NewClient {
                name: "a\0b".into(),
                ..NewClient::default()
            },
            Fault::Invalid,
        ),
    ];
    for (new, fault) in cases {
        let error = provision
            .create_client("plant", new.clone())
            .await
            .unwrap_err();
        assert_eq!(error.fault(), fault, "{new:?}: {error}");
        assert!(!error.to_string().contains("given"), "{error}");
    }
}

#[tokio::test]
async fn a_secret_may_be_used_again_in_another_domain() {
    let at = plant().await;
    let provision = at.control().provision();
    provision.create_domain(domain("other")).await.unwrap();
    let secret = Some(at.client.secret.clone());
    let new = NewClient {
        secret: secret.clone(),
        ..NewClient::default()
    };
    assert!(provision.create_client("other", new.clone()).await.is_ok());
    assert_eq!(
        conflict(provision.create_client("plant", new).await),
        Conflict::SecretTaken
    );
}

#[tokio::test]
async fn t_id_3_a_domain_does_not_reach_into_another() {
    let at = plant().await;
    let provision = at.control().provision();
    provision.create_domain(domain("other")).await.unwrap();
    let (channel, client) = (at.channel.id.to_string(), at.client.client.id.to_string());
    let expected = format!("channel {channel:?} does not exist in domain \"other\"");
    assert_eq!(
        message(provision.delete_channel("other", &channel).await),
        expected
    );
    let expected = format!("client {client:?} does not exist in domain \"other\"");
    assert_eq!(
        message(provision.disable_client("other", &client).await),
        expected
    );
    let unknown = message(provision.delete_client("other", ID).await);
    assert_eq!(
        unknown,
        expected.replace(&client, ID),
        "like one that does not exist at all"
    );
}

#[tokio::test]
async fn channels_and_clients_are_switched_and_removed() {
    let at = plant().await;
    let provision = at.control().provision();
    let client = at.client.client.id.to_string();
    assert!(
        !provision
            .disable_channel("plant", "line")
            .await
            .unwrap()
            .status
            .is_live()
    );
    let again = conflict(provision.disable_channel("plant", "line").await);
    assert!(matches!(again, Conflict::StatusAlready { .. }));
    assert!(
        provision
            .enable_channel("plant", "line")
            .await
            .unwrap()
            .status
            .is_live()
    );
    assert!(
        !provision
            .disable_client("plant", &client)
            .await
            .unwrap()
            .status
            .is_live()
    );
    assert!(
        provision
            .enable_client("plant", &client)
            .await
            .unwrap()
            .status
            .is_live()
    );
    provision.delete_channel("plant", "line").await.unwrap();
    provision.delete_client("plant", &client).await.unwrap();
    let listed = provision
        .list_channels("plant", Page::default())
        .await
        .unwrap();
    assert_eq!(listed.total, 0);
    let listed = provision
        .list_clients("plant", Page::default())
        .await
        .unwrap();
    assert_eq!(listed.total, 0);
}

#[tokio::test]
async fn connecting_is_all_or_nothing() {
    let at = plant().await;
    let provision = at.control().provision();
    let second = NewClient {
        name: "valve".into(),
        ..NewClient::default()
    };
    let second = provision.create_client("plant", second).await.unwrap();
    provision
        .connect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    let mut both = at.connections(&["Publish", "SUBSCRIBE"]);
    both.clients.push(second.client.id.to_string());
    let revision = at.control().0.feed.revision();
    let expected = Conflict::AlreadyConnected {
        client: at.client.client.id,
        channel: at.channel.id,
        types: "publish".into(),
    };
    assert_eq!(conflict(provision.connect("plant", &both).await), expected);
    assert_eq!(at.control().0.feed.revision(), revision);
    provision
        .connect("plant", &at.connections(&["subscribe"]))
        .await
        .unwrap();
    // Named twice is not connected twice.
    let valve = Connections {
        clients: vec![second.client.id.to_string(); 2],
        channels: vec!["line".into(), at.channel.id.to_string()],
        types: vec!["publish".into()],
    };
    provision.connect("plant", &valve).await.unwrap();
    // Disconnecting ignores what is not there.
    provision.disconnect("plant", &both).await.unwrap();
    provision.disconnect("plant", &both).await.unwrap();
}

#[tokio::test]
async fn connecting_checks_what_it_is_given() {
    let at = plant().await;
    let provision = at.control().provision();
    let good = at.connections(&["publish"]);
    let unknown = Connections {
        channels: vec!["nowhere".into()],
        ..good.clone()
    };
    let cases = [
        (
            Connections {
                types: vec![],
                ..good.clone()
            },
            Fault::Invalid,
        ),
        (
            Connections {
                types: vec!["read".into()],
                ..good.clone()
            },
            Fault::Invalid,
        ),
        (
            Connections {
                clients: vec![],
                ..good.clone()
            },
            Fault::Invalid,
        ),
        (
            Connections {
                channels: vec![],
                ..good.clone()
            },
            Fault::Invalid,
        ),
        (
            Connections {
                clients: vec!["pump".into()],
                ..good.clone()
            },
            Fault::Invalid,
        ),
        (
            Connections {
                clients: vec![ID.into(); TRIPLES_MAX + 1],
                ..good.clone()
            },
            Fault::Invalid,
        ),
        (
            Connections {
                clients: vec![ID.into()],
                ..good.clone()
            },
            Fault::NotFound,
        ),
        (unknown, Fault::NotFound),
    ];
    for (connections, fault) in cases {
        let error = provision.connect("plant", &connections).await.unwrap_err();
        assert_eq!(error.fault(), fault, "{error}");
        let error = provision
            .disconnect("plant", &connections)
            .await
            .unwrap_err();
        assert_eq!(error.fault(), fault, "{error}");
    }
    provision.disable_channel("plant", "line").await.unwrap();
    let refused = conflict(provision.connect("plant", &good).await);
    assert!(
        matches!(
            refused,
            Conflict::NotEnabled {
                kind: "channel",
                ..
            }
        ),
        "{refused}"
    );
    provision.disconnect("plant", &good).await.unwrap();
}

#[tokio::test]
async fn pages_have_bounds() {
    let at = plant().await;
    let provision = at.control().provision();
    for limit in [0, 101] {
        let error = provision
            .list_clients("plant", Page { offset: 0, limit })
            .await
            .unwrap_err();
        assert!(
            matches!(error, ProvisionError::Invalid(Invalid::Limit { .. })),
            "{error}"
        );
    }
    let beyond = Page {
        offset: u64::MAX,
        limit: 100,
    };
    assert!(
        provision
            .list_clients("plant", beyond)
            .await
            .unwrap()
            .items
            .is_empty()
    );
}

#[tokio::test]
async fn a_change_and_its_revision_are_one() {
    let at = plant().await;
    let control = at.control();
    let before = control.0.feed.revision();
    control
        .provision()
        .connect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    control
        .provision()
        .disconnect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    let rows = control.0.store.outbox(before, 10).await.unwrap();
    let right_set = |right| Change::RightSet {
        principal: at.client.client.id,
        channel: at.channel.id,
        right,
    };
    assert_eq!(
        rows,
        [
            (before + 1, vec![right_set(Right::PUBLISH)]),
            (before + 2, vec![right_set(Right::NONE)])
        ]
    );
}

#[tokio::test]
async fn concurrent_changes_get_revisions_without_gaps() {
    let at = installation().await;
    let provision = at.control.provision();
    let made = (0..20).map(|n| {
        let provision = provision.clone();
        tokio::spawn(async move { provision.create_domain(domain(&format!("d{n}"))).await })
    });
    for made in made.collect::<Vec<_>>() {
        made.await.unwrap().unwrap();
    }
    let rows = at.control.0.store.outbox(0, 100).await.unwrap();
    assert!(rows.iter().map(|(revision, _)| *revision).eq(2..=21));
    assert_eq!(at.control.0.feed.revision(), 21);
}

#[tokio::test]
async fn t_id_10_of_two_that_want_one_route_one_gets_it() {
    let at = installation().await;
    let provision = at.control.provision();
    let (first, second) = tokio::join!(
        provision.create_domain(domain("x")),
        provision.create_domain(domain("x"))
    );
    assert_eq!(usize::from(first.is_ok()) + usize::from(second.is_ok()), 1);
}

#[tokio::test]
async fn requests_are_read_from_json_and_answered_in_json() {
    let at = plant().await;
    let provision = at.control().provision();
    let run = async |text: &str| {
        let request: Request = serde_json::from_str(text).unwrap();
        let response = provision.execute(request).await.unwrap();
        serde_json::to_value(response).unwrap()
    };
    let listed = run(r#"{"operation":"list_clients","domain":"plant","limit":1}"#).await;
    assert_eq!(
        (&listed["total"], &listed["items"][0]["name"]),
        (&1.into(), &"pump".into())
    );
    let made = run(r#"{"operation":"create_client","domain":"plant","name":"valve"}"#).await;
    assert_eq!(made["secret"].as_str().unwrap().len(), 43);
    assert!(EntityId::from_text(made["id"].as_str().unwrap()).is_some());
    let text = format!(
        r#"{{"operation":"connect","domain":"plant","clients":[{}],"channels":["line"],"types":["publish"]}}"#,
        made["id"]
    );
    assert_eq!(run(&text).await, serde_json::json!({}));
    assert_eq!(
        run(r#"{"operation":"delete_domain","domain":"plant"}"#).await,
        serde_json::json!({})
    );
}

#[tokio::test]
async fn what_the_operator_does_is_in_the_journal_and_decisions_are_explained() {
    let at = plant().await;
    let provision = at.control().provision();
    let client = at.client.client.id.to_string();
    let channel = at.channel.id.to_string();
    let explain = async || {
        let explained = provision.explain("plant", &client, "publish", &channel);
        explained.await.unwrap()
    };
    assert_eq!(explain().await["allowed"], false);
    provision
        .connect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    let explained = explain().await;
    assert_eq!(explained["allowed"], true);
    assert_eq!(explained["path"][0]["connection"]["types"][0], "publish");
    let by_name = provision.explain("plant", "admin", "read", &channel).await;
    assert_eq!(by_name.unwrap()["path"][0]["platform"], "administrator");
    let unknown = provision.explain("plant", &client, "fly", &channel).await;
    assert!(message(unknown).contains("expected one of read"));
    provision.disable_client("plant", &client).await.unwrap();
    let mut connection = at.control().0.store.read().await.unwrap();
    let all: Vec<(String, String)> =
        crate::store::sql::query_as("SELECT operation, peer FROM journal ORDER BY seq")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    let operations: Vec<&str> = all
        .iter()
        .map(|(operation, _)| operation.as_str())
        .collect();
    let expected = [
        "domain.create",
        "channel.create",
        "client.create",
        "channel.connect",
        "client.disable",
    ];
    assert_eq!(operations, expected);
    assert!(all.iter().all(|(_, peer)| peer == "operator"));
}
