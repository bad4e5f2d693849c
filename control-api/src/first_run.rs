//! The first start: an administrator, something to try, and the open namespace if wanted.

use std::collections::BTreeMap;

use authcache::{Change, EntityId, PrincipalRecord, Right, Status};
use serde::Serialize;

use crate::model::{Domain, Time};
use crate::name::Username;
use crate::password::Passwords;
use crate::secret::{Pepper, Secret, random_id};
use crate::snapshot::domain_set;
use crate::store::channels::{self, NewChannelRow};
use crate::store::clients::{self, NewClientRow};
use crate::store::users::{self, NewUserRow};
use crate::store::{Store, StoreError, Write, domains};
use crate::token;

/// Route of the demo domain, and of its channel.
const DEMO: &str = "demo";
/// Route of the domain behind `--open`, and of its channel.
const OPEN: &str = "open";

/// What the first start made. Its secrets are shown once and kept nowhere.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FirstRun {
    /// The platform administrator.
    pub admin: AdminLogin,
    /// Something to try, unless it was not wanted.
    pub demo: Option<Demo>,
}

/// Login of the platform administrator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AdminLogin {
    /// User name.
    pub username: String,
    /// Password.
    pub password: Secret,
}

/// A domain with one channel, and clients connected to it for publish and subscribe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Demo {
    /// Id of the domain. Its route is `demo`.
    #[serde(with = "crate::model::id_text")]
    pub domain: EntityId,
    /// Id of the channel. Its route is `demo`.
    #[serde(with = "crate::model::id_text")]
    pub channel: EntityId,
    /// The clients.
    pub clients: Vec<DemoClient>,
}

/// A client of the demo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DemoClient {
    /// Its id, which is its user name.
    #[serde(with = "crate::model::id_text")]
    pub id: EntityId,
    /// Its secret, which is its password.
    pub secret: Secret,
}

/// Makes administrator and demo in one transaction, if there is no user yet.
pub(crate) async fn ensure(
    store: &Store,
    pepper: &Pepper,
    passwords: &Passwords,
    username: &Username,
    demo: bool,
) -> Result<Option<FirstRun>, StoreError> {
    let mut connection = store.read().await?;
    if users::any_user(&mut connection).await? {
        return Ok(None);
    }
    drop(connection);
    let password = Secret::random();
    let hash = passwords.hash(&password).await;
    let hash = hash.map_err(|_| StoreError::BrokenRow("a password that cannot be hashed"))?;
    let mut write = store.write().await?;
    let now = Time::now();
    let administrator = NewUserRow {
        id: random_id(),
        username: username.as_str(),
        administrator: true,
        password: &hash,
        now,
    };
    write.insert_user(administrator).await?;
    let demo = if demo {
        Some(make_demo(&mut write, pepper, now).await?)
    } else {
        None
    };
    write.commit().await?;
    let admin = AdminLogin {
        username: username.as_str().to_owned(),
        password,
    };
    Ok(Some(FirstRun { admin, demo }))
}

/// Makes sure that the open domain is there, with its channel and the client that stands for peers
/// without credentials. Answers with the domain.
pub(crate) async fn ensure_open(store: &Store) -> Result<EntityId, StoreError> {
    let mut write = store.write().await?;
    let now = Time::now();
    let domain = match domains::domain(write.connection(), OPEN).await? {
        Some(domain) => domain.id,
        None => make_domain(&mut write, OPEN, "Open namespace", now).await?,
    };
    let channel = match channels::open_channel(write.connection(), domain).await? {
        Some(channel) => channel.id,
        None => {
            let taken = channels::channel(write.connection(), domain, OPEN)
                .await?
                .is_some();
            let route = (!taken).then_some(OPEN);
            make_channel(&mut write, domain, route, "Open namespace", true, now).await?
        }
    };
    if clients::anonymous_client(write.connection(), domain)
        .await?
        .is_none()
    {
        let id = random_id();
        let row = NewClientRow {
            id,
            domain,
            name: "anonymous",
            secret_digest: None,
            secret_sealed: None,
            anonymous: true,
            now,
        };
        write.insert_client(row).await?;
        connect(&mut write, domain, id, channel, now).await?;
    }
    write.commit().await?;
    Ok(domain)
}

async fn make_demo(write: &mut Write, pepper: &Pepper, now: Time) -> Result<Demo, StoreError> {
    let domain = make_domain(write, DEMO, "Demo", now).await?;
    let channel = make_channel(write, domain, Some(DEMO), "Demo", false, now).await?;
    let mut clients = Vec::new();
    for name in ["demo-1", "demo-2"] {
        let (id, secret) = (random_id(), Secret::random());
        let digest = pepper.device_secret(domain, secret.reveal().as_bytes());
        let secret_digest = Some(digest.as_bytes());
        // It is the key of their DTLS handshakes too.
        let sealed = token::seal(pepper, &id.to_string(), secret.reveal().as_bytes()).ok();
        let row = NewClientRow {
            id,
            domain,
            name,
            secret_digest,
            secret_sealed: sealed,
            anonymous: false,
            now,
        };
        write.insert_client(row).await?;
        connect(write, domain, id, channel, now).await?;
        clients.push(DemoClient { id, secret });
    }
    Ok(Demo {
        domain,
        channel,
        clients,
    })
}

async fn make_domain(
    write: &mut Write,
    route: &str,
    name: &str,
    now: Time,
) -> Result<EntityId, StoreError> {
    let domain = Domain::new(random_id(), route, name, now);
    write.insert_domain(&domain).await?;
    write.change(domain_set(&domain));
    Ok(domain.id)
}

async fn make_channel(
    write: &mut Write,
    domain: EntityId,
    route: Option<&str>,
    name: &str,
    open: bool,
    now: Time,
) -> Result<EntityId, StoreError> {
    let id = random_id();
    write
        .insert_channel(NewChannelRow {
            id,
            domain,
            route,
            name,
            open,
            now,
        })
        .await?;
    let route = route.map(str::to_owned);
    write.change(Change::ChannelSet {
        id,
        domain,
        route,
        status: Status::Enabled,
        open,
    });
    Ok(id)
}

/// Connects a new client for publish and subscribe.
async fn connect(
    write: &mut Write,
    domain: EntityId,
    id: EntityId,
    channel: EntityId,
    now: Time,
) -> Result<(), StoreError> {
    let rights = BTreeMap::from([((id, channel), Right::BOTH)]);
    write.set_connection_rights(&rights, now).await?;
    let kind = PrincipalRecord::Client { domain };
    write.change(Change::PrincipalSet {
        id,
        kind,
        status: Status::Enabled,
        credential: 1,
    });
    write.change(Change::RightSet {
        principal: id,
        channel,
        right: Right::BOTH,
    });
    Ok(())
}
