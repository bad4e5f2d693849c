//! Sessions of people, personal access tokens and invitations in the database.

use super::sql::{self, Builder, Connection, Row};
use authcache::EntityId;

use super::paging::List;
use super::rows::{self, blob};
use super::{StoreError, Write};
use crate::model::{Page, Time};

/// Logins that one user may have at a time; the oldest one ends for a further one.
const SESSIONS_MAX: i64 = 1_000;

/// A login that can be refreshed.
pub(crate) struct Session {
    pub(crate) id: EntityId,
    pub(crate) user: EntityId,
    pub(crate) description: String,
    /// Number of the one refresh token that is good.
    pub(crate) turn: u64,
    pub(crate) expires_at: Time,
}

/// A personal access token.
#[derive(Clone, Debug)]
pub(crate) struct Pat {
    pub(crate) id: EntityId,
    pub(crate) user: EntityId,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) digest: Vec<u8>,
    pub(crate) credential: u64,
    pub(crate) issued_at: Time,
    pub(crate) expires_at: Time,
    pub(crate) updated_at: Option<Time>,
    pub(crate) last_used_at: Option<Time>,
    pub(crate) revoked_at: Option<Time>,
    /// Whether it may do whatever its owner may, without scopes: an API key.
    pub(crate) unlimited: bool,
}

/// How long an invitation waits for its answer: a week.
const INVITED_SECONDS: i64 = 168 * 3_600;

impl Invitation {
    /// Whether nobody answered it in time.
    pub(crate) fn is_over(&self, now: Time) -> bool {
        let sent = self.updated_at.unwrap_or(self.created_at);
        let open = self.confirmed_at.is_none() && self.rejected_at.is_none();
        open && sent.plus_seconds(INVITED_SECONDS) < now
    }
}

impl Pat {
    /// Whether it is good at this time.
    pub(crate) fn is_good(&self, now: Time) -> bool {
        self.revoked_at.is_none() && self.expires_at > now
    }
}

/// One thing that a personal access token may be used for.
#[derive(Clone, Debug)]
pub(crate) struct PatScope {
    pub(crate) id: EntityId,
    pub(crate) domain: EntityId,
    pub(crate) entity_type: String,
    /// An id, or `*`.
    pub(crate) entity: String,
    pub(crate) operation: String,
}

/// An invitation to a domain.
#[derive(Clone, Debug)]
pub(crate) struct Invitation {
    pub(crate) domain: EntityId,
    pub(crate) domain_name: String,
    pub(crate) invitee: EntityId,
    pub(crate) invited_by: EntityId,
    pub(crate) role: String,
    pub(crate) role_name: String,
    pub(crate) created_at: Time,
    pub(crate) updated_at: Option<Time>,
    pub(crate) confirmed_at: Option<Time>,
    pub(crate) rejected_at: Option<Time>,
}

fn read_session(row: &Row) -> Result<Session, StoreError> {
    Ok(Session {
        id: rows::id(&row.get::<Vec<u8>>("id")?)?,
        user: rows::id(&row.get::<Vec<u8>>("user_id")?)?,
        description: row.get("description")?,
        turn: row.get::<i64>("turn")?.cast_unsigned(),
        expires_at: Time::from_micros(row.get("expires_at")?),
    })
}

/// The login with this id.
pub(crate) async fn session(
    connection: &mut Connection,
    id: EntityId,
) -> Result<Option<Session>, StoreError> {
    let row = sql::query("SELECT * FROM sessions WHERE id = $1")
        .bind(blob(id))
        .fetch_optional(connection)
        .await?;
    row.map(|row| read_session(&row)).transpose()
}

/// The login that a user has beyond those that one may have.
pub(crate) async fn surplus_session(
    connection: &mut Connection,
    user: EntityId,
) -> Result<Option<EntityId>, StoreError> {
    let found: Option<(Vec<u8>,)> = sql::query_as(
        "SELECT id FROM sessions WHERE user_id = $1 ORDER BY created_at DESC, id LIMIT 1 OFFSET $2",
    )
    .bind(blob(user))
    .bind(SESSIONS_MAX)
    .fetch_optional(connection)
    .await?;
    found.map(|(id,)| rows::id(&id)).transpose()
}

