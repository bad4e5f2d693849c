//! Domains.

use authcache::{Change, Status};
use serde::{Deserialize, Serialize};

use super::{Conflict, Provision, ProvisionError, check_page, kept, switched};
use crate::grant::Kind;
use crate::model::{Domain, Listing, Page, Time, status_word};
use crate::name::{Name, Route, parse_id};
use crate::secret::random_id;
use crate::snapshot::domain_set;
use crate::store::domains;

/// A domain to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NewDomain {
    /// Its id; made if absent.
    pub id: Option<String>,
    /// Name for people; the route if empty.
    pub name: String,
    /// Short name in topics.
    pub route: String,
}

impl Provision {
    /// Makes a domain, enabled.
    ///
    /// # Errors
    /// Id, name or route are not valid, or id or route are taken.
    pub async fn create_domain(&self, new: NewDomain) -> Result<Domain, ProvisionError> {
        let id = match &new.id {
            Some(text) => parse_id("id", text)?,
            None => random_id(),
        };
        let route = Route::parse_domain(&new.route, id)?;
        let name = Name::parse_domain(if new.name.is_empty() {
            &new.route
        } else {
            &new.name
        })?;
        let created = Domain::new(id, route.as_str(), name.as_str(), Time::now());
        let mut write = self.store.write().await?;
        if domains::kept_domain(write.connection(), route.as_str())
            .await?
            .is_some()
        {
            return Err(Conflict::RouteTaken(route.to_string()).into());
        }
        if domains::kept_domain(write.connection(), &id.to_string())
            .await?
            .is_some()
        {
            return Err(Conflict::IdTaken(id).into());
        }
        write.insert_domain(&created).await?;
        write.change(domain_set(&created));
        self.finish(write, "domain.create", id, id).await?;
        Ok(created)
    }

    /// Domains, oldest first.
    ///
    /// # Errors
    /// The page is not valid.
    pub async fn list_domains(&self, page: Page) -> Result<Listing<Domain>, ProvisionError> {
        let page = check_page(page)?;
        let (total, items) = self.store.list_domains(page).await?;
        Ok(Listing {
            total,
            offset: page.offset,
            limit: page.limit,
            items,
        })
    }

    /// Lets messages of a domain pass again.
    ///
    /// # Errors
    /// There is no such domain, or it is enabled.
    pub async fn enable_domain(&self, name: &str) -> Result<Domain, ProvisionError> {
        self.set_domain_status(name, Status::Enabled).await
    }

    /// Stops all messages of a domain and closes the connections of its clients.
    ///
    /// # Errors
    /// There is no such domain, or it is disabled.
    pub async fn disable_domain(&self, name: &str) -> Result<Domain, ProvisionError> {
        self.set_domain_status(name, Status::Disabled).await
    }

    /// Removes a domain and everything inside, for good; also one that was deleted and is kept still.
    ///
    /// # Errors
    /// There is no such domain.
    pub async fn delete_domain(&self, name: &str) -> Result<(), ProvisionError> {
        let mut write = self.store.write().await?;
        let found = kept(write.connection(), name).await?;
        write.delete_domain(found.id).await?;
        // Brokers drop the domain's channels and clients with it.
        write.change(Change::DomainRemoved { id: found.id });
        self.finish(write, "domain.delete", found.id, found.id)
            .await
    }

    async fn set_domain_status(
        &self,
        name: &str,
        status: Status,
    ) -> Result<Domain, ProvisionError> {
        let mut write = self.store.write().await?;
        let mut found = kept(write.connection(), name).await?;
        if found.status == status && found.deleted_at.is_none() {
            let (kind, name) = ("domain", found.route);
            return Err(Conflict::StatusAlready {
                kind,
                name,
                status: status_word(status),
            }
            .into());
        }
        let now = Time::now();
        write.set_domain_status(found.id, status, now).await?;
        found.status = status;
        found.deleted_at = None;
        found.updated_at = Some(now);
        write.change(domain_set(&found));
        self.finish(write, switched(Kind::Domain, status), found.id, found.id)
            .await?;
        Ok(found)
    }
}
