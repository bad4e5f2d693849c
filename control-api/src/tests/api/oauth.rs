//! Logins at a provider of the test's own, which checks what it is given.

use std::collections::HashMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};

use super::*;
use crate::OauthProvider;
use crate::clock::lock;

const PAGE: &str = "https://console.example/in";
const SECRET: &str = "a secret: of 2 words";

/// A provider on loopback.
#[derive(Clone)]
struct Provider {
    address: String,
    known: Arc<Mutex<Known>>,
}

#[derive(Default)]
struct Known {
    /// Codes that were given out, and for what.
    codes: HashMap<String, Grant>,
    /// Tokens, and whose profile they open.
    tokens: HashMap<String, Value>,
    trouble: Option<Trouble>,
    /// Requests for a token and for a profile.
    asked: usize,
    followed: bool,
}

struct Grant {
    challenge: String,
    redirect_uri: String,
    profile: Value,
}

/// What the provider does wrong.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Redirects,
    Endless,
    NoJson,
    OtherToken,
    NoProfile,
}

fn parameters(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.bytes());
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let digits = [rest.next().unwrap(), rest.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap();
                bytes.push(u8::from_str_radix(digits, 16).unwrap());
            }
            b'+' => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).unwrap()
}

impl Provider {
    async fn start() -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let provider = Provider {
            address: listener.local_addr().unwrap().to_string(),
            known: Arc::default(),
        };
        let router = Router::new()
            .route("/token", post(token))
            .route("/userinfo", get(userinfo))
            .route("/elsewhere", get(elsewhere).post(elsewhere))
            .with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    fn settings(&self, folder: &std::path::Path) -> OauthProvider {
        let secret = folder.join("secret");
        std::fs::write(&secret, format!("{SECRET}\n")).unwrap();
        OauthProvider {
            client_id: "turnpike us".to_owned(),
            client_secret_file: Some(secret),
            authorize_url: "https://provider.example/authorize?tenant=1".to_owned(),
            token_url: format!("http://{}/token", self.address),
            userinfo_url: format!("http://{}/userinfo", self.address),
            register: true,
            ..OauthProvider::new("plant")
        }
    }

    /// Lets somebody log in whom a browser sent there; answers with the query of its way back.
    fn log_in(&self, location: &str, profile: Value) -> String {
        let query = location
            .strip_prefix("https://provider.example/authorize?tenant=1&")
            .unwrap_or_else(|| panic!("{location}"));
        let asked = parameters(query);
        assert_eq!(asked["response_type"], "code");
        assert_eq!(asked["client_id"], "turnpike us");
        assert_eq!(asked["code_challenge_method"], "S256");
        assert_eq!(asked["scope"], "openid email profile");
        let grant = Grant {
            challenge: asked["code_challenge"].clone(),
            redirect_uri: asked["redirect_uri"].clone(),
            profile,
        };
        let code = format!("code/{}", crate::secret::random_id());
        lock(&self.known).codes.insert(code.clone(), grant);
        format!(
            "state={}&code={}&iss=x",
            asked["state"],
            code.replace('/', "%2F")
        )
    }

    fn cause(&self, trouble: Option<Trouble>) {
        lock(&self.known).trouble = trouble;
    }
}

