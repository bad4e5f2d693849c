//! The gate against a naive evaluator, and what changes and notices do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::change::{Cause, Change, Identity, Notice, PrincipalRecord, Status};
use crate::index::EntityId;
use crate::{Capacity, Writer};

#[derive(Debug)]
struct Message(ChannelIndex);

impl OnChannel for Message {
    fn channel(&self) -> ChannelIndex {
        self.0
    }
}

fn domain(number: u128) -> EntityId {
    EntityId::from_u128(0x100 + number)
}

fn channel(number: u128) -> EntityId {
    EntityId::from_u128(0x200 + number)
}

fn client(number: u128) -> EntityId {
    EntityId::from_u128(0x300 + number)
}

fn new() -> (Arc<AuthCache>, Writer) {
    let small = Capacity {
        domains: 1,
        channels: 1,
        principals: 1,
        rights: 1,
        credentials: 10,
    };
    let (cache, writer) = AuthCache::new(small);
    cache.lease().unlimited();
    (cache, writer)
}

fn set_domain(number: u128, status: Status) -> Change {
    Change::DomainSet {
        id: domain(number),
        route: format!("d{number}"),
        status,
    }
}

fn set_channel(number: u128, of: u128, status: Status) -> Change {
    let route = Some(format!("c{number}"));
    Change::ChannelSet {
        id: channel(number),
        domain: domain(of),
        route,
        status,
        open: false,
    }
}

fn identity(number: u128, of: u128, rights: &[(u128, Right)]) -> Identity {
    Identity {
        id: client(number),
        kind: PrincipalRecord::Client { domain: domain(of) },
        status: Status::Enabled,
        credential: 1,
        rights: rights
            .iter()
            .map(|&(number, right)| (channel(number), right))
            .collect(),
    }
}

fn set_right(who: u128, on: u128, right: Right) -> Change {
    Change::RightSet {
        principal: client(who),
        channel: channel(on),
        right,
    }
}

fn permits(
    gate: &Gate,
    who: PrincipalIndex,
    action: Action,
    cache: &mut RightCache,
    channel: ChannelIndex,
) -> Result<(), Denied> {
    gate.permit(who, action, cache, Message(channel))
        .map(drop)
        .map_err(|(denied, _)| denied)
}

/// A domain, a channel, a client that may publish, and a warm cache.
struct Scene {
    cache: Arc<AuthCache>,
    writer: Writer,
    gate: Gate,
    who: PrincipalIndex,
    line: ChannelIndex,
    rights: RightCache,
}

impl Scene {
    fn new() -> Self {
        let (cache, mut writer) = new();
        writer.apply(&set_domain(1, Status::Enabled));
        writer.apply(&set_channel(1, 1, Status::Enabled));
        let who = writer.hold(&identity(1, 1, &[(1, Right::PUBLISH)]));
        let line = cache.directory().resolve("d1", "c1").unwrap();
        let gate = cache.gate();
        let mut scene = Self {
            cache,
            writer,
            gate,
            who,
            line,
            rights: RightCache::default(),
        };
        assert_eq!(scene.publish(), Ok(()));
        scene
    }

    fn publish(&mut self) -> Result<(), Denied> {
        permits(
            &self.gate,
            self.who,
            Action::Publish,
            &mut self.rights,
            self.line,
        )
    }

    fn subscribe(&mut self) -> Result<(), Denied> {
        permits(
            &self.gate,
            self.who,
            Action::Subscribe,
            &mut self.rights,
            self.line,
        )
    }

    fn domain(&self) -> DomainIndex {
        self.cache.directory().domain(domain(1)).unwrap()
    }
}

#[test]
fn one_right_of_one_client_is_a_notice_and_no_epoch() {
    let mut scene = Scene::new();
    let before = scene.gate.epoch_of(scene.line);
    let notices = scene.writer.apply(&set_right(1, 1, Right::SUBSCRIBE));
    assert_eq!(notices, [Notice::RightsChanged(scene.who)]);
    assert_eq!(scene.gate.epoch_of(scene.line), before);
    scene.rights.clear();
    assert_eq!(scene.publish(), Err(Denied::NoRight));
    assert_eq!(scene.subscribe(), Ok(()));
    assert!(
        scene
            .writer
            .apply(&set_right(1, 1, Right::SUBSCRIBE))
            .is_empty()
    );
    assert!(
        scene.writer.apply(&set_right(9, 1, Right::BOTH)).is_empty(),
        "not held"
    );
    assert!(
        scene.writer.apply(&set_right(1, 9, Right::BOTH)).is_empty(),
        "no such channel"
    );
}

