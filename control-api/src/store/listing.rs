//! Lists of groups, channels and clients: filters, and who may see what.

use super::marks::{METADATA, mark, mark_of_item};
use super::sql::{Builder, Connection, Row};
use authcache::{EntityId, Right, Status};
use serde_json::Value;

use super::StoreError;
use super::entities::{Entity, columns, read, table};
use super::roles::mask_column;
use super::rows::{self, blob};
use crate::grant::{Kind, Slot, Verb, Verbs};
use crate::model::{Page, Time};

/// Which tags are wanted.
#[derive(Clone, Debug)]
pub(crate) enum Tags {
    Any(Vec<String>),
    All(Vec<String>),
}

/// From where a right comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// A role on the object itself.
    Direct,
    /// A role on the group it is in.
    DirectGroup,
    /// A role on a group further up.
    IndirectGroup,
    /// A role on the domain.
    Domain,
}

impl Access {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Access::Direct => "direct",
            Access::DirectGroup => "direct_group",
            Access::IndirectGroup => "indirect_group",
            Access::Domain => "domain",
        }
    }
}

/// What a list is narrowed by.
#[derive(Debug, Default)]
pub(crate) struct Filter {
    pub(crate) id: Option<EntityId>,
    /// Part of the name, in any letter case.
    pub(crate) name: Option<String>,
    pub(crate) tags: Option<Tags>,
    pub(crate) metadata: Vec<(String, Value)>,
    pub(crate) status: Option<Status>,
    /// Direct members of this group; of none for `Some(None)`.
    pub(crate) group: Option<Option<EntityId>>,
    /// Of channels: connected to this client. Of clients: connected to this channel.
    pub(crate) connected: Option<(EntityId, Right)>,
    pub(crate) created_from: Option<Time>,
    pub(crate) created_to: Option<Time>,
    /// Of groups: only those whose path lies in this range, on these levels.
    pub(crate) below: Option<String>,
    pub(crate) levels: Option<(usize, usize)>,
    pub(crate) role_id: Option<String>,
    pub(crate) role_name: Option<String>,
    pub(crate) access: Option<Access>,
    /// A column or expression, never a caller's text.
    pub(crate) order: &'static str,
    pub(crate) ascending: bool,
}

impl Filter {
    /// Whether it asks for tags or metadata, which are looked up.
    fn is_marked(&self) -> bool {
        self.tags.is_some() || !self.metadata.is_empty()
    }
}

/// Who looks at a list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Viewer {
    pub(crate) user: EntityId,
    /// What a role in the domain gives on all objects of the kind.
    pub(crate) everywhere: Verbs,
    /// What is needed on an object to see it.
    pub(crate) needed: Verbs,
}

/// How the rows of a list are best come by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    /// Few pass: found first, then looked up and sorted.
    Few,
    /// Many pass, or it is not known: walked in order, or counted in an index.
    Many,
}

/// Rows that are sorted faster than as many others are walked past.
const FEW: u64 = 5_000;

/// A page of a kind of object in a domain. Without a viewer everything is seen.
pub(crate) async fn list(
    connection: &mut Connection,
    kind: Kind,
    domain: EntityId,
    filter: &Filter,
    viewer: Option<Viewer>,
    page: Page,
    only_total: bool,
) -> Result<(u64, Vec<Entity>), StoreError> {
    let mut count = Builder::new("SELECT COUNT(*) AS total FROM ");
    count.push(table(kind)).push(" e WHERE ");
    narrow(&mut count, kind, domain, filter, viewer, Plan::Many);
    let total: i64 = count
        .build()
        .fetch_one(&mut *connection)
        .await?
        .get("total")?;
    if only_total || total == 0 {
        return Ok((total.cast_unsigned(), Vec::new()));
    }
    let narrowed = filter.name.is_some() || filter.is_marked();
    let plan = if narrowed && total.cast_unsigned() < FEW {
        Plan::Few
    } else {
        Plan::Many
    };
    let found = page_of(connection, kind, domain, filter, viewer, page, plan).await?;
    let found = found
        .iter()
        .map(|row| read(kind, row))
        .collect::<Result<_, _>>()?;
    Ok((total.cast_unsigned(), found))
}

