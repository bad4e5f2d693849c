//! Any steps of subscribers against a plain map of their filters.

use super::*;

/// The channel's subscriptions as a plain map, and the rule itself.
#[derive(Default)]
struct Model {
    filters: BTreeMap<(u32, u32, &'static str), u8>,
    revoked: HashSet<(u32, u32)>,
    disabled: HashSet<u32>,
}

impl Model {
    fn receivers(&self, channel: u32, subtopic: &str) -> Vec<(u32, u8)> {
        let mut found = BTreeMap::new();
        for (&(of, slot, filter), &qos) in &self.filters {
            let silent = self.revoked.contains(&(slot, of)) || self.disabled.contains(&of);
            if of == channel && !silent && filter_matches(filter, subtopic, FirstLevel::Inner) {
                let highest: &mut u8 = found.entry(slot).or_default();
                *highest = qos.max(*highest);
            }
        }
        found.into_iter().collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Subscribe(u32, u32, &'static str, u8),
    Unsubscribe(u32, u32, &'static str),
    Route(u32, &'static str),
    Revoke(u32, u32),
    Grant(u32, u32),
    Enable(u32, bool),
}

fn step(slots: u32) -> impl Strategy<Value = Step> {
    let filter = prop::sample::select(&["", "#", "a", "a/+", "a/b", "+/b", "+/#", "a/b/#"][..]);
    let topic = prop::sample::select(&["", "a", "a/b", "b", "a/b/c", "x/b"][..]);
    let (slot, channel) = (0..slots, 0u32..3);
    prop_oneof![
        8 => (slot.clone(), channel.clone(), filter.clone(), 0u8..3)
            .prop_map(|(slot, channel, filter, qos)| Step::Subscribe(slot, channel, filter, qos)),
        4 => (slot.clone(), channel.clone(), filter)
            .prop_map(|(slot, channel, filter)| Step::Unsubscribe(slot, channel, filter)),
        4 => (channel.clone(), topic).prop_map(|(channel, topic)| Step::Route(channel, topic)),
        1 => (slot.clone(), channel.clone()).prop_map(|(slot, channel)| Step::Revoke(slot, channel)),
        1 => (slot, channel.clone()).prop_map(|(slot, channel)| Step::Grant(slot, channel)),
        1 => (channel, any::<bool>()).prop_map(|(channel, on)| Step::Enable(channel, on)),
    ]
}

fn run(slots: u32, steps: Vec<Step>) -> Result<(), TestCaseError> {
    let world = World::new(3, slots);
    let mut subs = world.subs(1);
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Subscribe(slot, channel, filter, qos) => {
                let wanted = Subscription {
                    qos,
                    ..wanted(world.channel(channel), filter)
                };
                let permitted = world.permit(SlotId::new(slot), wanted);
                let may =
                    !model.revoked.contains(&(slot, channel)) && !model.disabled.contains(&channel);
                prop_assert_eq!(permitted.is_some(), may);
                if let Some(permitted) = permitted {
                    let replaced = subs.subscribe(permitted, SlotId::new(slot)).replaced;
                    let former = model.filters.insert((channel, slot, filter), qos);
                    prop_assert_eq!(replaced, former.is_some());
                }
            }
            Step::Unsubscribe(slot, channel, filter) => {
                let removed =
                    subs.unsubscribe(SlotId::new(slot), world.channel(channel), filter, None);
                let former = model.filters.remove(&(channel, slot, filter));
                prop_assert_eq!(removed, former.is_some());
            }
            Step::Route(channel, topic) => {
                let mut found: Vec<_> = match world.route(&mut subs, channel, topic) {
                    Routed::Plain(entries) => entries
                        .iter()
                        .map(|entry| (entry.slot().get(), entry.qos()))
                        .collect(),
                    Routed::Merged(all) => {
                        all.iter().map(|one| (one.slot.get(), one.qos)).collect()
                    }
                };
                found.sort_unstable();
                prop_assert_eq!(found, model.receivers(channel, topic));
            }
            Step::Revoke(slot, channel) => {
                world.set_right(slot, channel, Right::PUBLISH);
                model.revoked.insert((slot, channel));
                let (slot, channel) = (SlotId::new(slot), world.channel(channel));
                subs.rejudge(slot, channel, &world.gate, |slot| world.who(slot));
            }
            Step::Grant(slot, channel) => {
                world.set_right(slot, channel, Right::BOTH);
                model.revoked.remove(&(slot, channel));
                let (slot, channel) = (SlotId::new(slot), world.channel(channel));
                subs.rejudge(slot, channel, &world.gate, |slot| world.who(slot));
            }
            Step::Enable(channel, on) => {
                world.set_channel(
                    channel,
                    if on {
                        Status::Enabled
                    } else {
                        Status::Disabled
                    },
                );
                if on {
                    model.disabled.remove(&channel)
                } else {
                    model.disabled.insert(channel)
                };
            }
        }
        subs.invariants();
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn few_subscribers_receive_what_the_model_says(steps in prop::collection::vec(step(5), 0..150)) {
        run(5, steps)?;
    }

    #[test]
    fn many_subscribers_receive_what_the_model_says(steps in prop::collection::vec(step(60), 0..300)) {
        run(60, steps)?;
    }

    #[test]
    fn lists_of_every_size_keep_each_slot_once(
        slots in prop::collection::vec((0u32..600, 0u8..4), 0..1500),
    ) {
        let mut lists = Lists::default();
        let channel = ChannelIndex::new(7);
        let mut model = BTreeMap::new();
        for (slot, operation) in slots {
            let id = SlotId::new(slot);
            let known = model.contains_key(&slot);
            match operation {
                0 if known => {
                    prop_assert!(lists.remove(channel, id).is_some());
                    model.remove(&slot);
                }
                1 if known => {
                    lists.set_live(channel, id, false);
                    model.insert(slot, false);
                }
                _ if !known => {
                    lists.insert(channel, Entry::new(id, Wishes::default()));
                    model.insert(slot, true);
                }
                _ => {}
            }
            let live = model.values().filter(|live| **live).count();
            prop_assert_eq!(lists.view(channel).map_or(0, |view| view.live), live);
        }
        lists.invariants();
        for (&slot, &live) in &model {
            prop_assert_eq!(lists.is_live(channel, SlotId::new(slot)), live);
        }
        prop_assert_eq!(lists.view(channel).map_or(0, |view| view.entries.len()), model.len());
        lists.judge(channel, 9, |slot| slot.get() % 3 == 0);
        lists.invariants();
        let live = lists.view(channel).map_or(0, |view| view.live);
        prop_assert_eq!(live, model.keys().filter(|slot| *slot % 3 == 0).count());
        let slots: Vec<u32> = model.keys().copied().collect();
        for slot in slots {
            prop_assert!(lists.remove(channel, SlotId::new(slot)).is_some());
        }
        prop_assert!(lists.view(channel).is_none());
    }
}