#[test]
fn disabled_channel_and_domain_stop_warm_caches_at_once() {
    let mut scene = Scene::new();
    let domain = scene.domain();
    let notices = scene.writer.apply(&set_channel(1, 1, Status::Disabled));
    assert_eq!(notices, [Notice::EpochBumped(domain)]);
    assert_eq!(scene.publish(), Err(Denied::NotLive));
    assert!(scene.gate.handed_over(Message(scene.line)).is_none());
    scene.writer.apply(&set_channel(1, 1, Status::Enabled));
    assert_eq!(scene.publish(), Ok(()));
    let notices = scene.writer.apply(&set_domain(1, Status::Frozen));
    assert_eq!(
        notices,
        [Notice::EpochBumped(domain), Notice::DomainClosed(domain)]
    );
    assert_eq!(scene.publish(), Err(Denied::NotLive));
    assert!(!scene.cache.directory().principal_facts(scene.who).live);
    scene.writer.apply(&set_domain(1, Status::Enabled));
    assert_eq!(scene.publish(), Ok(()));
}

#[test]
fn removed_channel_is_gone_and_its_index_rests_until_fences_have_passed() {
    let mut scene = Scene::new();
    let old = scene.line;
    let notices = scene
        .writer
        .apply(&Change::ChannelRemoved { id: channel(1) });
    assert_eq!(
        notices,
        [
            Notice::ChannelRemoved(old),
            Notice::EpochBumped(scene.domain())
        ]
    );
    assert_eq!(scene.publish(), Err(Denied::NotLive));
    assert_eq!(scene.cache.directory().resolve("d1", "c1"), None);
    assert_eq!(scene.cache.directory().prefix(old), None);
    let index_of =
        |scene: &Scene, number| scene.cache.directory().channel(channel(number)).unwrap();
    scene.writer.apply(&set_channel(2, 1, Status::Enabled));
    assert_ne!(index_of(&scene, 2), old);
    scene.writer.fence_passed();
    scene.writer.apply(&set_channel(3, 1, Status::Enabled));
    assert_ne!(
        index_of(&scene, 3),
        old,
        "the fence under way may have begun before"
    );
    scene.writer.fence_passed();
    scene.writer.apply(&set_channel(4, 1, Status::Enabled));
    assert_eq!(index_of(&scene, 4), old);
    assert_eq!(
        scene.publish(),
        Err(Denied::NoRight),
        "rights do not pass with the index"
    );
    scene.writer.apply(&set_right(1, 4, Right::PUBLISH));
    scene.rights.clear();
    assert_eq!(scene.publish(), Ok(()));
}

#[test]
fn route_and_id_name_the_same_channel_and_follow_renames() {
    let mut scene = Scene::new();
    let directory = scene.cache.directory();
    let (d, c) = (domain(1).to_string(), channel(1).to_string());
    for (domain, channel) in [("d1", "c1"), (&d, "c1"), ("d1", &c), (&d, &c)] {
        assert_eq!(directory.resolve(domain, channel), Some(scene.line));
    }
    assert_eq!(
        directory.prefix(scene.line).as_deref(),
        Some(&*format!("m/{d}/c/{c}"))
    );
    let (generation, epoch) = (directory.generation(), scene.gate.epoch_of(scene.line));
    let id = channel(1);
    let route = Some("renamed".to_owned());
    let status = Status::Enabled;
    scene.writer.apply(&Change::ChannelSet {
        id,
        domain: domain(1),
        route,
        status,
        open: false,
    });
    assert_eq!(directory.resolve("d1", "c1"), None);
    assert_eq!(directory.resolve("d1", "renamed"), Some(scene.line));
    assert_ne!(directory.generation(), generation);
    assert_ne!(scene.gate.epoch_of(scene.line), epoch);
    // Routes may be exchanged in any order.
    scene.writer.apply(&Change::DomainSet {
        id: domain(2),
        route: "d2".into(),
        status,
    });
    scene.writer.apply(&Change::DomainSet {
        id: domain(1),
        route: "d2".into(),
        status,
    });
    scene.writer.apply(&Change::DomainSet {
        id: domain(2),
        route: "d1".into(),
        status,
    });
    assert_eq!(directory.domain_by_name("d2"), directory.domain(domain(1)));
    assert_eq!(directory.domain_by_name("d1"), directory.domain(domain(2)));
}

