//! Invitations of addresses that nobody is known to have.

use super::*;
use crate::{MailSink, RateLimits};

struct Inviting {
    world: World,
    ann: Person,
    domain: String,
    role: String,
    mail: tempfile::TempDir,
}

async fn inviting() -> Inviting {
    inviting_with(RateLimits::default()).await
}

async fn inviting_with(rates: RateLimits) -> Inviting {
    let mail = tempfile::tempdir().unwrap();
    let world = World::with(ApiSettings {
        mail: Some(MailSink::Folder(mail.path().to_owned())),
        self_registration: true,
        public_url: "https://control.example".to_owned(),
        rates,
        ..ApiSettings::default()
    })
    .await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let role = world
        .role(&ann, &format!("/domains/{domain}"), &["read"], &[])
        .await;
    Inviting {
        world,
        ann,
        domain,
        role,
        mail,
    }
}

impl Inviting {
    fn path(&self) -> String {
        format!("/domains/{}/invitations", self.domain)
    }

    async fn invite(&self, email: &str, resend: bool, status: u16) -> Value {
        let body = json!({ "invitee_email": email, "role_id": self.role, "resend": resend });
        self.world
            .expect("POST", &self.path(), &self.ann.token, Some(body), status)
            .await
    }

    /// The token in the invitation number `count`, once its mail is there.
    async fn token(&self, count: usize) -> String {
        loop {
            let mut files: Vec<_> = std::fs::read_dir(self.mail.path())
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|end| end == "eml"))
                .collect();
            files.sort();
            let mut tokens = files.iter().filter_map(|path| {
                let text = std::fs::read_to_string(path).unwrap();
                let (_, rest) = text.split_once("/invitations/accept#token=")?;
                Some(rest.split_whitespace().next()?.to_owned())
            });
            if let Some(token) = tokens.nth(count - 1) {
                return token;
            }
            tokio::task::yield_now().await;
        }
    }

    async fn open(&self) -> Vec<String> {
        let path = format!("{}?mailed=true", self.path());
        let page = self
            .world
            .expect("GET", &path, &self.ann.token, None, 200)
            .await;
        let items = page["invitations"].as_array().unwrap();
        assert_eq!(page["total"], items.len());
        items
            .iter()
            .map(|item| text(&item["invitee_email"]))
            .collect()
    }

    async fn register(&self, name: &str, email: &str, token: Option<&str>, status: u16) -> Value {
        let mut body = json!({
            "first_name": "First", "last_name": "Last", "email": email,
            "credentials": { "username": name, "secret": PASSWORD },
        });
        if let Some(token) = token {
            body["invitation"] = json!(token);
        }
        self.world
            .expect("POST", "/users", "", Some(body), status)
            .await
    }

    async fn invited_to(&self, token: &str) -> usize {
        let own = self
            .world
            .expect("GET", "/invitations", token, None, 200)
            .await;
        own["invitations"].as_array().unwrap().len()
    }
}

#[tokio::test]
async fn whoever_registers_with_the_token_has_the_invitation_and_a_proven_address() {
    let at = inviting().await;
    at.invite("Bob@Example.com", false, 201).await;
    assert_eq!(at.open().await, ["bob@example.com"]);
    let token = at.token(1).await;
    // A token is no login, and none of another kind.
    at.world
        .expect("GET", "/users/profile", &token, None, 401)
        .await;
    let user = at
        .register("bob", "bob@example.com", Some(&token), 201)
        .await;
    assert!(user["verified_at"].is_string(), "{user}");
    // The answer names the domain of the token, beside which others may have invited the address.
    let of_token = json!({ "domain_id": at.domain, "domain_name": "plant" });
    assert_eq!(user["invitation"], of_token);
    assert!(at.open().await.is_empty());
    at.register("eve", "eve@example.com", Some(&token), 400)
        .await;
    let bob = at.world.server.login("bob", PASSWORD).await;
    assert_eq!(at.invited_to(&bob).await, 1);
    let body = json!({ "domain_id": at.domain });
    at.world
        .expect("POST", "/invitations/accept", &bob, Some(body), 204)
        .await;
    at.world
        .expect("GET", &format!("/domains/{}", at.domain), &bob, None, 200)
        .await;
}

