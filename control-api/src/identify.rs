//! Answers to a broker's questions: who is this, and what may it do.

mod batch;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::store::sql::Connection;
use authcache::feed::{Answer, Credentials, Question, Refusal, SharedKey, ShownCertificate};
use authcache::{EntityId, Identity, PrincipalRecord, Right, Status};
use thiserror::Error;

use crate::clock::{Clock, lock};
use crate::feed::UNAVAILABLE;
use crate::grant::Kind;
use crate::model::Time;
use crate::password::{Busy, Passwords};
use crate::secret::Pepper;
use crate::seldom::Seldom;
use crate::store::access::Pat;
use crate::store::clients::ClientAuth;
use crate::store::users::UserAuth;
use crate::store::{
    Store, StoreError, access, certificates, channels, clients, domains, entities, users,
};
use crate::throttle::Throttle;
use crate::token::{TokenError, Tokens, Verified};
use crate::{authz, pat, token};

pub(crate) use batch::Answered;

/// Identifies principals. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Identifier(Arc<Shared>);

struct Shared {
    store: Store,
    pepper: Pepper,
    passwords: Passwords,
    tokens: Tokens,
    throttle: Mutex<Throttle>,
    clock: Clock,
    counts: Counts,
    /// Of logins that could not be checked.
    log: Seldom,
}

/// What was asked and refused since the start.
#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) questions: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) throttled: AtomicU64,
    pub(crate) unavailable: AtomicU64,
    /// Reports of brokers that were not written down.
    pub(crate) reports_lost: AtomicU64,
}

/// A login over HTTP that did not succeed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum LoginError {
    #[error("wrong user name or password")]
    BadCredentials,
    #[error("too many failed logins from this address; try again in a minute")]
    Throttled,
    #[error("logins cannot be checked now; try again")]
    Unavailable,
}

/// Why no answer can be given now.
#[derive(Debug, Error)]
pub(crate) enum Trouble {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Busy(#[from] Busy),
}

/// A token of the API whose form and signature are right.
pub(crate) enum Shown<'t> {
    Pat(pat::Parsed<'t>),
    Login(Verified),
}

/// Somebody whose secret was right.
enum Found {
    Client(ClientAuth),
    /// With the end of the token, in seconds since 1970.
    User(UserAuth, Option<u64>),
    /// Through a personal access token.
    Pat(Pat),
}

impl Identifier {
    pub(crate) fn new(
        store: Store,
        pepper: Pepper,
        passwords: Passwords,
        tokens: Tokens,
        clock: Clock,
    ) -> Identifier {
        Identifier(Arc::new(Shared {
            store,
            pepper,
            passwords,
            tokens,
            throttle: Mutex::new(Throttle::new()),
            clock,
            counts: Counts::default(),
            log: Seldom::default(),
        }))
    }

    pub(crate) fn pepper(&self) -> &Pepper {
        &self.0.pepper
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.0.counts
    }

    /// Counts a question that nobody had time for.
    pub(crate) fn note_unanswered(&self) {
        self.0.counts.questions.fetch_add(1, Ordering::Relaxed);
        self.0.counts.unavailable.fetch_add(1, Ordering::Relaxed);
    }

    /// The answer, and the revision as of which it was read. Refusals carry none.
    pub(crate) async fn answer(&self, question: &Question) -> (u64, Answer) {
        self.0.counts.questions.fetch_add(1, Ordering::Relaxed);
        let answered = match question {
            Question::Identify(credentials) => self.identify(credentials).await,
            Question::Token(token) => self.token(token).await,
            Question::Certificate(shown) => self.certificate(shown).await,
            Question::Key { client, peer } => self.key(*client, *peer).await,
            Question::WrongKey { client, peer } => {
                self.count_failure(*peer, &client.to_string());
                Ok((0, Answer::Refused(Refusal::BadCredentials)))
            }
            Question::Rights { principal, channel } => self.rights(*principal, *channel).await,
        };
        answered.unwrap_or_else(|trouble| {
            self.0.counts.unavailable.fetch_add(1, Ordering::Relaxed);
            if let Trouble::Store(error) = &trouble {
                tracing::error!(%error, "a broker's question could not be answered");
            }
            (0, UNAVAILABLE)
        })
    }

