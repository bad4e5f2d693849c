//! Why somebody may do something.

use serde_json::Value;

use super::{Provision, ProvisionError, domain, not_found};
use crate::explain::{explain, kind_of, verb_named};
use crate::grant::{Kind, Place};
use crate::name::{Invalid, excerpt, parse_id};
use crate::store::{entities, users};
use authcache::EntityId;

impl Provision {
    /// Explains one decision: whether the subject (a user's id or name, or a client's id) may do
    /// this with the object (an id), by which roles or connection, or what is missing.
    ///
    /// # Errors
    /// There is no such domain, subject, object or action.
    pub async fn explain(
        &self,
        domain_name: &str,
        subject: &str,
        action: &str,
        object: &str,
    ) -> Result<Value, ProvisionError> {
        let (mut tx, _) = self.store.read_at().await?;
        let within = domain(&mut tx, domain_name).await?;
        let subject = match EntityId::from_text(subject) {
            Some(id) => id,
            None => users::user_auth_by_login(&mut tx, subject)
                .await?
                .map(|user| user.id)
                .ok_or_else(|| not_found("user", subject, None))?,
        };
        let id = parse_id("object", object)?;
        let kind = kind_of(&mut tx, within.id, id).await?;
        let kind = kind.ok_or_else(|| not_found("object", object, Some(&within)))?;
        let verb = verb_named(kind, action).ok_or_else(|| Invalid::Action {
            value: excerpt(action),
            kind: kind.word(),
            expected: kind.all_verbs().words(kind).join(", "),
        })?;
        let entity = match kind {
            Kind::Domain => None,
            Kind::Group | Kind::Channel | Kind::Client => {
                entities::entity(&mut tx, kind, within.id, id).await?
            }
        };
        let groups = match &entity {
            Some(entity) => entities::groups_of(&mut tx, entity).await?,
            None => Vec::new(),
        };
        let place = Place {
            kind,
            id,
            domain: within.id,
            groups: &groups,
        };
        Ok(explain(&mut tx, &within, subject, verb, &place).await?)
    }
}
