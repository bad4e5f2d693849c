//! Who is admitted as whom.

use std::net::IpAddr;

use authcache::feed::{Answer, Credentials, Question, Refusal};
use authcache::{EntityId, PrincipalRecord, Right};

use super::both::config;
use super::{Broker, Plant, plant};
use crate::store::channels;
use crate::{Config, Control, NewClient};

async fn ask(control: &Control, question: Question) -> Answer {
    control.0.identifier.answer(&question).await.1
}

async fn identify(control: &Control, credentials: Credentials) -> Answer {
    ask(control, Question::Identify(credentials)).await
}

fn login(username: &str, password: &str) -> Credentials {
    Credentials {
        username: Some(username.into()),
        password: Some(password.as_bytes().to_vec()),
        ..Credentials::default()
    }
}

fn device(at: &Plant) -> Credentials {
    login(&at.client.client.id.to_string(), at.client.secret.reveal())
}

fn admin(at: &Plant) -> (String, String) {
    let admin = &at.at.first_run.as_ref().unwrap().admin;
    (admin.username.clone(), admin.password.reveal().to_owned())
}

const BAD: Answer = Answer::Refused(Refusal::BadCredentials);
const NOT_AUTHORIZED: Answer = Answer::Refused(Refusal::NotAuthorized);

#[tokio::test]
async fn a_client_is_identified_by_id_and_secret_with_all_its_rights() {
    let at = plant().await;
    at.control()
        .provision()
        .connect("plant", &at.connections(&["publish"]))
        .await
        .unwrap();
    let Answer::Identity(identity, None) = identify(at.control(), device(&at)).await else {
        panic!("identified");
    };
    assert_eq!(identity.id, at.client.client.id);
    assert_eq!(
        identity.kind,
        PrincipalRecord::Client {
            domain: at.channel.domain_id
        }
    );
    assert_eq!(identity.rights, [(at.channel.id, Right::PUBLISH)]);
}

#[tokio::test]
async fn wrong_unknown_missing_and_swapped_credentials_get_one_answer() {
    let at = plant().await;
    let id = at.client.client.id.to_string();
    let secret = at.client.secret.reveal();
    for credentials in [
        login(&id, "wrong"),
        login(&id, ""),
        login(&EntityId::from_u128(9).to_string(), secret),
        login("pump", secret),
        login("", secret),
        login("admin", "wrong"),
        login("nobody", "wrong"),
        Credentials {
            username: Some(id),
            ..Credentials::default()
        },
        Credentials::default(),
    ] {
        assert_eq!(
            identify(at.control(), credentials.clone()).await,
            BAD,
            "{credentials:?}"
        );
    }
}

#[tokio::test]
async fn a_disabled_client_or_domain_is_told_so_only_with_the_right_secret() {
    let at = plant().await;
    let id = at.client.client.id.to_string();
    let provision = at.control().provision();
    provision.disable_client("plant", &id).await.unwrap();
    assert_eq!(identify(at.control(), device(&at)).await, NOT_AUTHORIZED);
    assert_eq!(identify(at.control(), login(&id, "wrong")).await, BAD);
    provision.enable_client("plant", &id).await.unwrap();
    provision.disable_domain("plant").await.unwrap();
    assert_eq!(identify(at.control(), device(&at)).await, NOT_AUTHORIZED);
    provision.enable_domain("plant").await.unwrap();
    assert!(matches!(
        identify(at.control(), device(&at)).await,
        Answer::Identity(..)
    ));
    provision.delete_client("plant", &id).await.unwrap();
    assert_eq!(identify(at.control(), device(&at)).await, BAD);
}

