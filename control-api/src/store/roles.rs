//! Roles and their members in the database.

use super::sql::{self, Builder, Connection, Row, Value};
use authcache::EntityId;

use super::entities::{Entity, ROWS_AT_ONCE};
use super::paging::List;
use super::rows::{self, blob};
use super::{StoreError, Write};
use crate::grant::{Actions, Kind, Slot};
use crate::model::{Page, Time};
use crate::secret::new_id;

/// Name of the role that every object has from the start.
pub(crate) const BUILTIN: &str = "admin";

/// A role.
#[derive(Clone, Debug)]
pub(crate) struct Role {
    pub(crate) id: String,
    pub(crate) domain: EntityId,
    pub(crate) kind: Kind,
    pub(crate) entity: EntityId,
    pub(crate) name: String,
    /// Made with its object: holds all actions, and neither it nor they can be taken away.
    pub(crate) builtin: bool,
    pub(crate) actions: Actions,
    pub(crate) created_at: Time,
    pub(crate) created_by: Option<EntityId>,
    pub(crate) updated_at: Option<Time>,
    pub(crate) updated_by: Option<EntityId>,
}

const COLUMNS: &str = "r.id, r.domain_id, r.kind, r.entity_id, r.name, r.builtin, r.own_mask, \
    r.clients_mask, r.channels_mask, r.groups_mask, r.below_clients_mask, r.below_channels_mask, \
    r.created_at, r.created_by, r.updated_at, r.updated_by";

/// The column in which a slot's verbs are kept.
pub(crate) const fn mask_column(slot: Slot) -> &'static str {
    match slot {
        Slot::Own => "own_mask",
        Slot::Clients => "clients_mask",
        Slot::Channels => "channels_mask",
        Slot::Groups => "groups_mask",
        Slot::BelowClients => "below_clients_mask",
        Slot::BelowChannels => "below_channels_mask",
    }
}

fn read(row: &Row) -> Result<Role, StoreError> {
    let kind = Kind::from_number(row.get("kind")?)
        .ok_or(StoreError::BrokenRow("a role on an unknown kind"))?;
    let mut masks = [0; 6];
    for slot in Slot::ALL {
        masks[slot as usize] = row.get(mask_column(slot))?;
    }
    Ok(Role {
        id: row.get("id")?,
        domain: rows::id(&row.get::<Vec<u8>>("domain_id")?)?,
        kind,
        entity: rows::id(&row.get::<Vec<u8>>("entity_id")?)?,
        name: row.get("name")?,
        builtin: row.get("builtin")?,
        actions: Actions::from_masks(kind, masks),
        created_at: Time::from_micros(row.get("created_at")?),
        created_by: rows::maybe_id(row.get("created_by")?)?,
        updated_at: row.get::<Option<i64>>("updated_at")?.map(Time::from_micros),
        updated_by: rows::maybe_id(row.get("updated_by")?)?,
    })
}

/// Inserts a role. A name that the object has already is a unique violation.
pub(crate) async fn insert(connection: &mut Connection, role: &Role) -> Result<(), StoreError> {
    let [
        own,
        clients,
        channels,
        groups,
        below_clients,
        below_channels,
    ] = role.actions.masks();
    sql::query(
        "INSERT INTO roles (id, domain_id, kind, entity_id, name, builtin, own_mask, clients_mask, \
         channels_mask, groups_mask, below_clients_mask, below_channels_mask, created_at, created_by) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
    )
    .bind(&role.id)
    .bind(blob(role.domain))
    .bind(role.kind.number())
    .bind(blob(role.entity))
    .bind(&role.name)
    .bind(role.builtin)
    .bind(own)
    .bind(clients)
    .bind(channels)
    .bind(groups)
    .bind(below_clients)
    .bind(below_channels)
    .bind(role.created_at.micros())
    .bind(role.created_by.map(blob))
    .execute(connection)
    .await?;
    Ok(())
}

/// Inserts the role that an object has from the start, with its creator as member.
pub(crate) async fn insert_builtin(
    connection: &mut Connection,
    domain: EntityId,
    kind: Kind,
    entity: EntityId,
    creator: Option<EntityId>,
    now: Time,
) -> Result<(), StoreError> {
    let role = Role {
        id: role_id(kind),
        domain,
        kind,
        entity,
        name: BUILTIN.to_owned(),
        builtin: true,
        actions: Actions::all(kind),
        created_at: now,
        created_by: creator,
        updated_at: None,
        updated_by: None,
    };
    insert(connection, &role).await?;
    match creator {
        Some(creator) => add_member(connection, &role, creator, now).await,
        None => Ok(()),
    }
}

