//! Lists of groups, channels and clients: filters, and who may see what.

mod spans;

use std::collections::HashMap;

use super::marks::{METADATA, mark, mark_of_item};
use super::sql::{Builder, Connection};
use authcache::{EntityId, Right, Status};
use serde_json::Value;

use super::StoreError;
use super::entities::{Entity, columns, read, table};
use super::paging::push_page;
use super::rows::{self, blob};
use super::seen::Seen;
use crate::grant::{Kind, Verb, Verbs};
use crate::model::{Page, Time};
use spans::{Span, Stretch, spans};

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

/// The order by when an object was made, or changed last.
pub(crate) const MOVED: &str = "COALESCE(e.updated_at, e.created_at)";
/// The order by name.
pub(crate) const NAME: &str = "e.name";

impl Filter {
    /// Whether nothing but a status and marks narrow it.
    fn is_by_marks(&self) -> bool {
        let Filter {
            id,
            name,
            tags: _,
            metadata: _,
            status: _,
            group,
            connected,
            created_from,
            created_to,
            below,
            levels,
            role_id,
            role_name,
            access: _,
            order: _,
            ascending: _,
        } = self;
        id.is_none()
            && (name.is_none() && group.is_none() && connected.is_none())
            && (created_from.is_none() && created_to.is_none())
            && (below.is_none() && levels.is_none())
            && (role_id.is_none() && role_name.is_none())
    }

    fn marks(&self, kind: Kind) -> Vec<(i64, Vec<String>)> {
        marks(kind.number(), self.tags.as_ref(), &self.metadata)
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
    /// Few have the name, the tag or the metadata: found first, then looked up and sorted.
    Few,
    /// Many pass, or it is not known: walked in order, or counted in an index.
    Many,
}

/// Rows that are sorted faster than as many others are walked past.
const FEW: u64 = 5_000;
/// Members of groups that are sorted faster than others are walked past.
const MEMBERS: u64 = 200_000;

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
    let sees_all = viewer.is_none_or(|viewer| viewer.verbs(filter.access).next().is_none());
    let marks = Some(filter.marks(kind)).filter(|_| sees_all && filter.is_by_marks());
    let mark = marks.as_deref().and_then(only_mark);
    let (plan, rare) = if mark.is_some() {
        (Plan::Many, None)
    } else {
        plan(connection, kind, domain, filter).await?
    };
    let spans = if plan == Plan::Many && mark.is_none() {
        spans(connection, domain, kind).await?
    } else {
        Vec::new()
    };
    let list = List {
        kind,
        domain,
        filter,
        viewer,
        sees_all,
        is_all: marks.is_some_and(|marks| marks.is_empty()),
        mark,
        plan,
        rare,
        spans,
        in_words: filter.name.is_some() && !connection.is_postgres(),
    };
    let (total, branches) = list.count(connection).await?;
    if only_total || page.offset >= total {
        return Ok((total, Vec::new()));
    }
    // From the nearer end: what is skipped is walked past.
    let limit = page.limit.min(total - page.offset);
    let behind = total - page.offset - limit;
    let is_backwards = behind < page.offset;
    let (ascending, offset) = if is_backwards {
        (!filter.ascending, behind)
    } else {
        (filter.ascending, page.offset)
    };
    let branches = match branches[..] {
        [Branch::Whole(_), ..] => branches,
        // The marks are in this order alone.
        [Branch::Marked(_), ..] if filter.order == MOVED => branches,
        [Branch::Marked(_), ..] => list.whole(),
        _ if total > MEMBERS => list.whole(),
        _ => branches,
    };
    let direction = if ascending { "ASC" } else { "DESC" };
    let mut page = Page { limit, offset };
    let stretch = list
        .stretch(connection, &branches, ascending, &mut page, total)
        .await?;
    let mut query = Builder::new("SELECT ");
    query.push(columns(kind)).push(" FROM (");
    list.push_rows(&mut query, &branches, true, stretch);
    query.push(format!(
        " ORDER BY found_order {direction}, found_id {direction}"
    ));
    push_page(&mut query, page);
    query.push(format!(
        ") found JOIN {} e ON e.id = found_id ORDER BY found_order {direction}, found_id {direction}",
        table(kind)
    ));
    let mut rows = query.build().fetch_all(connection).await?;
    if is_backwards {
        rows.reverse();
    }
    let found = rows
        .iter()
        .map(|row| read(kind, row))
        .collect::<Result<_, _>>()?;
    Ok((total, found))
}