    /// The user with this name, e-mail address or id and this password.
    pub(crate) async fn login(
        &self,
        login: &str,
        password: &[u8],
        peer: Option<std::net::IpAddr>,
    ) -> Result<UserAuth, LoginError> {
        if self.is_throttled(peer, login) {
            return Err(LoginError::Throttled);
        }
        let user = self
            .user_by_password(login, password, true)
            .await
            .map_err(|trouble| {
                if let Some(others) = self.0.log.passes(Instant::now()) {
                    tracing::warn!(%trouble, others, "a login could not be checked");
                }
                LoginError::Unavailable
            })?;
        // A disabled user is not told apart from an unknown one.
        let Some(user) = user.filter(|user| user.status.is_live()) else {
            self.count_failure(peer, login);
            return Err(LoginError::BadCredentials);
        };
        Ok(user)
    }

    /// The database is another one than before: the keys in it are read again.
    pub(crate) async fn begin_anew(&self) -> Result<(), StoreError> {
        let read = self
            .0
            .tokens
            .read_again(&self.0.store, &self.0.pepper)
            .await;
        read.map_err(|error| match error {
            TokenError::Store(error) => error,
            TokenError::Sealed | TokenError::Refused => {
                StoreError::BrokenRow("signing keys that the pepper does not open")
            }
        })
    }

    pub(crate) fn tokens(&self) -> &Tokens {
        &self.0.tokens
    }

    pub(crate) fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }

    /// Whether this is the access token of an enabled platform administrator.
    pub(crate) async fn is_administrator(&self, token: &[u8]) -> bool {
        let user = self.user_by_token(token).await;
        matches!(user, Ok(Some((user, _))) if user.administrator && user.status.is_live())
    }

    async fn identify(&self, credentials: &Credentials) -> Result<(u64, Answer), Trouble> {
        let login = credentials.username.as_deref().unwrap_or_default();
        let nothing = login.is_empty() && credentials.password.is_none();
        let throttled = !nothing && self.is_throttled(credentials.peer, login);
        if !nothing && !throttled {
            if let Some(found) = self.find(credentials, login).await? {
                return self.admit(found).await;
            }
            self.count_failure(credentials.peer, login);
        }
        if let (Some(domain), true) = (credentials.open, credentials.anonymous) {
            let mut connection = self.0.store.read().await?;
            // Who has a name there has to show its secret: it does not fall back to nobody's.
            let named = clients::is_named(&mut connection, domain, login).await?;
            let client = clients::anonymous_client(&mut connection, domain).await?;
            drop(connection);
            if let Some(client) = client.filter(|_| !named) {
                return self.admit(Found::Client(client)).await;
            }
        }
        let refusal = if throttled {
            Refusal::Throttled
        } else {
            Refusal::BadCredentials
        };
        Ok((0, Answer::Refused(refusal)))
    }

    async fn token(&self, token: &[u8]) -> Result<(u64, Answer), Trouble> {
        if let Some(pat) = self.pat_by_text(token).await? {
            return self.admit(Found::Pat(pat)).await;
        }
        match self.user_by_token(token).await? {
            Some((user, verified)) => {
                self.admit(Found::User(user, Some(verified.expires_at)))
                    .await
            }
            None => {
                self.0.counts.failures.fetch_add(1, Ordering::Relaxed);
                Ok((0, Answer::Refused(Refusal::BadCredentials)))
            }
        }
    }

    /// A client that showed its certificate, which bears its id or is registered as its own; it
    /// shows no secret. An id goes first: nobody gets another's devices by registering what they
    /// show.
    async fn certificate(&self, shown: &ShownCertificate) -> Result<(u64, Answer), Trouble> {
        let mut connection = self.0.store.read().await?;
        let mut client = match shown.named {
            Some(id) => clients::client_auth(&mut connection, id).await?,
            None => None,
        };
        if client.is_none() {
            client = certificates::client_of(&mut connection, &shown.print).await?;
        }
        drop(connection);
        let agrees = |client: &ClientAuth| shown.claimed.is_none_or(|id| id == client.id);
        match client.filter(agrees) {
            Some(client) => self.admit(Found::Client(client)).await,
            None => {
                self.0.counts.failures.fetch_add(1, Ordering::Relaxed);
                Ok((0, Answer::Refused(Refusal::BadCredentials)))
            }
        }
    }

    /// The secret of a client that may come in, where it is kept sealed. Whoever asks still has to
    /// be identified: this only makes its handshake possible. Keys that nobody has count as failures
    /// of the peer, as wrong ones do.
    async fn key(
        &self,
        id: EntityId,
        peer: Option<std::net::IpAddr>,
    ) -> Result<(u64, Answer), Trouble> {
        let login = id.to_string();
        if self.is_throttled(peer, &login) {
            return Ok((0, Answer::Refused(Refusal::Throttled)));
        }
        let answer = self.sealed_secret(id).await?;
        if matches!(answer.1, Answer::Refused(_)) {
            self.count_failure(peer, &login);
        }
        Ok(answer)
    }

