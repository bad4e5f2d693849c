//! The broker's end of control: questions out, changes in, each change fenced before it counts.
//!
//! A value without I/O: bytes of the feed go in and out, posts go to the shards' inboxes. The task
//! in `control` drives it over a pipe, the simulator over a virtual one.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use authcache::feed::{
    Answer, Credentials, FeedError, Follower, FollowerEvent, LEASE_UNLIMITED, Question, Refusal,
};
use authcache::{Cause, Change, EntityId, Identity, Notice, Right, Writer};
use router::ShardId;
use session::{Identify, IdentifyOutcome, ListenerRules, Now, RightsQuestion};

use crate::activity::Activities;
use crate::metrics::ControlCounters;
use crate::renewal::{RIGHTS_MAX, Renewal, WAIT_MS};
use crate::shard::identity::open_username;
use crate::shard::inbox::Post;
use crate::shard::shared::{Shared, ToControl};
use crate::shard::wires::Token;

/// What the link knows of a listener.
#[derive(Clone, Debug)]
pub(crate) struct LinkListener {
    /// Id or route of the domain whose open channel takes topics outside the grammar.
    pub(crate) open: Option<String>,
    /// Whether clients that nobody knows are let in there.
    pub(crate) anonymous: bool,
    /// Whether a refused PUBLISH at QoS 0 ends its connection.
    pub(crate) close_on_refused: bool,
    pub(crate) close_on_revoked: bool,
}

/// A name that is no id is nobody's, as that of the broker itself is.
fn client_of(identity: &str) -> EntityId {
    EntityId::from_text(identity).unwrap_or(EntityId::SYS)
}

/// The number of no credential: control counts them from 1.
const FORGOTTEN: u64 = u64::MAX;

/// A question that control has not answered yet.
#[derive(Debug)]
enum Asked {
    Identity {
        shard: ShardId,
        token: Token,
        remembered_as: Option<(String, Vec<u8>)>,
    },
    Right {
        shard: ShardId,
        token: Option<Token>,
        question: RightsQuestion,
        principal: EntityId,
        channel: EntityId,
    },
    Key {
        shard: ShardId,
        number: u64,
    },
    /// For the renewal under way.
    Renewed {
        user: EntityId,
        channel: EntityId,
    },
}

/// Two rounds over all shards: in the first every shard posts what it judged before, in the
/// second every shard has drained and sent it.
#[derive(Debug)]
struct Fence {
    revision: u64,
    /// Number of the last telling that it covers.
    told: u64,
    round: u64,
    missing: usize,
    second: bool,
    began_us: u64,
}

/// Follower, writer and fence of one broker.
pub(crate) struct Link<W> {
    shared: Arc<Shared<W>>,
    counters: Arc<ControlCounters>,
    writer: Writer,
    follower: Follower,
    listeners: Vec<LinkListener>,
    asked: HashMap<u64, Asked>,
    renewal: Option<Renewal>,
    fence: Option<Fence>,
    next_round: u64,
    /// Highest revision that is in the tables.
    applied: u64,
    /// Highest revision whose fence has passed.
    fenced: u64,
    /// Counts what shards were told: revisions begin anew with another lineage, this does not.
    told: u64,
    /// What shards were told since the last fence, for one that begins anew.
    unfenced: Vec<(u64, Notice)>,
    /// A lease that holds once its revision is fenced.
    lease: Option<(u64, u64)>,
    serving: bool,
    /// What clients did, until control is told.
    activities: Activities,
}