/// The one mark that is wanted.
fn only_mark(marks: &[(i64, Vec<String>)]) -> Option<(i64, String)> {
    let [(kind, marks)] = marks else {
        return None;
    };
    let [mark] = &marks[..] else {
        return None;
    };
    Some((*kind, mark.clone()))
}

/// Finds out whether a name, a tag or metadata leaves few, and if it is a mark, which one.
async fn plan(
    connection: &mut Connection,
    kind: Kind,
    domain: EntityId,
    filter: &Filter,
) -> Result<(Plan, Option<usize>), StoreError> {
    if filter.id.is_some() {
        return Ok((Plan::Few, None));
    }
    for (at, (kind, marks)) in filter.marks(kind).into_iter().enumerate() {
        let marked = |query: &mut Builder| push_marked(query, domain, kind, &marks);
        if are_few(connection, marked).await? {
            return Ok((Plan::Few, Some(at)));
        }
    }
    if let Some(part) = &filter.name
        && !connection.is_postgres()
        && has_words(part)
        && are_few(connection, |query| push_named(query, part)).await?
    {
        return Ok((Plan::Few, None));
    }
    Ok((Plan::Many, None))
}

async fn are_few(
    connection: &mut Connection,
    select: impl Fn(&mut Builder),
) -> Result<bool, StoreError> {
    let mut probe = Builder::new("SELECT COUNT(*) FROM (");
    select(&mut probe);
    probe
        .push(" LIMIT ")
        .push_bind(FEW.cast_signed())
        .push(") found");
    let (found,): (i64,) = probe.build_as().fetch_one(connection).await?;
    Ok(found.cast_unsigned() < FEW)
}

/// A part of a list's rows; no row is in two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Branch {
    /// Whatever is seen of one status, or of all, each row looked at.
    Whole(Option<Status>),
    /// What has the one mark that is wanted and this status; the rows are the marks.
    Marked(Status),
    /// What is in a group where a role gives this verb.
    InGroups(Verb),
    /// What a role on the object itself gives this verb on, and is not in such a group.
    Apart(Verb),
}

/// A list that is asked for.
struct List<'a> {
    kind: Kind,
    domain: EntityId,
    filter: &'a Filter,
    viewer: Option<Viewer>,
    /// Whether the viewer sees all that passes.
    sees_all: bool,
    /// Whether all are seen and pass whose status is wanted.
    is_all: bool,
    /// The one mark that is wanted, if nothing else but a status is.
    mark: Option<(i64, String)>,
    plan: Plan,
    /// Of the marks that are wanted, one that few have.
    rare: Option<usize>,
    /// Spans of time in which all of the kind are, where many may pass.
    spans: Vec<Span>,
    /// Whether there is an index of parts of names beside the table.
    in_words: bool,
}