    async fn sealed_secret(&self, id: EntityId) -> Result<(u64, Answer), Trouble> {
        let (mut tx, revision) = self.0.store.read_at().await?;
        let client = clients::client_auth(&mut tx, id).await?;
        let live = client.filter(|client| client.is_live() && client.secret_digest.is_some());
        let Some(client) = live else {
            return Ok((0, Answer::Refused(Refusal::BadCredentials)));
        };
        let entity = entities::entity(&mut tx, Kind::Client, client.domain, id).await?;
        let sealed = entity.and_then(|entity| entity.secret_sealed);
        let pepper = &self.0.pepper;
        let secret = sealed.and_then(|sealed| token::unseal(pepper, &id.to_string(), sealed).ok());
        Ok(match secret {
            Some(secret) => (revision, Answer::Key(SharedKey(secret))),
            None => (0, Answer::Refused(Refusal::BadCredentials)),
        })
    }

    /// Rights of a user on a channel, or of a personal access token: those of its owner that it may
    /// use.
    async fn rights(
        &self,
        principal: EntityId,
        channel: EntityId,
    ) -> Result<(u64, Answer), Trouble> {
        let (mut tx, revision) = self.0.store.read_at().await?;
        let mut pat = None;
        let mut user = users::user_auth(&mut tx, principal).await?;
        if user.is_none()
            && let Some(found) = access::pat(&mut tx, principal).await?
            && found.is_good(Time::now())
        {
            user = users::user_auth(&mut tx, found.user).await?;
            pat = Some(found);
        }
        let Some(user) = user else {
            return Ok((revision, Answer::Rights(Right::NONE)));
        };
        if channel == EntityId::SYS {
            let whole = pat.as_ref().is_none_or(|pat| pat.unlimited);
            let sees = user.administrator && user.status.is_live() && whole;
            let right = if sees { Right::SUBSCRIBE } else { Right::NONE };
            return Ok((revision, Answer::Rights(right)));
        }
        let (mut right, domain) = authz::message_right(&mut tx, &user, channel).await?;
        let limited = pat.filter(|pat| !pat.unlimited);
        if let (Some(pat), Some(domain)) = (limited, domain) {
            let scopes = access::scopes(&mut tx, pat.id).await?;
            right = right & authz::message_ceiling(&scopes, domain, channel);
        }
        Ok((revision, Answer::Rights(right)))
    }

    /// Looks for the one whose user name and secret these are.
    ///
    /// A UUID is looked up among clients first; a wrong secret and an unknown id both cost one
    /// digest. The id or route of a domain stands for the client there whose secret it is. Other names cost one password hash, known or not. The one exception is a listener
    /// for anonymous peers, which admits everybody: there an unknown name is not hashed.
    async fn find(&self, credentials: &Credentials, login: &str) -> Result<Option<Found>, Trouble> {
        let Some(password) = credentials.password.as_deref() else {
            return Ok(None);
        };
        if pat::is_pat_like(password) {
            let found = self.pat_by_text(password).await?;
            let found = found.filter(|pat| login.is_empty() || login == pat.user.to_string());
            return Ok(found.map(Found::Pat));
        }
        if login.is_empty() {
            let found = self.user_by_token(password).await?;
            return Ok(found.map(|(user, token)| Found::User(user, Some(token.expires_at))));
        }
        if let Some(id) = EntityId::from_text(login) {
            if let Some(client) = self.client_by_id(id, password).await? {
                return Ok(Some(Found::Client(client)));
            }
            if let Some((user, token)) = self.user_by_token(password).await?
                && user.id == id
            {
                return Ok(Some(Found::User(user, Some(token.expires_at))));
            }
        } else if let Some(domain) = credentials.open
            && let Some(client) = self.client_by_name(domain, login, password).await?
        {
            return Ok(Some(Found::Client(client)));
        }
        if let Some(client) = self.client_by_domain(login, password).await? {
            return Ok(Some(Found::Client(client)));
        }
        let hash_unknown = credentials.open.is_none() || !credentials.anonymous;
        let user = self.user_by_password(login, password, hash_unknown).await?;
        Ok(user.map(|user| Found::User(user, None)))
    }