/// The rows of a page.
async fn page_of(
    connection: &mut Connection,
    kind: Kind,
    domain: EntityId,
    filter: &Filter,
    viewer: Option<Viewer>,
    page: Page,
    plan: Plan,
) -> Result<Vec<Row>, StoreError> {
    let mut query = Builder::new("SELECT ");
    query
        .push(columns(kind))
        .push(" FROM ")
        .push(table(kind))
        .push(" e WHERE ");
    narrow(&mut query, kind, domain, filter, viewer, plan);
    let direction = if filter.ascending { "ASC" } else { "DESC" };
    query
        .push(format!(
            " ORDER BY {} {direction}, e.id {direction} LIMIT ",
            filter.order
        ))
        .push_bind(page.limit.cast_signed())
        .push(" OFFSET ")
        .push_bind(page.offset.cast_signed());
    Ok(query.build().fetch_all(connection).await?)
}

fn narrow(
    query: &mut Builder,
    kind: Kind,
    domain: EntityId,
    filter: &Filter,
    viewer: Option<Viewer>,
    plan: Plan,
) {
    // A column inside a function keeps the database from walking the domain in order where the few that a filter
    // finds are looked up by their ids.
    let few = filter.id.is_some() || filter.is_marked() || plan == Plan::Few;
    query
        .push(if few {
            "COALESCE(e.domain_id, e.domain_id) = "
        } else {
            "e.domain_id = "
        })
        .push_bind(blob(domain));
    if let Some(status) = filter.status {
        query
            .push(" AND e.status = ")
            .push_bind(rows::status_number(status));
    }
    if let Some(id) = filter.id {
        query.push(" AND e.id = ").push_bind(blob(id));
    }
    if let Some(name) = &filter.name {
        if plan == Plan::Few {
            // Looked for in the index of names; only what is found there is read.
            query
                .push(format!(
                    " AND e.id IN (SELECT n.id FROM {} n WHERE n.domain_id = ",
                    table(kind)
                ))
                .push_bind(blob(domain));
            contains(query, "n.name", name);
            query.push(")");
        } else {
            contains(query, "e.name", name);
        }
    }
    if let Some(tags) = &filter.tags {
        tagged(query, domain, kind.number(), tags);
    }
    metadata(query, domain, kind.number(), &filter.metadata);
    match filter.group {
        Some(Some(group)) => {
            query
                .push(" AND e.parent_group_id = ")
                .push_bind(blob(group));
        }
        Some(None) => {
            query.push(" AND e.parent_group_id IS NULL");
        }
        None => {}
    }
    if let Some((peer, right)) = filter.connected {
        let (mine, other) = if kind == Kind::Client {
            ("client_id", "channel_id")
        } else {
            ("channel_id", "client_id")
        };
        query
            .push(format!(
                " AND e.id IN (SELECT {mine} FROM connections WHERE {other} = "
            ))
            .push_bind(blob(peer))
            .push(" AND (rights & ")
            .push_bind(i64::from(right.bits()))
            .push(") = ")
            .push_bind(i64::from(right.bits()))
            .push(")");
    }
    if let Some(from) = filter.created_from {
        query.push(" AND e.created_at >= ").push_bind(from.micros());
    }
    if let Some(to) = filter.created_to {
        query.push(" AND e.created_at <= ").push_bind(to.micros());
    }
    if let Some(path) = &filter.below {
        query
            .push(" AND e.path > ")
            .push_bind(format!("{path}."))
            .push(" AND e.path < ")
            .push_bind(format!("{path}/"));
    }
    if let Some((from, to)) = filter.levels {
        // A path of n levels has 37 n - 1 characters.
        let length = |levels: usize| i64::try_from(37 * levels).unwrap_or(i64::MAX) - 1;
        query
            .push(" AND LENGTH(e.path) >= ")
            .push_bind(length(from))
            .push(" AND LENGTH(e.path) <= ")
            .push_bind(length(to));
    }
    if let Some(viewer) = viewer {
        visible(query, kind, domain, viewer, filter.access);
    }
    for (column, wanted) in [("id", &filter.role_id), ("name", &filter.role_name)] {
        if let (Some(wanted), Some(viewer)) = (wanted, viewer) {
            query
                .push(
                    " AND e.id IN (SELECT m.entity_id FROM role_members m \
                     JOIN roles r ON r.id = m.role_id WHERE m.user_id = ",
                )
                .push_bind(blob(viewer.user))
                .push(format!(" AND r.{column} = "))
                .push_bind(wanted)
                .push(")");
        }
    }
}