#[test]
fn channel_of_another_domain_is_not_found_and_not_permitted() {
    // Vector 10 of the authorization tests: also when routes collide.
    let mut scene = Scene::new();
    scene.writer.apply(&set_domain(2, Status::Enabled));
    scene.writer.apply(&set_channel(7, 2, Status::Enabled));
    let directory = scene.cache.directory();
    assert_eq!(directory.resolve("d2", "c1"), None);
    assert_eq!(directory.resolve("d2", &channel(1).to_string()), None);
    let foreign = directory.resolve("d2", "c7").unwrap();
    scene.writer.apply(&set_right(1, 7, Right::BOTH));
    let verdict = scene.gate.allows(scene.who, Action::Publish, foreign);
    assert_eq!(verdict, Err(Denied::NoRight));
}

#[test]
fn changed_secret_disabling_and_removal_close_the_principal() {
    let mut scene = Scene::new();
    let (id, who) = (client(1), scene.who);
    let kind = PrincipalRecord::Client { domain: domain(1) };
    let credentials = scene.cache.credentials();
    credentials.remember(Some("c"), Some(b"s"), who, 1);
    assert_eq!(credentials.check(Some("c"), Some(b"s")), Some(who));
    let set = |status, credential| Change::PrincipalSet {
        id,
        kind,
        status,
        credential,
    };
    let closed = |cause| vec![Notice::PrincipalClosed(who, cause)];
    let notices = scene.writer.apply(&set(Status::Enabled, 2));
    assert_eq!(notices, closed(Cause::CredentialChanged));
    assert_eq!(scene.cache.credentials().check(Some("c"), Some(b"s")), None);
    scene
        .cache
        .credentials()
        .remember(Some("c"), Some(b"t"), who, 2);
    assert_eq!(
        scene.writer.apply(&set(Status::Disabled, 2)),
        closed(Cause::Disabled)
    );
    assert_eq!(scene.cache.credentials().check(Some("c"), Some(b"t")), None);
    scene.rights.clear();
    assert_eq!(scene.publish(), Err(Denied::NoRight));
    let notices = scene.writer.apply(&set(Status::Enabled, 2));
    assert_eq!(notices, [Notice::RightsChanged(who)]);
    scene.rights.clear();
    assert_eq!(scene.publish(), Ok(()), "its rights were kept");
    let notices = scene.writer.apply(&Change::PrincipalRemoved { id });
    assert_eq!(notices, closed(Cause::Removed));
    assert!(scene.writer.held().is_empty());
    assert_eq!(scene.cache.directory().principal(id), None);
    scene.rights.clear();
    assert_eq!(scene.publish(), Err(Denied::NoRight));
    scene.writer.fence_passed();
    scene.writer.fence_passed();
    let other = scene.writer.hold(&identity(2, 1, &[]));
    assert_eq!(other, who, "the index is reused");
    assert_eq!(
        scene.publish(),
        Err(Denied::NoRight),
        "without the rights of its former owner"
    );
}