impl<W: 'static> Link<W> {
    pub(crate) fn new(
        shared: Arc<Shared<W>>,
        counters: Arc<ControlCounters>,
        writer: Writer,
        node: EntityId,
        incarnation: u64,
        listeners: Vec<LinkListener>,
    ) -> Link<W> {
        Link {
            shared,
            counters,
            writer,
            follower: Follower::new(node, incarnation),
            listeners,
            asked: HashMap::new(),
            renewal: None,
            fence: None,
            next_round: 1,
            applied: 0,
            fenced: 0,
            told: 0,
            unfenced: Vec::new(),
            lease: None,
            serving: false,
            activities: Activities::default(),
        }
    }

    /// A pipe to control is there.
    pub(crate) fn connected(&mut self, now: Now) {
        self.follower.connected(self.writer.held(), now.as_millis());
    }

    /// The pipe is gone, and with it a lease without end.
    pub(crate) fn disconnected(&mut self, now: Now) {
        self.follower.disconnected();
        if let Some(renewal) = &mut self.renewal {
            renewal.failed = true;
        }
        self.renewed(now);
        if self.shared.cache.lease().until() == Some(u64::MAX) {
            self.shared.cache.lease().end();
        }
        // One that was told and waits for its fence is over as well.
        self.lease = self
            .lease
            .filter(|(until_ms, _)| *until_ms != LEASE_UNLIMITED);
    }

    /// Bytes from control.
    ///
    /// # Errors
    ///
    /// When they are no feed: the pipe has to be closed.
    pub(crate) fn input(&mut self, bytes: &[u8], now: Now, now_us: u64) -> Result<(), FeedError> {
        self.follower.input(bytes)?;
        while let Some(event) = self.follower.poll() {
            self.event(event, now);
        }
        self.start_fence(now_us);
        Ok(())
    }

    /// Questions and fences of the shards.
    pub(crate) fn take_requests(&mut self, now: Now, now_us: u64) {
        for request in self.shared.control.take() {
            match request {
                ToControl::Identify {
                    shard,
                    token,
                    listener,
                    peer,
                    what,
                } => {
                    self.identify(shard, token, listener, peer, what);
                }
                ToControl::Rights {
                    shard,
                    token,
                    question,
                } => {
                    self.ask_right(shard, token, question);
                }
                ToControl::Activity { shard, activity } => {
                    let directory = self.shared.cache.directory();
                    self.activities.add(shard, &activity, directory);
                }
                ToControl::Key {
                    shard,
                    number,
                    identity,
                    peer,
                } => {
                    let client = client_of(&identity);
                    let asked = self.follower.ask(Question::Key { client, peer });
                    self.asked.insert(asked, Asked::Key { shard, number });
                }
                ToControl::WrongKey { identity, peer } => {
                    let client = client_of(&identity);
                    // Nothing waits for the answer.
                    self.follower.ask(Question::WrongKey { client, peer });
                }
                ToControl::Fenced { round } => self.fenced(round, now_us),
                ToControl::BegunAnew { shard } => self.begun_anew(shard),
            }
        }
        while let Some(event) = self.follower.poll() {
            self.event(event, now);
        }
        self.start_fence(now_us);
        self.tell_activity(now);
    }

    /// Tells control what clients did, once a second while it listens.
    fn tell_activity(&mut self, now: Now) {
        if self.follower.is_live() {
            let told = self.activities.take(now.as_millis());
            if !told.is_empty() {
                self.follower.report(told);
            }
        }
    }

    /// Time passes: the lease is renewed.
    pub(crate) fn tick(&mut self, now: Now) {
        self.follower.tick(now.as_millis());
        self.renewed(now);
        self.start_fence(now.as_millis() * 1000);
        self.tell_activity(now);
        let valid = self.shared.cache.lease().valid(now.as_millis());
        self.counters
            .lease
            .store(u64::from(valid), Ordering::Relaxed);
    }

    /// When time has to pass next.
    pub(crate) fn next_timeout(&self) -> Option<Now> {
        let follower = self.follower.next_timeout().map(Now::from_millis);
        let renewal = self.renewal.as_ref().map(|renewal| renewal.until);
        let activity = self.follower.is_live().then(|| self.activities.due_ms());
        let activity = activity.flatten().map(Now::from_millis);
        follower.into_iter().chain(renewal).chain(activity).min()
    }

    /// Takes the bytes for control.
    pub(crate) fn output(&mut self, out: &mut Vec<u8>) {
        self.follower.output(out);
    }

    /// Whether clients are served: control's state is in force, and the lease on it holds.
    pub(crate) fn is_ready(&self, now: Now) -> bool {
        self.serving && self.shared.cache.lease().valid(now.as_millis())
    }

    /// What control says, in its order: behind a renewal everything but its answers waits.
    fn event(&mut self, event: FollowerEvent, now: Now) {
        if let FollowerEvent::Answer { number, answer } = &event
            && let Some(Asked::Renewed { user, channel }) = self.asked.get(number)
        {
            let (user, channel, right) = (*user, *channel, right_of(answer));
            self.asked.remove(number);
            let renewal = self.renewal.as_mut();
            if let Some(renewal) = renewal.filter(|renewal| renewal.open.contains(number)) {
                renewal.open.remove(number);
                renewal.answered(user, channel, right);
                self.renewed(now);
            } else if let Some(right) = right {
                // It came too late for its revision, and is as good as one asked for on use.
                self.told_late(user, channel, right);
            }
            return;
        }
        match &mut self.renewal {
            Some(renewal) => renewal.behind.push_back(event),
            None => self.carry_out(event, now),
        }
    }

    fn carry_out(&mut self, event: FollowerEvent, now: Now) {
        match event {
            FollowerEvent::Snapshot {
                revision,
                afresh,
                changes,
                identities,
            } => {
                let mut notices = Vec::new();
                if afresh {
                    tracing::warn!(
                        revision,
                        "control's database is another one than before: every client is identified anew"
                    );
                    // Numbers that are equal may stand for other secrets: what is known by one is
                    // forgotten, and whoever came by it comes again.
                    for identity in &identities {
                        let forgotten = Change::PrincipalSet {
                            id: identity.id,
                            kind: identity.kind,
                            status: identity.status,
                            credential: FORGOTTEN,
                        };
                        notices.extend(self.writer.apply(&forgotten));
                    }
                }
                notices.extend(self.writer.load(&changes, &identities));
                // Whatever was fenced before: this state is fenced and confirmed anew, over this
                // pipe, and a fence that began before it says nothing of it.
                self.fence = None;
                self.fenced = 0;
                self.told(revision, notices);
            }
            FollowerEvent::Delta { revision, changes } => {
                if let Err(changes) = self.renew(revision, changes, now) {
                    self.apply(revision, &changes);
                }
            }
            FollowerEvent::Answer { number, answer } => self.answered(number, answer, now),
            FollowerEvent::Lease { until_ms, revision } => {
                self.lease = Some((until_ms, revision));
                self.grant_lease();
            }
            FollowerEvent::Gap { .. } => self.follower.rejoin(self.writer.held()),
        }
    }

    /// Asks anew for rights that a revision may have changed, before it counts. Gives the changes
    /// back when there is nothing to ask for, or too much.
    fn renew(&mut self, revision: u64, changes: Vec<Change>, now: Now) -> Result<(), Vec<Change>> {
        let mut domains = Vec::new();
        let mut known = Vec::new();
        let mut rest = Vec::new();
        for change in &changes {
            match change {
                Change::UserRightsStale { domain } => {
                    let most = RIGHTS_MAX - known.len();
                    match self.writer.known_user_rights(*domain, most) {
                        Some(rights) => known.extend(rights),
                        None => {
                            self.counters.rights_voided.fetch_add(1, Ordering::Relaxed);
                            return Err(changes);
                        }
                    }
                    domains.push(*domain);
                }
                other => rest.push(other.clone()),
            }
        }
        if known.is_empty() {
            return Err(changes);
        }
        let mut open = HashSet::new();
        for (user, channel) in known {
            let principal = user;
            let number = self.follower.ask(Question::Rights { principal, channel });
            self.asked.insert(number, Asked::Renewed { user, channel });
            open.insert(number);
        }
        self.renewal = Some(Renewal {
            revision,
            changes: rest,
            domains,
            open,
            fresh: Vec::new(),
            failed: false,
            until: now.plus_millis(WAIT_MS),
            behind: VecDeque::new(),
        });
        Ok(())
    }

    /// Carries out a revision whose rights are told, and what came behind it.
    fn renewed(&mut self, now: Now) {
        while let Some(renewal) = self.renewal.take_if(|renewal| renewal.is_over(now)) {
            if renewal.failed || !renewal.open.is_empty() {
                self.counters.rights_voided.fetch_add(1, Ordering::Relaxed);
            }
            let (revision, changes, mut behind) = renewal.into_changes();
            self.apply(revision, &changes);
            while let Some(event) = behind.pop_front() {
                match &mut self.renewal {
                    Some(next) => next.behind.push_back(event),
                    None => self.carry_out(event, now),
                }
            }
        }
    }

    fn told_late(&mut self, principal: EntityId, channel: EntityId, right: Right) {
        let change = Change::RightSet {
            principal,
            channel,
            right,
        };
        let told = self.told;
        for notice in self.writer.apply(&change) {
            self.shared.post_all(|| Post::Notice { told, notice });
        }
    }

    fn apply(&mut self, revision: u64, changes: &[Change]) {
        let notices = changes
            .iter()
            .flat_map(|change| self.writer.apply(change))
            .collect();
        self.told(revision, notices);
    }

    /// The tables hold a revision: shards hear of it before the fence that follows.
    fn told(&mut self, revision: u64, notices: Vec<Notice>) {
        self.told += 1;
        let told = self.told;
        for notice in notices {
            self.shared.post_all(|| Post::Notice { told, notice });
            self.unfenced.push((told, notice));
        }
        self.applied = revision;
        self.counters.revision.store(revision, Ordering::Relaxed);
    }

    fn start_fence(&mut self, now_us: u64) {
        if self.fence.is_some() || self.applied == self.fenced && self.serving {
            return;
        }
        if self.applied == 0 {
            return;
        }
        let round = self.next_round;
        self.next_round += 1;
        self.fence = Some(Fence {
            revision: self.applied,
            told: self.told,
            round,
            missing: self.shared.shards(),
            second: false,
            began_us: now_us,
        });
        let covers = None;
        self.shared.post_all(|| Post::Fence { round, covers });
    }

    fn fenced(&mut self, round: u64, now_us: u64) {
        let Some(fence) = &mut self.fence else { return };
        if fence.round != round {
            return;
        }
        fence.missing -= 1;
        if fence.missing > 0 {
            return;
        }
        if !fence.second {
            fence.second = true;
            fence.round = self.next_round;
            fence.missing = self.shared.shards();
            self.next_round += 1;
            let (round, covers) = (fence.round, Some(fence.told));
            self.shared.post_all(|| Post::Fence { round, covers });
            return;
        }
        let (revision, told, began_us) = (fence.revision, fence.told, fence.began_us);
        self.fence = None;
        self.fenced = revision;
        let (fenced, later) = std::mem::take(&mut self.unfenced)
            .into_iter()
            .partition(|(of, _)| *of <= told);
        self.unfenced = later;
        let fenced: Vec<(u64, Notice)> = fenced;
        for (_, notice) in fenced {
            if let Notice::PrincipalClosed(principal, Cause::Removed) = notice {
                self.activities.forget_client(principal);
            }
        }
        self.writer.fence_passed();
        self.follower.applied(revision);
        self.counters.fences.record(now_us.saturating_sub(began_us));
        self.grant_lease();
        if !self.serving {
            self.serve();
        }
    }

    fn grant_lease(&mut self) {
        let Some((until_ms, revision)) = self.lease else {
            return;
        };
        if revision > self.fenced {
            return;
        }
        let lease = self.shared.cache.lease();
        if until_ms == LEASE_UNLIMITED {
            lease.unlimited();
        } else {
            lease.renew(until_ms);
        }
        self.counters.lease.store(1, Ordering::Relaxed);
    }

    /// A shard has lost what it was told: it hears it again, and a fence that it had not passed
    /// begins anew. Answers to what it asked before are for nobody.
    fn begun_anew(&mut self, shard: ShardId) {
        self.asked.retain(|_, asked| match asked {
            Asked::Identity { shard: of, .. }
            | Asked::Right { shard: of, .. }
            | Asked::Key { shard: of, .. } => *of != shard,
            Asked::Renewed { .. } => true,
        });
        self.activities.forget(shard);
        let inbox = &self.shared.inboxes[shard.index()];
        for &(told, notice) in &self.unfenced {
            inbox.post_one(Post::Notice { told, notice });
        }
        if self.serving {
            inbox.post_one(Post::Serve(self.rules()));
        }
        // Acknowledgements of its rounds come too late to count.
        self.fence = None;
    }

    /// Control's state is in force on all shards: clients may come.
    fn serve(&mut self) {
        self.serving = true;
        let rules = self.rules();
        self.shared.post_all(|| Post::Serve(rules.clone()));
    }

    fn rules(&self) -> Vec<ListenerRules> {
        let directory = self.shared.cache.directory();
        self.listeners
            .iter()
            .map(|listener| ListenerRules {
                open: listener
                    .open
                    .as_deref()
                    .and_then(|name| directory.domain_by_name(name))
                    .and_then(|domain| directory.open_channel(domain)),
                close_on_refused: listener.close_on_refused,
                close_on_revoked: listener.close_on_revoked,
            })
            .collect()
    }

    fn identify(
        &mut self,
        shard: ShardId,
        token: Token,
        listener: u8,
        peer: Option<std::net::IpAddr>,
        what: Identify,
    ) {
        let rules = &self.listeners[usize::from(listener)];
        let directory = self.shared.cache.directory();
        let open = rules
            .open
            .as_deref()
            .and_then(|name| directory.domain_by_name(name))
            .and_then(|domain| directory.domain_id(domain));
        let (question, remembered_as) = match what {
            Identify::Token(token) => (Question::Token(token), None),
            Identify::Certificate(shown) => (Question::Certificate(shown), None),
            Identify::Password { username, password } => {
                let remembered_as = match (&username, &password) {
                    (Some(username), Some(password)) if open.is_some() => {
                        Some((open_username(listener, username), password.clone()))
                    }
                    (Some(username), Some(password)) => Some((username.clone(), password.clone())),
                    _ => None,
                };
                let credentials = Credentials {
                    username,
                    password,
                    open,
                    anonymous: rules.anonymous,
                    peer,
                };
                (Question::Identify(credentials), remembered_as)
            }
        };
        let number = self.follower.ask(question);
        self.asked.insert(
            number,
            Asked::Identity {
                shard,
                token,
                remembered_as,
            },
        );
    }

    fn ask_right(&mut self, shard: ShardId, token: Option<Token>, question: RightsQuestion) {
        let directory = self.shared.cache.directory();
        let Some(channel) = directory.channel_id(question.channel) else {
            let post = Post::RightsAnswered {
                token,
                question,
                answered: false,
            };
            return self.shared.inboxes[shard.index()].post_one(post);
        };
        let principal = directory.principal_id(question.principal);
        let number = self.follower.ask(Question::Rights { principal, channel });
        self.asked.insert(
            number,
            Asked::Right {
                shard,
                token,
                question,
                principal,
                channel,
            },
        );
    }

    fn answered(&mut self, number: u64, answer: Answer, now: Now) {
        match self.asked.remove(&number) {
            Some(Asked::Identity {
                shard,
                token,
                remembered_as,
            }) => {
                let outcome = match answer {
                    Answer::Identity(identity, until) => {
                        self.known(&identity, until, remembered_as, now)
                    }
                    Answer::Refused(refusal) => IdentifyOutcome::Refused(refusal_of(refusal)),
                    Answer::Rights(_) | Answer::Key(_) => {
                        IdentifyOutcome::Refused(session::Refusal::Unavailable)
                    }
                };
                self.shared.inboxes[shard.index()].post_one(Post::Identified { token, outcome });
            }
            Some(Asked::Right {
                shard,
                token,
                question,
                principal,
                channel,
            }) => {
                let right = right_of(&answer);
                // The indexes may be somebody else's by now: the right is theirs no more.
                let directory = self.shared.cache.directory();
                let same = directory.principal(principal) == Some(question.principal)
                    && directory.channel_id(question.channel) == Some(channel);
                if let Some(right) = right.filter(|_| same) {
                    self.writer
                        .set_right(question.principal, question.channel, right);
                }
                let post = Post::RightsAnswered {
                    token,
                    question,
                    answered: right.is_some(),
                };
                self.shared.inboxes[shard.index()].post_one(post);
            }
            Some(Asked::Key { shard, number }) => {
                let key = match answer {
                    Answer::Key(key) => Some(key),
                    Answer::Identity(..) | Answer::Refused(_) | Answer::Rights(_) => None,
                };
                self.shared.inboxes[shard.index()].post_one(Post::Key { number, key });
            }
            Some(Asked::Renewed { .. }) | None => {}
        }
    }

    fn known(
        &mut self,
        identity: &Identity,
        until_unix_s: Option<u64>,
        remembered_as: Option<(String, Vec<u8>)>,
        now: Now,
    ) -> IdentifyOutcome {
        let who = self.writer.hold(identity);
        let until = until_unix_s.map(|until| {
            let wall = std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(0, |since| since.as_secs());
            now.plus_secs(u32::try_from(until.saturating_sub(wall)).unwrap_or(u32::MAX))
        });
        // A token is looked at again each time: it may have been revoked.
        if let (None, Some((username, password))) = (until, remembered_as) {
            self.shared.cache.credentials().remember(
                Some(&username),
                Some(&password),
                who,
                identity.credential,
            );
        }
        IdentifyOutcome::Known(who, until)
    }
}

/// The right that control told; `None` when it could not.
fn right_of(answer: &Answer) -> Option<Right> {
    match answer {
        Answer::Rights(right) => Some(*right),
        Answer::Refused(Refusal::Unavailable | Refusal::Throttled) => None,
        Answer::Refused(_) | Answer::Identity(..) | Answer::Key(_) => Some(Right::NONE),
    }
}

fn refusal_of(refusal: Refusal) -> session::Refusal {
    match refusal {
        Refusal::BadCredentials => session::Refusal::BadCredentials,
        Refusal::NotAuthorized => session::Refusal::NotAuthorized,
        Refusal::Throttled => session::Refusal::Throttled,
        Refusal::Unavailable => session::Refusal::Unavailable,
    }
}