    async fn client_by_id(
        &self,
        id: EntityId,
        secret: &[u8],
    ) -> Result<Option<ClientAuth>, Trouble> {
        let mut connection = self.0.store.read().await?;
        let client = clients::client_auth(&mut connection, id).await?;
        let domain = client.as_ref().map_or(id, |client| client.domain);
        let digest = self.0.pepper.device_secret(domain, secret);
        let stored = client
            .as_ref()
            .and_then(|client| client.secret_digest.as_deref());
        let right = digest.matches(stored.unwrap_or(&[0; 32]));
        Ok(client.filter(|client| right && client.secret_digest.is_some()))
    }

    /// A secret without a client's id: secrets are unique in their domain, which `login` names.
    async fn client_by_domain(
        &self,
        login: &str,
        secret: &[u8],
    ) -> Result<Option<ClientAuth>, Trouble> {
        let mut connection = self.0.store.read().await?;
        let Some(domain) = domains::domain(&mut connection, login).await? else {
            return Ok(None);
        };
        let digest = self.0.pepper.device_secret(domain.id, secret);
        let found = clients::client_auth_by_secret(&mut connection, domain.id, digest.as_bytes());
        Ok(found.await?)
    }

    /// Names need not be unique in a domain, but secrets are: the secret finds the client.
    async fn client_by_name(
        &self,
        domain: EntityId,
        name: &str,
        secret: &[u8],
    ) -> Result<Option<ClientAuth>, Trouble> {
        let digest = self.0.pepper.device_secret(domain, secret);
        let mut connection = self.0.store.read().await?;
        let client =
            clients::client_auth_by_secret(&mut connection, domain, digest.as_bytes()).await?;
        Ok(client.filter(|client| client.name == name))
    }

    async fn user_by_password(
        &self,
        login: &str,
        password: &[u8],
        hash_unknown: bool,
    ) -> Result<Option<UserAuth>, Trouble> {
        let mut connection = self.0.store.read().await?;
        let id = EntityId::from_text(login);
        let user = match id {
            Some(id) => users::user_auth(&mut connection, id).await?,
            None => users::user_auth_by_login(&mut connection, login).await?,
        };
        drop(connection);
        // An unknown UUID was a device until here, and failing devices must not queue for the one
        // hashing thread.
        if user.is_none() && (id.is_some() || !hash_unknown) {
            return Ok(None);
        }
        let right = self.0.passwords.verify(user.as_ref(), password).await?;
        Ok(user.filter(|_| right))
    }

    /// The user whose access token this is, and what it says.
    pub(crate) async fn user_by_token(
        &self,
        token: &[u8],
    ) -> Result<Option<(UserAuth, Verified)>, Trouble> {
        if !Tokens::is_token_like(token) {
            return Ok(None);
        }
        let Ok(verified) = self.0.tokens.verify_access(token) else {
            return Ok(None);
        };
        let mut connection = self.0.store.read().await?;
        let user = user_of(&mut connection, &verified).await?;
        Ok(user.map(|user| (user, verified)))
    }

