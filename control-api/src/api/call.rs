//! One request on its way through an operation: who calls, with what, and the transaction's end.

use std::collections::BTreeSet;
use std::net::IpAddr;

use authcache::EntityId;
use axum::http::StatusCode;
use serde_json::Value;

use super::failure::Failure;
use super::fields::{Body, Fields};
use super::query::Query;
use super::route::{Auth, Params, Route};
use crate::Control;
use crate::authz;
use crate::identify::{Shown, user_of};
use crate::model::Time;
use crate::name::parse_id;
use crate::store::access::{Pat, PatScope};
use crate::store::journal::{Event, Outcome};
use crate::store::sql::Connection;
use crate::store::{Write, access, domains, users};

/// A personal access token's use is noted at most this often.
const TOUCH_SECONDS: i64 = 60;

/// Who calls.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    pub(super) id: EntityId,
    /// Whether it administers the platform.
    pub(super) admin: bool,
    pub(super) verified: bool,
    /// The personal access token it calls by, and what that may be used for.
    pub(super) pat: Option<(EntityId, Vec<PatScope>)>,
    /// Whether it calls by an API key.
    pub(super) key: bool,
}

impl Caller {
    /// The enabled user behind a token; none if the token is not good.
    pub(super) async fn identify(
        control: &Control,
        token: &[u8],
    ) -> Result<Option<Caller>, Failure> {
        let Some(shown) = control.0.identifier.shown(token) else {
            return Ok(None);
        };
        let mut connection = control.0.store.read().await?;
        let found = Caller::judge(control, &mut connection, shown).await?;
        drop(connection);
        let Some((caller, pat)) = found else {
            return Ok(None);
        };
        if let Some(pat) = pat {
            let now = Time::now();
            let noted = pat.last_used_at.unwrap_or(Time::from_micros(0));
            if noted.plus_seconds(TOUCH_SECONDS) < now {
                let mut write = control.0.store.write().await?;
                write.touch_pat(pat.id, now).await?;
                write.commit().await?;
            }
        }
        Ok(Some(caller))
    }

    /// The enabled user behind what is shown, and the personal access token if it is one, as of the
    /// moment that the connection sees.
    async fn judge(
        control: &Control,
        connection: &mut Connection,
        shown: Shown<'_>,
    ) -> Result<Option<(Caller, Option<Pat>)>, Failure> {
        let (user, pat) = match shown {
            Shown::Login(verified) => (user_of(connection, &verified).await?, None),
            Shown::Pat(parsed) => {
                let Some(pat) = control.0.identifier.pat_of(connection, parsed).await? else {
                    return Ok(None);
                };
                (users::user_auth(connection, pat.user).await?, Some(pat))
            }
        };
        let Some(user) = user.filter(|user| user.status.is_live()) else {
            return Ok(None);
        };
        let limited = match &pat {
            Some(pat) if !pat.unlimited => {
                Some((pat.id, access::scopes(connection, pat.id).await?))
            }
            Some(_) | None => None,
        };
        let caller = Caller {
            id: user.id,
            admin: user.administrator,
            verified: user.verified,
            key: pat.as_ref().is_some_and(|pat| pat.unlimited),
            pat: limited,
        };
        Ok(Some((caller, pat)))
    }

    /// Whether it may come to a route.
    ///
    /// # Errors
    /// Its token is of another kind, or its address has to be verified first.
    pub(super) fn check(&self, control: &Control, auth: Auth) -> Result<(), Failure> {
        let of_kind = match auth {
            Auth::Session => self.pat.is_none() && !self.key,
            Auth::Any => true,
            Auth::Open | Auth::Optional | Auth::Login | Auth::Unverified => self.pat.is_none(),
        };
        if !of_kind {
            return Err(not_valid());
        }
        let blocked = control.settings().require_verified_email
            && !self.verified
            && !self.admin
            && self.pat.is_none()
            && !self.key
            && auth != Auth::Unverified;
        if blocked {
            return Err(Failure::unauthorized("email not verified"));
        }
        Ok(())
    }

    /// Whether it may still do what it might before: what was checked by then holds.
    ///
    /// # Errors
    /// It administers the platform no longer, or its personal access token lost a scope.
    fn check_since(&self, before: &Caller) -> Result<(), Failure> {
        if before.admin && !self.admin {
            return Err(Failure::forbidden());
        }
        let scopes = |caller: &Caller| -> BTreeSet<EntityId> {
            let scopes = caller.pat.iter().flat_map(|(_, scopes)| scopes);
            scopes.map(|scope| scope.id).collect()
        };
        if scopes(before).is_subset(&scopes(self)) {
            return Ok(());
        }
        Err(out_of_scope())
    }
}