#[test]
fn principal_that_comes_back_with_other_rights_has_only_those() {
    let mut scene = Scene::new();
    scene.writer.apply(&set_channel(2, 1, Status::Enabled));
    let other = scene.cache.directory().resolve("d1", "c2").unwrap();
    let same = scene.writer.hold(&identity(1, 1, &[(1, Right::PUBLISH)]));
    assert_eq!(same, scene.who);
    let epoch = scene.gate.epoch_of(scene.line);
    scene.writer.hold(&identity(1, 1, &[(1, Right::PUBLISH)]));
    assert_eq!(scene.gate.epoch_of(scene.line), epoch, "nothing changed");
    scene.writer.hold(&identity(1, 1, &[(2, Right::PUBLISH)]));
    assert_eq!(scene.publish(), Err(Denied::NoRight));
    assert_eq!(scene.gate.allows(same, Action::Publish, other), Ok(()));
    scene.writer.hold(&identity(1, 1, &[]));
    assert_eq!(
        scene.gate.allows(same, Action::Publish, other),
        Err(Denied::NoRight)
    );
}

#[test]
fn user_right_is_unknown_until_asked_for_and_again_after_role_changes() {
    let mut scene = Scene::new();
    let id = EntityId::from_u128(0x900);
    let kind = PrincipalRecord::User;
    let status = Status::Enabled;
    let rights = Vec::new();
    scene.who = scene.writer.hold(&Identity {
        id,
        kind,
        status,
        credential: 0,
        rights,
    });
    assert_eq!(scene.publish(), Err(Denied::Unknown));
    scene.writer.set_right(scene.who, scene.line, Right::NONE);
    assert_eq!(scene.publish(), Err(Denied::NoRight));
    scene
        .writer
        .set_right(scene.who, scene.line, Right::PUBLISH);
    assert_eq!(scene.publish(), Ok(()), "a warm cache sees it by the epoch");
    // What is known can be asked for anew, unless it is more than the caller takes.
    let known = scene.writer.known_user_rights(domain(1), 1).unwrap();
    assert_eq!(known.len(), 1);
    assert_eq!(known[0].0, id);
    assert_eq!(scene.writer.known_user_rights(domain(1), 0), None);
    let elsewhere = scene.writer.known_user_rights(domain(9), 0);
    assert_eq!(elsewhere, Some(Vec::new()));
    scene.writer.apply(&set_channel(1, 1, Status::Disabled));
    assert_eq!(scene.publish(), Err(Denied::NotLive));
    scene.writer.apply(&set_channel(1, 1, Status::Enabled));
    assert_eq!(
        scene.publish(),
        Ok(()),
        "a status says nothing about rights"
    );
    let notices = scene
        .writer
        .apply(&Change::UserRightsStale { domain: domain(1) });
    assert_eq!(notices, [Notice::EpochBumped(scene.domain())]);
    assert_eq!(scene.publish(), Err(Denied::Unknown));
    let known = scene.writer.known_user_rights(domain(1), 9);
    assert_eq!(known, Some(Vec::new()), "void rights are not known");
}

#[test]
fn domain_takes_its_channels_and_clients_with_it() {
    let mut scene = Scene::new();
    let domain_index = scene.domain();
    let notices = scene.writer.apply(&Change::DomainRemoved { id: domain(1) });
    for expected in [
        Notice::EpochBumped(domain_index),
        Notice::DomainClosed(domain_index),
        Notice::ChannelRemoved(scene.line),
        Notice::PrincipalClosed(scene.who, Cause::Removed),
    ] {
        assert!(notices.contains(&expected), "{expected:?}");
    }
    assert_eq!(scene.publish(), Err(Denied::NotLive));
    assert_eq!(scene.cache.directory().resolve("d1", "c1"), None);
    assert_eq!(scene.cache.stats().routes, 0);
}

#[test]
fn snapshot_replaces_everything_and_tells_what_is_gone() {
    let mut scene = Scene::new();
    scene.writer.apply(&set_channel(2, 1, Status::Enabled));
    let gone = scene.cache.directory().resolve("d1", "c2").unwrap();
    let second = scene.writer.hold(&identity(2, 1, &[(1, Right::BOTH)]));
    let changes = [
        set_domain(1, Status::Enabled),
        set_channel(1, 1, Status::Enabled),
    ];
    let notices = scene
        .writer
        .load(&changes, &[identity(1, 1, &[(1, Right::SUBSCRIBE)])]);
    for expected in [
        Notice::ChannelRemoved(gone),
        Notice::PrincipalClosed(second, Cause::Removed),
        Notice::RightsChanged(scene.who),
    ] {
        assert!(notices.contains(&expected), "{expected:?}");
    }
    assert_eq!(scene.publish(), Err(Denied::NoRight));
    assert_eq!(scene.subscribe(), Ok(()));
    assert_eq!(scene.writer.held(), [client(1)]);
    let line = scene.cache.directory().resolve("d1", "c1");
    assert_eq!(line, Some(scene.line), "what stays keeps its index");
}

