//! Many objects that a call names: looked up, and the caller's rights on them checked, together.

use std::collections::{BTreeSet, HashMap};

use authcache::{EntityId, Status};

use super::authorize::Inside;
use super::failure::Failure;
use crate::authz;
use crate::grant::{Kind, Place, Verb};
use crate::name::parse_id;
use crate::store::entities::{self, Standing};
use crate::store::roles::{self, Role};
use crate::store::sql::Connection;

/// Objects that are looked up with one statement.
const AT_ONCE: usize = 256;

impl Inside {
    /// Clients or channels of the domain, in the order in which they are named, if the caller may do
    /// this with all of them.
    ///
    /// # Errors
    /// As for [`Inside::target`], of the first with which it may not.
    pub(super) async fn several(
        &self,
        c: &mut Connection,
        kind: Kind,
        names: &[String],
        verb: Verb,
    ) -> Result<Vec<(EntityId, Status)>, Failure> {
        let ids = names.iter().map(|name| parse_id("id", name));
        let ids: Vec<EntityId> = ids.collect::<Result<_, _>>()?;
        let mut found = Vec::with_capacity(ids.len());
        for part in ids.chunks(AT_ONCE) {
            self.part(c, kind, part, verb, &mut found).await?;
        }
        Ok(found)
    }

    async fn part(
        &self,
        c: &mut Connection,
        kind: Kind,
        ids: &[EntityId],
        verb: Verb,
        found: &mut Vec<(EntityId, Status)>,
    ) -> Result<(), Failure> {
        let everywhere = self.everywhere(kind).contains(verb);
        let standing = entities::standing(c, kind, self.domain.id, ids).await?;
        let standing: HashMap<EntityId, Standing> =
            standing.into_iter().map(|one| (one.id, one)).collect();
        let reach = if everywhere {
            None
        } else {
            Some(self.reach(c, &standing).await?)
        };
        for id in ids {
            let Some(one) = standing.get(id) else {
                return Err(if everywhere {
                    Failure::not_found(kind.word())
                } else {
                    Failure::forbidden()
                });
            };
            if let Some(reach) = &reach
                && !reach.permits(self.domain.id, kind, one, verb)
            {
                return Err(Failure::forbidden());
            }
            found.push((one.id, one.status));
        }
        Ok(())
    }

    /// Reads which groups these are in, and which roles of the caller reach them.
    async fn reach(
        &self,
        c: &mut Connection,
        standing: &HashMap<EntityId, Standing>,
    ) -> Result<Reach, Failure> {
        let parents: BTreeSet<EntityId> = standing.values().filter_map(|one| one.parent).collect();
        let parents: Vec<EntityId> = parents.into_iter().collect();
        let chains = entities::chains(c, &parents).await?;
        let mut objects: BTreeSet<EntityId> = standing.keys().copied().collect();
        objects.insert(self.domain.id);
        objects.extend(chains.values().flatten());
        let objects: Vec<EntityId> = objects.into_iter().collect();
        let mut held: HashMap<EntityId, Vec<Role>> = HashMap::new();
        for part in objects.chunks(AT_ONCE) {
            for role in roles::held(c, self.user, part).await? {
                held.entry(role.entity).or_default().push(role);
            }
        }
        Ok(Reach { chains, held })
    }
}

/// How far roles of the caller reach.
struct Reach {
    /// Of each parent group, itself and the groups above it.
    chains: HashMap<EntityId, Vec<EntityId>>,
    /// By the object that they are on.
    held: HashMap<EntityId, Vec<Role>>,
}

impl Reach {
    fn permits(&self, domain: EntityId, kind: Kind, one: &Standing, verb: Verb) -> bool {
        let chain = one.parent.and_then(|parent| self.chains.get(&parent));
        let place = Place {
            kind,
            id: one.id,
            domain,
            groups: chain.map_or(&[], Vec::as_slice),
        };
        let on = authz::reaching(&place);
        let roles = on.iter().filter_map(|object| self.held.get(object));
        authz::permitted(roles.flatten(), &place).contains(verb)
    }
}