#[tokio::test]
async fn address_alone_gives_nothing_until_it_is_proven() {
    let at = inviting().await;
    at.invite("bob@example.com", false, 201).await;
    let eve = at.register("eve", "bob@example.com", None, 201).await;
    assert!(eve.get("invitation").is_none(), "{eve}");
    let eve = at.world.server.login("eve", PASSWORD).await;
    assert_eq!(at.invited_to(&eve).await, 0, "anybody may say so");
    assert_eq!(at.open().await.len(), 1);
    // Its owner reads the mail that verifies it.
    at.world
        .expect("POST", "/users/send-verification", &eve, None, 200)
        .await;
    let mails = std::fs::read_dir(at.mail.path()).unwrap();
    let verification = mails
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .find_map(|text| Some(text.split_once("/verify-email#token=")?.1.to_owned()))
        .unwrap();
    let token = verification.split_whitespace().next().unwrap();
    let path = format!("/verify-email?token={token}");
    at.world.expect("GET", &path, "", None, 200).await;
    assert_eq!(at.invited_to(&eve).await, 1);
    assert!(at.open().await.is_empty());
}

#[tokio::test]
async fn who_has_an_account_accepts_or_rejects_by_the_token_once() {
    let at = inviting().await;
    let (bob, cyd) = (at.world.person("bob").await, at.world.person("cyd").await);
    // The answer does not tell whether somebody has the address.
    assert_eq!(at.invite("bob@example.com", false, 201).await, Value::Null);
    let token = at.token(1).await;
    let body = json!({ "token": token });
    at.world
        .expect(
            "POST",
            "/invitations/accept",
            &bob.token,
            Some(body.clone()),
            204,
        )
        .await;
    at.world
        .expect(
            "GET",
            &format!("/domains/{}", at.domain),
            &bob.token,
            None,
            200,
        )
        .await;
    at.world
        .expect("POST", "/invitations/accept", &cyd.token, Some(body), 400)
        .await;
    at.invite("cyd@example.com", false, 201).await;
    let body = json!({ "token": at.token(2).await });
    at.world
        .expect(
            "POST",
            "/invitations/reject",
            &cyd.token,
            Some(body.clone()),
            204,
        )
        .await;
    at.world
        .expect("POST", "/invitations/accept", &cyd.token, Some(body), 400)
        .await;
    at.world
        .expect(
            "GET",
            &format!("/domains/{}", at.domain),
            &cyd.token,
            None,
            403,
        )
        .await;
}

#[tokio::test]
async fn one_address_has_one_invitation_that_is_sent_again_or_taken_back() {
    let at = inviting().await;
    at.invite("bob@example.com", false, 201).await;
    at.invite("bob@example.com", false, 409).await;
    let first = at.token(1).await;
    at.invite("bob@example.com", true, 201).await;
    let second = at.token(2).await;
    assert_ne!(first, second);
    at.register("bob", "bob@example.com", Some(&first), 400)
        .await;
    for email in ["", "nobody", "a b@example.com"] {
        at.invite(email, false, 400).await;
    }
    let bob = at.world.person("bob").await;
    let body = json!({ "invitee_email": "bob@example.com" });
    at.world
        .expect("DELETE", &at.path(), &bob.token, Some(body.clone()), 403)
        .await;
    at.world
        .expect("DELETE", &at.path(), &at.ann.token, Some(body.clone()), 204)
        .await;
    at.world
        .expect("DELETE", &at.path(), &at.ann.token, Some(body), 404)
        .await;
    let body = json!({ "token": second });
    at.world
        .expect("POST", "/invitations/accept", &bob.token, Some(body), 400)
        .await;
    let path = format!("{}?mailed=true", at.path());
    at.world.expect("GET", &path, &bob.token, None, 403).await;
    let body = json!({ "invitee_email": "x@example.com", "role_id": at.role });
    at.world
        .expect("POST", &at.path(), &bob.token, Some(body), 403)
        .await;
}

