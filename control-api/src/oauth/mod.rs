//! Logins at a provider elsewhere: the authorization code flow of OAuth 2.0 (RFC 6749, 4.1) with
//! PKCE (RFC 7636), for providers that the operator named.
//!
//! Nothing is kept between the two halves of a login. The browser holds a random *binding* in a
//! cookie; `state` is a keyed digest over it, the provider, the page to return to and an end, and
//! the verifier of PKCE is another one. So a `state` is worth nothing in another browser, at another
//! provider or later, and no two logins share a verifier.

pub(crate) mod web;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::http::HeaderValue;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use thiserror::Error;
use tokio::sync::Semaphore;

use crate::config::OauthProvider;
use crate::model::Time;
use crate::secret::{Pepper, Secret, random};
use crate::seldom::Seldom;
use web::{Ask, Endpoint, WebClient, WebError, encode, form};

/// Seconds between the two halves of a login.
const LOGIN_SECONDS: i64 = 600;
/// Providers are asked this many questions at a time; a further login is told to come again.
const ASKING: usize = 32;
/// Bytes of a client secret, an authorization code and an access token.
const SECRET_BYTES_MAX: usize = 4_096;
const BINDING_BYTES: usize = 32;
const DIGEST_BYTES: usize = 32;
const STATE_LABEL: &[u8] = b"login elsewhere";
const VERIFIER_LABEL: &[u8] = b"login elsewhere, verifier";

/// Why providers cannot be used as they are configured.
#[derive(Debug, Error)]
#[error("control.oauth.{provider}: {why}")]
pub struct OauthError {
    provider: String,
    why: String,
}

/// The providers.
pub(crate) struct Oauth {
    providers: Vec<Provider>,
    return_urls: Vec<String>,
    public_url: String,
    asking: Semaphore,
    counts: Counts,
}

/// Logins elsewhere that came to nothing since the start.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Those for which there was no place among the questions to providers.
    pub(crate) busy: AtomicU64,
    /// Those of which the provider did not say who it is.
    pub(crate) failed: AtomicU64,
    log: Seldom,
}

/// One provider.
pub(crate) struct Provider {
    settings: OauthProvider,
    secret: Option<Secret>,
    token: Endpoint,
    userinfo: Endpoint,
    client: WebClient,
}

/// The first half of a login: where the browser goes, and what it keeps.
pub(crate) struct Begun {
    pub(crate) location: String,
    pub(crate) binding: Secret,
}

/// What a provider says of who logged in there.
#[derive(Debug)]
pub(crate) struct Profile {
    /// Who it is, for good; addresses change hands.
    pub(crate) subject: String,
    pub(crate) email: Option<String>,
    /// Whether the provider says that the address is that person's.
    pub(crate) verified: bool,
    pub(crate) first_name: String,
    pub(crate) last_name: String,
    pub(crate) picture: String,
}

/// Why a provider did not say who somebody is.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    #[error("too many logins at a time")]
    Busy,
    #[error("the token endpoint: {0}")]
    Token(WebError),
    #[error("the user info endpoint: {0}")]
    UserInfo(WebError),
    #[error("the token endpoint gave no bearer token")]
    NoToken,
    #[error("the user info endpoint named nobody")]
    Nobody,
}

impl Oauth {
    /// Reads what the settings name.
    ///
    /// # Errors
    /// A file or URL cannot be used.
    pub(crate) fn open(
        providers: &[OauthProvider],
        return_urls: &[String],
        public_url: &str,
    ) -> Result<Oauth, OauthError> {
        let providers = providers.iter().map(|settings| {
            Provider::open(settings).map_err(|why| OauthError {
                provider: settings.name.clone(),
                why,
            })
        });
        Ok(Oauth {
            providers: providers.collect::<Result<_, _>>()?,
            return_urls: return_urls.to_vec(),
            public_url: public_url.to_owned(),
            asking: Semaphore::new(ASKING),
            counts: Counts::default(),
        })
    }

