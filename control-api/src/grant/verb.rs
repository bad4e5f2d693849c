//! Verbs, kinds of objects, and the names under which people know their combinations.

use std::fmt;
use std::sync::LazyLock;

/// A kind of object that roles are made on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Domain,
    Group,
    Channel,
    Client,
}

impl Kind {
    pub(crate) const ALL: [Kind; 4] = [Kind::Domain, Kind::Group, Kind::Channel, Kind::Client];

    /// The singular, as in ids of roles and names of operations.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Kind::Domain => "domain",
            Kind::Group => "group",
            Kind::Channel => "channel",
            Kind::Client => "client",
        }
    }

    /// The plural, as in paths, pages and scopes.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Kind::Domain => "domains",
            Kind::Group => "groups",
            Kind::Channel => "channels",
            Kind::Client => "clients",
        }
    }

    /// As stored.
    pub(crate) const fn number(self) -> i64 {
        match self {
            Kind::Domain => 0,
            Kind::Group => 1,
            Kind::Channel => 2,
            Kind::Client => 3,
        }
    }

    pub(crate) fn from_number(number: i64) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.number() == number)
    }

    /// What may be done with an object of this kind, apart from making it.
    const fn verbs(self) -> &'static [Verb] {
        match self {
            Kind::Domain => &[
                Verb::Read,
                Verb::Update,
                Verb::Enable,
                Verb::Disable,
                Verb::Delete,
                Verb::ManageRole,
                Verb::AddRoleUsers,
                Verb::RemoveRoleUsers,
                Verb::ViewRoleUsers,
            ],
            Kind::Group => &[
                Verb::Read,
                Verb::Update,
                Verb::Delete,
                Verb::Membership,
                Verb::SetChild,
                Verb::SetParent,
                Verb::ManageRole,
                Verb::AddRoleUsers,
                Verb::RemoveRoleUsers,
                Verb::ViewRoleUsers,
            ],
            Kind::Channel => &[
                Verb::Read,
                Verb::Update,
                Verb::Delete,
                Verb::SetParent,
                Verb::Connect,
                Verb::Publish,
                Verb::Subscribe,
                Verb::ManageRole,
                Verb::AddRoleUsers,
                Verb::RemoveRoleUsers,
                Verb::ViewRoleUsers,
            ],
            Kind::Client => &[
                Verb::Read,
                Verb::Update,
                Verb::Delete,
                Verb::SetParent,
                Verb::Connect,
                Verb::ManageRole,
                Verb::AddRoleUsers,
                Verb::RemoveRoleUsers,
                Verb::ViewRoleUsers,
            ],
        }
    }

    /// Everything that may be done with an object of this kind, apart from making it.
    pub(crate) fn all_verbs(self) -> Verbs {
        self.verbs()
            .iter()
            .fold(Verbs::NONE, |set, verb| set.with(*verb))
    }
}

/// What somebody wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verb {
    Read,
    Update,
    Delete,
    Enable,
    Disable,
    Create,
    SetParent,
    SetChild,
    Connect,
    Publish,
    Subscribe,
    Membership,
    ManageRole,
    AddRoleUsers,
    RemoveRoleUsers,
    ViewRoleUsers,
}

impl Verb {
    pub(crate) const ALL: [Verb; 16] = [
        Verb::Read,
        Verb::Update,
        Verb::Delete,
        Verb::Enable,
        Verb::Disable,
        Verb::Create,
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
    ];

    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Its name on an object of this kind.
    pub(crate) const fn word(self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Verb::Read, _) => "read",
            (Verb::Update, _) => "update",
            (Verb::Delete, _) => "delete",
            (Verb::Enable, _) => "enable",
            (Verb::Disable, _) => "disable",
            (Verb::Create, _) => "create",
            (Verb::SetParent, Kind::Channel | Kind::Client) => "set_parent_group",
            (Verb::SetParent, Kind::Group | Kind::Domain) => "set_parent",
            (Verb::SetChild, _) => "set_child",
            (Verb::Connect, Kind::Client) => "connect_to_channel",
            (Verb::Connect, Kind::Channel | Kind::Group | Kind::Domain) => "connect_to_client",
            (Verb::Publish, _) => "publish",
            (Verb::Subscribe, _) => "subscribe",
            (Verb::Membership, _) => "membership",
            (Verb::ManageRole, _) => "manage_role",
            (Verb::AddRoleUsers, _) => "add_role_users",
            (Verb::RemoveRoleUsers, _) => "remove_role_users",
            (Verb::ViewRoleUsers, _) => "view_role_users",
        }
    }
}