#[test]
fn nothing_is_permitted_without_a_lease() {
    let (cache, mut writer) = AuthCache::new(Capacity::default());
    writer.apply(&set_domain(1, Status::Enabled));
    writer.apply(&set_channel(1, 1, Status::Enabled));
    let who = writer.hold(&identity(1, 1, &[(1, Right::BOTH)]));
    let line = cache.directory().resolve("d1", "c1").unwrap();
    let gate = cache.gate();
    let mut rights = RightCache::default();
    let verdict = permits(&gate, who, Action::Publish, &mut rights, line);
    assert_eq!(verdict, Err(Denied::LeaseOver));
    cache.lease().renew(1000);
    assert_eq!(
        permits(&gate, who, Action::Publish, &mut rights, line),
        Ok(())
    );
    cache.lease().end();
    assert_eq!(
        gate.allows(who, Action::Publish, line),
        Err(Denied::LeaseOver)
    );
}

#[test]
fn sys_channel_is_for_the_broker_and_those_with_the_right() {
    // T-TOP-6
    let mut scene = Scene::new();
    let sys = ChannelIndex::SYS;
    assert!(scene.gate.broker_made(Message(sys)).is_some());
    assert!(scene.gate.broker_made(Message(scene.line)).is_none());
    assert_eq!(
        scene.gate.allows(scene.who, Action::Subscribe, sys),
        Err(Denied::NoRight)
    );
    let principal = client(1);
    let change = Change::RightSet {
        principal,
        channel: EntityId::SYS,
        right: Right::SUBSCRIBE,
    };
    scene.writer.apply(&change);
    assert_eq!(scene.gate.allows(scene.who, Action::Subscribe, sys), Ok(()));
    assert_eq!(
        scene.gate.allows(scene.who, Action::Publish, sys),
        Err(Denied::NoRight)
    );
    let name = EntityId::SYS.to_string();
    assert_eq!(scene.cache.directory().resolve(&name, &name), None);
    scene
        .writer
        .apply(&Change::ChannelRemoved { id: EntityId::SYS });
    scene
        .writer
        .apply(&Change::DomainRemoved { id: EntityId::SYS });
    assert!(scene.cache.directory().is_live(sys));
    assert_eq!(scene.cache.directory().prefix(sys).as_deref(), Some(""));
    let system = PrincipalIndex::SYSTEM;
    assert_eq!(
        scene.gate.allows(system, Action::Subscribe, scene.line),
        Ok(())
    );
    let mut impostor = identity(5, 1, &[]);
    impostor.id = EntityId::SYS;
    assert_ne!(scene.writer.hold(&impostor), system);
}