    /// The provider with this name.
    pub(crate) fn provider(&self, name: &str) -> Option<&Provider> {
        self.providers
            .iter()
            .find(|provider| provider.settings.name == name)
    }

    /// The place of a page to return to among those that are configured; the first if none is asked
    /// for.
    pub(crate) fn return_to(&self, wanted: Option<&str>) -> Option<u8> {
        let place = match wanted {
            None => 0,
            Some(wanted) => self.return_urls.iter().position(|url| url == wanted)?,
        };
        let place = u8::try_from(place).ok()?;
        self.return_url(place).map(|_| place)
    }

    pub(crate) fn return_url(&self, place: u8) -> Option<&str> {
        self.return_urls.get(usize::from(place)).map(String::as_str)
    }

    /// Whether people reach this installation in TLS, so that cookies may demand it.
    pub(crate) fn is_secure(&self) -> bool {
        self.public_url.starts_with("https://")
    }

    /// The first half of a login.
    pub(crate) fn begin(
        &self,
        pepper: &Pepper,
        provider: &Provider,
        return_to: u8,
        now: Time,
    ) -> Begun {
        let binding = random::<BINDING_BYTES>();
        let settings = &provider.settings;
        let challenge = Sha256::digest(verifier(pepper, &binding).reveal());
        let query = form(&[
            ("response_type", "code"),
            ("client_id", &settings.client_id),
            ("redirect_uri", &self.redirect_uri(provider)),
            ("scope", &settings.scope),
            (
                "state",
                &state(pepper, &binding, &settings.name, return_to, now),
            ),
            ("code_challenge", &URL_SAFE_NO_PAD.encode(challenge)),
            ("code_challenge_method", "S256"),
        ]);
        let joint = if settings.authorize_url.contains('?') {
            '&'
        } else {
            '?'
        };
        Begun {
            location: format!("{}{joint}{query}", settings.authorize_url),
            binding: Secret::new(URL_SAFE_NO_PAD.encode(binding)),
        }
    }

    /// The page to return to, if this browser began a login at this provider and came back in time.
    pub(crate) fn came_back(
        &self,
        pepper: &Pepper,
        provider: &Provider,
        state: &str,
        binding: &Binding,
        now: Time,
    ) -> Option<u8> {
        let bytes = URL_SAFE_NO_PAD.decode(state).ok()?;
        let (ends, rest) = bytes.split_first_chunk::<8>()?;
        let (return_to, digest) = rest.split_first()?;
        let parts = [
            &binding.0[..],
            ends,
            &[*return_to],
            provider.name().as_bytes(),
        ];
        let right = digest.len() == DIGEST_BYTES
            && pepper.digest(STATE_LABEL, &parts).matches(digest)
            && i64::from_be_bytes(*ends) > now.seconds();
        right.then_some(*return_to)
    }

    /// What came to nothing.
    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Exchanges an authorization code for what the provider says of its user.
    pub(crate) async fn profile(
        &self,
        pepper: &Pepper,
        provider: &Provider,
        code: &str,
        binding: &Binding,
    ) -> Result<Profile, AskError> {
        let asked = self.ask(pepper, provider, code, binding).await;
        let counts = &self.counts;
        match &asked {
            Ok(_) => {}
            Err(AskError::Busy) => {
                counts.busy.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                if let Some(others) = counts.log.passes(Instant::now()) {
                    let provider = provider.name();
                    tracing::warn!(provider, %error, others, "a login elsewhere failed");
                }
            }
        }
        asked
    }