/// A set of verbs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Verbs(u32);

impl Verbs {
    pub(crate) const NONE: Verbs = Verbs(0);

    pub(crate) const fn with(self, verb: Verb) -> Verbs {
        Verbs(self.0 | verb.bit())
    }

    pub(crate) const fn contains(self, verb: Verb) -> bool {
        self.0 & verb.bit() != 0
    }

    pub(crate) const fn includes(self, others: Verbs) -> bool {
        self.0 & others.0 == others.0
    }

    pub(crate) const fn union(self, others: Verbs) -> Verbs {
        Verbs(self.0 | others.0)
    }

    pub(crate) const fn without(self, others: Verbs) -> Verbs {
        Verbs(self.0 & !others.0)
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// As stored.
    pub(crate) const fn mask(self) -> i64 {
        self.0 as i64
    }

    /// The names of what is in the set, on an object of this kind.
    pub(crate) fn words(self, kind: Kind) -> Vec<&'static str> {
        let verbs = kind.verbs().iter().filter(|verb| self.contains(**verb));
        verbs.map(|verb| verb.word(kind)).collect()
    }
}

/// Which objects an action of a role is about, seen from the role's own object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Slot {
    /// The object itself.
    Own,
    /// Of a domain: all its clients. Of a group: the clients that are its direct members.
    Clients,
    /// Of a domain: all its channels. Of a group: the channels that are its direct members.
    Channels,
    /// Of a domain: all its groups. Of a group: the groups below it.
    Groups,
    /// Clients of the groups below it.
    BelowClients,
    /// Channels of the groups below it.
    BelowChannels,
}

impl Slot {
    pub(crate) const ALL: [Slot; 6] = [
        Slot::Own,
        Slot::Clients,
        Slot::Channels,
        Slot::Groups,
        Slot::BelowClients,
        Slot::BelowChannels,
    ];

    /// What kind of object it is about, and how its actions begin; none if roles of the kind
    /// have nothing of the sort.
    const fn on(self, kind: Kind) -> Option<(Kind, &'static str)> {
        match (kind, self) {
            (_, Slot::Own) => Some((kind, "")),
            (Kind::Domain | Kind::Group, Slot::Clients) => Some((Kind::Client, "client_")),
            (Kind::Domain | Kind::Group, Slot::Channels) => Some((Kind::Channel, "channel_")),
            (Kind::Domain, Slot::Groups) => Some((Kind::Group, "group_")),
            (Kind::Group, Slot::Groups) => Some((Kind::Group, "subgroup_")),
            (Kind::Group, Slot::BelowClients) => Some((Kind::Client, "subgroup_client_")),
            (Kind::Group, Slot::BelowChannels) => Some((Kind::Channel, "subgroup_channel_")),
            (Kind::Domain | Kind::Channel | Kind::Client, _) => None,
        }
    }
}

/// The actions of a role: a set of verbs for each [`Slot`].
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Actions([Verbs; 6]);

impl Actions {
    /// All that a role on this kind of object can hold.
    pub(crate) fn all(kind: Kind) -> Actions {
        let mut all = Actions::default();
        for action in names(kind) {
            all.add(action.slot, action.verb);
        }
        all
    }

    /// From what is stored; bits that mean nothing on this kind are dropped.
    pub(crate) fn from_masks(kind: Kind, masks: [i64; 6]) -> Actions {
        let stored = Actions(masks.map(|mask| Verbs(mask as u32)));
        stored.intersection(Actions::all(kind))
    }

    pub(crate) fn masks(&self) -> [i64; 6] {
        self.0.map(Verbs::mask)
    }

    pub(crate) fn in_slot(&self, slot: Slot) -> Verbs {
        self.0[slot as usize]
    }

    pub(crate) fn add(&mut self, slot: Slot, verb: Verb) {
        let set = &mut self.0[slot as usize];
        *set = set.with(verb);
    }

    pub(crate) fn add_all(&mut self, slot: Slot, verbs: Verbs) {
        let set = &mut self.0[slot as usize];
        *set = set.union(verbs);
    }

    pub(crate) fn union(self, others: Actions) -> Actions {
        self.zip(others, Verbs::union)
    }