impl List<'_> {
    /// How many pass, and the branches in which there are some.
    async fn count(&self, connection: &mut Connection) -> Result<(u64, Vec<Branch>), StoreError> {
        let tagged = match &self.mark {
            Some((kind, tag)) if *kind < METADATA => Some(self.tagged(connection, tag).await?),
            Some(_) | None => None,
        };
        let mut total = 0;
        let mut branches = Vec::new();
        for branch in self.branches() {
            let found = match (branch, &tagged) {
                (Branch::Marked(status), Some(tagged)) => tagged.get(&status).copied().unwrap_or(0),
                _ => self.count_of(connection, branch).await?,
            };
            total += found;
            // One that has nothing would only keep the other from being sorted as far as needed.
            if found > 0 {
                branches.push(branch);
            }
        }
        Ok((total, branches))
    }

    /// How many of each status have a tag, which the database keeps.
    async fn tagged(
        &self,
        connection: &mut Connection,
        tag: &str,
    ) -> Result<HashMap<Status, u64>, StoreError> {
        let mut query = Builder::new("SELECT status, count FROM entity_counts WHERE domain_id = ");
        query.push_bind(blob(self.domain));
        query.push(" AND kind = ").push_bind(self.kind.number());
        query.push(" AND tag = ").push_bind(tag);
        let kept: Vec<(i64, i64)> = query.build_as().fetch_all(connection).await?;
        let counted = |(status, count): (i64, i64)| {
            Ok((rows::status(status)?, u64::try_from(count).unwrap_or(0)))
        };
        kept.into_iter().map(counted).collect()
    }

    /// Clients and channels that somebody sees by one verb are found by their groups.
    fn branches(&self) -> Vec<Branch> {
        if self.mark.is_some() {
            return self.statuses().map(Branch::Marked).collect();
        }
        let verbs: Vec<Verb> = match self.viewer {
            Some(viewer) => viewer.verbs(self.filter.access).collect(),
            None => Vec::new(),
        };
        match (self.kind, &verbs[..], self.plan) {
            (Kind::Client | Kind::Channel, [verb], Plan::Many) => {
                vec![Branch::InGroups(*verb), Branch::Apart(*verb)]
            }
            _ => self.whole(),
        }
    }

    /// Each row is looked at; those of each status apart where each is in order by itself.
    fn whole(&self) -> Vec<Branch> {
        let in_order = matches!(self.filter.order, MOVED | NAME);
        if in_order && self.plan == Plan::Many {
            self.statuses().map(Some).map(Branch::Whole).collect()
        } else {
            vec![Branch::Whole(self.filter.status)]
        }
    }

    /// The status that is wanted, or all.
    fn statuses(&self) -> impl Iterator<Item = Status> {
        let wanted = self.filter.status;
        let all = [Status::Enabled, Status::Disabled, Status::Frozen].into_iter();
        all.filter(move |status| wanted.is_none_or(|wanted| wanted == *status))
    }

    fn push_rows(
        &self,
        query: &mut Builder,
        branches: &[Branch],
        in_order: bool,
        stretch: Stretch,
    ) {
        for (at, branch) in branches.iter().enumerate() {
            let (table, id, order, moved) = match branch {
                Branch::Marked(_) => ("entity_tags", "e.entity_id", "e.moved_at", "e.moved_at"),
                Branch::Whole(_) | Branch::InGroups(_) | Branch::Apart(_) => {
                    (table(self.kind), "e.id", self.filter.order, MOVED)
                }
            };
            query.push(if at == 0 {
                "SELECT "
            } else {
                " UNION ALL SELECT "
            });
            query.push(id).push(" AS found_id");
            if in_order {
                query.push(format!(", {order} AS found_order"));
            }
            query.push(format!(" FROM {table} e WHERE "));
            match (branch, &self.mark) {
                (Branch::Marked(status), Some((kind, mark))) => {
                    query.push("e.domain_id = ").push_bind(blob(self.domain));
                    query.push(" AND e.kind = ").push_bind(*kind);
                    query.push(" AND e.tag = ").push_bind(mark);
                    let status = rows::status_number(*status);
                    query.push(" AND e.status = ").push_bind(status);
                }
                _ => self.narrow(query, *branch),
            }
            for (sign, time) in [(">=", stretch.from), ("<=", stretch.to)] {
                if let Some(time) = time {
                    query.push(format!(" AND {moved} {sign} ")).push_bind(time);
                }
            }
        }
    }

    fn narrow(&self, query: &mut Builder, branch: Branch) {
        let List {
            kind,
            domain,
            filter,
            viewer,
            ..
        } = *self;
        match (branch, self.plan) {
            // Groups where a role reaches are of the domain, and so is what is in them: the index
            // of members answers alone.
            (Branch::InGroups(_), _) => query.push("1 = 1"),
            (Branch::Whole(_) | Branch::Marked(_), Plan::Many) => {
                query.push("e.domain_id = ").push_bind(blob(domain))
            }
            // A column inside a function keeps the database from walking the domain in order where
            // the few that a filter finds are looked up by their ids.
            (Branch::Whole(_) | Branch::Marked(_), Plan::Few) | (Branch::Apart(_), _) => query
                .push("COALESCE(e.domain_id, e.domain_id) = ")
                .push_bind(blob(domain)),
        };
        let status = match branch {
            Branch::Whole(status) => status,
            Branch::Marked(status) => Some(status),
            Branch::InGroups(_) | Branch::Apart(_) => filter.status,
        };
        if let Some(status) = status {
            query
                .push(" AND e.status = ")
                .push_bind(rows::status_number(status));
        }
        if let Some(id) = filter.id {
            query.push(" AND e.id = ").push_bind(blob(id));
        }
        if let Some(name) = &filter.name {
            if self.in_words && self.plan == Plan::Few && self.rare.is_none() && has_words(name) {
                query.push(" AND e.id IN (SELECT n.entity_id FROM names n WHERE n.number IN (");
                push_named(query, name);
                query.push("))");
            }
            if self.in_words {
                push_like(query, "e.name", name);
            } else {
                contains(query, "e.name", name);
            }
        }
        for (at, (kind, marks)) in filter.marks(kind).into_iter().enumerate() {
            if self.plan == Plan::Few && self.rare == Some(at) {
                query.push(" AND e.id IN (");
                push_marked(query, domain, kind, &marks);
                query.push(")");
            } else {
                query.push(" AND EXISTS (");
                push_marked(query, domain, kind, &marks);
                query.push(" AND entity_id = e.id)");
            }
        }
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
            let length =
                |levels: usize| i64::try_from(levels.saturating_mul(37)).unwrap_or(i64::MAX) - 1;
            query
                .push(" AND LENGTH(e.path) >= ")
                .push_bind(length(from))
                .push(" AND LENGTH(e.path) <= ")
                .push_bind(length(to));
        }
        if let Some(viewer) = viewer {
            let access = filter.access;
            let seen = Seen {
                kind,
                domain,
                viewer,
                access,
            };
            match branch {
                Branch::Whole(_) | Branch::Marked(_) => {
                    for verb in viewer.verbs(access) {
                        query.push(" AND (");
                        seen.push_itself(query, verb);
                        query.push(" OR ");
                        seen.push_in_groups(query, verb);
                        query.push(")");
                    }
                }
                Branch::InGroups(verb) => {
                    query.push(" AND ");
                    seen.push_in_groups(query, verb);
                }
                Branch::Apart(verb) => {
                    query.push(" AND ");
                    seen.push_itself(query, verb);
                    query.push(" AND (e.parent_group_id IS NULL OR NOT ");
                    seen.push_in_groups(query, verb);
                    query.push(")");
                }
            }
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
}