    async fn ask(
        &self,
        pepper: &Pepper,
        provider: &Provider,
        code: &str,
        binding: &Binding,
    ) -> Result<Profile, AskError> {
        let _place = self.asking.try_acquire().map_err(|_| AskError::Busy)?;
        let settings = &provider.settings;
        let verifier = verifier(pepper, &binding.0);
        let redirect_uri = self.redirect_uri(provider);
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", &redirect_uri),
            ("code_verifier", verifier.reveal()),
        ];
        let mut authorization = None;
        match &provider.secret {
            Some(secret) if !settings.secret_in_body => {
                let pair = format!(
                    "{}:{}",
                    encode(&settings.client_id),
                    encode(secret.reveal())
                );
                authorization = Some(format!("Basic {}", STANDARD.encode(pair)));
            }
            Some(secret) => {
                fields.push(("client_id", &settings.client_id));
                fields.push(("client_secret", secret.reveal()));
            }
            // A public client: PKCE alone says that it is who began.
            None => fields.push(("client_id", &settings.client_id)),
        }
        let ask = Ask {
            endpoint: &provider.token,
            authorization,
            form: Some(form(&fields)),
        };
        let told = provider.client.json(ask).await.map_err(AskError::Token)?;
        let bearer = told["token_type"]
            .as_str()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("bearer"));
        let token = told["access_token"].as_str().filter(|token| {
            let good = !token.is_empty() && token.len() <= SECRET_BYTES_MAX;
            good && HeaderValue::from_str(token).is_ok()
        });
        let token = token.filter(|_| bearer).ok_or(AskError::NoToken)?;
        let ask = Ask {
            endpoint: &provider.userinfo,
            authorization: Some(format!("Bearer {token}")),
            form: None,
        };
        let told = provider.client.json(ask).await;
        let told = told.map_err(AskError::UserInfo)?;
        Profile::read(&told, settings.emails_verified).ok_or(AskError::Nobody)
    }

    fn redirect_uri(&self, provider: &Provider) -> String {
        format!("{}/oauth/callback/{}", self.public_url, provider.name())
    }
}

impl Provider {
    fn open(settings: &OauthProvider) -> Result<Provider, String> {
        let endpoint = |name: &str, url: &str| {
            Endpoint::parse(url).ok_or_else(|| {
                format!("{name} is {url:?}; expected https://…, or http://… on this machine")
            })
        };
        endpoint("authorize_url", &settings.authorize_url)?;
        Ok(Provider {
            secret: settings
                .client_secret_file
                .as_deref()
                .map(secret_in)
                .transpose()?,
            token: endpoint("token_url", &settings.token_url)?,
            userinfo: endpoint("userinfo_url", &settings.userinfo_url)?,
            client: WebClient::new(settings.ca.as_deref())?,
            settings: settings.clone(),
        })
    }

    pub(crate) fn name(&self) -> &str {
        &self.settings.name
    }

    /// Whether people whom nobody knows here are registered.
    pub(crate) fn registers(&self) -> bool {
        self.settings.register
    }
}

fn secret_in(path: &Path) -> Result<Secret, String> {
    let wrong = |why: String| {
        format!(
            "client_secret_file {}: {why}; expected one line with the secret",
            path.display()
        )
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let text = text.trim();
    if text.is_empty() || text.len() > SECRET_BYTES_MAX || text.contains(char::is_control) {
        return Err(wrong("it is not one".to_owned()));
    }
    Ok(Secret::new(text.to_owned()))
}

/// What a browser that began a login holds.
pub(crate) struct Binding([u8; BINDING_BYTES]);

impl Binding {
    /// Reads the value of the cookie.
    pub(crate) fn parse(text: &str) -> Option<Binding> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        Some(Binding(bytes.try_into().ok()?))
    }
}

fn verifier(pepper: &Pepper, binding: &[u8; BINDING_BYTES]) -> Secret {
    let digest = pepper.digest(VERIFIER_LABEL, &[binding]);
    Secret::new(URL_SAFE_NO_PAD.encode(digest.as_bytes()))
}

