//! The pair against a model: whatever is late, cut or read at another revision.

use std::collections::{BTreeMap, VecDeque};

use super::*;

/// A small generator of our own, so that a seed means the same for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

const PRINCIPALS: u128 = 4;

/// A database, a leader, a follower and what the follower's owner believes; everything that takes
/// time happens when the dice say so.
struct World {
    dice: Dice,
    /// Rights of each principal at each revision.
    states: Vec<BTreeMap<u128, Right>>,
    commits: Vec<Vec<Change>>,
    published: u64,
    leader: Leader,
    follower: Follower,
    link: LinkId,
    to_leader: VecDeque<u8>,
    to_follower: VecDeque<u8>,
    /// Reads that control has made and not handed to the leader.
    reads: Vec<Read>,
    believed: BTreeMap<u128, Right>,
    at: u64,
    in_fence: Vec<u64>,
    applied: u64,
    joined: bool,
    answers: u64,
}

enum Read {
    Snapshot(LinkId, u64, Vec<Identity>),
    Answer(LinkId, u64, u64, Answer),
}

impl World {
    fn new(seed: u64) -> World {
        let mut leader = Leader::new(0, false, 0);
        let link = leader.connected(LeaseTerms::Pipe, 0);
        let mut follower = Follower::new(id(1), 1);
        follower.connected(vec![], 0);
        World {
            dice: Dice(seed),
            states: vec![(0..PRINCIPALS).map(|p| (p, Right::NONE)).collect()],
            commits: vec![vec![]],
            published: 0,
            leader,
            follower,
            link,
            to_leader: VecDeque::new(),
            to_follower: VecDeque::new(),
            reads: vec![],
            believed: BTreeMap::new(),
            at: 0,
            in_fence: vec![],
            applied: 0,
            joined: false,
            answers: 0,
        }
    }

