//! Keys that tokens are signed with: changed, and taken back.

use authcache::{Change, PrincipalRecord};

use super::{Provision, ProvisionError};
use crate::model::Time;
use crate::store::journal::{Event, Outcome};
use crate::store::{StoreError, Write, access, users};
use crate::token::{TokenError, Tokens};

/// Users whose logins end in one transaction: a delta of 60 kB, and a few milliseconds of a shard.
const BATCH: i64 = 1_000;

impl Provision {
    /// Makes a new key to sign tokens with. Tokens signed with the ones before are good until they
    /// end; then those keys are forgotten.
    ///
    /// # Errors
    /// The database failed, or the key could not be made.
    pub async fn rotate_keys(&self) -> Result<(), ProvisionError> {
        let tokens = self.identifier.tokens();
        let rotated = tokens.rotate(&self.store, self.identifier.pepper()).await;
        rotated.map_err(unmade)
    }

    /// Makes a new key to sign tokens with, and forgets the ones before at once: for a key that
    /// somebody else may have. When it returns, no token signed with them is good anywhere and no
    /// message passes under one; every login has ended. Personal access tokens and API keys are not
    /// signed, and stay.
    ///
    /// # Errors
    /// The database failed, or the key could not be made. If it failed on the way, the keys may be
    /// gone and some connections not: the next start or the next call closes them.
    pub async fn revoke_keys(&self) -> Result<(), ProvisionError> {
        let tokens = self.identifier.tokens();
        let revoked = tokens.revoke(&self.store, self.identifier.pepper()).await;
        let since = revoked.map_err(unmade)?;
        let mut more = true;
        while more {
            let mut write = self.store.write().await?;
            more = end_void_logins(&mut write, since).await?;
            if !more {
                let event = Event {
                    operation: "platform.revoke_keys".to_owned(),
                    outcome: Outcome::Done,
                    domain: None,
                    kind: "platform",
                    entity: String::new(),
                    user: None,
                    peer: "operator".to_owned(),
                    attributes: serde_json::json!({}),
                };
                write.record(&event, Time::now()).await?;
            }
            self.commit(write).await?;
        }
        Ok(())
    }
}

/// Ends logins whose tokens were signed before `since`, that is with keys that are gone, and closes
/// the connections of their users; those that came by a password come back. Whether there may be
/// more.
pub(crate) async fn end_void_logins(write: &mut Write, since: Time) -> Result<bool, StoreError> {
    let until = Tokens::refresh_until(since);
    let found =
        access::users_logged_in_until(write.connection(), Time::now(), until, BATCH).await?;
    for &user in &found {
        write.delete_sessions_until(user, until).await?;
        let credential = write.raise_credential(user, false).await?;
        if let Some(auth) = users::user_auth(write.connection(), user).await? {
            write.change(Change::PrincipalSet {
                id: user,
                kind: PrincipalRecord::User,
                status: auth.status,
                credential,
            });
        }
    }
    Ok(!found.is_empty())
}

fn unmade(error: TokenError) -> ProvisionError {
    match error {
        TokenError::Store(error) => error.into(),
        TokenError::Sealed | TokenError::Refused => {
            StoreError::BrokenRow("a signing key that cannot be made").into()
        }
    }
}