async fn token(State(provider): State<Provider>, headers: HeaderMap, body: String) -> Response {
    let mut known = lock(&provider.known);
    known.asked += 1;
    match known.trouble {
        Some(Trouble::Redirects) => {
            let place = format!("http://{}/elsewhere", provider.address);
            return (StatusCode::TEMPORARY_REDIRECT, [(header::LOCATION, place)]).into_response();
        }
        Some(Trouble::Endless) => return " ".repeat(1 << 20).into_response(),
        Some(Trouble::NoJson) => return "token".into_response(),
        Some(Trouble::OtherToken | Trouble::NoProfile) | None => {}
    }
    let form = parameters(&body);
    let refuse = |why: &str| (StatusCode::BAD_REQUEST, why.to_owned()).into_response();
    // RFC 6749, 2.3.1: both halves are encoded as in a form, then joined.
    let wanted = STANDARD.encode("turnpike%20us:a%20secret%3A%20of%202%20words");
    if headers[header::AUTHORIZATION] != format!("Basic {wanted}") {
        return refuse("invalid_client");
    }
    if headers[header::CONTENT_TYPE] != "application/x-www-form-urlencoded"
        || form["grant_type"] != "authorization_code"
        || form.contains_key("client_secret")
    {
        return refuse("invalid_request");
    }
    // A code is good once.
    let Some(grant) = known.codes.remove(&form["code"]) else {
        return refuse("invalid_grant");
    };
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&form["code_verifier"]));
    if challenge != grant.challenge || form["redirect_uri"] != grant.redirect_uri {
        return refuse("invalid_grant");
    }
    let token = format!("token-{}", crate::secret::random_id());
    known.tokens.insert(token.clone(), grant.profile);
    let kind = match known.trouble {
        Some(Trouble::OtherToken) => "mac",
        _ => "bearer",
    };
    axum::Json(json!({ "access_token": token, "token_type": kind, "expires_in": 60 }))
        .into_response()
}

