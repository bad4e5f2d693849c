//! Invitations that went to an address of which nobody is known to have it.

use authcache::EntityId;

use super::paging::List;
use super::rows::{self, blob};
use super::sql::{self, Builder, Connection, Row};
use super::{StoreError, Write};
use crate::model::{Page, Time};

/// An invitation by mail, which becomes somebody's when its token is shown.
#[derive(Clone, Debug)]
pub(crate) struct Mailed {
    pub(crate) domain: EntityId,
    pub(crate) domain_name: String,
    pub(crate) email: String,
    pub(crate) invited_by: EntityId,
    pub(crate) role: String,
    pub(crate) role_name: String,
    pub(crate) created_at: Time,
    pub(crate) updated_at: Option<Time>,
    pub(crate) expires_at: Time,
}

const MAILED: List<'_> = List {
    select: "i.domain_id, d.name AS domain_name, i.email, i.invited_by, i.role_id, \
        r.name AS role_name, i.created_at, i.updated_at, i.expires_at",
    from: "mailed_invitations i JOIN domains d ON d.id = i.domain_id AND d.deleted_at IS NULL \
        JOIN roles r ON r.id = i.role_id",
    order: "i.created_at DESC, i.domain_id, i.email",
};

fn read(row: &Row) -> Result<Mailed, StoreError> {
    Ok(Mailed {
        domain: rows::id(&row.get::<Vec<u8>>("domain_id")?)?,
        domain_name: row.get("domain_name")?,
        email: row.get("email")?,
        invited_by: rows::id(&row.get::<Vec<u8>>("invited_by")?)?,
        role: row.get("role_id")?,
        role_name: row.get("role_name")?,
        created_at: Time::from_micros(row.get("created_at")?),
        updated_at: rows::time(row, "updated_at")?,
        expires_at: Time::from_micros(row.get("expires_at")?),
    })
}

/// A page of a domain's invitations by mail that are not over, newest first.
pub(crate) async fn of_domain(
    connection: &mut Connection,
    domain: EntityId,
    now: Time,
    page: Page,
) -> Result<(u64, Vec<Mailed>), StoreError> {
    let narrow = |query: &mut Builder| {
        query.push("i.domain_id = ").push_bind(blob(domain));
        query.push(" AND i.expires_at > ").push_bind(now.micros());
    };
    MAILED.page(connection, narrow, Some(page), read).await
}

/// The invitation of an address to a domain, over or not.
pub(crate) async fn one(
    connection: &mut Connection,
    domain: EntityId,
    email: &str,
) -> Result<Option<Mailed>, StoreError> {
    let narrow = |query: &mut Builder| {
        query.push("i.domain_id = ").push_bind(blob(domain));
        query.push(" AND i.email = ").push_bind(email);
    };
    let (_, mut found) = MAILED
        .page(connection, narrow, Some(Page::default()), read)
        .await?;
    Ok(found.pop())
}

/// Whether there is an invitation with this token.
pub(crate) async fn is_open(
    connection: &mut Connection,
    digest: &[u8],
    now: Time,
) -> Result<bool, StoreError> {
    let (_, found) = MAILED
        .page(
            connection,
            by_digest(digest, now),
            Some(Page::default()),
            read,
        )
        .await?;
    Ok(!found.is_empty())
}

fn by_digest(digest: &[u8], now: Time) -> impl Fn(&mut Builder) {
    move |query: &mut Builder| {
        query.push("i.digest = ").push_bind(digest);
        query.push(" AND i.expires_at > ").push_bind(now.micros());
    }
}

impl Write {
    /// Notes an invitation and the digest of its token, in place of one of the same address to the
    /// same domain, and forgets the domain's that are over.
    pub(crate) async fn put_mailed(
        &mut self,
        invitation: &Mailed,
        digest: &[u8],
        now: Time,
    ) -> Result<(), StoreError> {
        sql::query(
            "DELETE FROM mailed_invitations WHERE domain_id = $1 AND (expires_at <= $2 OR email = $3)",
        )
        .bind(blob(invitation.domain))
        .bind(now.micros())
        .bind(&invitation.email)
        .execute(self.connection())
        .await?;
        sql::query(
            "INSERT INTO mailed_invitations (domain_id, email, invited_by, role_id, digest, \
             created_at, updated_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(blob(invitation.domain))
        .bind(&invitation.email)
        .bind(blob(invitation.invited_by))
        .bind(&invitation.role)
        .bind(digest)
        .bind(invitation.created_at.micros())
        .bind(invitation.updated_at.map(Time::micros))
        .bind(invitation.expires_at.micros())
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Takes an invitation back. Answers whether there was one.
    pub(crate) async fn delete_mailed(
        &mut self,
        domain: EntityId,
        email: &str,
    ) -> Result<bool, StoreError> {
        let done = sql::query("DELETE FROM mailed_invitations WHERE domain_id = $1 AND email = $2")
            .bind(blob(domain))
            .bind(email)
            .execute(self.connection())
            .await?;
        Ok(done > 0)
    }

    /// The invitation with this token; it is gone then.
    pub(crate) async fn take_mailed(
        &mut self,
        digest: &[u8],
        now: Time,
    ) -> Result<Option<Mailed>, StoreError> {
        self.take(by_digest(digest, now), Page::default())
            .await
            .map(|mut found| found.pop())
    }

    /// The invitations of an address; they are gone then. More than a page of them stay for the
    /// next time.
    pub(crate) async fn take_mailed_to(
        &mut self,
        email: &str,
        now: Time,
    ) -> Result<Vec<Mailed>, StoreError> {
        let narrow = |query: &mut Builder| {
            query.push("i.email = ").push_bind(email);
            query.push(" AND i.expires_at > ").push_bind(now.micros());
        };
        let page = Page {
            offset: 0,
            limit: 100,
        };
        self.take(narrow, page).await
    }

    async fn take(
        &mut self,
        narrow: impl Fn(&mut Builder),
        page: Page,
    ) -> Result<Vec<Mailed>, StoreError> {
        let (_, found) = MAILED
            .page(self.connection(), narrow, Some(page), read)
            .await?;
        for invitation in &found {
            self.delete_mailed(invitation.domain, &invitation.email)
                .await?;
        }
        Ok(found)
    }
}
