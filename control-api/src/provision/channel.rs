//! Channels.

use authcache::{Change, Status};
use serde::{Deserialize, Serialize};

use super::{Conflict, Provision, ProvisionError, channel, check_page, domain, switched};
use crate::grant::Kind;
use crate::model::{Channel, Listing, Page, Time, status_word};
use crate::name::{Name, Route, parse_id};
use crate::secret::new_id;
use crate::snapshot::channel_set;
use crate::store::channels::{self, NewChannelRow};

/// A channel to be made.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NewChannel {
    /// Its id; made if absent.
    pub id: Option<String>,
    /// Name for people; may be empty.
    pub name: String,
    /// Short name in topics.
    pub route: Option<String>,
}

impl Provision {
    /// Makes a channel, enabled.
    ///
    /// # Errors
    /// There is no such domain; id, name or route are not valid, or id or route are taken.
    pub async fn create_channel(
        &self,
        domain_name: &str,
        new: NewChannel,
    ) -> Result<Channel, ProvisionError> {
        let id = match &new.id {
            Some(text) => parse_id("id", text)?,
            None => new_id(Time::now()),
        };
        let route = new.route.as_deref().map(Route::parse_channel).transpose()?;
        let name = Name::parse(&new.name)?;
        let mut write = self.store.write().await?;
        let within = domain(write.connection(), domain_name).await?;
        if let Some(route) = &route
            && channels::channel(write.connection(), within.id, route.as_str())
                .await?
                .is_some()
        {
            return Err(Conflict::RouteTaken(route.to_string()).into());
        }
        let now = Time::now();
        let row = NewChannelRow {
            id,
            domain: within.id,
            route: route.as_ref().map(Route::as_str),
            name: name.as_str(),
            open: false,
            now,
        };
        // The id may be taken in a domain that the caller cannot see: the constraint says so.
        write
            .insert_channel(row)
            .await
            .map_err(|error| taken(error, Conflict::IdTaken(id)))?;
        let created = Channel {
            held: false,
            id,
            domain_id: within.id,
            route: route.map(|route| route.as_str().to_owned()),
            name: name.as_str().to_owned(),
            status: Status::Enabled,
            open: false,
            created_at: now,
            updated_at: None,
        };
        write.change(channel_set(&created));
        self.finish(write, "channel.create", within.id, id).await?;
        Ok(created)
    }

    /// Channels of a domain, oldest first.
    ///
    /// # Errors
    /// There is no such domain, or the page is not valid.
    pub async fn list_channels(
        &self,
        domain_name: &str,
        page: Page,
    ) -> Result<Listing<Channel>, ProvisionError> {
        let page = check_page(page)?;
        let within = self.find_domain(domain_name).await?;
        let (total, items) = self.store.list_channels(within.id, page).await?;
        Ok(Listing {
            total,
            offset: page.offset,
            limit: page.limit,
            items,
        })
    }

    /// Lets messages of a channel pass again.
    ///
    /// # Errors
    /// There is no such channel in the domain, or it is enabled.
    pub async fn enable_channel(
        &self,
        domain_name: &str,
        name: &str,
    ) -> Result<Channel, ProvisionError> {
        self.set_channel_status(domain_name, name, Status::Enabled)
            .await
    }

    /// Stops all messages of a channel.
    ///
    /// # Errors
    /// There is no such channel in the domain, or it is disabled.
    pub async fn disable_channel(
        &self,
        domain_name: &str,
        name: &str,
    ) -> Result<Channel, ProvisionError> {
        self.set_channel_status(domain_name, name, Status::Disabled)
            .await
    }

    /// Removes a channel and its connections.
    ///
    /// # Errors
    /// There is no such channel in the domain.
    pub async fn delete_channel(
        &self,
        domain_name: &str,
        name: &str,
    ) -> Result<(), ProvisionError> {
        let mut write = self.store.write().await?;
        let within = domain(write.connection(), domain_name).await?;
        let found = channel(write.connection(), &within, name).await?;
        write.delete_channel(found.id).await?;
        write.change(Change::ChannelRemoved { id: found.id });
        self.finish(write, "channel.remove", within.id, found.id)
            .await
    }

    async fn set_channel_status(
        &self,
        domain_name: &str,
        name: &str,
        status: Status,
    ) -> Result<Channel, ProvisionError> {
        let mut write = self.store.write().await?;
        let within = domain(write.connection(), domain_name).await?;
        let mut found = channel(write.connection(), &within, name).await?;
        if found.status == status {
            let (kind, name) = ("channel", name.to_owned());
            return Err(Conflict::StatusAlready {
                kind,
                name,
                status: status_word(status),
            }
            .into());
        }
        let now = Time::now();
        write.set_channel_status(found.id, status, now).await?;
        found.status = status;
        found.updated_at = Some(now);
        write.change(channel_set(&found));
        self.finish(write, switched(Kind::Channel, status), within.id, found.id)
            .await?;
        Ok(found)
    }
}

/// A violated constraint as the conflict it stands for.
pub(super) fn taken(error: crate::store::StoreError, conflict: Conflict) -> ProvisionError {
    if error.is_unique_violation() {
        conflict.into()
    } else {
        error.into()
    }
}
