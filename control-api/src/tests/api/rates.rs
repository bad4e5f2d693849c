//! How often mails are caused and people registered.

use super::*;
use crate::{MailSink, RateLimits};

async fn world(rates: RateLimits, mail: &tempfile::TempDir) -> World {
    World::with(ApiSettings {
        mail: Some(MailSink::Folder(mail.path().to_owned())),
        self_registration: true,
        rates,
        ..ApiSettings::default()
    })
    .await
}

fn mails(folder: &tempfile::TempDir) -> usize {
    let files = std::fs::read_dir(folder.path()).unwrap();
    files
        .filter(|file| {
            let path = file.as_ref().unwrap().path();
            path.extension().is_some_and(|end| end == "eml")
        })
        .count()
}

/// How many mails there are once none is under way.
async fn sent(world: &World, folder: &tempfile::TempDir) -> usize {
    let mailer = world.at.control.mailer().unwrap();
    let mut places = Vec::new();
    while places.len() < 32 {
        match mailer.place() {
            Some(place) => places.push(place),
            None => tokio::task::yield_now().await,
        }
    }
    mails(folder)
}

/// The status of what is answered to a request that comes from an address.
async fn from(world: &World, peer: &str, path: &str, token: &str, body: &Value) -> u16 {
    let mut request = axum::http::Request::post(path).header("content-type", "application/json");
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let request = request.body(axum::body::Body::from(body.to_string()));
    let control = world.at.control.clone();
    let answer = crate::api::answer(control, peer.parse().unwrap(), request.unwrap());
    answer.await.status().as_u16()
}

#[tokio::test]
async fn one_user_sends_so_many_invitations_whatever_domains_it_makes() {
    let mail = tempfile::tempdir().unwrap();
    let rates = RateLimits {
        mails_per_user: 3,
        ..RateLimits::default()
    };
    let world = world(rates, &mail).await;
    let (ann, bob, cyd) = (
        world.person("ann").await,
        world.person("bob").await,
        world.person("cyd").await,
    );
    let mut invite = Vec::new();
    for (owner, route) in [(&ann, "one"), (&ann, "two"), (&cyd, "three")] {
        let domain = world.domain(owner, route).await;
        let base = format!("/domains/{domain}");
        let role = world.role(owner, &base, &["read"], &[]).await;
        invite.push((format!("{base}/invitations"), role, &owner.token));
    }
    let send = async |domain: usize, whom: (&str, &str), status: u16| {
        let (path, role, token) = &invite[domain];
        let body = json!({ whom.0: whom.1, "role_id": role, "resend": true });
        world.expect("POST", path, token, Some(body), status).await;
    };
    send(0, ("invitee_user_id", &bob.id), 201).await;
    send(0, ("invitee_user_id", &bob.id), 201).await;
    send(0, ("invitee_email", "x@example.com"), 201).await;
    send(0, ("invitee_email", "x@example.com"), 429).await;
    send(1, ("invitee_email", "y@example.com"), 429).await;
    send(1, ("invitee_user_id", &bob.id), 429).await;
    send(2, ("invitee_email", "y@example.com"), 201).await;
    // What is refused invites nobody.
    let (path, _, token) = &invite[1];
    let path = format!("{path}?mailed=true");
    let open = world.expect("GET", &path, token, None, 200).await;
    assert_eq!(open["total"], 0);
}