/// Only what the viewer holds every needed verb on, each from wherever it comes.
fn visible(
    query: &mut Builder,
    kind: Kind,
    domain: EntityId,
    viewer: Viewer,
    access: Option<Access>,
) {
    let counts = |from: Access| access.is_none_or(|wanted| wanted == from);
    for verb in [
        Verb::Read,
        Verb::Update,
        Verb::Delete,
        Verb::SetParent,
        Verb::SetChild,
        Verb::Connect,
        Verb::Publish,
        Verb::Subscribe,
        Verb::Membership,
        Verb::ManageRole,
        Verb::AddRoleUsers,
        Verb::RemoveRoleUsers,
        Verb::ViewRoleUsers,
    ] {
        if !viewer.needed.contains(verb) {
            continue;
        }
        if counts(Access::Domain) && viewer.everywhere.contains(verb) {
            continue;
        }
        let bit = Verbs::NONE.with(verb).mask();
        // Objects on which a role of the viewer has the verb in the slot.
        let holding = |query: &mut Builder, slot: Slot| {
            query
                .push(
                    "SELECT m.entity_id FROM role_members m JOIN roles r ON r.id = m.role_id \
                     WHERE m.user_id = ",
                )
                .push_bind(blob(viewer.user))
                .push(" AND m.domain_id = ")
                .push_bind(blob(domain))
                .push(" AND r.kind <> 0 AND (r.")
                .push(mask_column(slot))
                .push(" & ")
                .push_bind(bit)
                .push(") <> 0");
        };
        query.push(" AND (1 = 0");
        if counts(Access::Direct) {
            query.push(" OR e.id IN (");
            holding(query, Slot::Own);
            query.push(")");
        }
        let (children, below) = match kind {
            Kind::Client => (Some(Slot::Clients), Slot::BelowClients),
            Kind::Channel => (Some(Slot::Channels), Slot::BelowChannels),
            Kind::Group | Kind::Domain => (None, Slot::Groups),
        };
        if let Some(slot) = children.filter(|_| counts(Access::DirectGroup)) {
            query.push(" OR e.parent_group_id IN (");
            holding(query, slot);
            query.push(")");
        }
        if counts(Access::IndirectGroup) {
            let column = if children.is_some() {
                "e.parent_group_id"
            } else {
                "e.id"
            };
            query.push(format!(
                " OR {column} IN (SELECT low.id FROM object_groups high JOIN object_groups low \
                 ON low.path > high.path || '.' AND low.path < high.path || '/' WHERE high.id IN ("
            ));
            holding(query, below);
            query.push("))");
        }
        query.push(")");
    }
}

/// The column contains the text, in any letter case.
pub(super) fn contains(query: &mut Builder, column: &'static str, part: &str) {
    let mut pattern = String::with_capacity(part.len() + 2);
    pattern.push('%');
    for character in part.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.extend(character.to_lowercase());
    }
    pattern.push('%');
    query
        .push(format!(" AND LOWER({column}) LIKE "))
        .push_bind(pattern)
        .push(" ESCAPE '\\'");
}

pub(super) fn tagged(query: &mut Builder, domain: EntityId, kind: i64, tags: &Tags) {
    let mut among = |tags: &[String]| {
        query
            .push(" AND e.id IN (SELECT entity_id FROM entity_tags WHERE domain_id = ")
            .push_bind(blob(domain))
            .push(" AND kind = ")
            .push_bind(kind)
            .push(" AND tag IN (");
        query.push_list(tags);
        query.push("))");
    };
    match tags {
        Tags::Any(tags) => among(tags),
        Tags::All(tags) => {
            for tag in tags {
                among(std::slice::from_ref(tag));
            }
        }
    }
}

/// Each path of the metadata has the value; an array has at least the wanted items.
pub(super) fn metadata(
    query: &mut Builder,
    domain: EntityId,
    kind: i64,
    wanted: &[(String, Value)],
) {
    for (path, value) in wanted {
        let marks = match value {
            Value::Array(items) => items.iter().map(|item| mark_of_item(path, item)).collect(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => vec![mark(path, value)],
        };
        tagged(query, domain, kind + METADATA, &Tags::All(marks));
    }
}