async fn userinfo(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    let mut known = lock(&provider.known);
    known.asked += 1;
    if let Some(Trouble::NoProfile) = known.trouble {
        return axum::Json(json!({ "error": "none" })).into_response();
    }
    let bearer = headers[header::AUTHORIZATION].to_str().unwrap();
    match known
        .tokens
        .get(bearer.strip_prefix("Bearer ").unwrap_or_default())
    {
        Some(profile) => axum::Json(profile.clone()).into_response(),
        None => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn elsewhere(State(provider): State<Provider>) -> StatusCode {
    lock(&provider.known).followed = true;
    StatusCode::OK
}

/// An installation with the provider, and a browser's steps through it.
struct Elsewhere {
    world: World,
    provider: Provider,
}

/// The way back of a browser: where it was sent, and the cookies it was given.
struct Back {
    status: u16,
    location: String,
    cookies: Vec<String>,
    text: String,
}

impl Back {
    fn read(text: String) -> Back {
        let head = text.split("\r\n\r\n").next().unwrap().to_owned();
        let values = |wanted: &str| -> Vec<String> {
            let lines = head.lines().filter_map(|line| line.split_once(": "));
            lines
                .filter(|(name, _)| *name == wanted)
                .map(|(_, value)| value.to_owned())
                .collect()
        };
        Back {
            status: text[9..12].parse().unwrap(),
            location: values("location").pop().unwrap_or_default(),
            cookies: values("set-cookie"),
            text,
        }
    }

    /// The value of a cookie; none if it was not set.
    fn cookie(&self, name: &str) -> Option<&str> {
        let set = self.cookies.iter().find_map(|cookie| {
            let (known, rest) = cookie.split_once('=')?;
            (known == name).then_some(rest)
        })?;
        set.split(';').next()
    }

    /// The word that the page is told, if nobody was let in.
    fn error(&self) -> &str {
        assert_eq!(self.status, 302, "{}", self.text);
        assert_eq!(self.cookie("access_token"), None, "{}", self.text);
        let told = self
            .location
            .strip_prefix(PAGE)
            .and_then(|rest| rest.strip_prefix("?error="));
        told.unwrap_or_else(|| panic!("{}", self.text))
    }
}

impl Elsewhere {
    async fn new(change: impl FnOnce(&mut ApiSettings)) -> Elsewhere {
        let provider = Provider::start().await;
        let folder = tempfile::tempdir().unwrap();
        let mut settings = ApiSettings {
            oauth: vec![provider.settings(folder.path())],
            return_urls: vec![
                PAGE.to_owned(),
                "https://console.example/other?x=1".to_owned(),
            ],
            public_url: "https://control.example".to_owned(),
            ..ApiSettings::default()
        };
        change(&mut settings);
        let world = World::with(settings).await;
        Elsewhere { world, provider }
    }

    async fn get(&self, path: &str, cookie: &str) -> Back {
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncookie: other=1; {cookie}\r\n\r\n"
        );
        Back::read(self.world.server.exchange(&request).await)
    }

    /// Begins a login: where the browser goes, and the cookie that it keeps.
    async fn begin(&self) -> (String, String) {
        let begun = self.get("/oauth/login/plant", "").await;
        assert_eq!(begun.status, 302, "{}", begun.text);
        let binding = begun.cookie("turnpike_oauth").unwrap();
        (begun.location.clone(), format!("turnpike_oauth={binding}"))
    }

    /// A whole login of somebody with this profile.
    async fn log_in(&self, profile: Value) -> Back {
        let (location, cookie) = self.begin().await;
        let query = self.provider.log_in(&location, profile);
        self.get(&format!("/oauth/callback/plant?{query}"), &cookie)
            .await
    }

    /// The profile that the caller with this token sees.
    async fn profile_of(&self, back: &Back) -> Value {
        assert_eq!((back.status, &*back.location), (302, PAGE), "{}", back.text);
        let token = back.cookie("access_token").unwrap();
        self.world
            .expect("GET", "/users/profile", token, None, 200)
            .await
    }
}

fn ann() -> Value {
    json!({ "sub": "42", "email": "Ann.Lee@example.com", "email_verified": true,
        "given_name": "Ann", "family_name": "Lee", "picture": "https://p.example/a.png" })
}

#[tokio::test]
async fn somebody_new_is_registered_and_is_the_same_one_the_next_time() {
    let at = Elsewhere::new(|_| {}).await;
    let back = at.log_in(ann()).await;
    for cookie in &back.cookies {
        for attribute in ["; HttpOnly", "; SameSite=Lax", "; Secure"] {
            assert!(cookie.contains(attribute), "{cookie}");
        }
    }
    assert_eq!(back.cookie("turnpike_oauth"), Some(""), "it is spent");
    let first = at.profile_of(&back).await;
    assert_eq!(first["email"], "ann.lee@example.com");
    assert_eq!(first["first_name"], "Ann");
    assert_eq!(first["auth_provider"], "plant");
    assert_eq!(first["credentials"]["username"], "ann-lee");
    assert_eq!(first["role"], "user");
    assert!(first["verified_at"].is_string());
    // The refresh token is one like any other.
    let refresh = back.cookie("refresh_token").unwrap();
    at.world
        .expect("POST", "/users/tokens/refresh", refresh, None, 201)
        .await;

    // Another name and another address there: the same person.
    let mut changed = ann();
    changed["email"] = json!("ann@elsewhere.example");
    changed["family_name"] = json!("Li");
    let second = at.profile_of(&at.log_in(changed).await).await;
    assert_eq!(second["id"], first["id"]);
    assert_eq!(second["last_name"], "Li");
    assert_eq!(second["email"], "ann@elsewhere.example");
}

#[tokio::test]
async fn invitations_of_an_address_that_the_provider_gives_later_become_the_users() {
    let mail = tempfile::tempdir().unwrap();
    let at = Elsewhere::new(|settings| {
        settings.mail = Some(crate::MailSink::Folder(mail.path().to_owned()));
    })
    .await;
    let bob = at.world.person("bob").await;
    let base = format!("/domains/{}", at.world.domain(&bob, "plant").await);
    let role = at.world.role(&bob, &base, &["read"], &[]).await;
    at.profile_of(&at.log_in(ann()).await).await;
    let invitation = json!({ "invitee_email": "ann@elsewhere.example", "role_id": role });
    let path = format!("{base}/invitations");
    at.world
        .server
        .made(&path, &bob.token, 201, invitation)
        .await;
    let invited = async |back: Back| {
        let token = back.cookie("access_token").unwrap();
        at.world
            .expect("GET", "/invitations", token, None, 200)
            .await["total"]
            .clone()
    };
    assert_eq!(invited(at.log_in(ann()).await).await, 0);
    let mut changed = ann();
    changed["email"] = json!("ann@elsewhere.example");
    // An address that the provider does not vouch for is nobody's.
    changed["email_verified"] = json!(false);
    assert_eq!(invited(at.log_in(changed.clone()).await).await, 0);
    changed["email_verified"] = json!(true);
    assert_eq!(invited(at.log_in(changed).await).await, 1);
}

#[tokio::test]
async fn what_the_provider_keeps_cannot_be_changed_here() {
    let at = Elsewhere::new(|_| {}).await;
    let back = at.log_in(ann()).await;
    let (token, profile) = (
        back.cookie("access_token").unwrap(),
        at.profile_of(&back).await,
    );
    let path = format!("/users/{}", text(&profile["id"]));
    for (path, body) in [
        (path.clone(), json!({ "first_name": "x" })),
        (format!("{path}/email"), json!({ "email": "x@example.com" })),
        (
            format!("{path}/picture"),
            json!({ "profile_picture": "https://x" }),
        ),
    ] {
        at.world
            .expect("PATCH", &path, token, Some(body), 400)
            .await;
    }
    let body = json!({ "metadata": { "a": 1 } });
    at.world
        .expect("PATCH", &path, token, Some(body), 200)
        .await;
    // No password opens the account.
    let username = text(&profile["credentials"]["username"]);
    for password in ["-", "", "12345678"] {
        let login = json!({ "username": username, "password": password });
        let (status, _) = at
            .world
            .server
            .post("/users/tokens/issue", "", &login)
            .await;
        assert!([400, 401].contains(&status), "{status}");
    }
}

#[tokio::test]
async fn account_is_not_taken_over_unless_both_sides_have_proven_the_address() {
    let at = Elsewhere::new(|_| {}).await;
    let owner = at.world.person("annlee").await;
    // It was registered with the address of `ann()`, and never verified here.
    let body = json!({ "email": "ann.lee@example.com" });
    let path = format!("/users/{}/email", owner.id);
    at.world
        .server
        .call("PATCH", &path, &owner.token, Some(&body))
        .await;
    assert_eq!(at.log_in(ann()).await.error(), "email_taken");
    let store = &at.world.at.control.0.store;
    let id = authcache::EntityId::from_text(&owner.id).unwrap();
    let mut write = store.write().await.unwrap();
    let person = crate::store::people::person(write.connection(), id).await;
    let mut person = person.unwrap().unwrap();
    person.verified_at = Some(crate::model::Time::now());
    write.update_person(&person).await.unwrap();
    write.commit().await.unwrap();
    // Who has not proven it there does not get it either.
    let mut unproven = ann();
    unproven["email_verified"] = json!(false);
    assert_eq!(at.log_in(unproven).await.error(), "email_unverified");
    let seen = at.profile_of(&at.log_in(ann()).await).await;
    assert_eq!(seen["id"], owner.id.as_str());
    // The account stays the user's own: its password works, its name can be changed.
    at.world.server.login(&owner.username, PASSWORD).await;
    let body = json!({ "first_name": "Anna" });
    let path = format!("/users/{}", owner.id);
    at.world
        .expect("PATCH", &path, &owner.token, Some(body), 200)
        .await;

    // Somebody else there with her address is somebody else, and does not get it.
    let admin = json!({ "sub": "1", "email": "boss@example.com", "email_verified": true });
    let profile = at
        .world
        .expect("GET", "/users/profile", &at.world.admin, None, 200)
        .await;
    let path = format!("/users/{}/email", text(&profile["id"]));
    let body = json!({ "email": "boss@example.com" });
    at.world
        .expect("PATCH", &path, &at.world.admin, Some(body), 200)
        .await;
    assert_eq!(
        at.log_in(admin).await.error(),
        "email_taken",
        "administrators"
    );
}

#[tokio::test]
async fn administrator_with_a_password_shows_it_though_the_provider_knew_it_before() {
    let at = Elsewhere::new(|_| {}).await;
    let owner = at.world.person("annlee").await;
    let store = &at.world.at.control.0.store;
    let id = authcache::EntityId::from_text(&owner.id).unwrap();
    let mut write = store.write().await.unwrap();
    write.know_user("plant", "42", id).await.unwrap();
    write.commit().await.unwrap();
    let seen = at.profile_of(&at.log_in(ann()).await).await;
    assert_eq!(seen["id"], owner.id.as_str());
    let promote = async |id: &str| {
        let (path, body) = (format!("/users/{id}/role"), json!({ "role": "admin" }));
        let admin = &at.world.admin;
        at.world
            .expect("PATCH", &path, admin, Some(body), 200)
            .await;
    };
    promote(&owner.id).await;
    assert_eq!(at.log_in(ann()).await.error(), "password_needed");
    at.world.server.login(&owner.username, PASSWORD).await;
    // Who came from the provider has no other way in.
    let bob = json!({ "sub": "43", "email": "bob@example.com", "email_verified": true });
    let seen = at.profile_of(&at.log_in(bob.clone()).await).await;
    promote(&text(&seen["id"])).await;
    let seen = at.profile_of(&at.log_in(bob).await).await;
    assert_eq!(seen["role"], "admin");
}

#[tokio::test]
async fn disabled_deleted_and_unknown_users_are_told_apart_by_a_word() {
    let at = Elsewhere::new(|settings| settings.oauth[0].register = false).await;
    assert_eq!(at.log_in(ann()).await.error(), "not_registered");
    let at = Elsewhere::new(|settings| {
        settings.oauth[0].register = false;
        settings.self_registration = true;
    })
    .await;
    let profile = at.profile_of(&at.log_in(ann()).await).await;
    let path = format!("/users/{}", text(&profile["id"]));
    at.world
        .expect(
            "POST",
            &format!("{path}/disable"),
            &at.world.admin,
            None,
            200,
        )
        .await;
    assert_eq!(at.log_in(ann()).await.error(), "account_disabled");
    at.world
        .expect("DELETE", &path, &at.world.admin, None, 204)
        .await;
    // The address is hers until she is purged; another one makes another user.
    assert_eq!(at.log_in(ann()).await.error(), "email_taken");
    let mut moved = ann();
    moved["email"] = json!("ann@elsewhere.example");
    let again = at.profile_of(&at.log_in(moved).await).await;
    assert_ne!(again["id"], profile["id"]);
}

#[tokio::test]
async fn way_back_of_another_browser_or_login_is_refused() {
    let at = Elsewhere::new(|_| {}).await;
    let (location, mine) = at.begin().await;
    let query = at.provider.log_in(&location, ann());
    let (_, theirs) = at.begin().await;
    let (code, state) = (
        parameters(&query)["code"].clone(),
        parameters(&query)["state"].clone(),
    );
    for (query, cookie) in [
        (&*query, ""),
        (&query, &*theirs),
        (&query, "turnpike_oauth=x"),
        (&format!("code={code}"), &mine),
        (&format!("state={state}x&code={code}"), &mine),
        (&format!("state=&code={code}"), &mine),
    ] {
        let back = at
            .get(&format!("/oauth/callback/plant?{query}"), cookie)
            .await;
        assert_eq!(back.status, 400, "{query} {cookie}: {}", back.text);
        assert!(back.cookies.is_empty() && back.location.is_empty());
    }
    assert_eq!(lock(&at.provider.known).asked, 0, "nobody was asked");
    // A code of somebody else does not pass with this browser's verifier.
    let (location, theirs) = at.begin().await;
    let stolen = parameters(&at.provider.log_in(&location, ann()));
    let query = format!("state={state}&code={}", stolen["code"].replace('/', "%2F"));
    let back = at
        .get(&format!("/oauth/callback/plant?{query}"), &mine)
        .await;
    assert_eq!(back.error(), "provider_failed");
    drop(theirs);
    // The first login still goes through, and its code is good once.
    let (location, mine) = at.begin().await;
    let query = at.provider.log_in(&location, ann());
    let path = format!("/oauth/callback/plant?{query}");
    at.profile_of(&at.get(&path, &mine).await).await;
    assert_eq!(at.get(&path, &mine).await.error(), "provider_failed");
}

#[tokio::test]
async fn provider_that_refuses_or_misbehaves_lets_nobody_in() {
    let at = Elsewhere::new(|_| {}).await;
    for trouble in [
        Trouble::Redirects,
        Trouble::Endless,
        Trouble::NoJson,
        Trouble::OtherToken,
        Trouble::NoProfile,
    ] {
        at.provider.cause(Some(trouble));
        let back = at.log_in(ann()).await;
        assert_eq!(back.error(), "provider_failed", "{trouble:?}");
    }
    assert!(
        !lock(&at.provider.known).followed,
        "redirects are not followed"
    );
    let counts = at.world.at.control.0.oauth.counts();
    let counted = |count: &AtomicU64| count.load(Ordering::Relaxed);
    assert_eq!((counted(&counts.failed), counted(&counts.busy)), (5, 0));
    at.provider.cause(None);
    let (location, cookie) = at.begin().await;
    let state = parameters(&at.provider.log_in(&location, ann()))["state"].clone();
    for query in ["error=access_denied", "error=x&code=y", ""] {
        let path = format!("/oauth/callback/plant?state={state}&{query}");
        assert_eq!(
            at.get(&path, &cookie).await.error(),
            "access_denied",
            "{query}"
        );
    }
    // One that is gone.
    let at = Elsewhere::new(|settings| {
        settings.oauth[0].token_url = "http://127.0.0.1:1/token".to_owned();
    })
    .await;
    assert_eq!(at.log_in(ann()).await.error(), "provider_failed");
}

#[tokio::test]
async fn only_known_providers_and_configured_pages_are_gone_to() {
    let at = Elsewhere::new(|_| {}).await;
    for path in ["/oauth/login/other", "/oauth/callback/other?state=x&code=y"] {
        assert_eq!(at.get(path, "").await.status, 404, "{path}");
    }
    let path = "/oauth/login/plant?return=https%3A%2F%2Fevil.example%2F";
    assert_eq!(at.get(path, "").await.status, 400);
    let path = "/oauth/login/plant?return=https%3A%2F%2Fconsole.example%2Fother%3Fx%3D1";
    let begun = at.get(path, "").await;
    let cookie = format!("turnpike_oauth={}", begun.cookie("turnpike_oauth").unwrap());
    let state = parameters(&at.provider.log_in(&begun.location, ann()))["state"].clone();
    let path = format!("/oauth/callback/plant?state={state}&error=access_denied");
    let back = at.get(&path, &cookie).await;
    assert_eq!(
        back.location,
        "https://console.example/other?x=1&error=access_denied"
    );
}

#[tokio::test]
async fn logins_and_refusals_are_in_the_journal_without_secrets() {
    let at = Elsewhere::new(|_| {}).await;
    let back = at.log_in(ann()).await;
    let profile = at.profile_of(&back).await;
    let path = format!(
        "/journal/user/{}?operation=user.oauth&with_attributes=true",
        text(&profile["id"])
    );
    let page = at
        .world
        .expect("GET", &path, &at.world.admin, None, 200)
        .await;
    assert_eq!(
        page["journals"][0]["attributes"]["provider"], "plant",
        "{page}"
    );
    let token = back.cookie("access_token").unwrap();
    assert!(!page.to_string().contains(token));
}