/// Inserts the roles that objects have from the start, with their creators as members. The objects are
/// [noted](Connection::note).
pub(super) async fn insert_builtins(
    connection: &mut Connection,
    entities: &[Entity],
) -> Result<(), StoreError> {
    for part in entities.chunks(ROWS_AT_ONCE) {
        insert_builtins_of(connection, part).await?;
    }
    Ok(())
}

async fn insert_builtins_of(
    connection: &mut Connection,
    entities: &[Entity],
) -> Result<(), StoreError> {
    let ids: Vec<String> = entities.iter().map(|entity| role_id(entity.kind)).collect();
    let mut query = Builder::new(
        "INSERT INTO roles (id, domain_id, kind, entity_id, name, builtin, own_mask, clients_mask, \
         channels_mask, groups_mask, below_clients_mask, below_channels_mask, created_at, created_by) ",
    );
    query.push_rows(entities.iter().zip(&ids), |(entity, id)| {
        let mut row = vec![
            id.into(),
            blob(entity.domain).into(),
            entity.kind.number().into(),
            blob(entity.id).into(),
            BUILTIN.into(),
            true.into(),
        ];
        row.extend(Actions::all(entity.kind).masks().map(Value::from));
        row.push(entity.created_at.micros().into());
        row.push(entity.created_by.map(blob).into());
        row
    });
    query.build().noted().execute(connection).await?;
    let owned: Vec<(&Entity, EntityId, &String)> = entities
        .iter()
        .zip(&ids)
        .filter_map(|(entity, id)| Some((entity, entity.created_by?, id)))
        .collect();
    if owned.is_empty() {
        return Ok(());
    }
    let mut query = Builder::new(
        "INSERT INTO role_members (entity_id, user_id, role_id, domain_id, created_at) ",
    );
    query.push_rows(owned, |(entity, creator, id)| {
        vec![
            blob(entity.id).into(),
            blob(creator).into(),
            id.into(),
            blob(entity.domain).into(),
            entity.created_at.micros().into(),
        ]
    });
    query.build().noted().execute(connection).await?;
    Ok(())
}

/// An id for a new role: its kind, and an id in 22 letters and digits, which are in the order of time
/// like [those of objects](new_id).
pub(crate) fn role_id(kind: Kind) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = new_id(Time::now()).to_u128();
    let mut digits = [0; 22];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[(rest % 62) as usize];
        rest /= 62;
    }
    let mut text = format!("{}_", kind.word());
    text.extend(digits.map(char::from));
    text
}

/// Adds a member. One who has a role on the object already is a unique violation.
pub(crate) async fn add_member(
    connection: &mut Connection,
    role: &Role,
    user: EntityId,
    now: Time,
) -> Result<(), StoreError> {
    sql::query(
        "INSERT INTO role_members (entity_id, user_id, role_id, domain_id, created_at) \
         VALUES ($1, $2, $3, $4, $5)",
    )
    .bind(blob(role.entity))
    .bind(blob(user))
    .bind(&role.id)
    .bind(blob(role.domain))
    .bind(now.micros())
    .execute(connection)
    .await?;
    Ok(())
}

/// The role of this object with this id, or else with this name.
pub(crate) async fn role(
    connection: &mut Connection,
    entity: EntityId,
    name: &str,
) -> Result<Option<Role>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query
        .push(COLUMNS)
        .push(" FROM roles r WHERE r.entity_id = ")
        .push_bind(blob(entity))
        .push(" AND (r.id = ")
        .push_bind(name)
        .push(" OR r.name = ")
        .push_bind(name)
        .push(") ORDER BY CASE WHEN r.id = ")
        .push_bind(name)
        .push(" THEN 0 ELSE 1 END LIMIT 1");
    let row = query.build().fetch_optional(connection).await?;
    row.map(|row| read(&row)).transpose()
}

/// A page of the roles of an object, oldest first.
pub(crate) async fn list(
    connection: &mut Connection,
    entity: EntityId,
    page: Page,
) -> Result<(u64, Vec<Role>), StoreError> {
    let list = List {
        select: COLUMNS,
        from: "roles r",
        order: "r.created_at, r.id",
    };
    let narrow = |query: &mut Builder| {
        query.push("r.entity_id = ").push_bind(blob(entity));
    };
    list.page(connection, narrow, Some(page), read).await
}

/// Roles that a user holds on any of these objects.
pub(crate) async fn held(
    connection: &mut Connection,
    user: EntityId,
    entities: &[EntityId],
) -> Result<Vec<Role>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query
        .push(COLUMNS)
        .push(" FROM role_members m JOIN roles r ON r.id = m.role_id WHERE m.user_id = ")
        .push_bind(blob(user))
        .push(" AND m.entity_id IN (");
    query.push_list(rows::set(entities));
    query.push(")");
    let found = query.build().fetch_all(connection).await?;
    found.iter().map(read).collect()
}