/// The end in seconds since 1970, the place of the page to return to, and the digest.
fn state(
    pepper: &Pepper,
    binding: &[u8; BINDING_BYTES],
    provider: &str,
    return_to: u8,
    now: Time,
) -> String {
    let ends = (now.seconds() + LOGIN_SECONDS).to_be_bytes();
    let parts = [&binding[..], &ends, &[return_to], provider.as_bytes()];
    let digest = pepper.digest(STATE_LABEL, &parts);
    URL_SAFE_NO_PAD.encode([&ends[..], &[return_to], digest.as_bytes()].concat())
}

impl Profile {
    /// Reads the claims of a user info endpoint (OpenID Connect Core, 5.1); older providers call the
    /// subject `id`, which may be a number.
    fn read(told: &Value, emails_verified: bool) -> Option<Profile> {
        let word = |name: &str| told[name].as_str().unwrap_or_default();
        let subject = ["sub", "id"]
            .into_iter()
            .find_map(|name| match &told[name] {
                Value::String(text) => Some(text.clone()),
                Value::Number(number) => Some(number.to_string()),
                _ => None,
            });
        let subject = subject.filter(|subject| (1..=255).contains(&subject.len()))?;
        let stated = match &told["email_verified"] {
            Value::Bool(verified) => *verified,
            // As some providers write it.
            Value::String(text) => text == "true",
            _ => emails_verified,
        };
        let (mut first_name, mut last_name) = (word("given_name"), word("family_name"));
        if first_name.is_empty() && last_name.is_empty() {
            (first_name, last_name) = word("name").split_once(' ').unwrap_or((word("name"), ""));
        }
        Some(Profile {
            subject,
            email: told["email"].as_str().map(str::to_owned),
            verified: stated,
            first_name: first_name.to_owned(),
            last_name: last_name.to_owned(),
            picture: word("picture").to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn oauth() -> Oauth {
        let provider = |name: &str| OauthProvider {
            name: name.to_owned(),
            client_id: "us".to_owned(),
            ..OauthProvider::new("google")
        };
        let pages = [
            "https://a.example/in".to_owned(),
            "https://b.example/in".to_owned(),
        ];
        let providers = [provider("one"), provider("two")];
        Oauth::open(&providers, &pages, "https://control.example").unwrap()
    }

    fn parameter(location: &str, name: &str) -> String {
        let (_, query) = location.split_once('?').unwrap();
        let found = query
            .split('&')
            .find_map(|pair| pair.strip_prefix(&format!("{name}=")));
        found
            .unwrap_or_else(|| panic!("{name} in {location}"))
            .to_owned()
    }

    #[test]
    fn state_is_worth_something_in_its_browser_at_its_provider_and_for_ten_minutes() {
        let (oauth, pepper) = (oauth(), Pepper::ephemeral());
        let (one, two) = (
            oauth.provider("one").unwrap(),
            oauth.provider("two").unwrap(),
        );
        let now = Time::now();
        let begun = oauth.begin(&pepper, one, 1, now);
        let state = parameter(&begun.location, "state");
        let mine = Binding::parse(begun.binding.reveal()).unwrap();
        let came = |provider, state: &str, binding, now| {
            oauth.came_back(&pepper, provider, state, binding, now)
        };
        assert_eq!(came(one, &state, &mine, now), Some(1));
        assert_eq!(came(one, &state, &mine, now.plus_seconds(599)), Some(1));
        assert_eq!(came(one, &state, &mine, now.plus_seconds(600)), None);
        assert_eq!(came(two, &state, &mine, now), None, "another provider");
        let theirs = oauth.begin(&pepper, one, 1, now).binding;
        let theirs = Binding::parse(theirs.reveal()).unwrap();
        assert_eq!(came(one, &state, &theirs, now), None, "another browser");
        let other = Pepper::ephemeral();
        assert_eq!(oauth.came_back(&other, one, &state, &mine, now), None);
        // No bit of it can be changed, and nothing else is taken for one.
        let bytes = URL_SAFE_NO_PAD.decode(&state).unwrap();
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            let changed = URL_SAFE_NO_PAD.encode(changed);
            assert_eq!(came(one, &changed, &mine, now), None, "byte {at}");
        }
        for text in [
            "",
            "x",
            "====",
            &state[..state.len() - 2],
            &format!("{state}AA"),
        ] {
            assert_eq!(came(one, text, &mine, now), None, "{text:?}");
        }
    }

    #[test]
    fn each_login_has_a_challenge_of_its_own() {
        let (oauth, pepper) = (oauth(), Pepper::ephemeral());
        let one = oauth.provider("one").unwrap();
        let [a, b] = [(); 2].map(|()| oauth.begin(&pepper, one, 0, Time::now()));
        let challenge = parameter(&a.location, "code_challenge");
        assert_ne!(challenge, parameter(&b.location, "code_challenge"));
        assert_eq!(parameter(&a.location, "code_challenge_method"), "S256");
        let binding = Binding::parse(a.binding.reveal()).unwrap();
        let told = verifier(&pepper, &binding.0);
        // RFC 7636, 4.1: 43 to 128 characters.
        assert_eq!(told.reveal().len(), 43);
        let digest = Sha256::digest(told.reveal());
        assert_eq!(URL_SAFE_NO_PAD.encode(digest), challenge);
        let redirect = parameter(&a.location, "redirect_uri");
        assert_eq!(
            redirect,
            "https%3A%2F%2Fcontrol.example%2Foauth%2Fcallback%2Fone"
        );
    }

    #[test]
    fn only_configured_pages_are_returned_to() {
        let oauth = oauth();
        assert_eq!(oauth.return_to(None), Some(0));
        assert_eq!(oauth.return_to(Some("https://b.example/in")), Some(1));
        for page in ["https://b.example/in/", "https://c.example/", ""] {
            assert_eq!(oauth.return_to(Some(page)), None, "{page}");
        }
    }

    #[test]
    fn profiles_are_read_as_providers_write_them() {
        let read = |told: Value| Profile::read(&told, false);
        let ann = read(json!({"sub": "1", "email": "a@b", "email_verified": true,
            "given_name": "Ann", "family_name": "Lee", "picture": "https://p"}));
        let ann = ann.unwrap();
        assert!(ann.verified && ann.first_name == "Ann" && ann.last_name == "Lee");
        let bob = read(json!({"id": 7, "email": "a@b", "name": "Bob van Dyk"})).unwrap();
        assert_eq!(
            (&*bob.subject, &*bob.first_name, &*bob.last_name),
            ("7", "Bob", "van Dyk")
        );
        assert!(!bob.verified, "nobody said so");
        let said = json!({"sub": "1", "email_verified": "true"});
        assert!(read(said).unwrap().verified);
        let denied = json!({"sub": "1", "email_verified": false});
        assert!(
            !Profile::read(&denied, true).unwrap().verified,
            "it says so itself"
        );
        assert!(Profile::read(&json!({"sub": "1"}), true).unwrap().verified);
        for nobody in [
            json!({}),
            json!({"sub": ""}),
            json!({"sub": ["1"]}),
            json!([]),
        ] {
            assert!(read(nobody.clone()).is_none(), "{nobody}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let open = |settings: OauthProvider| {
            let opened = Oauth::open(&[settings], &[], "https://control.example");
            opened.err().map(|error| error.to_string()).unwrap()
        };
        let plain = OauthProvider {
            token_url: "http://a.example/token".to_owned(),
            ..OauthProvider::new("google")
        };
        let told = open(plain);
        assert!(told.contains("control.oauth.google: token_url"), "{told}");
        let missing = OauthProvider {
            client_secret_file: Some("/no/such/file".into()),
            ..OauthProvider::new("google")
        };
        let told = open(missing);
        assert!(told.contains("client_secret_file /no/such/file"), "{told}");
    }
}