#[tokio::test]
async fn one_address_gets_so_many_invitations_and_nobody_hears_that_it_gets_no_more() {
    let mail = tempfile::tempdir().unwrap();
    let rates = RateLimits {
        invitations_per_address: 2,
        ..RateLimits::default()
    };
    let world = world(rates, &mail).await;
    let x = world.person("x").await;
    for name in ["ann", "bob", "cyd"] {
        let owner = world.person(name).await;
        let base = format!("/domains/{}", world.domain(&owner, name).await);
        let role = world.role(&owner, &base, &["read"], &[]).await;
        let body = json!({ "invitee_email": "X@example.com", "role_id": role });
        let path = format!("{base}/invitations");
        world
            .expect("POST", &path, &owner.token, Some(body), 201)
            .await;
        let body = json!({ "invitee_user_id": x.id, "role_id": role });
        world
            .expect("POST", &path, &owner.token, Some(body), 201)
            .await;
    }
    assert_eq!(sent(&world, &mail).await, 2);
    let own = world
        .expect("GET", "/invitations", &x.token, None, 200)
        .await;
    assert_eq!(own["total"], 3, "they are there without a mail");
}

#[tokio::test]
async fn answer_to_an_invitation_is_mailed_as_long_as_its_sender_may_cause_mails() {
    let mail = tempfile::tempdir().unwrap();
    let rates = RateLimits {
        mails_per_user: 1,
        ..RateLimits::default()
    };
    let world = world(rates, &mail).await;
    let bob = world.person("bob").await;
    for name in ["ann", "cyd"] {
        let owner = world.person(name).await;
        let domain = world.domain(&owner, name).await;
        let base = format!("/domains/{domain}");
        let role = world.role(&owner, &base, &["read"], &[]).await;
        let path = format!("{base}/invitations");
        let body = json!({ "invitee_user_id": bob.id, "role_id": role });
        world
            .expect("POST", &path, &owner.token, Some(body), 201)
            .await;
        let body = json!({ "domain_id": domain });
        world
            .expect("POST", "/invitations/accept", &bob.token, Some(body), 204)
            .await;
    }
    assert_eq!(sent(&world, &mail).await, 3, "two invitations, one answer");
}

/// Asks for another password; answers with everything but what differs in every answer.
async fn reset(world: &World, email: &str) -> String {
    let body = json!({ "email": email }).to_string();
    let length = body.len();
    let answer = world
        .server
        .exchange(&format!(
            "POST /password/reset-request HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
    let differs = ["x-request-id", "date:", "retry-after", "{\"error"];
    let lines = answer.lines();
    let same = lines.filter(|line| !differs.iter().any(|word| line.starts_with(word)));
    if answer.contains(" 429 ") {
        assert!(answer.contains("retry-after: "), "{answer}");
        assert!(answer.contains("too many of these requests"), "{answer}");
    }
    same.collect()
}

#[tokio::test]
async fn links_for_another_password_are_bounded_alike_for_addresses_that_nobody_has() {
    let mail = tempfile::tempdir().unwrap();
    let rates = RateLimits {
        links_per_address: 2,
        ..RateLimits::default()
    };
    let world = world(rates, &mail).await;
    world.person("ann").await;
    let mut answers = Vec::new();
    for email in ["ann@example.com", "nobody@example.com"] {
        let mut own = Vec::new();
        for _ in 0..3 {
            own.push(reset(&world, email).await);
        }
        assert!(
            own[1].contains(" 201 ") && own[2].contains(" 429 "),
            "{own:?}"
        );
        answers.push(own);
    }
    assert_eq!(answers[0], answers[1]);
    assert_eq!(sent(&world, &mail).await, 2);
}

#[tokio::test]
async fn links_are_bounded_by_who_asks_for_them() {
    let mail = tempfile::tempdir().unwrap();
    let rates = RateLimits {
        links_per_source: 2,
        ..RateLimits::default()
    };
    let world = world(rates, &mail).await;
    let ann = world.person("ann").await;
    let ask = async |peer: &str, path: &str, token: &str| {
        let mut statuses = Vec::new();
        for name in ["a", "b", "c"] {
            let body = json!({ "email": format!("{name}@example.com") });
            statuses.push(from(&world, peer, path, token, &body).await);
        }
        statuses
    };
    let (forgotten, verify) = ("/password/reset-request", "/users/send-verification");
    assert_eq!(ask("192.0.2.1", forgotten, "").await, [201, 201, 429]);
    // Those who are logged in are not shut out by those who are not.
    assert_eq!(ask("192.0.2.1", verify, &ann.token).await, [200, 200, 429]);
    // A proxy on this machine speaks for everybody.
    assert_eq!(ask("127.0.0.1", forgotten, "").await, [201; 3]);
    assert_eq!(ask("127.0.0.1", verify, &ann.token).await, [200; 3]);
}

#[tokio::test]
async fn earlier_link_for_another_password_stays_good_until_one_is_used() {
    let mail = tempfile::tempdir().unwrap();
    let world = world(RateLimits::default(), &mail).await;
    world.person("ann").await;
    for _ in 0..2 {
        assert!(reset(&world, "ann@example.com").await.contains(" 201 "));
    }
    assert_eq!(sent(&world, &mail).await, 2);
    let mut files: Vec<_> = std::fs::read_dir(mail.path())
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let tokens = files.iter().map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        let (_, token) = text.split_once("#token=").unwrap();
        token.split_whitespace().next().unwrap().to_owned()
    });
    for (token, status) in tokens.zip([201, 401]) {
        let password = "battery staple";
        let body = json!({ "token": token, "password": password, "confirm_password": password });
        world
            .expect("PUT", "/password/reset", "", Some(body), status)
            .await;
    }
    world.server.login("ann", "battery staple").await;
}