/// All roles on any of these objects, with each member: who can reach what is inside them.
pub(crate) async fn holders(
    connection: &mut Connection,
    entities: &[EntityId],
    limit: i64,
) -> Result<Vec<(EntityId, Role)>, StoreError> {
    let mut query = Builder::new("SELECT m.user_id, ");
    query
        .push(COLUMNS)
        .push(" FROM roles r JOIN role_members m ON m.role_id = r.id WHERE r.entity_id IN (");
    query.push_list(entities.iter().copied().map(blob));
    query
        .push(") ORDER BY m.user_id, r.id LIMIT ")
        .push_bind(limit);
    let found = query.build().fetch_all(connection).await?;
    found
        .iter()
        .map(|row| {
            let user = rows::id(&row.get::<Vec<u8>>("user_id")?)?;
            Ok((user, read(row)?))
        })
        .collect()
}

/// Whether a user has a role in the domain itself.
pub(crate) async fn is_member(
    connection: &mut Connection,
    domain: EntityId,
    user: EntityId,
) -> Result<bool, StoreError> {
    let found: Option<(i64,)> =
        sql::query_as("SELECT 1 FROM role_members WHERE entity_id = $1 AND user_id = $2")
            .bind(blob(domain))
            .bind(blob(user))
            .fetch_optional(connection)
            .await?;
    Ok(found.is_some())
}

/// A page of the members of a role, in the order in which they were added.
pub(crate) async fn members(
    connection: &mut Connection,
    role: &str,
    page: Page,
) -> Result<(u64, Vec<EntityId>), StoreError> {
    let list = List {
        select: "m.user_id",
        from: "role_members m",
        order: "m.created_at, m.user_id",
    };
    let narrow = |query: &mut Builder| {
        query.push("m.role_id = ").push_bind(role);
    };
    let read = |row: &Row| rows::id(&row.get::<Vec<u8>>("user_id")?);
    list.page(connection, narrow, Some(page), read).await
}

/// The role that a user holds on an object.
pub(crate) async fn of_member(
    connection: &mut Connection,
    entity: EntityId,
    user: EntityId,
) -> Result<Option<Role>, StoreError> {
    Ok(held(connection, user, &[entity]).await?.pop())
}

impl Write {
    /// Writes name and actions of a role back.
    pub(crate) async fn update_role(&mut self, role: &Role) -> Result<(), StoreError> {
        let [
            own,
            clients,
            channels,
            groups,
            below_clients,
            below_channels,
        ] = role.actions.masks();
        sql::query(
            "UPDATE roles SET name = $1, own_mask = $2, clients_mask = $3, channels_mask = $4, \
             groups_mask = $5, below_clients_mask = $6, below_channels_mask = $7, updated_at = $8, \
             updated_by = $9 WHERE id = $10",
        )
        .bind(&role.name)
        .bind(own)
        .bind(clients)
        .bind(channels)
        .bind(groups)
        .bind(below_clients)
        .bind(below_channels)
        .bind(role.updated_at.map(Time::micros))
        .bind(role.updated_by.map(blob))
        .bind(&role.id)
        .execute(self.connection())
        .await?;
        Ok(())
    }

    /// Removes a role and its memberships.
    pub(crate) async fn delete_role(&mut self, id: &str) -> Result<(), StoreError> {
        sql::query("DELETE FROM roles WHERE id = $1")
            .bind(id)
            .execute(self.connection())
            .await?;
        Ok(())
    }

    /// Removes a user from whatever role it has on an object. Answers whether it had one.
    pub(crate) async fn remove_member(
        &mut self,
        entity: EntityId,
        user: EntityId,
    ) -> Result<bool, StoreError> {
        let done = sql::query("DELETE FROM role_members WHERE entity_id = $1 AND user_id = $2")
            .bind(blob(entity))
            .bind(blob(user))
            .execute(self.connection())
            .await?;
        Ok(done > 0)
    }

    /// Removes a user from a domain: all its roles inside, and its invitation.
    pub(crate) async fn expel(
        &mut self,
        domain: EntityId,
        user: EntityId,
    ) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM role_members WHERE domain_id = $1 AND user_id = $2",
            "DELETE FROM invitations WHERE domain_id = $1 AND invitee = $2",
        ] {
            sql::query(sql)
                .bind(blob(domain))
                .bind(blob(user))
                .execute(self.connection())
                .await?;
        }
        Ok(())
    }
}