/// The column contains the text, in any letter case.
pub(super) fn contains(query: &mut Builder, column: &'static str, part: &str) {
    push_like(query, &format!("LOWER({column})"), part);
}

/// The text, which the database compares in any letter case or has in small letters, contains this
/// one. SQLite compares so by itself, in half the time that it takes with a copy of each name.
fn push_like(query: &mut Builder, text: &str, part: &str) {
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
        .push(format!(" AND {text} LIKE "))
        .push_bind(pattern)
        .push(" ESCAPE '\\'");
}

/// Whether a text is long enough for the index of parts of names.
fn has_words(part: &str) -> bool {
    part.chars().count() >= 3
}

/// Selects the numbers of names that may contain the text.
fn push_named(query: &mut Builder, part: &str) {
    query
        .push("SELECT rowid FROM name_parts WHERE name_parts MATCH ")
        .push_bind(format!("\"{}\"", part.replace('"', "\"\"")));
}

/// Selects the objects that have any of these marks.
fn push_marked(query: &mut Builder, domain: EntityId, kind: i64, marks: &[String]) {
    query
        .push("SELECT entity_id FROM entity_tags WHERE domain_id = ")
        .push_bind(blob(domain))
        .push(" AND kind = ")
        .push_bind(kind)
        .push(" AND tag IN (")
        .push_list(marks)
        .push(")");
}

/// Marks that are wanted: of each list one.
pub(super) fn marks(
    kind: i64,
    tags: Option<&Tags>,
    metadata: &[(String, Value)],
) -> Vec<(i64, Vec<String>)> {
    let mut wanted: Vec<(i64, Vec<String>)> = match tags {
        None => Vec::new(),
        Some(Tags::Any(tags)) => vec![(kind, tags.clone())],
        Some(Tags::All(tags)) => tags.iter().map(|tag| (kind, vec![tag.clone()])).collect(),
    };
    for (path, value) in metadata {
        let digests = match value {
            Value::Array(items) => items.iter().map(|item| mark_of_item(path, item)).collect(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Object(_) => vec![mark(path, value)],
        };
        wanted.extend(
            digests
                .into_iter()
                .map(|digest| (kind + METADATA, vec![digest])),
        );
    }
    wanted
}

/// Only what has the wanted tags and metadata; an array has at least the wanted items.
pub(super) fn marked(
    query: &mut Builder,
    domain: EntityId,
    kind: i64,
    tags: Option<&Tags>,
    metadata: &[(String, Value)],
) {
    for (kind, marks) in marks(kind, tags, metadata) {
        query.push(" AND e.id IN (");
        push_marked(query, domain, kind, &marks);
        query.push(")");
    }
}