#[tokio::test]
async fn link_that_there_is_no_place_for_is_not_counted() {
    let mail = tempfile::tempdir().unwrap();
    let rates = RateLimits {
        links_per_address: 1,
        ..RateLimits::default()
    };
    let world = world(rates, &mail).await;
    world.person("ann").await;
    let mailer = world.at.control.mailer().unwrap();
    let places: Vec<_> = std::iter::from_fn(|| mailer.place()).collect();
    for _ in 0..2 {
        assert!(reset(&world, "ann@example.com").await.contains(" 201 "));
    }
    drop(places);
    assert_eq!(sent(&world, &mail).await, 0);
    assert!(reset(&world, "ann@example.com").await.contains(" 201 "));
    assert_eq!(sent(&world, &mail).await, 1);
}

#[tokio::test]
async fn a_user_who_changes_its_address_sends_no_more_links_than_others() {
    let mail = tempfile::tempdir().unwrap();
    let rates = RateLimits {
        mails_per_user: 2,
        ..RateLimits::default()
    };
    let world = world(rates, &mail).await;
    let ann = world.person("ann").await;
    for (n, status) in [200, 200, 429].into_iter().enumerate() {
        let body = json!({ "email": format!("victim-{n}@example.com") });
        let path = format!("/users/{}/email", ann.id);
        world
            .expect("PATCH", &path, &ann.token, Some(body), 200)
            .await;
        let path = "/users/send-verification";
        world.expect("POST", path, &ann.token, None, status).await;
    }
    assert_eq!(mails(&mail), 2);
}

#[tokio::test]
async fn people_register_themselves_so_often_and_administrators_register_everybody() {
    let mail = tempfile::tempdir().unwrap();
    let rates = RateLimits {
        registrations_per_source: 2,
        ..RateLimits::default()
    };
    let world = world(rates, &mail).await;
    let register = async |name: &str, token: &str, status: u16| {
        let body = json!({
            "first_name": "First", "last_name": "Last", "email": format!("{name}@example.com"),
            "credentials": { "username": name, "secret": PASSWORD },
        });
        let got = from(&world, "192.0.2.1", "/users", token, &body).await;
        assert_eq!(got, status, "{name}");
    };
    register("ann", "", 201).await;
    // It costs a hash, whatever comes of it.
    register("ann", "", 409).await;
    register("bob", "", 429).await;
    register("bob", &world.admin, 201).await;
    let bob = world.server.login("bob", PASSWORD).await;
    register("cyd", &bob, 429).await;
}