    pub(crate) fn without(self, others: Actions) -> Actions {
        self.zip(others, Verbs::without)
    }

    fn intersection(self, others: Actions) -> Actions {
        self.zip(others, |a, b| Verbs(a.0 & b.0))
    }

    pub(crate) fn includes(&self, others: &Actions) -> bool {
        let pairs = self.0.iter().zip(&others.0);
        pairs.into_iter().all(|(a, b)| a.includes(*b))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.iter().all(|verbs| verbs.is_empty())
    }

    /// Reads names of actions of a role on this kind of object.
    ///
    /// # Errors
    /// The first name that is none.
    pub(crate) fn parse<'a>(
        kind: Kind,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Actions, &'a str> {
        let mut actions = Actions::default();
        for name in names {
            let action = action(kind, name).ok_or(name)?;
            actions.add(action.slot, action.verb);
        }
        Ok(actions)
    }

    /// The names of the actions.
    pub(crate) fn names(&self, kind: Kind) -> Vec<&'static str> {
        let held = names(kind)
            .iter()
            .filter(|action| self.in_slot(action.slot).contains(action.verb));
        held.map(|action| action.name.as_str()).collect()
    }

    fn zip(self, others: Actions, combine: impl Fn(Verbs, Verbs) -> Verbs) -> Actions {
        Actions(std::array::from_fn(|at| combine(self.0[at], others.0[at])))
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0).finish()
    }
}

/// One action that roles of a kind can hold.
pub(crate) struct Action {
    pub(crate) name: String,
    pub(crate) slot: Slot,
    pub(crate) verb: Verb,
}

static NAMES: LazyLock<[Vec<Action>; 4]> = LazyLock::new(|| Kind::ALL.map(make_names));

/// All actions that a role on this kind of object can hold.
pub(crate) fn names(kind: Kind) -> &'static [Action] {
    &NAMES[kind as usize]
}

fn make_names(kind: Kind) -> Vec<Action> {
    let mut names = Vec::new();
    for slot in Slot::ALL {
        let Some((about, prefix)) = slot.on(kind) else {
            continue;
        };
        let create = (slot != Slot::Own).then_some(&Verb::Create);
        for verb in create.into_iter().chain(about.verbs()) {
            names.push(Action {
                name: format!("{prefix}{}", verb.word(about)),
                slot,
                verb: *verb,
            });
        }
    }
    names
}

/// The action of this name, or of a spelling that older texts have for it.
pub(crate) fn action(kind: Kind, name: &str) -> Option<&'static Action> {
    let name = name.strip_suffix("_permission").unwrap_or(name);
    let name = name.replace("sub_group_", "subgroup_");
    let name = name.replace("channel_connect_to_channel", "channel_connect_to_client");
    let find = |name: &str| names(kind).iter().find(|action| action.name == name);
    find(&name).or_else(|| {
        let rest = name
            .strip_prefix("group_")
            .filter(|_| kind == Kind::Group)?;
        find(&format!("subgroup_{rest}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_as_many_actions_as_the_matrix_counts() {
        let counts = Kind::ALL.map(|kind| names(kind).len());
        assert_eq!(counts, [42, 65, 11, 9]);
    }

    #[test]
    fn names_are_unique_and_lead_back_to_their_action() {
        for kind in Kind::ALL {
            for wanted in names(kind) {
                let found = action(kind, &wanted.name).unwrap();
                assert_eq!((found.slot, found.verb), (wanted.slot, wanted.verb));
                let actions = Actions::parse(kind, [wanted.name.as_str()]).unwrap();
                assert_eq!(actions.names(kind), [wanted.name.as_str()]);
                assert_eq!(Actions::from_masks(kind, actions.masks()), actions);
            }
        }
    }

    #[test]
    fn spellings_of_older_texts_are_understood() {
        for (kind, old, new) in [
            (Kind::Group, "sub_group_read", "subgroup_read"),
            (Kind::Group, "group_delete", "subgroup_delete"),
            (
                Kind::Domain,
                "channel_connect_to_channel",
                "channel_connect_to_client",
            ),
            (Kind::Client, "manage_role_permission", "manage_role"),
        ] {
            assert_eq!(action(kind, old).unwrap().name, new);
        }
        assert!(
            action(Kind::Client, "publish").is_none(),
            "belongs to channels"
        );
        assert!(action(Kind::Domain, "subgroup_read").is_none());
        assert!(action(Kind::Channel, "").is_none());
    }
}