/// Users with a login that is good at this time and ends before another one.
pub(crate) async fn users_logged_in_until(
    connection: &mut Connection,
    now: Time,
    until: Time,
    most: i64,
) -> Result<Vec<EntityId>, StoreError> {
    let found: Vec<(Vec<u8>,)> = sql::query_as(
        "SELECT DISTINCT user_id FROM sessions WHERE expires_at > $1 AND expires_at < $2 LIMIT $3",
    )
    .bind(now.micros())
    .bind(until.micros())
    .bind(most)
    .fetch_all(connection)
    .await?;
    found.iter().map(|(id,)| rows::id(id)).collect()
}

/// Logins of a user that are good at this time, newest first.
pub(crate) async fn sessions(
    connection: &mut Connection,
    user: EntityId,
    now: Time,
) -> Result<Vec<Session>, StoreError> {
    let found = sql::query(
        "SELECT * FROM sessions WHERE user_id = $1 AND expires_at > $2 \
         ORDER BY created_at DESC, id",
    )
    .bind(blob(user))
    .bind(now.micros())
    .fetch_all(connection)
    .await?;
    found.iter().map(read_session).collect()
}

fn read_pat(row: &Row) -> Result<Pat, StoreError> {
    Ok(Pat {
        id: rows::id(&row.get::<Vec<u8>>("id")?)?,
        user: rows::id(&row.get::<Vec<u8>>("user_id")?)?,
        name: row.get("name")?,
        description: row.get("description")?,
        digest: row.get("digest")?,
        credential: row.get::<i64>("credential")?.cast_unsigned(),
        issued_at: Time::from_micros(row.get("issued_at")?),
        expires_at: Time::from_micros(row.get("expires_at")?),
        updated_at: rows::time(row, "updated_at")?,
        last_used_at: rows::time(row, "last_used_at")?,
        revoked_at: rows::time(row, "revoked_at")?,
        unlimited: row.get("unlimited")?,
    })
}

/// The personal access token with this id.
pub(crate) async fn pat(
    connection: &mut Connection,
    id: EntityId,
) -> Result<Option<Pat>, StoreError> {
    let row = sql::query("SELECT * FROM pats WHERE id = $1")
        .bind(blob(id))
        .fetch_optional(connection)
        .await?;
    row.map(|row| read_pat(&row)).transpose()
}

/// All personal access tokens and API keys of a user.
pub(crate) async fn pats_of(
    connection: &mut Connection,
    user: EntityId,
) -> Result<Vec<Pat>, StoreError> {
    let found = sql::query("SELECT * FROM pats WHERE user_id = $1")
        .bind(blob(user))
        .fetch_all(connection)
        .await?;
    found.iter().map(read_pat).collect()
}

/// What a list of personal access tokens is narrowed by.
pub(crate) struct PatFilter {
    pub(crate) id: Option<EntityId>,
    pub(crate) name: Option<String>,
    /// `active`, `revoked`, `expired`, or none for all.
    pub(crate) status: Option<&'static str>,
}

/// A page of a user's personal access tokens, newest first.
pub(crate) async fn pats(
    connection: &mut Connection,
    user: EntityId,
    filter: &PatFilter,
    page: Page,
    now: Time,
) -> Result<(u64, Vec<Pat>), StoreError> {
    let narrow = |query: &mut Builder| {
        query.push("e.unlimited = 0 AND e.user_id = ");
        query.push_bind(blob(user));
        if let Some(id) = filter.id {
            query.push(" AND e.id = ").push_bind(blob(id));
        }
        if let Some(name) = &filter.name {
            super::listing::contains(query, "e.name", name);
        }
        match filter.status {
            Some("active") => {
                query
                    .push(" AND e.revoked_at IS NULL AND e.expires_at > ")
                    .push_bind(now.micros());
            }
            Some("revoked") => {
                query.push(" AND e.revoked_at IS NOT NULL");
            }
            Some(_) => {
                query
                    .push(" AND e.revoked_at IS NULL AND e.expires_at <= ")
                    .push_bind(now.micros());
            }
            None => {}
        }
    };
    let list = List {
        select: "e.*",
        from: "pats e",
        order: "e.issued_at DESC, e.id",
    };
    list.page(connection, narrow, Some(page), read_pat).await
}