#[test]
fn open_channel_has_one_right_for_all_its_indexes() {
    let mut scene = Scene::new();
    let set = |status| Change::ChannelSet {
        id: channel(9),
        domain: domain(1),
        route: Some("open".into()),
        status,
        open: true,
    };
    scene.writer.apply(&set(Status::Enabled));
    scene.writer.apply(&set_right(1, 9, Right::SUBSCRIBE));
    let directory = scene.cache.directory();
    let open = directory.open_channel(scene.domain()).unwrap();
    assert_eq!(directory.resolve("d1", "open"), None);
    assert_eq!(directory.resolve("d1", &channel(9).to_string()), None);
    assert_eq!(open.of_filter("home/+"), open.of_topic("home/kitchen/temp"));
    assert_eq!(open.of_filter("/x"), open.of_topic("/y"));
    assert_eq!(
        (open.of_filter("#"), open.of_filter("+/x")),
        (open.wild(), open.wild())
    );
    assert_ne!(open.of_topic("+"), open.wild());
    let indexes: Vec<_> = open.indexes().collect();
    assert_eq!((indexes.len(), indexes.last()), (257, Some(&open.wild())));
    let spread: BTreeSet<_> = (0..1000)
        .map(|n| open.of_topic(&format!("t{n}/x")))
        .collect();
    assert!(spread.len() > 200 && spread.iter().all(|index| indexes.contains(index)));
    for &index in &indexes {
        assert_eq!(directory.prefix(index).as_deref(), Some(""));
        assert_eq!(directory.domain_of(index), scene.domain());
        let verdict = permits(
            &scene.gate,
            scene.who,
            Action::Subscribe,
            &mut scene.rights,
            index,
        );
        assert_eq!(verdict, Ok(()));
    }
    scene.writer.apply(&set(Status::Disabled));
    assert!(indexes.iter().all(|&index| !directory.is_live(index)));
    let notices = scene
        .writer
        .apply(&Change::ChannelRemoved { id: channel(9) });
    for &index in &indexes {
        assert!(notices.contains(&Notice::ChannelRemoved(index)));
    }
    assert_eq!(directory.open_channel(scene.domain()), None);
    scene.writer.fence_passed();
    scene.writer.fence_passed();
    scene.writer.apply(&set(Status::Enabled));
    assert_eq!(directory.open_channel(scene.domain()), Some(open));
}

/// What control holds, evaluated by the words of the rules.
#[derive(Default)]
struct Model {
    domains: BTreeMap<u128, Status>,
    channels: BTreeMap<u128, (u128, Status)>,
    clients: BTreeMap<u128, (u128, Status)>,
    rights: BTreeMap<(u128, u128), Right>,
}

