//! Leader and follower as a pair, over pipes that deliver bytes when the test says so.

mod model;

use super::message::Frames;
use super::*;
use crate::change::{Change, Identity, PrincipalRecord, Status};
use crate::{EntityId, Right};

fn id(number: u128) -> EntityId {
    EntityId::from_u128(number)
}

fn right_set(principal: u128, right: Right) -> Change {
    Change::RightSet {
        principal: id(principal),
        channel: id(100),
        right,
    }
}

fn identity(principal: u128, right: Right) -> Identity {
    Identity {
        id: id(principal),
        kind: PrincipalRecord::Client { domain: id(50) },
        status: Status::Enabled,
        credential: 1,
        rights: vec![(id(100), right)],
    }
}

fn who(principal: u128) -> Question {
    Question::Identify(Credentials {
        username: Some(principal.to_string()),
        ..Credentials::default()
    })
}

fn as_of(revision: u64) -> Snapshot {
    Snapshot {
        revision,
        ..Snapshot::default()
    }
}

/// One leader and one follower; bytes move only in `exchange`.
struct Pair {
    leader: Leader,
    follower: Follower,
    link: LinkId,
    now_ms: u64,
}

impl Pair {
    fn new(terms: LeaseTerms) -> Pair {
        let mut leader = Leader::new(0, false, 0);
        let mut follower = Follower::new(id(1), 1);
        let link = leader.connected(terms, 0);
        follower.connected(vec![], 0);
        Pair {
            leader,
            follower,
            link,
            now_ms: 0,
        }
    }

    /// Joined, with an empty snapshot applied.
    fn joined(terms: LeaseTerms) -> Pair {
        let mut pair = Pair::new(terms);
        pair.exchange();
        assert!(matches!(
            pair.leader.poll(),
            Some(LeaderEvent::Joined { .. })
        ));
        pair.leader.snapshot(pair.link, as_of(0));
        pair.exchange();
        assert!(matches!(
            pair.follower.poll(),
            Some(FollowerEvent::Snapshot { revision: 0, .. })
        ));
        assert!(matches!(
            pair.follower.poll(),
            Some(FollowerEvent::Lease { .. })
        ));
        pair
    }

    fn exchange(&mut self) {
        let mut bytes = Vec::new();
        self.follower.output(&mut bytes);
        self.leader.input(self.link, &bytes, self.now_ms).unwrap();
        bytes.clear();
        self.leader.output(self.link, &mut bytes);
        self.follower.input(&bytes).unwrap();
    }

    fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        self.leader.tick(self.now_ms);
    }

    fn publish(&mut self, revision: u64) {
        self.leader
            .publish(revision, vec![right_set(7, Right::NONE)]);
    }

    fn apply(&mut self) -> Option<u64> {
        match self.follower.poll()? {
            FollowerEvent::Delta { revision, .. } => {
                self.follower.applied(revision);
                Some(revision)
            }
            other => panic!("{other:?} instead of a delta"),
        }
    }

    fn settled(&mut self) -> Vec<u64> {
        std::iter::from_fn(|| self.leader.poll())
            .filter_map(|event| match event {
                LeaderEvent::Settled { revision } => Some(revision),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn a_revision_settles_when_the_broker_has_applied_it() {
    let mut pair = Pair::joined(LeaseTerms::Pipe);
    pair.publish(1);
    assert!(!pair.leader.settled(1));
    pair.exchange();
    assert!(!pair.leader.settled(1), "told is not applied");
    assert_eq!(pair.apply(), Some(1));
    pair.exchange();
    assert!(pair.leader.settled(1));
    assert_eq!(pair.settled(), [1]);
}

#[test]
fn without_brokers_a_revision_settles_at_once() {
    let mut leader = Leader::new(4, false, 0);
    leader.publish(5, vec![]);
    assert!(leader.settled(5));
    assert_eq!(leader.poll(), Some(LeaderEvent::Settled { revision: 5 }));
}

#[test]
fn an_unpublished_revision_is_not_settled() {
    assert!(!Leader::new(4, false, 0).settled(5));
}

#[test]
fn a_silent_broker_settles_a_revoke_when_its_lease_and_the_skew_are_over() {
    let mut pair = Pair::joined(LeaseTerms::Timed);
    pair.publish(1);
    pair.advance(LEASE_MS + LEASE_SKEW_MS - 1);
    assert!(!pair.leader.settled(1));
    assert_eq!(pair.leader.next_timeout(), Some(LEASE_MS + LEASE_SKEW_MS));
    pair.advance(1);
    assert!(pair.leader.settled(1));
}

#[test]
fn a_renewed_lease_keeps_the_broker_counted() {
    let mut pair = Pair::joined(LeaseTerms::Timed);
    for _ in 0..10 {
        pair.advance(LEASE_RENEW_MS);
        pair.follower.tick(pair.now_ms);
        pair.exchange();
        let Some(FollowerEvent::Lease { until_ms, .. }) = pair.follower.poll() else {
            panic!("a lease was asked for");
        };
        assert_eq!(until_ms, pair.now_ms + LEASE_MS);
    }
    pair.publish(1);
    pair.advance(LEASE_MS);
    assert!(!pair.leader.settled(1));
}

#[test]
fn the_brokers_end_of_a_lease_comes_before_controls() {
    let mut pair = Pair::joined(LeaseTerms::Timed);
    // The renewal is sent now and arrives 900 ms later.
    pair.advance(LEASE_RENEW_MS);
    pair.follower.tick(pair.now_ms);
    let sent_ms = pair.now_ms;
    pair.advance(900);
    pair.exchange();
    let Some(FollowerEvent::Lease { until_ms, .. }) = pair.follower.poll() else {
        panic!("a lease was asked for");
    };
    assert_eq!(until_ms, sent_ms + LEASE_MS);
    pair.publish(1);
    assert_eq!(
        pair.leader.next_timeout(),
        Some(pair.now_ms + LEASE_MS + LEASE_SKEW_MS)
    );
}

#[test]
fn a_lease_without_end_ends_with_its_pipe() {
    let mut pair = Pair::joined(LeaseTerms::Pipe);
    pair.publish(1);
    pair.advance(3_600_000);
    assert!(!pair.leader.settled(1));
    assert_eq!(pair.follower.next_timeout(), None, "nothing to renew");
    pair.leader.disconnected(pair.link, pair.now_ms);
    assert!(
        !pair.leader.settled(1),
        "the broker may not have seen the end yet"
    );
    pair.advance(LEASE_SKEW_MS);
    assert!(pair.leader.settled(1));
}

#[test]
fn after_a_restart_of_control_nothing_settles_for_one_lease() {
    let mut leader = Leader::new(9, true, 1_000);
    assert!(!leader.settled(9));
    leader.publish(10, vec![]);
    leader.tick(1_000 + LEASE_MS + LEASE_SKEW_MS - 1);
    assert!(!leader.settled(9) && !leader.settled(10));
    leader.tick(1_000 + LEASE_MS + LEASE_SKEW_MS);
    assert!(leader.settled(10));
}

#[test]
fn a_broker_counts_only_from_its_snapshot_on() {
    let mut pair = Pair::new(LeaseTerms::Timed);
    pair.exchange();
    pair.publish(1);
    assert!(pair.leader.settled(1), "it serves nothing yet");
}

#[test]
fn a_rejoining_broker_is_counted_with_the_lease_of_its_cut_pipe() {
    let mut pair = Pair::joined(LeaseTerms::Timed);
    pair.leader.disconnected(pair.link, 0);
    pair.follower.disconnected();
    pair.link = pair.leader.connected(LeaseTerms::Timed, 0);
    pair.follower.connected(vec![id(7)], 0);
    pair.exchange();
    pair.publish(1);
    assert!(!pair.leader.settled(1));
    // The snapshot and its confirmation settle it before the old lease would have.
    let events: Vec<_> = std::iter::from_fn(|| pair.leader.poll()).collect();
    assert!(matches!(&events[..], [LeaderEvent::Joined { held, .. }] if held[..] == [id(7)]));
    pair.leader.snapshot(pair.link, as_of(1));
    pair.exchange();
    pair.follower.applied(1);
    pair.exchange();
    assert!(pair.leader.settled(1));
}

#[test]
fn an_answer_from_the_future_waits_for_its_revision() {
    let mut pair = Pair::joined(LeaseTerms::Pipe);
    let number = pair.follower.ask(who(7));
    pair.exchange();
    pair.leader.answer(
        pair.link,
        number,
        1,
        Answer::Identity(identity(7, Right::BOTH), None),
    );
    pair.exchange();
    assert_eq!(pair.follower.poll(), None);
    pair.publish(1);
    pair.exchange();
    assert!(matches!(
        pair.follower.poll(),
        Some(FollowerEvent::Delta { revision: 1, .. })
    ));
    assert!(matches!(
        pair.follower.poll(),
        Some(FollowerEvent::Answer { .. })
    ));
}

#[test]
fn an_answer_that_a_later_revision_changed_is_asked_again() {
    let mut pair = Pair::joined(LeaseTerms::Pipe);
    let number = pair.follower.ask(who(7));
    pair.exchange();
    pair.publish(1);
    while pair.leader.poll().is_some() {}
    pair.leader.answer(
        pair.link,
        number,
        0,
        Answer::Identity(identity(7, Right::BOTH), None),
    );
    assert!(matches!(
        pair.leader.poll(),
        Some(LeaderEvent::Asked { .. })
    ));
    pair.leader.answer(
        pair.link,
        number,
        1,
        Answer::Identity(identity(7, Right::NONE), None),
    );
    pair.exchange();
    assert_eq!(pair.apply(), Some(1));
    let expected = Answer::Identity(identity(7, Right::NONE), None);
    assert_eq!(
        pair.follower.poll(),
        Some(FollowerEvent::Answer {
            number,
            answer: expected
        })
    );
}

#[test]
fn an_answer_that_no_later_revision_touched_is_sent_as_it_is() {
    let mut pair = Pair::joined(LeaseTerms::Pipe);
    let number = pair.follower.ask(who(8));
    pair.exchange();
    pair.publish(1);
    pair.leader.answer(
        pair.link,
        number,
        0,
        Answer::Identity(identity(8, Right::BOTH), None),
    );
    pair.exchange();
    assert_eq!(pair.apply(), Some(1));
    assert!(matches!(
        pair.follower.poll(),
        Some(FollowerEvent::Answer { .. })
    ));
}

#[test]
fn a_gap_is_told_once_and_healed_by_a_snapshot() {
    let mut pair = Pair::joined(LeaseTerms::Pipe);
    let mut bytes = Vec::new();
    Message::Delta {
        revision: 2,
        changes: vec![],
    }
    .put(&mut bytes);
    Message::Delta {
        revision: 3,
        changes: vec![],
    }
    .put(&mut bytes);
    pair.follower.input(&bytes).unwrap();
    assert_eq!(
        pair.follower.poll(),
        Some(FollowerEvent::Gap {
            expected: 1,
            told: 2
        })
    );
    assert_eq!(pair.follower.poll(), None);
    let number = pair.follower.ask(who(7));
    pair.follower.rejoin(vec![]);
    pair.leader.publish(1, vec![]);
    pair.exchange();
    pair.leader.snapshot(pair.link, as_of(1));
    pair.exchange();
    // What was told before the Hello arrived is not followed; the snapshot has it.
    assert!(matches!(
        pair.follower.poll(),
        Some(FollowerEvent::Snapshot { revision: 1, .. })
    ));
    pair.exchange();
    let asked = std::iter::from_fn(|| pair.leader.poll()).find_map(|event| match event {
        LeaderEvent::Asked { number, .. } => Some(number),
        _ => None,
    });
    assert_eq!(asked, Some(number), "asked again behind the snapshot");
}

#[test]
fn a_snapshot_read_before_a_published_revision_is_followed_by_it() {
    let mut pair = Pair::new(LeaseTerms::Pipe);
    pair.exchange();
    pair.publish(1);
    pair.leader.snapshot(pair.link, as_of(0));
    pair.exchange();
    assert!(matches!(
        pair.follower.poll(),
        Some(FollowerEvent::Snapshot { revision: 0, .. })
    ));
    assert_eq!(pair.apply(), Some(1));
}

#[test]
fn a_snapshot_older_than_the_history_is_read_again() {
    let mut pair = Pair::new(LeaseTerms::Pipe);
    pair.exchange();
    for revision in 1..=1_000 {
        pair.publish(revision);
    }
    while pair.leader.poll().is_some() {}
    pair.leader.snapshot(pair.link, as_of(0));
    assert!(matches!(
        pair.leader.poll(),
        Some(LeaderEvent::Joined { .. })
    ));
}

#[test]
fn large_snapshots_and_lists_travel_in_parts() {
    let mut leader = Leader::new(0, false, 0);
    let mut follower = Follower::new(id(1), 1);
    let link = leader.connected(LeaseTerms::Pipe, 0);
    let held: Vec<_> = (0..100_000).map(id).collect();
    follower.connected(held.clone(), 0);
    let mut bytes = Vec::new();
    follower.output(&mut bytes);
    leader.input(link, &bytes, 0).unwrap();
    let Some(LeaderEvent::Joined { held: mut told, .. }) = leader.poll() else {
        panic!("joined");
    };
    told.sort();
    assert_eq!(told, held);
    let changes: Vec<_> = (0..50_000).map(|n| right_set(n, Right::BOTH)).collect();
    let identities: Vec<_> = (0..50_000).map(|n| identity(n, Right::BOTH)).collect();
    let told = Snapshot {
        changes: changes.clone(),
        identities: identities.clone(),
        ..as_of(0)
    };
    leader.snapshot(link, told);
    bytes.clear();
    leader.output(link, &mut bytes);
    for piece in bytes.chunks(4_093) {
        follower.input(piece).unwrap();
    }
    let whole = FollowerEvent::Snapshot {
        revision: 0,
        afresh: false,
        changes,
        identities,
    };
    assert_eq!(follower.poll(), Some(whole));
}

#[test]
fn a_broker_that_does_not_read_is_given_up() {
    let mut pair = Pair::joined(LeaseTerms::Timed);
    let changes: Vec<_> = (0..50_000).map(|n| right_set(n, Right::BOTH)).collect();
    for revision in 1.. {
        pair.leader.publish(revision, changes.clone());
        if pair.leader.poll() == Some(LeaderEvent::Overrun { link: pair.link }) {
            break;
        }
        assert!(revision < 100, "64 MiB are the bound");
    }
    let mut bytes = Vec::new();
    pair.leader.output(pair.link, &mut bytes);
    assert!(bytes.is_empty());
}

#[test]
fn too_many_questions_are_refused_at_once() {
    let mut follower = Follower::new(id(1), 1);
    for _ in 0..ASKS_MAX {
        follower.ask(Question::Token(vec![]));
    }
    let number = follower.ask(Question::Token(vec![]));
    let answer = Answer::Refused(Refusal::Unavailable);
    assert_eq!(
        follower.poll(),
        Some(FollowerEvent::Answer { number, answer })
    );
}

#[test]
fn frames_beyond_the_bound_and_foreign_bytes_are_errors() {
    let mut frames = Frames::default();
    frames.push(&(MESSAGE_BYTES_MAX as u32 + 1).to_le_bytes());
    let length = MESSAGE_BYTES_MAX + 1;
    assert_eq!(frames.next(), Err(FeedError::TooLong { length }));
    for body in [&[0xff][..], &[6, 0, 0], &[]] {
        let mut frames = Frames::default();
        frames.push(&(body.len() as u32).to_le_bytes());
        frames.push(body);
        assert_eq!(frames.next(), Err(FeedError::Malformed), "{body:?}");
    }
}

#[test]
fn each_end_refuses_the_messages_of_its_own_kind() {
    let mut pair = Pair::joined(LeaseTerms::Pipe);
    let mut bytes = Vec::new();
    Message::Renew { sent_ms: 0 }.put(&mut bytes);
    assert_eq!(
        pair.follower.input(&bytes),
        Err(FeedError::Misplaced { message: "Renew" })
    );
    bytes.clear();
    Message::Lease {
        until_ms: 0,
        revision: 0,
    }
    .put(&mut bytes);
    assert_eq!(
        pair.leader.input(pair.link, &bytes, 0),
        Err(FeedError::Misplaced { message: "Lease" })
    );
}

#[test]
fn secrets_are_not_in_debug_output() {
    let credentials = Credentials {
        username: Some("pump".into()),
        password: Some(b"hunter2".to_vec()),
        ..Credentials::default()
    };
    let text = format!(
        "{:?} {:?}",
        Question::Identify(credentials),
        Question::Token(b"ey".to_vec())
    );
    let numbers = format!("{:?}", b"hunter2".to_vec());
    assert!(
        !text.contains("hunter2") && !text.contains(&numbers),
        "{text}"
    );
    assert!(text.contains("pump"));
}

#[test]
fn what_clients_did_is_told_once_and_lost_with_its_pipe() {
    let did = |inbound| Activity {
        client: id(7),
        inbound,
        outbound: 2,
        subscriptions: 3,
    };
    let told = |pair: &mut Pair| {
        let mut told = Vec::new();
        while let Some(event) = pair.leader.poll() {
            if let LeaderEvent::Active { node, clients, .. } = event {
                assert_eq!(node, id(1));
                told.extend(clients.iter().map(|client| client.inbound));
            }
        }
        told
    };
    let mut pair = Pair::new(LeaseTerms::Pipe);
    pair.follower.report(vec![did(1)]);
    pair.exchange();
    assert!(told(&mut pair).is_empty(), "nobody listened yet");
    let mut pair = Pair::joined(LeaseTerms::Pipe);
    pair.follower.report(vec![did(2)]);
    pair.exchange();
    pair.exchange();
    assert_eq!(told(&mut pair), [2]);
    pair.follower.report(vec![did(3)]);
    pair.leader.disconnected(pair.link, 0);
    pair.follower.disconnected();
    assert!(!pair.follower.is_live());
    pair.follower.connected(vec![], 0);
    pair.link = pair.leader.connected(LeaseTerms::Pipe, 0);
    pair.exchange();
    assert!(told(&mut pair).is_empty());
}

#[test]
fn more_activity_than_one_message_may_tell_is_refused() {
    let mut pair = Pair::joined(LeaseTerms::Pipe);
    let client = Activity {
        client: id(7),
        inbound: 0,
        outbound: 0,
        subscriptions: 0,
    };
    let mut bytes = Vec::new();
    let clients = vec![client; ACTIVITY_MAX + 1];
    Message::Activity { clients }.put(&mut bytes);
    let refused = pair.leader.input(pair.link, &bytes, 0);
    assert_eq!(refused, Err(FeedError::TooMany { what: "activity" }));
}

/// Overruns of links, and those that joined with what they were told.
fn told(leader: &mut Leader) -> (usize, Vec<(Option<EntityId>, u64)>) {
    let mut overrun = 0;
    let mut joined = Vec::new();
    while let Some(event) = leader.poll() {
        match event {
            LeaderEvent::Overrun { .. } => overrun += 1,
            LeaderEvent::Joined { told, .. } => joined.push(told),
            other => panic!("{other:?}"),
        }
    }
    (overrun, joined)
}

#[test]
fn older_database_settles_nothing_before_the_leases_of_the_newer_one_are_over() {
    let mut pair = Pair::joined(LeaseTerms::Timed);
    for revision in 1..=3 {
        pair.publish(revision);
    }
    pair.exchange();
    while pair.apply().is_some() {}
    pair.exchange();
    assert_eq!(pair.settled(), [3]);
    // The database was restored as of revision 1.
    pair.leader.begin_anew(id(2), 1, pair.now_ms);
    assert_eq!(told(&mut pair.leader), (1, vec![]), "its pipe is closed");
    pair.leader.publish(2, vec![]);
    assert_eq!(pair.leader.revision(), 2);
    // What the broker applied of the lost revisions says nothing of these.
    pair.follower.applied(3);
    pair.exchange();
    assert!(!pair.leader.settled(1) && !pair.leader.settled(2));
    assert!(
        pair.follower.poll().is_none(),
        "nothing of the new lineage on the old pipe"
    );
    pair.leader.disconnected(pair.link, pair.now_ms);
    pair.advance(LEASE_MS + LEASE_SKEW_MS);
    assert!(pair.leader.settled(2));
}

#[test]
fn broker_ahead_of_an_older_database_is_given_its_state_and_lives_in_its_lineage() {
    let mut pair = Pair::new(LeaseTerms::Pipe);
    pair.leader = Leader::new(7, false, 0).of(id(1));
    pair.link = pair.leader.connected(LeaseTerms::Pipe, 0);
    pair.exchange();
    assert_eq!(told(&mut pair.leader), (0, vec![(None, 0)]));
    pair.leader.snapshot(pair.link, as_of(7));
    pair.exchange();
    // Another control on a database restored as of revision 4.
    pair.follower.disconnected();
    pair.leader = Leader::new(4, false, 0).of(id(2));
    pair.link = pair.leader.connected(LeaseTerms::Pipe, 0);
    pair.follower.connected(vec![id(7)], 0);
    pair.exchange();
    assert_eq!(told(&mut pair.leader), (0, vec![(Some(id(1)), 7)]));
    let afresh = Snapshot {
        afresh: true,
        identities: vec![identity(7, Right::NONE)],
        ..as_of(4)
    };
    pair.leader.snapshot(pair.link, afresh);
    pair.exchange();
    while let Some(event) = pair.follower.poll() {
        if let FollowerEvent::Snapshot {
            revision: 4,
            afresh,
            ..
        } = event
        {
            assert!(afresh);
        }
    }
    assert_eq!(pair.follower.revision(), 4);
    pair.leader.publish(5, vec![]);
    pair.exchange();
    assert_eq!(
        pair.apply(),
        Some(5),
        "revisions that it had heard of in another lineage"
    );
    pair.exchange();
    assert!(pair.leader.settled(5));
    // A short cut within the lineage begins nothing anew.
    pair.leader.disconnected(pair.link, 0);
    pair.follower.disconnected();
    pair.link = pair.leader.connected(LeaseTerms::Pipe, 0);
    pair.follower.connected(vec![], 0);
    pair.exchange();
    let joined = std::iter::from_fn(|| pair.leader.poll()).find_map(|event| match event {
        LeaderEvent::Joined { told, .. } => Some(told),
        _ => None,
    });
    assert_eq!(joined, Some((Some(id(2)), 5)));
}

#[test]
fn answers_that_waited_for_a_lost_revision_are_not_given() {
    let mut pair = Pair::joined(LeaseTerms::Timed);
    pair.follower.ask(who(7));
    pair.exchange();
    let Some(LeaderEvent::Asked { number, .. }) = pair.leader.poll() else {
        panic!("asked");
    };
    // Read at revision 2, which is committed and not published; then it is gone.
    let answer = Answer::Identity(identity(7, Right::BOTH), None);
    pair.leader.answer(pair.link, number, 2, answer);
    pair.leader.begin_anew(id(2), 1, 0);
    pair.publish(2);
    pair.exchange();
    assert!(pair.follower.poll().is_none());
}