/// What a personal access token may be used for.
pub(crate) async fn scopes(
    connection: &mut Connection,
    pat: EntityId,
) -> Result<Vec<PatScope>, StoreError> {
    let found = sql::query(
        "SELECT id, domain_id, entity_type, entity_id, operation FROM pat_scopes \
         WHERE pat_id = $1 ORDER BY domain_id, entity_type, operation, entity_id",
    )
    .bind(blob(pat))
    .fetch_all(connection)
    .await?;
    found
        .iter()
        .map(|row| {
            Ok(PatScope {
                id: rows::id(&row.get::<Vec<u8>>("id")?)?,
                domain: rows::id(&row.get::<Vec<u8>>("domain_id")?)?,
                entity_type: row.get("entity_type")?,
                entity: row.get("entity_id")?,
                operation: row.get("operation")?,
            })
        })
        .collect()
}

const INVITATIONS: List = List {
    select: "i.domain_id, d.name AS domain_name, i.invitee, i.invited_by, i.role_id, \
        r.name AS role_name, i.created_at, i.updated_at, i.confirmed_at, i.rejected_at",
    from: "invitations i JOIN domains d ON d.id = i.domain_id JOIN roles r ON r.id = i.role_id",
    order: "i.created_at DESC, i.domain_id, i.invitee",
};

fn read_invitation(row: &Row) -> Result<Invitation, StoreError> {
    Ok(Invitation {
        domain: rows::id(&row.get::<Vec<u8>>("domain_id")?)?,
        domain_name: row.get("domain_name")?,
        invitee: rows::id(&row.get::<Vec<u8>>("invitee")?)?,
        invited_by: rows::id(&row.get::<Vec<u8>>("invited_by")?)?,
        role: row.get("role_id")?,
        role_name: row.get("role_name")?,
        created_at: Time::from_micros(row.get("created_at")?),
        updated_at: rows::time(row, "updated_at")?,
        confirmed_at: rows::time(row, "confirmed_at")?,
        rejected_at: rows::time(row, "rejected_at")?,
    })
}

/// The invitation of a user to a domain.
pub(crate) async fn invitation(
    connection: &mut Connection,
    domain: EntityId,
    invitee: EntityId,
) -> Result<Option<Invitation>, StoreError> {
    let filter = InvitationFilter {
        domain: Some(domain),
        invitee: Some(invitee),
        ..InvitationFilter::default()
    };
    let (_, mut found) = invitations(connection, &filter, Page::default()).await?;
    Ok(found.pop())
}

/// What a list of invitations is narrowed by.
#[derive(Default)]
pub(crate) struct InvitationFilter {
    pub(crate) domain: Option<EntityId>,
    pub(crate) invitee: Option<EntityId>,
    pub(crate) invited_by: Option<EntityId>,
    pub(crate) role: Option<String>,
    /// `pending`, `accepted`, `rejected`, or none for all.
    pub(crate) state: Option<&'static str>,
}

/// A page of invitations, newest first.
pub(crate) async fn invitations(
    connection: &mut Connection,
    filter: &InvitationFilter,
    page: Page,
) -> Result<(u64, Vec<Invitation>), StoreError> {
    let narrow = |query: &mut Builder| {
        query.push("1 = 1");
        for (column, id) in [
            ("i.domain_id", filter.domain),
            ("i.invitee", filter.invitee),
            ("i.invited_by", filter.invited_by),
        ] {
            if let Some(id) = id {
                query.push(format!(" AND {column} = ")).push_bind(blob(id));
            }
        }
        if let Some(role) = &filter.role {
            query.push(" AND i.role_id = ").push_bind(role);
        }
        query.push(match filter.state {
            Some("pending") => " AND i.confirmed_at IS NULL AND i.rejected_at IS NULL",
            Some("accepted") => " AND i.confirmed_at IS NOT NULL",
            Some(_) => " AND i.rejected_at IS NOT NULL",
            None => "",
        });
        if filter.state == Some("pending") {
            let oldest = Time::now().plus_seconds(-INVITED_SECONDS);
            query
                .push(" AND COALESCE(i.updated_at, i.created_at) >= ")
                .push_bind(oldest.micros());
        }
    };
    INVITATIONS
        .page(connection, narrow, Some(page), read_invitation)
        .await
}

