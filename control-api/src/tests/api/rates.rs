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
async fn one_address_gets_so_many_invitations_whoever_sends_them() {
    let mail = tempfile::tempdir().unwrap();
    let rates = RateLimits {
        invitations_per_address: 2,
        ..RateLimits::default()
    };
    let world = world(rates, &mail).await;
    let mut statuses = Vec::new();
    for name in ["ann", "bob", "cyd"] {
        let owner = world.person(name).await;
        let base = format!("/domains/{}", world.domain(&owner, name).await);
        let role = world.role(&owner, &base, &["read"], &[]).await;
        let body = json!({ "invitee_email": "X@example.com", "role_id": role });
        let path = format!("{base}/invitations");
        statuses.push(world.server.post(&path, &owner.token, &body).await.0);
    }
    assert_eq!(statuses, [201, 201, 429]);
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
    while mails(&mail) < 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn links_are_bounded_by_who_asks_for_them() {
    let mail = tempfile::tempdir().unwrap();
    let rates = RateLimits {
        links_per_source: 3,
        ..RateLimits::default()
    };
    let world = world(rates, &mail).await;
    let ann = world.person("ann").await;
    for email in ["a@example.com", "b@example.com"] {
        assert!(reset(&world, email).await.contains(" 201 "));
    }
    let verify = "/users/send-verification";
    world.expect("POST", verify, &ann.token, None, 200).await;
    world.expect("POST", verify, &ann.token, None, 429).await;
    assert!(reset(&world, "c@example.com").await.contains(" 429 "));
    assert_eq!(mails(&mail), 1);
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
        world
            .expect("POST", "/users", token, Some(body), status)
            .await;
    };
    register("ann", "", 201).await;
    // It costs a hash, whatever comes of it.
    register("ann", "", 409).await;
    register("bob", "", 429).await;
    register("bob", &world.admin, 201).await;
    let bob = world.server.login("bob", PASSWORD).await;
    register("cyd", &bob, 429).await;
}