#[tokio::test]
async fn an_administrator_logs_in_by_name_or_token_and_may_do_everything() {
    let at = plant().await;
    let (username, password) = admin(&at);
    let control = at.control();
    let Answer::Identity(identity, None) = identify(control, login(&username, &password)).await
    else {
        panic!("identified");
    };
    assert_eq!(identity.kind, PrincipalRecord::User);
    assert_eq!(identity.rights, [(EntityId::SYS, Right::SUBSCRIBE)]);
    let by_id = login(&identity.id.to_string(), &password);
    assert!(matches!(
        identify(control, by_id).await,
        Answer::Identity(..)
    ));

    let server = super::api::serve(control).await;
    let body = serde_json::json!({ "username": username, "password": password });
    let (status, issued) = server.post("/users/tokens/issue", "", &body).await;
    assert_eq!(status, 201);
    let token = issued["access_token"].as_str().unwrap();
    let refresh = issued["refresh_token"].as_str().unwrap();
    for credentials in [login("", token), login(&identity.id.to_string(), token)] {
        let Answer::Identity(again, Some(expires_at)) = identify(control, credentials).await else {
            panic!("identified");
        };
        assert_eq!(again, identity);
        assert!(expires_at > crate::Time::now().seconds().cast_unsigned() + 3_000);
    }
    let question = Question::Token(token.as_bytes().to_vec());
    assert!(matches!(
        ask(control, question).await,
        Answer::Identity(_, Some(_))
    ));
    // A refresh token is none, and a token is not for somebody else's name.
    assert_eq!(identify(control, login("", refresh)).await, BAD);
    let question = Question::Token(refresh.as_bytes().to_vec());
    assert_eq!(ask(control, question).await, BAD);
    assert_eq!(
        identify(control, login(&EntityId::from_u128(3).to_string(), token)).await,
        BAD
    );

    let rights =
        async |principal, channel| ask(control, Question::Rights { principal, channel }).await;
    assert_eq!(
        rights(identity.id, at.channel.id).await,
        Answer::Rights(Right::BOTH)
    );
    assert_eq!(
        rights(identity.id, EntityId::SYS).await,
        Answer::Rights(Right::SUBSCRIBE)
    );
    assert_eq!(
        rights(identity.id, EntityId::from_u128(5)).await,
        Answer::Rights(Right::NONE)
    );
    let client = at.client.client.id;
    assert_eq!(
        rights(client, at.channel.id).await,
        Answer::Rights(Right::NONE)
    );
}

#[tokio::test]
async fn in_the_open_namespace_clients_log_in_by_name_and_others_are_anonymous() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        open: true,
        ..config(folder.path())
    };
    let (control, first_run) = Control::open(config).await.unwrap();
    let open = control.open_domain();
    let new = NewClient {
        name: "sensor".into(),
        ..NewClient::default()
    };
    let sensor = control
        .provision()
        .create_client("open", new)
        .await
        .unwrap();
    let at = |credentials: Credentials, anonymous| Credentials {
        open,
        anonymous,
        ..credentials
    };
    let id = async |credentials| match identify(&control, credentials).await {
        Answer::Identity(identity, _) => Some(identity.id),
        _ => None,
    };
    let named = login("sensor", sensor.secret.reveal());
    assert_eq!(id(at(named.clone(), false)).await, Some(sensor.client.id));
    assert_eq!(
        id(named).await,
        None,
        "names count in the open namespace only"
    );
    assert_eq!(id(at(login("sensor", "wrong"), false)).await, None);
    assert_eq!(id(at(Credentials::default(), false)).await, None);

    let anonymous = id(at(Credentials::default(), true)).await.unwrap();
    assert_ne!(anonymous, sensor.client.id);
    assert_eq!(
        id(at(login("whoever", "whatever"), true)).await,
        Some(anonymous)
    );
    assert_eq!(
        id(at(login("sensor", sensor.secret.reveal()), true)).await,
        Some(sensor.client.id)
    );
    let admin = first_run.unwrap().admin;
    let admin = id(at(login(&admin.username, admin.password.reveal()), true)).await;
    assert!(admin.is_some_and(|id| id != anonymous));

    control
        .provision()
        .disable_client("open", &anonymous.to_string())
        .await
        .unwrap();
    let refused = identify(&control, at(Credentials::default(), true)).await;
    assert_eq!(refused, NOT_AUTHORIZED);
}

#[tokio::test]
async fn the_anonymous_client_has_no_secret_that_could_be_guessed() {
    let folder = tempfile::tempdir().unwrap();
    let config = Config {
        open: true,
        demo: false,
        ..config(folder.path())
    };
    let (control, _) = Control::open(config).await.unwrap();
    let clients = control
        .provision()
        .list_clients("open", Default::default())
        .await
        .unwrap();
    let id = clients.items[0].id.to_string();
    for secret in ["", "anonymous"] {
        assert_eq!(identify(&control, login(&id, secret)).await, BAD);
    }
}