impl Write {
    /// Notes a login, and forgets those of the user that have ended.
    pub(crate) async fn insert_session(
        &mut self,
        session: &Session,
        now: Time,
    ) -> Result<(), StoreError> {
        sql::query("DELETE FROM sessions WHERE user_id = $1 AND expires_at <= $2")
            .bind(blob(session.user))
            .bind(now.micros())
            .execute(self.connection())
            .await?;
        sql::query(
            "INSERT INTO sessions (id, user_id, description, turn, created_at, expires_at) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(blob(session.id))
        .bind(blob(session.user))
        .bind(&session.description)
        .bind(session.turn.cast_signed())
        .bind(now.micros())
        .bind(session.expires_at.micros())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// The refresh token of a login was used: the next one counts.
    pub(crate) async fn turn_session(
        &mut self,
        id: EntityId,
        expires_at: Time,
    ) -> Result<u64, StoreError> {
        let (turn,): (i64,) = sql::query_as(
            "UPDATE sessions SET turn = turn + 1, expires_at = $1 WHERE id = $2 RETURNING turn",
        )
        .bind(expires_at.micros())
        .bind(blob(id))
        .fetch_one(self.connection())
        .await?;
        Ok(turn.cast_unsigned())
    }

    /// Ends the logins of a user that would end before this time.
    pub(crate) async fn delete_sessions_until(
        &mut self,
        user: EntityId,
        until: Time,
    ) -> Result<(), StoreError> {
        sql::query("DELETE FROM sessions WHERE user_id = $1 AND expires_at < $2")
            .bind(blob(user))
            .bind(until.micros())
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Ends a login of a user. Answers whether there was one.
    pub(crate) async fn delete_session(
        &mut self,
        user: EntityId,
        id: EntityId,
    ) -> Result<bool, StoreError> {
        let done = sql::query("DELETE FROM sessions WHERE user_id = $1 AND id = $2")
            .bind(blob(user))
            .bind(blob(id))
            .execute(self.connection())
            .await?;
        Ok(done > 0)
    }

    /// Inserts a personal access token, or writes it back.
    pub(crate) async fn put_pat(&mut self, pat: &Pat) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO pats (id, user_id, name, description, digest, credential, issued_at, \
             expires_at, updated_at, last_used_at, revoked_at, unlimited) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, description = excluded.description, \
             digest = excluded.digest, credential = excluded.credential, \
             issued_at = excluded.issued_at, expires_at = excluded.expires_at, \
             updated_at = excluded.updated_at, revoked_at = excluded.revoked_at",
        )
        .bind(blob(pat.id))
        .bind(blob(pat.user))
        .bind(&pat.name)
        .bind(&pat.description)
        .bind(&pat.digest)
        .bind(pat.credential.cast_signed())
        .bind(pat.issued_at.micros())
        .bind(pat.expires_at.micros())
        .bind(pat.updated_at.map(Time::micros))
        .bind(pat.last_used_at.map(Time::micros))
        .bind(pat.revoked_at.map(Time::micros))
        .bind(pat.unlimited)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// A personal access token was used.
    pub(crate) async fn touch_pat(&mut self, id: EntityId, now: Time) -> Result<(), StoreError> {
        sql::query("UPDATE pats SET last_used_at = $1 WHERE id = $2")
            .bind(now.micros())
            .bind(blob(id))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    pub(crate) async fn delete_pat(&mut self, id: EntityId) -> Result<(), StoreError> {
        sql::query("DELETE FROM pats WHERE id = $1")
            .bind(blob(id))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Adds a use of a personal access token; one that is there already stays as it is.
    pub(crate) async fn insert_scope(
        &mut self,
        pat: EntityId,
        scope: &PatScope,
    ) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO pat_scopes (id, pat_id, domain_id, entity_type, entity_id, operation) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        )
        .bind(blob(scope.id))
        .bind(blob(pat))
        .bind(blob(scope.domain))
        .bind(&scope.entity_type)
        .bind(&scope.entity)
        .bind(&scope.operation)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Removes a use of a personal access token; none removes all.
    pub(crate) async fn delete_scope(
        &mut self,
        pat: EntityId,
        scope: Option<EntityId>,
    ) -> Result<(), StoreError> {
        sql::query("DELETE FROM pat_scopes WHERE pat_id = $1 AND ($2 IS NULL OR id = $2)")
            .bind(blob(pat))
            .bind(scope.map(blob))
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Inserts an invitation, or writes its state back.
    pub(crate) async fn put_invitation(
        &mut self,
        invitation: &Invitation,
    ) -> Result<(), StoreError> {
        sql::query(
            "INSERT INTO invitations (domain_id, invitee, invited_by, role_id, created_at, \
             updated_at, confirmed_at, rejected_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8) \
             ON CONFLICT (domain_id, invitee) DO UPDATE SET invited_by = excluded.invited_by, \
             role_id = excluded.role_id, updated_at = excluded.updated_at, \
             confirmed_at = excluded.confirmed_at, rejected_at = excluded.rejected_at",
        )
        .bind(blob(invitation.domain))
        .bind(blob(invitation.invitee))
        .bind(blob(invitation.invited_by))
        .bind(&invitation.role)
        .bind(invitation.created_at.micros())
        .bind(invitation.updated_at.map(Time::micros))
        .bind(invitation.confirmed_at.map(Time::micros))
        .bind(invitation.rejected_at.map(Time::micros))
        .execute(self.connection())
        .await?;
        Ok(())
    }

    pub(crate) async fn delete_invitation(
        &mut self,
        domain: EntityId,
        invitee: EntityId,
    ) -> Result<(), StoreError> {
        sql::query("DELETE FROM invitations WHERE domain_id = $1 AND invitee = $2")
            .bind(blob(domain))
            .bind(blob(invitee))
            .execute(self.connection())
            .await?;
        Ok(())
    }
}

impl Write {
    /// Notes a token that goes out by mail, and forgets those that have ended. Earlier ones stay good:
    /// who asks for a link to somebody else's address does not make its own void.
    pub(crate) async fn insert_mail_token(
        &mut self,
        digest: &[u8],
        kind: i64,
        user: EntityId,
        email: &str,
        ends: Time,
    ) -> Result<(), StoreError> {
        sql::query("DELETE FROM mail_tokens WHERE expires_at < $1")
            .bind(Time::now().micros())
            .execute(self.connection())
            .await?;
        sql::query(
            "INSERT INTO mail_tokens (digest, kind, user_id, email, expires_at) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(digest)
        .bind(kind)
        .bind(blob(user))
        .bind(email)
        .bind(ends.micros())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Whom a token was mailed to, and where; it and the user's others of the kind are gone then.
    pub(crate) async fn take_mail_token(
        &mut self,
        digest: &[u8],
        kind: i64,
        now: Time,
    ) -> Result<Option<(EntityId, String)>, StoreError> {
        let found: Option<(Vec<u8>, String, i64)> = sql::query_as(
            "DELETE FROM mail_tokens WHERE digest = $1 AND kind = $2 \
             RETURNING user_id, email, expires_at",
        )
        .bind(digest)
        .bind(kind)
        .fetch_optional(self.connection())
        .await?;
        let Some((user, email, _)) = found.filter(|(_, _, ends)| *ends > now.micros()) else {
            return Ok(None);
        };
        sql::query("DELETE FROM mail_tokens WHERE user_id = $1 AND kind = $2")
            .bind(&user)
            .bind(kind)
            .execute(self.connection())
            .await?;
        Ok(Some((rows::id(&user)?, email)))
    }
}