    /// What a caller of the API shows, if its form and signature are right.
    pub(crate) fn shown<'t>(&self, token: &'t [u8]) -> Option<Shown<'t>> {
        if let Some(parsed) = pat::parse(token) {
            return Some(Shown::Pat(parsed));
        }
        let verified = Tokens::is_token_like(token).then(|| self.0.tokens.verify_access(token));
        verified?.ok().map(Shown::Login)
    }

    /// The personal access token with this text, if it is good now.
    pub(crate) async fn pat_by_text(&self, text: &[u8]) -> Result<Option<Pat>, Trouble> {
        let Some(parsed) = pat::parse(text) else {
            return Ok(None);
        };
        let mut connection = self.0.store.read().await?;
        Ok(self.pat_of(&mut connection, parsed).await?)
    }

    /// The personal access token that a text names, if it is good as of the moment that the
    /// connection sees.
    pub(crate) async fn pat_of(
        &self,
        connection: &mut Connection,
        (user, id, random): pat::Parsed<'_>,
    ) -> Result<Option<Pat>, StoreError> {
        let found = access::pat(connection, id).await?;
        let digest = self.0.pepper.digest(pat::LABEL, &[&id.to_bytes(), random]);
        let stored = found.as_ref().map_or(&[0; 32][..], |pat| &pat.digest);
        let right = digest.matches(stored);
        Ok(found.filter(|pat| right && pat.user == user && pat.is_good(Time::now())))
    }

    /// Reads the identity as of one revision, provided the secret that was verified still holds.
    async fn admit(&self, found: Found) -> Result<(u64, Answer), Trouble> {
        let not_authorized = Ok((0, Answer::Refused(Refusal::NotAuthorized)));
        let (mut tx, revision) = self.0.store.read_at().await?;
        match found {
            Found::Client(before) => {
                let now = clients::client_auth(&mut tx, before.id).await?;
                let Some(client) = now.filter(|now| now.credential == before.credential) else {
                    return not_authorized;
                };
                if !client.is_live() {
                    return not_authorized;
                }
                let identity = client_identity(&mut tx, &client).await?;
                Ok((revision, Answer::Identity(identity, None)))
            }
            Found::User(before, expires_at) => {
                let now = users::user_auth(&mut tx, before.id).await?;
                let Some(user) = now.filter(|now| now.credential == before.credential) else {
                    return not_authorized;
                };
                if !user.status.is_live() {
                    return not_authorized;
                }
                Ok((revision, Answer::Identity(user_identity(&user), expires_at)))
            }
            Found::Pat(before) => {
                let now = access::pat(&mut tx, before.id).await?;
                let now = now.filter(|now| now.credential == before.credential);
                let Some(pat) = now.filter(|pat| pat.is_good(Time::now())) else {
                    return not_authorized;
                };
                let Some(owner) = users::user_auth(&mut tx, pat.user).await? else {
                    return not_authorized;
                };
                if !owner.status.is_live() {
                    return not_authorized;
                }
                let ends = pat.expires_at.seconds().cast_unsigned();
                Ok((
                    revision,
                    Answer::Identity(pat_identity(&pat, &owner), Some(ends)),
                ))
            }
        }
    }

    fn is_throttled(&self, peer: Option<std::net::IpAddr>, login: &str) -> bool {
        let blocked = lock(&self.0.throttle).is_blocked(peer, login, self.0.clock.now_ms());
        if blocked {
            self.0.counts.throttled.fetch_add(1, Ordering::Relaxed);
        }
        blocked
    }

    fn count_failure(&self, peer: Option<std::net::IpAddr>, login: &str) {
        self.0.counts.failures.fetch_add(1, Ordering::Relaxed);
        lock(&self.0.throttle).failed(peer, login, self.0.clock.now_ms());
    }
}

/// The user whose access token says this, if it is good as of the moment that the connection sees.
pub(crate) async fn user_of(
    connection: &mut Connection,
    verified: &Verified,
) -> Result<Option<UserAuth>, StoreError> {
    let user = users::user_auth(connection, verified.user).await?;
    // A changed password ends the tokens that were issued under the old one, and the end of a
    // login those that came from it.
    let user = user.filter(|user| verified.credential >= user.tokens_from);
    let session = access::session(connection, verified.session).await?;
    let alive = session.is_some_and(|session| session.user == verified.user);
    Ok(user.filter(|_| alive))
}

/// A client with all its rights.
pub(crate) async fn client_identity(
    connection: &mut Connection,
    client: &ClientAuth,
) -> Result<Identity, StoreError> {
    let rights = channels::rights_of(connection, client.id).await?;
    Ok(identity_of(client, rights))
}

/// A client with these rights.
pub(crate) fn identity_of(client: &ClientAuth, rights: Vec<(EntityId, Right)>) -> Identity {
    Identity {
        id: client.id,
        kind: PrincipalRecord::Client {
            domain: client.domain,
        },
        status: client.status,
        credential: client.credential,
        rights,
    }
}

/// A personal access token is a principal of its own: what it may do is less than its owner may, and
/// it ends alone. Nothing is known without asking.
pub(crate) fn pat_identity(pat: &Pat, owner: &UserAuth) -> Identity {
    Identity {
        id: pat.id,
        kind: PrincipalRecord::User,
        status: owner.status,
        credential: pat.credential,
        rights: vec![],
    }
}

/// A user with the rights known without asking: a platform administrator reads `$SYS`.
pub(crate) fn user_identity(user: &UserAuth) -> Identity {
    let sees_sys = user.administrator && user.status == Status::Enabled;
    Identity {
        id: user.id,
        kind: PrincipalRecord::User,
        status: user.status,
        credential: user.credential,
        rights: if sees_sys {
            vec![(EntityId::SYS, Right::SUBSCRIBE)]
        } else {
            vec![]
        },
    }
}