#[tokio::test]
async fn t_exh_8_ten_failures_throttle_the_pair_and_nobody_else() {
    let at = plant().await;
    let peer = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let from = |credentials: Credentials, text| Credentials {
        peer: peer(text),
        ..credentials
    };
    let id = at.client.client.id.to_string();
    for _ in 0..10 {
        let wrong = from(login(&id, "wrong"), "192.0.2.1");
        assert_eq!(identify(at.control(), wrong).await, BAD);
    }
    let throttled = identify(at.control(), from(device(&at), "192.0.2.1")).await;
    assert_eq!(throttled, Answer::Refused(Refusal::Throttled));
    let elsewhere = identify(at.control(), from(device(&at), "192.0.2.2")).await;
    assert!(matches!(elsewhere, Answer::Identity(..)));
}

#[tokio::test]
async fn keys_that_nobody_has_and_wrong_ones_spend_the_budget_of_their_address() {
    let at = plant().await;
    let client = at.client.client.id;
    let peer = |text: &str| Some(text.parse::<IpAddr>().unwrap());
    let key = async |client, from: &str| {
        let peer = peer(from);
        ask(at.control(), Question::Key { client, peer }).await
    };
    for _ in 0..10 {
        let peer = peer("192.0.2.1");
        let told = ask(at.control(), Question::WrongKey { client, peer }).await;
        assert_eq!(told, BAD);
    }
    assert_eq!(
        key(client, "192.0.2.1").await,
        Answer::Refused(Refusal::Throttled)
    );
    // So do logins that are not handshakes.
    let device = Credentials {
        peer: peer("192.0.2.1"),
        ..device(&at)
    };
    assert_eq!(
        identify(at.control(), device).await,
        Answer::Refused(Refusal::Throttled)
    );
    // An address that tries many names is throttled for all.
    for number in 0..100 {
        assert_eq!(key(EntityId::from_u128(number), "192.0.2.2").await, BAD);
    }
    let unknown = EntityId::from_u128(7777);
    assert_eq!(
        key(unknown, "192.0.2.2").await,
        Answer::Refused(Refusal::Throttled)
    );
    assert_eq!(key(unknown, "192.0.2.3").await, BAD);
}

/// Clients of the domain `plant` with their secrets, each connected to its channel for one type.
async fn fleet(at: &Plant, count: usize) -> Vec<(EntityId, String)> {
    let provision = at.control().provision();
    let mut made = Vec::with_capacity(count);
    for n in 0..count {
        let new = NewClient {
            name: format!("pump {n}"),
            ..NewClient::default()
        };
        let client = provision.create_client("plant", new).await.unwrap();
        made.push((client.client.id, client.secret.reveal().to_owned()));
    }
    let connections = crate::Connections {
        clients: made.iter().map(|(id, _)| id.to_string()).collect(),
        channels: vec!["line".into()],
        types: vec!["publish".into()],
    };
    provision.connect("plant", &connections).await.unwrap();
    made
}

#[tokio::test]
async fn a_fleet_that_asks_at_once_gets_the_answers_that_each_would_get_alone() {
    let at = plant().await;
    let fleet = fleet(&at, 60).await;
    let off = fleet[7].0.to_string();
    let provision = at.control().provision();
    provision.disable_client("plant", &off).await.unwrap();
    let mut questions = Vec::new();
    for (n, (id, secret)) in fleet.iter().enumerate() {
        let (id, unknown) = (id.to_string(), EntityId::from_u128(n as u128).to_string());
        questions.extend([
            login(&id, secret),
            login(&id, &format!("{secret}?")),
            login(&unknown, secret),
            login(&id, &fleet[(n + 1) % fleet.len()].1),
        ]);
    }
    let (username, password) = admin(&at);
    questions.push(login(&username, &password));
    questions.push(device(&at));
    let mut alone = Vec::new();
    for (n, credentials) in questions.iter().enumerate() {
        alone.push(identify(at.control(), from_somewhere(credentials, n)).await);
    }
    let admitted = |answer: &&Answer| matches!(answer, Answer::Identity(..));
    assert_eq!(alone.iter().filter(admitted).count(), 61);
    assert_eq!(alone[4 * 7], NOT_AUTHORIZED);

    let broker = Broker::join(at.control(), false).await;
    let elsewhere = questions.iter().enumerate();
    let elsewhere = elsewhere.map(|(n, asked)| from_somewhere(asked, questions.len() + n));
    let together = broker.ask_all(elsewhere.map(Question::Identify).collect());
    let together = together.await;
    for (n, (together, alone)) in together.iter().zip(&alone).enumerate() {
        assert_eq!(together, alone, "question {n}");
    }
}