    fn committed(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    fn step(&mut self) {
        match self.dice.roll(100) {
            0..15 => self.commit(),
            15..30 => self.publish(),
            30..45 => {
                let principal = u128::from(self.dice.roll(PRINCIPALS as u64));
                self.follower.ask(who(principal));
            }
            45..60 => self.hand_over_read(),
            60..75 => self.deliver_to_leader(),
            75..90 => self.deliver_to_follower(),
            90..98 => self.fence(),
            _ => self.cut(),
        }
        self.leader_events();
        self.follower_events();
        self.check();
    }

    fn commit(&mut self) {
        let mut state = self.states.last().unwrap().clone();
        let mut changes = vec![];
        for _ in 0..=self.dice.roll(2) {
            let principal = u128::from(self.dice.roll(PRINCIPALS as u64));
            let right = Right::from_bits(self.dice.roll(4) as u8);
            state.insert(principal, right);
            changes.push(right_set(principal, right));
        }
        self.states.push(state);
        self.commits.push(changes);
    }

    fn publish(&mut self) {
        if self.published < self.committed() {
            self.published += 1;
            let changes = self.commits[self.published as usize].clone();
            self.leader.publish(self.published, changes);
        }
    }

    fn hand_over_read(&mut self) {
        if self.reads.is_empty() {
            return;
        }
        let at = self.dice.roll(self.reads.len() as u64) as usize;
        match self.reads.swap_remove(at) {
            Read::Snapshot(link, revision, identities) => {
                let snapshot = Snapshot {
                    identities,
                    ..as_of(revision)
                };
                self.leader.snapshot(link, snapshot);
            }
            Read::Answer(link, number, revision, answer) => {
                self.leader.answer(link, number, revision, answer);
            }
        }
    }

    fn deliver_to_leader(&mut self) {
        let mut out = Vec::new();
        self.follower.output(&mut out);
        self.to_leader.extend(out);
        let count = self.dice.roll(self.to_leader.len() as u64 + 1) as usize;
        let bytes: Vec<u8> = self.to_leader.drain(..count).collect();
        self.leader.input(self.link, &bytes, 0).unwrap();
    }

    fn deliver_to_follower(&mut self) {
        let mut out = Vec::new();
        self.leader.output(self.link, &mut out);
        self.to_follower.extend(out);
        let count = self.dice.roll(self.to_follower.len() as u64 + 1) as usize;
        let bytes: Vec<u8> = self.to_follower.drain(..count).collect();
        self.follower.input(&bytes).unwrap();
    }

    fn fence(&mut self) {
        if let Some(revision) = self.in_fence.pop() {
            self.in_fence.clear();
            self.applied = revision;
            self.follower.applied(revision);
        }
    }

    fn cut(&mut self) {
        self.to_leader.clear();
        self.to_follower.clear();
        self.leader.disconnected(self.link, 0);
        self.follower.disconnected();
        self.link = self.leader.connected(LeaseTerms::Pipe, 0);
        self.follower
            .connected(self.believed.keys().copied().map(id).collect(), 0);
    }

    fn read(&self, principal: u128) -> Identity {
        identity(principal, self.states.last().unwrap()[&principal])
    }

    fn leader_events(&mut self) {
        while let Some(event) = self.leader.poll() {
            match event {
                LeaderEvent::Joined { link, held, .. } => {
                    let identities = held.iter().map(|id| self.read(id.to_u128())).collect();
                    self.reads
                        .push(Read::Snapshot(link, self.committed(), identities));
                }
                LeaderEvent::Asked {
                    link,
                    number,
                    question,
                } => {
                    let Question::Identify(Credentials {
                        username: Some(name),
                        ..
                    }) = question
                    else {
                        panic!("only identities are asked for");
                    };
                    let answer = Answer::Identity(self.read(name.parse().unwrap()), None);
                    self.reads
                        .push(Read::Answer(link, number, self.committed(), answer));
                }
                LeaderEvent::Settled { revision } => {
                    assert!(!self.joined || revision <= self.applied, "settled early");
                }
                LeaderEvent::Active { .. } => panic!("nobody reports"),
                LeaderEvent::Overrun { .. } => panic!("nothing here is that long"),
            }
        }
    }

    fn follower_events(&mut self) {
        while let Some(event) = self.follower.poll() {
            match event {
                FollowerEvent::Snapshot {
                    revision,
                    identities,
                    ..
                } => {
                    self.believed = identities.iter().map(believed).collect();
                    self.at = revision;
                    self.in_fence.push(revision);
                    self.joined = true;
                }
                FollowerEvent::Delta { revision, changes } => {
                    assert_eq!(revision, self.at + 1);
                    self.at = revision;
                    for change in changes {
                        if let Change::RightSet {
                            principal, right, ..
                        } = change
                            && let Some(known) = self.believed.get_mut(&principal.to_u128())
                        {
                            *known = right;
                        }
                    }
                    self.in_fence.push(revision);
                }
                FollowerEvent::Answer { answer, .. } => {
                    if let Answer::Identity(identity, _) = answer {
                        let (principal, right) = believed(&identity);
                        self.believed.insert(principal, right);
                        self.answers += 1;
                    }
                }
                FollowerEvent::Lease { .. } => {}
                FollowerEvent::Gap { .. } => panic!("the leader leaves no gap"),
            }
        }
    }

    /// What is believed is what was true at the revision followed: never older, never newer.
    fn check(&self) {
        let truth = &self.states[self.at as usize];
        for (principal, right) in &self.believed {
            assert_eq!(
                right, &truth[principal],
                "principal {principal} at {}",
                self.at
            );
        }
    }
}

fn believed(identity: &Identity) -> (u128, Right) {
    (identity.id.to_u128(), identity.rights[0].1)
}

#[test]
fn answers_deltas_and_snapshots_never_disagree_whatever_is_late_or_cut() {
    let mut answers = 0;
    for seed in 0..500 {
        let mut world = World::new(seed);
        for step in 0..400 {
            let run = std::panic::AssertUnwindSafe(|| world.step());
            if let Err(panic) = std::panic::catch_unwind(run) {
                eprintln!("seed {seed}, step {step}");
                std::panic::resume_unwind(panic);
            }
        }
        answers += world.answers;
    }
    assert!(answers > 1_000, "the model asks too little: {answers}");
}