impl Model {
    fn allows(&self, who: u128, action: Action, on: u128) -> bool {
        let Some(&(of, status)) = self.channels.get(&on) else {
            return false;
        };
        let Some(&(home, enabled)) = self.clients.get(&who) else {
            return false;
        };
        self.domains.get(&of) == Some(&Status::Enabled)
            && status == Status::Enabled
            && enabled == Status::Enabled
            && home == of
            && self
                .rights
                .get(&(who, on))
                .is_some_and(|right| right.contains(action))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Domain(u128, Option<bool>),
    Channel(u128, u128, Option<bool>),
    Client(u128, Option<bool>),
    Hold(u128, u128, Vec<(u128, u8)>),
    Right(u128, u128, u8),
    Fence,
    Ask(u128, u128, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let (domain, channel, client) = (0u128..3, 0u128..6, 0u128..4);
    let status = || prop_oneof![1 => Just(None), 2 => Just(Some(false)), 4 => Just(Some(true))];
    let rights = prop::collection::vec((channel.clone(), 0u8..4), 0..4);
    prop_oneof![
        2 => (domain.clone(), status()).prop_map(|(d, s)| Step::Domain(d, s)),
        4 => (channel.clone(), domain.clone(), status()).prop_map(|(c, d, s)| Step::Channel(c, d, s)),
        2 => (client.clone(), status()).prop_map(|(p, s)| Step::Client(p, s)),
        3 => (client.clone(), domain, rights).prop_map(|(p, d, r)| Step::Hold(p, d, r)),
        6 => (client.clone(), channel.clone(), 0u8..4).prop_map(|(p, c, r)| Step::Right(p, c, r)),
        2 => Just(Step::Fence),
        10 => (client, channel, any::<bool>()).prop_map(|(p, c, a)| Step::Ask(p, c, a)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Caches are cleared only where a notice says so, as a shard does.
    #[test]
    fn gate_agrees_with_the_naive_evaluator(steps in prop::collection::vec(step(), 0..120)) {
        let (cache, mut writer) = new();
        let gate = cache.gate();
        let mut model = Model::default();
        let mut slots: BTreeMap<u128, (PrincipalIndex, RightCache)> = BTreeMap::new();
        let status = |on| if on { Status::Enabled } else { Status::Disabled };
        for step in steps {
            let mut notices = Vec::new();
            match step {
                Step::Domain(number, Some(on)) => {
                    notices = writer.apply(&set_domain(number, status(on)));
                    model.domains.insert(number, status(on));
                }
                Step::Domain(number, None) => {
                    notices = writer.apply(&Change::DomainRemoved { id: domain(number) });
                    model.domains.remove(&number);
                    model.channels.retain(|_, (of, _)| *of != number);
                    model.clients.retain(|_, (home, _)| *home != number);
                }
                Step::Channel(number, of, Some(on)) => {
                    notices = writer.apply(&set_channel(number, of, status(on)));
                    if model.domains.contains_key(&of) {
                        let former = model.channels.insert(number, (of, status(on)));
                        if former.is_some_and(|(former, _)| former != of) {
                            model.rights.retain(|(_, on), _| *on != number);
                        }
                    }
                }
                Step::Channel(number, _, None) => {
                    notices = writer.apply(&Change::ChannelRemoved { id: channel(number) });
                    model.channels.remove(&number);
                }
                Step::Client(number, on) => {
                    let Some((home, enabled)) = model.clients.get_mut(&number) else { continue };
                    let id = client(number);
                    let kind = PrincipalRecord::Client { domain: domain(*home) };
                    notices = match on {
                        Some(on) => {
                            *enabled = status(on);
                            let status = status(on);
                            writer.apply(&Change::PrincipalSet { id, kind, status, credential: 1 })
                        }
                        None => writer.apply(&Change::PrincipalRemoved { id }),
                    };
                    if on.is_none() {
                        model.clients.remove(&number);
                    }
                }
                Step::Hold(number, of, rights) => {
                    // A client never changes its domain, and a new one has an existing domain.
                    let home = model.clients.get(&number).map_or(of, |(home, _)| *home);
                    if !model.domains.contains_key(&home) {
                        continue;
                    }
                    let rights: BTreeMap<_, _> =
                        rights.into_iter().map(|(on, bits)| (on, Right::from_bits(bits))).collect();
                    let list: Vec<_> = rights.iter().map(|(on, right)| (*on, *right)).collect();
                    let who = writer.hold(&identity(number, home, &list));
                    model.clients.insert(number, (home, Status::Enabled));
                    model.rights.retain(|(who, _), _| *who != number);
                    for (on, right) in rights {
                        if model.channels.contains_key(&on) {
                            model.rights.insert((number, on), right);
                        }
                    }
                    let slot = slots.entry(number).or_insert((who, RightCache::default()));
                    if slot.0 != who {
                        *slot = (who, RightCache::default());
                    }
                }
                Step::Right(who, on, bits) => {
                    notices = writer.apply(&set_right(who, on, Right::from_bits(bits)));
                    if model.clients.contains_key(&who) && model.channels.contains_key(&on) {
                        model.rights.insert((who, on), Right::from_bits(bits));
                    }
                }
                Step::Fence => writer.fence_passed(),
                Step::Ask(who, on, publish) => {
                    let action = if publish { Action::Publish } else { Action::Subscribe };
                    let Some((index, rights)) = slots.get_mut(&who) else { continue };
                    let Some(channel) = cache.directory().channel(channel(on)) else { continue };
                    let expected = model.allows(who, action, on);
                    let direct = gate.allows(*index, action, channel);
                    prop_assert_eq!(direct.is_ok(), expected, "{:?}", direct);
                    let cached = permits(&gate, *index, action, rights, channel);
                    prop_assert_eq!(cached, direct);
                }
            }
            model.rights.retain(|(who, on), _| {
                model.clients.contains_key(who) && model.channels.contains_key(on)
            });
            for notice in notices {
                match notice {
                    Notice::RightsChanged(who) => {
                        let slots = slots.values_mut().filter(|(index, _)| *index == who);
                        slots.for_each(|(_, cache)| cache.clear());
                    }
                    Notice::PrincipalClosed(who, Cause::Removed | Cause::Disabled) => {
                        let closed = |(index, _): &(PrincipalIndex, RightCache)| *index == who;
                        slots.retain(|_, slot| !closed(slot));
                    }
                    Notice::PrincipalClosed(_, Cause::CredentialChanged)
                    | Notice::EpochBumped(_)
                    | Notice::DomainClosed(_)
                    | Notice::ChannelRemoved(_) => {}
                }
            }
        }
    }
}
