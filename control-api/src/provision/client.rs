//! Clients.

use std::fmt;

use authcache::{Change, Status};
use serde::{Deserialize, Serialize};

use super::channel::taken;
use super::{Conflict, Provision, ProvisionError, check_page, client, domain, switched};
use crate::grant::Kind;
use crate::model::{Client, Listing, Page, Time, status_word};
use crate::name::{Name, check_secret, parse_id};
use crate::secret::{Secret, new_id};
use crate::store::clients::NewClientRow;

/// A client to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NewClient {
    /// Its id; made if absent.
    pub id: Option<String>,
    /// Name for people; may be empty.
    pub name: String,
    /// Its secret; made if absent.
    pub secret: Option<Secret>,
}

/// A client that was just made, with the secret that is never shown again.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct ClientWithSecret {
    /// The client.
    #[serde(flatten)]
    pub client: Client,
    /// Its secret.
    pub secret: Secret,
}

impl fmt::Debug for ClientWithSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientWithSecret")
            .field(&self.client)
            .finish()
    }
}

impl Provision {
    /// Makes a client, enabled and connected to nothing. Its secret is shown here only.
    ///
    /// # Errors
    /// There is no such domain; id, name or secret are not valid, or id or secret are taken.
    pub async fn create_client(
        &self,
        domain_name: &str,
        new: NewClient,
    ) -> Result<ClientWithSecret, ProvisionError> {
        let id = match &new.id {
            Some(text) => parse_id("id", text)?,
            None => new_id(Time::now()),
        };
        let name = Name::parse(&new.name)?;
        let secret = new.secret.unwrap_or_else(Secret::random);
        check_secret(secret.reveal())?;
        let mut write = self.store.write().await?;
        let within = domain(write.connection(), domain_name).await?;
        let pepper = self.identifier.pepper();
        let digest = pepper.device_secret(within.id, secret.reveal().as_bytes());
        if write.secret_taken(within.id, digest.as_bytes()).await? {
            return Err(Conflict::SecretTaken.into());
        }
        let now = Time::now();
        let row = NewClientRow {
            id,
            domain: within.id,
            name: name.as_str(),
            secret_digest: Some(digest.as_bytes()),
            secret_sealed: None,
            anonymous: false,
            now,
        };
        write
            .insert_client(row)
            .await
            .map_err(|error| taken(error, Conflict::IdTaken(id)))?;
        write.client_changed(id).await?;
        self.finish(write, "client.create", within.id, id).await?;
        let client = Client {
            id,
            domain_id: within.id,
            name: name.as_str().to_owned(),
            status: Status::Enabled,
            created_at: now,
            updated_at: None,
        };
        Ok(ClientWithSecret { client, secret })
    }

    /// Clients of a domain, oldest first.
    ///
    /// # Errors
    /// There is no such domain, or the page is not valid.
    pub async fn list_clients(
        &self,
        domain_name: &str,
        page: Page,
    ) -> Result<Listing<Client>, ProvisionError> {
        let page = check_page(page)?;
        let within = self.find_domain(domain_name).await?;
        let (total, items) = self.store.list_clients(within.id, page).await?;
        Ok(Listing {
            total,
            offset: page.offset,
            limit: page.limit,
            items,
        })
    }

    /// Lets a client connect again.
    ///
    /// # Errors
    /// There is no such client in the domain, or it is enabled.
    pub async fn enable_client(
        &self,
        domain_name: &str,
        name: &str,
    ) -> Result<Client, ProvisionError> {
        self.set_client_status(domain_name, name, Status::Enabled)
            .await
    }

    /// Closes a client's connections and admits no new one.
    ///
    /// # Errors
    /// There is no such client in the domain, or it is disabled.
    pub async fn disable_client(
        &self,
        domain_name: &str,
        name: &str,
    ) -> Result<Client, ProvisionError> {
        self.set_client_status(domain_name, name, Status::Disabled)
            .await
    }

    /// Removes a client, its connections and its sessions.
    ///
    /// # Errors
    /// There is no such client in the domain.
    pub async fn delete_client(&self, domain_name: &str, name: &str) -> Result<(), ProvisionError> {
        let mut write = self.store.write().await?;
        let within = domain(write.connection(), domain_name).await?;
        let found = client(write.connection(), &within, name).await?;
        write.delete_client(found.id).await?;
        write.change(Change::PrincipalRemoved { id: found.id });
        self.finish(write, "client.remove", within.id, found.id)
            .await
    }

    async fn set_client_status(
        &self,
        domain_name: &str,
        name: &str,
        status: Status,
    ) -> Result<Client, ProvisionError> {
        let mut write = self.store.write().await?;
        let within = domain(write.connection(), domain_name).await?;
        let mut found = client(write.connection(), &within, name).await?;
        if found.status == status {
            let (kind, name) = ("client", name.to_owned());
            return Err(Conflict::StatusAlready {
                kind,
                name,
                status: status_word(status),
            }
            .into());
        }
        let now = Time::now();
        write.set_client_status(found.id, status, now).await?;
        write.client_changed(found.id).await?;
        found.status = status;
        found.updated_at = Some(now);
        self.finish(write, switched(Kind::Client, status), within.id, found.id)
            .await?;
        Ok(found)
    }
}