/// What whoever shows no good token is told.
pub(super) fn not_valid() -> Failure {
    Failure::unauthorized("the access token is not valid")
}

/// A request with everything that its operation needs.
pub(super) struct Call {
    pub(super) control: Control,
    pub(super) route: &'static Route,
    pub(super) peer: IpAddr,
    pub(super) params: Params,
    pub(super) query: Query,
    pub(super) fields: Body,
    pub(super) bearer: Option<Vec<u8>>,
    /// What a browser keeps of earlier answers. Nobody is identified by it.
    pub(super) cookies: Option<String>,
    pub(super) caller: Option<Caller>,
    /// Whether an older path led here: some fields had defaults there.
    pub(super) old: bool,
}

impl Call {
    /// Who calls.
    ///
    /// # Errors
    /// Nobody is known.
    pub(super) fn caller(&self) -> Result<&Caller, Failure> {
        let missing = || Failure::unauthorized("missing access token");
        self.caller.as_ref().ok_or_else(missing)
    }

    /// A platform administrator.
    ///
    /// # Errors
    /// Somebody else calls.
    pub(super) fn administrator(&self) -> Result<&Caller, Failure> {
        let caller = self.caller()?;
        if caller.admin {
            return Ok(caller);
        }
        Err(Failure::forbidden())
    }

