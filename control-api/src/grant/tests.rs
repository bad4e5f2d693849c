//! The evaluator against the permission matrix, read literally, and the matrix's own examples.

use proptest::prelude::*;

use super::*;

/// A role as a person would write it down.
#[derive(Clone, Debug)]
struct Role {
    kind: Kind,
    object: EntityId,
    actions: Vec<String>,
}

fn id(number: u128) -> EntityId {
    EntityId::from_u128(number)
}

fn role(kind: Kind, object: u128, actions: &[&str]) -> Role {
    Role {
        kind,
        object: id(object),
        actions: actions.iter().map(|name| (*name).to_owned()).collect(),
    }
}

fn evaluate(roles: &[Role], place: &Place<'_>, verb: Verb) -> bool {
    let grants: Vec<Grant> = roles
        .iter()
        .flat_map(|role| {
            let names = role.actions.iter().map(String::as_str);
            let actions = Actions::parse(role.kind, names).unwrap();
            compile(role.kind, role.object, &actions)
        })
        .collect();
    permitted(&grants, place).contains(verb)
}

/// The matrix, row by row: own role, direct parent, further groups, domain.
fn literal(roles: &[Role], place: &Place<'_>, verb: Verb) -> bool {
    let action = verb.word(place.kind);
    let has = |object: EntityId, name: String| {
        roles
            .iter()
            .any(|role| role.object == object && role.actions.contains(&name))
    };
    let (first, rest) = match place.groups {
        [] => (None, &[][..]),
        [first, rest @ ..] => (Some(*first), rest),
    };
    let own = verb != Verb::Create && has(place.id, action.to_owned());
    let word = place.kind.word();
    match place.kind {
        Kind::Domain => own,
        Kind::Client | Kind::Channel => {
            own || first.is_some_and(|group| has(group, format!("{word}_{action}")))
                || rest
                    .iter()
                    .any(|group| has(*group, format!("subgroup_{word}_{action}")))
                || has(place.domain, format!("{word}_{action}"))
        }
        Kind::Group => {
            own || place
                .groups
                .iter()
                .any(|group| has(*group, format!("subgroup_{action}")))
                || has(place.domain, format!("group_{action}"))
        }
    }
}

const DOMAIN: u128 = 1;

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

/// Roles on a domain (1), eight groups (10 to 17) and some objects (20 to 25).
fn roles() -> impl Strategy<Value = Vec<Role>> {
    let one = (
        kinds(),
        0..8_u128,
        prop::collection::vec(any::<prop::sample::Index>(), 1..12),
    );
    let one = one.prop_map(|(kind, number, picks)| {
        let object = match kind {
            Kind::Domain => DOMAIN,
            Kind::Group => 10 + number,
            Kind::Channel => 20 + number % 3,
            Kind::Client => 23 + number % 3,
        };
        let all = verb::names(kind);
        let picked = picks.iter().map(|pick| pick.get(all).name.clone());
        Role {
            kind,
            object: id(object),
            actions: picked.collect(),
        }
    });
    prop::collection::vec(one, 0..10)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_evaluator_agrees_with_the_matrix(
        roles in roles(),
        kind in kinds(),
        number in 0..8_u128,
        // A parent for each group, among those of a lower number; the last is the object's.
        parents in prop::collection::vec(prop::option::of(any::<prop::sample::Index>()), 9),
    ) {
        let parent = |at: usize| -> Option<usize> {
            parents[at].as_ref().filter(|_| at > 0).map(|pick| pick.index(at))
        };
        let (object, start) = match kind {
            Kind::Domain => (DOMAIN, None),
            Kind::Group => (10 + number, parent(usize::try_from(number).unwrap())),
            Kind::Channel => (20 + number % 3, parent(8)),
            Kind::Client => (23 + number % 3, parent(8)),
        };
        let mut groups = Vec::new();
        let mut next = start;
        while let Some(at) = next {
            groups.push(id(10 + at as u128));
            next = parent(at);
        }
        let place = Place { kind, id: id(object), domain: id(DOMAIN), groups: &groups };
        for verb in Verb::ALL {
            prop_assert_eq!(
                evaluate(&roles, &place, verb),
                literal(&roles, &place, verb),
                "{:?} on {:?}", verb, place
            );
        }
    }
}

#[test]
fn rights_over_channels_reach_direct_members_or_those_further_down() {
    // g3 contains g2, g2 contains g1, g1 contains the channel.
    let (g1, g2, g3) = (10, 11, 12);
    let groups = [id(g1), id(g2), id(g3)];
    let inside = Place {
        kind: Kind::Channel,
        id: id(20),
        domain: id(DOMAIN),
        groups: &groups,
    };
    let outside = Place {
        groups: &[],
        ..inside
    };
    for (role, allowed) in [
        (role(Kind::Group, g1, &["channel_publish"]), true),
        (role(Kind::Group, g2, &["channel_publish"]), false),
        (role(Kind::Group, g2, &["subgroup_channel_publish"]), true),
        (role(Kind::Group, g3, &["subgroup_channel_publish"]), true),
        (role(Kind::Group, g1, &["subgroup_channel_publish"]), false),
    ] {
        let roles = [role];
        assert_eq!(
            evaluate(&roles, &inside, Verb::Publish),
            allowed,
            "{roles:?}"
        );
        assert!(!evaluate(&roles, &outside, Verb::Publish), "moved out");
    }
    let of_domain = [role(Kind::Domain, DOMAIN, &["channel_publish"])];
    assert!(evaluate(&of_domain, &outside, Verb::Publish));
}

#[test]
fn creating_below_a_group_does_not_let_update() {
    let place = Place {
        kind: Kind::Group,
        id: id(10),
        domain: id(DOMAIN),
        groups: &[id(11)],
    };
    let create = [role(Kind::Group, 11, &["subgroup_create"])];
    assert!(!evaluate(&create, &place, Verb::Update));
    let update = [role(Kind::Group, 11, &["subgroup_update"])];
    assert!(evaluate(&update, &place, Verb::Update));
}

#[test]
fn role_rights_over_channels_further_down_are_their_own() {
    let place = Place {
        kind: Kind::Channel,
        id: id(20),
        domain: id(DOMAIN),
        groups: &[id(10), id(11)],
    };
    let direct = [role(Kind::Group, 11, &["channel_manage_role"])];
    assert!(!evaluate(&direct, &place, Verb::ManageRole));
    let below = [role(Kind::Group, 11, &["subgroup_channel_manage_role"])];
    assert!(evaluate(&below, &place, Verb::ManageRole));
}