#[tokio::test]
async fn invitation_by_mail_counts_in_place_of_one_that_is_over() {
    let at = inviting().await;
    let bob = at.world.person("bob").await;
    let body = json!({ "invitee_user_id": bob.id, "role_id": at.role });
    at.world
        .expect("POST", &at.path(), &at.ann.token, Some(body), 201)
        .await;
    let mut write = at.world.at.control.0.store.write().await.unwrap();
    crate::store::sql::query("UPDATE invitations SET created_at = 1")
        .execute(write.connection())
        .await
        .unwrap();
    write.commit().await.unwrap();
    at.invite("bob@example.com", false, 201).await;
    let body = json!({ "token": at.token(1).await });
    at.world
        .expect("POST", "/invitations/accept", &bob.token, Some(body), 204)
        .await;
}

#[tokio::test]
async fn invitations_by_mail_end_and_are_bounded() {
    let at = inviting().await;
    at.invite("bob@example.com", false, 201).await;
    let token = at.token(1).await;
    let store = &at.world.at.control.0.store;
    let over = "UPDATE mailed_invitations SET expires_at = 1";
    let mut write = store.write().await.unwrap();
    crate::store::sql::query(over)
        .execute(write.connection())
        .await
        .unwrap();
    write.commit().await.unwrap();
    at.register("bob", "bob@example.com", Some(&token), 400)
        .await;
    assert!(at.open().await.is_empty());
    at.invite("bob@example.com", false, 201).await;
    let many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 999) \
        INSERT INTO mailed_invitations (domain_id, email, invited_by, role_id, digest, created_at, \
        expires_at) SELECT domain_id, 'n' || i, invited_by, role_id, CAST('d' || i AS BLOB), \
        created_at, expires_at FROM mailed_invitations, n";
    let many = if super::super::both::on_postgres() {
        many.replace("CAST('d' || i AS BLOB)", "CAST('d' || i AS BYTEA)")
    } else {
        many.to_owned()
    };
    let mut write = store.write().await.unwrap();
    crate::store::sql::query(sqlx::AssertSqlSafe(many))
        .execute(write.connection())
        .await
        .unwrap();
    write.commit().await.unwrap();
    let told = at.invite("one@too.many", false, 409).await;
    assert!(
        text(&told["message"]).contains("1000 invitations"),
        "{told}"
    );
    at.invite("bob@example.com", true, 201).await;
}

#[tokio::test]
async fn who_is_invited_registers_though_others_took_all_places_of_the_minute() {
    let at = inviting_with(RateLimits {
        registrations: 1,
        ..RateLimits::default()
    })
    .await;
    at.invite("bob@example.com", false, 201).await;
    let token = at.token(1).await;
    at.register("eve", "eve@example.com", None, 201).await;
    at.register("bob", "bob@example.com", None, 429).await;
    at.register("bob", "bob@example.com", Some("none"), 429)
        .await;
    at.register("bob", "bob@example.com", Some(&token), 201)
        .await;
}

#[tokio::test]
async fn nobody_is_invited_by_a_mail_that_there_is_no_place_for() {
    let at = inviting().await;
    let mailer = at.world.at.control.mailer().unwrap();
    let places: Vec<_> = std::iter::from_fn(|| mailer.place()).collect();
    at.invite("bob@example.com", false, 503).await;
    assert!(at.open().await.is_empty());
    drop(places);
    at.invite("bob@example.com", false, 201).await;
}

#[tokio::test]
async fn without_mail_no_address_is_invited() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let role = world
        .role(&ann, &format!("/domains/{domain}"), &["read"], &[])
        .await;
    let body = json!({ "invitee_email": "bob@example.com", "role_id": role });
    let path = format!("/domains/{domain}/invitations");
    world
        .expect("POST", &path, &ann.token, Some(body), 422)
        .await;
}
