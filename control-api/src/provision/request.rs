//! One operation as a value: what the command line sends over the operator socket.

use serde::{Deserialize, Serialize};

use super::{
    ClientWithSecret, Connections, NewChannel, NewClient, NewDomain, Provision, ProvisionError,
};
use crate::model::{Channel, Client, Domain, Listing, Page};

/// An operation with its arguments. Domains and channels are named by id or route, clients by id.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "snake_case")]
pub enum Request {
    /// [`Provision::create_domain`]
    CreateDomain(NewDomain),
    /// [`Provision::list_domains`]
    ListDomains(Page),
    /// [`Provision::enable_domain`]
    EnableDomain {
        /// Which.
        domain: String,
    },
    /// [`Provision::disable_domain`]
    DisableDomain {
        /// Which.
        domain: String,
    },
    /// [`Provision::delete_domain`]
    DeleteDomain {
        /// Which.
        domain: String,
    },
    /// [`Provision::create_channel`]
    CreateChannel {
        /// Where.
        domain: String,
        /// What.
        #[serde(flatten)]
        new: NewChannel,
    },
    /// [`Provision::list_channels`]
    ListChannels {
        /// Where.
        domain: String,
        /// Which part.
        #[serde(flatten)]
        page: Page,
    },
    /// [`Provision::enable_channel`]
    EnableChannel {
        /// Where.
        domain: String,
        /// Which.
        channel: String,
    },
    /// [`Provision::disable_channel`]
    DisableChannel {
        /// Where.
        domain: String,
        /// Which.
        channel: String,
    },
    /// [`Provision::delete_channel`]
    DeleteChannel {
        /// Where.
        domain: String,
        /// Which.
        channel: String,
    },
    /// [`Provision::create_client`]
    CreateClient {
        /// Where.
        domain: String,
        /// What.
        #[serde(flatten)]
        new: NewClient,
    },
    /// [`Provision::list_clients`]
    ListClients {
        /// Where.
        domain: String,
        /// Which part.
        #[serde(flatten)]
        page: Page,
    },
    /// [`Provision::enable_client`]
    EnableClient {
        /// Where.
        domain: String,
        /// Which.
        client: String,
    },
    /// [`Provision::disable_client`]
    DisableClient {
        /// Where.
        domain: String,
        /// Which.
        client: String,
    },
    /// [`Provision::delete_client`]
    DeleteClient {
        /// Where.
        domain: String,
        /// Which.
        client: String,
    },
    /// [`Provision::explain`]
    Explain {
        /// Where.
        domain: String,
        /// Who.
        subject: String,
        /// What it wants to do.
        action: String,
        /// With what.
        object: String,
    },
    /// [`Provision::rotate_keys`]
    RotateKeys,
    /// [`Provision::revoke_keys`]
    RevokeKeys,
    /// [`Provision::connect`]
    Connect {
        /// Where.
        domain: String,
        /// What.
        #[serde(flatten)]
        connections: Connections,
    },
    /// [`Provision::disconnect`]
    Disconnect {
        /// Where.
        domain: String,
        /// What.
        #[serde(flatten)]
        connections: Connections,
    },
}

/// What an operation gives back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Response {
    /// A domain as it is now.
    Domain(Domain),
    /// A page of domains.
    Domains(Listing<Domain>),
    /// A channel as it is now.
    Channel(Channel),
    /// A page of channels.
    Channels(Listing<Channel>),
    /// A client as it is now.
    Client(Client),
    /// A new client, with the secret that is never shown again.
    NewClient(ClientWithSecret),
    /// A page of clients.
    Clients(Listing<Client>),
    /// Why somebody may, or may not.
    Explanation(serde_json::Value),
    /// Nothing is left to show.
    Done {},
}

impl Provision {
    /// Carries out one operation.
    ///
    /// # Errors
    /// Those of the operation.
    pub async fn execute(&self, request: Request) -> Result<Response, ProvisionError> {
        Ok(match request {
            Request::CreateDomain(new) => Response::Domain(self.create_domain(new).await?),
            Request::ListDomains(page) => Response::Domains(self.list_domains(page).await?),
            Request::EnableDomain { domain } => {
                Response::Domain(self.enable_domain(&domain).await?)
            }
            Request::DisableDomain { domain } => {
                Response::Domain(self.disable_domain(&domain).await?)
            }
            Request::DeleteDomain { domain } => done(self.delete_domain(&domain).await?),
            Request::CreateChannel { domain, new } => {
                Response::Channel(self.create_channel(&domain, new).await?)
            }
            Request::ListChannels { domain, page } => {
                Response::Channels(self.list_channels(&domain, page).await?)
            }
            Request::EnableChannel { domain, channel } => {
                Response::Channel(self.enable_channel(&domain, &channel).await?)
            }
            Request::DisableChannel { domain, channel } => {
                Response::Channel(self.disable_channel(&domain, &channel).await?)
            }
            Request::DeleteChannel { domain, channel } => {
                done(self.delete_channel(&domain, &channel).await?)
            }
            Request::CreateClient { domain, new } => {
                Response::NewClient(self.create_client(&domain, new).await?)
            }
            Request::ListClients { domain, page } => {
                Response::Clients(self.list_clients(&domain, page).await?)
            }
            Request::EnableClient { domain, client } => {
                Response::Client(self.enable_client(&domain, &client).await?)
            }
            Request::DisableClient { domain, client } => {
                Response::Client(self.disable_client(&domain, &client).await?)
            }
            Request::DeleteClient { domain, client } => {
                done(self.delete_client(&domain, &client).await?)
            }
            Request::Explain {
                domain,
                subject,
                action,
                object,
            } => {
                let explained = self.explain(&domain, &subject, &action, &object).await?;
                Response::Explanation(explained)
            }
            Request::RotateKeys => done(self.rotate_keys().await?),
            Request::RevokeKeys => done(self.revoke_keys().await?),
            Request::Connect {
                domain,
                connections,
            } => done(self.connect(&domain, &connections).await?),
            Request::Disconnect {
                domain,
                connections,
            } => done(self.disconnect(&domain, &connections).await?),
        })
    }
}

fn done((): ()) -> Response {
    Response::Done {}
}