/// From an address of its own, so that nobody is throttled.
fn from_somewhere(credentials: &Credentials, number: usize) -> Credentials {
    Credentials {
        peer: Some(IpAddr::from([
            10,
            1,
            (number / 250) as u8,
            (number % 250) as u8,
        ])),
        ..credentials.clone()
    }
}

#[tokio::test]
async fn failures_in_a_batch_are_throttled_like_others() {
    let at = plant().await;
    let broker = Broker::join(at.control(), false).await;
    let id = at.client.client.id.to_string();
    let wrong = Credentials {
        peer: Some("192.0.2.7".parse().unwrap()),
        ..login(&id, "wrong")
    };
    for _ in 0..10 {
        let answer = broker.ask(Question::Identify(wrong.clone())).await;
        assert_eq!(answer, BAD);
    }
    let right = Credentials {
        peer: wrong.peer,
        ..device(&at)
    };
    let throttled = broker.ask(Question::Identify(right)).await;
    assert_eq!(throttled, Answer::Refused(Refusal::Throttled));
}

#[tokio::test]
async fn guesses_that_come_together_are_no_more_than_one_after_the_other() {
    let at = plant().await;
    let broker = Broker::join(at.control(), false).await;
    let id = at.client.client.id.to_string();
    let peer = Some("192.0.2.8".parse().unwrap());
    let mut guesses: Vec<Credentials> = (0..200).map(|n| login(&id, &format!("{n}"))).collect();
    guesses.push(device(&at));
    let from_one = |guess| Question::Identify(Credentials { peer, ..guess });
    let answers = broker
        .ask_all(guesses.into_iter().map(from_one).collect())
        .await;
    assert_eq!(
        answers.last(),
        Some(&Answer::Refused(Refusal::Throttled)),
        "the right one came last"
    );
    let elsewhere = broker.ask(Question::Identify(device(&at))).await;
    assert!(matches!(elsewhere, Answer::Identity(..)));
}

#[tokio::test]
async fn rights_of_many_are_read_in_parts_of_whole_clients() {
    let at = plant().await;
    let mut ids: Vec<EntityId> = fleet(&at, 5).await.into_iter().map(|(id, _)| id).collect();
    let provision = at.control().provision();
    for n in 0..2 {
        let route = Some(format!("line-{n}"));
        let new = crate::NewChannel {
            route: route.clone(),
            ..crate::NewChannel::default()
        };
        provision.create_channel("plant", new).await.unwrap();
        let connections = crate::Connections {
            clients: ids.iter().map(EntityId::to_string).collect(),
            channels: route.into_iter().collect(),
            types: vec!["subscribe".into()],
        };
        provision.connect("plant", &connections).await.unwrap();
    }
    // One that has no rights, and one that does not exist.
    ids.extend([at.client.client.id, EntityId::from_u128(1)]);
    ids.sort_unstable();
    let mut connection = at.control().0.store.read().await.unwrap();
    let (mut left, mut read, mut parts) = (ids.clone(), Vec::new(), 0);
    while !left.is_empty() {
        let part = channels::rights_of_first(&mut connection, &left, 7).await;
        let (found, rest) = part.unwrap();
        read.extend(found);
        (left, parts) = (rest, parts + 1);
    }
    assert!(parts > 1, "15 rights are more than 7");
    assert!(read.iter().map(|(id, _)| *id).eq(ids));
    for (id, rights) in read {
        let mut rights = rights;
        let mut alone = channels::rights_of(&mut connection, id).await.unwrap();
        rights.sort_unstable_by_key(|(channel, _)| *channel);
        alone.sort_unstable_by_key(|(channel, _)| *channel);
        assert_eq!(rights, alone);
    }
}