    /// The value of a cookie.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        let pairs = self.cookies.as_deref()?.split(';');
        let mut pairs = pairs.filter_map(|pair| pair.trim().split_once('='));
        pairs
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// A parameter of the path, empty if the route has none of that name.
    pub(super) fn param(&self, name: &str) -> &str {
        let found = self.params.iter().find(|(known, _)| known == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// A parameter of the path that is an id.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn id(&self, name: &'static str) -> Result<EntityId, Failure> {
        Ok(parse_id(name, self.param(name))?)
    }

    /// The body's fields; none if it has none.
    pub(super) fn body(&self) -> Fields {
        match &self.fields {
            Body::One(fields) => fields.clone(),
            Body::None | Body::Many(_) => Fields::default(),
        }
    }

    /// The items of a body that is a list; a body that is one object is a list of one.
    pub(super) fn items(&self) -> Vec<Fields> {
        match &self.fields {
            Body::Many(list) => list.clone(),
            Body::One(fields) => vec![fields.clone()],
            Body::None => Vec::new(),
        }
    }

    /// Begins the transaction that writes. The caller's token may have been revoked, its user disabled
    /// or its scopes taken away while others wrote: all of it is judged again, in this transaction.
    ///
    /// # Errors
    /// The caller may no longer do what it might when it came.
    pub(super) async fn write(&self) -> Result<Write, Failure> {
        let mut write = self.control.0.store.write().await?;
        let (Some(before), Some(token)) = (&self.caller, &self.bearer) else {
            return Ok(write);
        };
        let shown = self.control.0.identifier.shown(token);
        let shown = shown.ok_or_else(not_valid)?;
        let now = Caller::judge(&self.control, write.connection(), shown).await?;
        let (now, _) = now.ok_or_else(not_valid)?;
        now.check(&self.control, self.route.auth)?;
        now.check_since(before)?;
        Ok(write)
    }

    /// Begins a transaction that reads everything as of one moment.
    pub(super) async fn read(&self) -> Result<Connection, Failure> {
        Ok(self.control.0.store.read().await?)
    }

    /// Notes in the journal what was done.
    pub(super) async fn record(
        &self,
        write: &mut Write,
        domain: Option<EntityId>,
        entity: &str,
        attributes: Value,
    ) -> Result<(), Failure> {
        let event = Event {
            domain,
            entity: entity.to_owned(),
            attributes,
            ..self.event(Outcome::Done)
        };
        Ok(write.record(&event, Time::now()).await?)
    }

    /// Notes for each object what was done.
    pub(super) async fn record_all(
        &self,
        write: &mut Write,
        domain: EntityId,
        objects: impl Iterator<Item = (EntityId, Value)>,
    ) -> Result<(), Failure> {
        let event = self.event(Outcome::Done);
        let events: Vec<Event> = objects
            .map(|(id, attributes)| Event {
                domain: Some(domain),
                entity: id.to_string(),
                attributes,
                ..event.clone()
            })
            .collect();
        Ok(write.record_all(&events, Time::now()).await?)
    }

    fn event(&self, outcome: Outcome) -> Event {
        let operation = self.route.operation.clone();
        let kind = operation.split('.').next().unwrap_or_default();
        let kinds = [
            "user",
            "domain",
            "group",
            "channel",
            "client",
            "pat",
            "key",
            "invitation",
        ];
        let known = kinds.into_iter().find(|known| *known == kind);
        Event {
            kind: known.unwrap_or("platform"),
            operation,
            outcome,
            domain: None,
            entity: String::new(),
            user: self.caller.as_ref().map(|caller| caller.id),
            peer: self.peer.to_string(),
            attributes: Value::Object(serde_json::Map::new()),
        }
    }

    /// Commits, and waits until every broker has applied what was changed.
    pub(super) async fn commit(&self, write: Write) -> Result<(), Failure> {
        Ok(self.control.provision().commit(write).await?)
    }

    /// Checks that a personal access token may be used for this route.
    ///
    /// # Errors
    /// It may not.
    pub(super) async fn check_scope(&self) -> Result<(), Failure> {
        let Some((kind, operation)) = &self.route.scope else {
            return match self.caller.as_ref().and_then(|caller| caller.pat.as_ref()) {
                Some(_) if !self.route.scope_in_body => Err(out_of_scope()),
                Some(_) | None => Ok(()),
            };
        };
        let name = if *kind == "domains" { "domain" } else { "id" };
        let entity = match self.param(name) {
            "" => "*",
            id => id,
        };
        self.require_scope(kind, entity, operation).await
    }

    /// Checks that a personal access token, if that is how the caller comes, may be used for an
    /// operation on an entity.
    ///
    /// # Errors
    /// It may not.
    pub(super) async fn require_scope(
        &self,
        kind: &str,
        entity: &str,
        operation: &str,
    ) -> Result<(), Failure> {
        self.require_scopes(kind, &[entity], operation).await
    }

    /// [Checks](Self::require_scope) an operation on several entities.
    ///
    /// # Errors
    /// On one of them it may not.
    pub(super) async fn require_scopes(
        &self,
        kind: &str,
        entities: &[impl AsRef<str>],
        operation: &str,
    ) -> Result<(), Failure> {
        let Some((_, scopes)) = self.caller.as_ref().and_then(|caller| caller.pat.as_ref()) else {
            return Ok(());
        };
        let mut connection = self.control.0.store.read().await?;
        let domain = domains::domain(&mut connection, self.param("domain")).await?;
        drop(connection);
        let domain = domain.ok_or_else(out_of_scope)?;
        // A domain may be named by its route.
        let own = domain.id.to_string();
        let permits = |entity: &str| {
            let entity = if kind == "domains" {
                own.as_str()
            } else {
                entity
            };
            authz::scope_permits(scopes, domain.id, kind, entity, operation)
        };
        if entities.iter().all(|entity| permits(entity.as_ref())) {
            return Ok(());
        }
        Err(out_of_scope())
    }

    /// What to note of the operation, whatever comes of it.
    pub(super) fn note(&self) -> Option<Note> {
        self.caller.as_ref()?;
        let entity = ["id", "domain"]
            .into_iter()
            .map(|name| self.param(name))
            .find(|value| !value.is_empty());
        Some(Note {
            control: self.control.clone(),
            domain: self.param("domain").to_owned(),
            event: Event {
                entity: crate::name::excerpt(entity.unwrap_or_default()),
                domain: EntityId::from_text(self.param("domain")),
                ..self.event(Outcome::Done)
            },
        })
    }
}

fn out_of_scope() -> Failure {
    Failure::new(StatusCode::FORBIDDEN, "failed to authorize PAT")
}

/// An operation that changed nothing: one that was denied, or only looked.
pub(super) struct Note {
    control: Control,
    /// The domain as the path names it, by id or by route; empty if it names none.
    domain: String,
    event: Event,
}

impl Note {
    /// Notes it in the journal. The caller gets the answer whether or not that works.
    pub(super) async fn record(self, outcome: Outcome) {
        let mut event = Event {
            outcome,
            ..self.event
        };
        let noted = async {
            let mut write = self.control.0.store.write().await?;
            // The journal is read by ids.
            if let Some(domain) = domains::kept_domain(write.connection(), &self.domain).await? {
                event.domain = Some(domain.id);
                if event.entity == self.domain {
                    event.entity = domain.id.to_string();
                }
            }
            write.record(&event, Time::now()).await?;
            write.commit().await
        };
        if let Err(error) = noted.await {
            let operation = event.operation;
            tracing::error!(%error, operation, "an operation could not be noted in the journal");
        }
    }
}
