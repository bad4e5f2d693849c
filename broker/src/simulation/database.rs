//! Control's database as a model: who may do what now, and what was answered when.

use std::collections::BTreeMap;

use authcache::feed::{Answer, Question, Refusal};
use authcache::{Action, Change, EntityId, Identity, PrincipalRecord, Right, Status};

/// A row of anything that can be switched off or deleted.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: EntityId,
    pub(super) domain: usize,
    pub(super) route: String,
    pub(super) enabled: bool,
    pub(super) removed: bool,
}

/// A client (or a user) and its secret.
#[derive(Clone, Debug)]
pub(super) struct Principal {
    pub(super) row: Row,
    pub(super) user: bool,
    pub(super) credential: u64,
}

/// What somebody may rely on about one right, in moments of the simulation.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    effective: bool,
    revision: u64,
    /// Answered and unbroken since then.
    pub(super) solid: Option<u64>,
    /// From the answer of a revocation to the commit of the next grant.
    forbidden: Vec<(u64, u64)>,
}

impl Standing {
    /// Whether nobody might have had the right at any moment from `from` to `to`.
    pub(super) fn is_forbidden(&self, from: u64, to: u64) -> bool {
        self.forbidden
            .iter()
            .any(|(begin, end)| *begin < from && to <= *end)
    }

    /// Whether it was granted for certain from before `from` until now.
    pub(super) fn is_solid(&self, from: u64) -> bool {
        self.solid.is_some_and(|since| since < from)
    }

    fn set(&mut self, effective: bool, revision: u64, moment: u64) {
        if self.effective == effective {
            return;
        }
        self.effective = effective;
        self.revision = revision;
        self.solid = None;
        if effective && let Some(last) = self.forbidden.last_mut() {
            last.1 = last.1.min(moment);
        }
    }

    fn settled(&mut self, revision: u64, moment: u64) {
        if self.revision > revision {
            return;
        }
        if self.effective {
            self.solid.get_or_insert(moment);
        } else if self.forbidden.last().is_none_or(|last| last.1 != u64::MAX) {
            self.forbidden.push((moment, u64::MAX));
        }
    }
}

/// Domains, channels, principals and their connections.
#[derive(Debug, Default)]
pub(super) struct Database {
    pub(super) revision: u64,
    pub(super) domains: Vec<Row>,
    pub(super) channels: Vec<Row>,
    pub(super) principals: Vec<Principal>,
    rights: BTreeMap<(usize, usize), Right>,
    /// Committed and not yet given to the leader.
    pub(super) outbox: Vec<(u64, Vec<Change>)>,
    publish: BTreeMap<(usize, usize), Standing>,
    subscribe: BTreeMap<(usize, usize), Standing>,
    /// Whether a principal may be connected at all.
    login: BTreeMap<usize, Standing>,
    /// Whether a user's right is changed by making all users' rights unknown.
    pub(super) voids: bool,
    /// It happened: until they are asked for, users' subscriptions sleep.
    pub(super) voided: bool,
    /// Highest revision that was answered.
    pub(super) settled: u64,
}

fn status(enabled: bool) -> Status {
    if enabled {
        Status::Enabled
    } else {
        Status::Disabled
    }
}

impl Database {
    pub(super) fn new(domains: usize, channels: usize) -> Database {
        let mut database = Database::default();
        for at in 0..domains {
            database.domains.push(row(1 + at, at, &format!("d{at}")));
        }
        for at in 0..channels {
            database
                .channels
                .push(row(100 + at, at % domains, &format!("c{at}")));
        }
        database
    }

    pub(super) fn add_principal(&mut self, domain: usize, user: bool) -> usize {
        let at = self.principals.len();
        let row = row(1000 + at, domain, "");
        self.principals.push(Principal {
            row,
            user,
            credential: 1,
        });
        at
    }

    pub(super) fn right(&self, who: usize, channel: usize) -> Right {
        self.rights
            .get(&(who, channel))
            .copied()
            .unwrap_or_default()
    }

    /// Sets a right without a revision: before the broker's start.
    pub(super) fn begin_with(&mut self, who: usize, channel: usize, right: Right) {
        self.rights.insert((who, channel), right);
    }

    /// What holds now holds from the beginning.
    pub(super) fn begin(&mut self) {
        self.revision = 1;
        self.stand(0);
        self.settle(1, 0);
    }

    pub(super) fn may_log_in(&self, who: usize) -> bool {
        let Principal { row, user, .. } = &self.principals[who];
        let domain = &self.domains[row.domain];
        row.enabled && !row.removed && (*user || domain.enabled && !domain.removed)
    }

    pub(super) fn channel_lives(&self, channel: usize) -> bool {
        let row = &self.channels[channel];
        let domain = &self.domains[row.domain];
        row.enabled && !row.removed && domain.enabled && !domain.removed
    }

    fn effective(&self, who: usize, channel: usize, action: Action) -> bool {
        let Principal { row, user, .. } = &self.principals[who];
        // A client has rights in its own domain alone.
        self.may_log_in(who)
            && self.channel_lives(channel)
            && (*user || row.domain == self.channels[channel].domain)
            && self.right(who, channel).contains(action)
    }

    pub(super) fn standing(&self, who: usize, channel: usize, action: Action) -> &Standing {
        let of = match action {
            Action::Publish => &self.publish,
            Action::Subscribe => &self.subscribe,
        };
        &of[&(who, channel)]
    }

    pub(super) fn login(&self, who: usize) -> &Standing {
        &self.login[&who]
    }

    fn stand(&mut self, moment: u64) {
        let revision = self.revision;
        for who in 0..self.principals.len() {
            for channel in 0..self.channels.len() {
                let key = (who, channel);
                let publish = self.effective(who, channel, Action::Publish);
                let subscribe = self.effective(who, channel, Action::Subscribe);
                self.publish
                    .entry(key)
                    .or_default()
                    .set(publish, revision, moment);
                self.subscribe
                    .entry(key)
                    .or_default()
                    .set(subscribe, revision, moment);
            }
            let may = self.may_log_in(who);
            self.login
                .entry(who)
                .or_default()
                .set(may, revision, moment);
        }
    }

    /// Control answered everything up to `revision`.
    pub(super) fn settle(&mut self, revision: u64, moment: u64) {
        self.settled = self.settled.max(revision);
        let all = self.publish.values_mut().chain(self.subscribe.values_mut());
        for standing in all.chain(self.login.values_mut()) {
            standing.settled(revision, moment);
        }
    }

    fn commit(&mut self, changes: Vec<Change>, moment: u64) {
        self.revision += 1;
        self.outbox.push((self.revision, changes));
        self.stand(moment);
    }

    pub(super) fn set_right(&mut self, who: usize, channel: usize, right: Right, moment: u64) {
        self.rights.insert((who, channel), right);
        let principal = self.principals[who].row.id;
        let row = &self.channels[channel];
        let change = if self.principals[who].user && self.voids {
            Change::UserRightsStale {
                domain: self.domains[row.domain].id,
            }
        } else {
            Change::RightSet {
                principal,
                channel: row.id,
                right,
            }
        };
        self.commit(vec![change], moment);
    }

    pub(super) fn switch_principal(&mut self, who: usize, enabled: bool, moment: u64) {
        self.principals[who].row.enabled = enabled;
        let change = self.principal_set(who);
        self.commit(vec![change], moment);
    }

    pub(super) fn rotate_secret(&mut self, who: usize, moment: u64) {
        self.principals[who].credential += 1;
        let change = self.principal_set(who);
        self.commit(vec![change], moment);
    }

    fn principal_set(&self, who: usize) -> Change {
        let principal = &self.principals[who];
        Change::PrincipalSet {
            id: principal.row.id,
            kind: self.kind(who),
            status: status(principal.row.enabled),
            credential: principal.credential,
        }
    }

    fn kind(&self, who: usize) -> PrincipalRecord {
        let principal = &self.principals[who];
        if principal.user {
            PrincipalRecord::User
        } else {
            PrincipalRecord::Client {
                domain: self.domains[principal.row.domain].id,
            }
        }
    }

    pub(super) fn switch_channel(&mut self, channel: usize, enabled: bool, moment: u64) {
        self.channels[channel].enabled = enabled;
        let change = self.channel_set(channel);
        self.commit(vec![change], moment);
    }

    fn channel_set(&self, channel: usize) -> Change {
        let row = &self.channels[channel];
        Change::ChannelSet {
            id: row.id,
            domain: self.domains[row.domain].id,
            route: Some(row.route.clone()),
            status: status(row.enabled),
            open: false,
        }
    }

    pub(super) fn switch_domain(&mut self, domain: usize, enabled: bool, moment: u64) {
        self.domains[domain].enabled = enabled;
        let change = self.domain_set(domain);
        self.commit(vec![change], moment);
    }

    fn domain_set(&self, domain: usize) -> Change {
        let row = &self.domains[domain];
        let (id, route) = (row.id, row.route.clone());
        Change::DomainSet {
            id,
            route,
            status: status(row.enabled),
        }
    }

    /// Deletes a channel and puts another with fresh id into the same domain.
    pub(super) fn remove_channel(&mut self, channel: usize, moment: u64) -> usize {
        self.channels[channel].removed = true;
        let id = self.channels[channel].id;
        let domain = self.channels[channel].domain;
        self.commit(vec![Change::ChannelRemoved { id }], moment);
        let at = self.channels.len();
        self.channels.push(row(100 + at, domain, &format!("c{at}")));
        for who in 0..self.principals.len() {
            let right = self.right(who, channel);
            self.rights.insert((who, at), right);
        }
        let mut changes = vec![self.channel_set(at)];
        for who in 0..self.principals.len() {
            if !self.principals[who].user {
                let principal = self.principals[who].row.id;
                let right = self.right(who, at);
                let channel = self.channels[at].id;
                changes.push(Change::RightSet {
                    principal,
                    channel,
                    right,
                });
            }
        }
        self.commit(changes, moment);
        at
    }

    /// Puts so many channels into the first domain, to which a principal that is known may subscribe.
    pub(super) fn add_channels(&mut self, count: usize, who: usize, moment: u64) {
        let principal = self.principals[who].row.id;
        let mut changes = Vec::new();
        for _ in 0..count {
            let at = self.channels.len();
            self.channels.push(row(5_000 + at, 0, &format!("c{at}")));
            self.rights.insert((who, at), Right::SUBSCRIBE);
            changes.push(self.channel_set(at));
            changes.push(Change::RightSet {
                principal,
                channel: self.channels[at].id,
                right: Right::SUBSCRIBE,
            });
        }
        self.commit(changes, moment);
    }

    pub(super) fn remove_principal(&mut self, who: usize, moment: u64) {
        self.principals[who].row.removed = true;
        let id = self.principals[who].row.id;
        self.commit(vec![Change::PrincipalRemoved { id }], moment);
    }

    /// The directory, for a snapshot.
    pub(super) fn directory(&self) -> Vec<Change> {
        let domains = (0..self.domains.len()).filter(|at| !self.domains[*at].removed);
        let channels = (0..self.channels.len()).filter(|at| !self.channels[*at].removed);
        domains
            .map(|at| self.domain_set(at))
            .chain(channels.map(|at| self.channel_set(at)))
            .collect()
    }

    pub(super) fn identity(&self, who: usize) -> Identity {
        let principal = &self.principals[who];
        let rights = (0..self.channels.len())
            .filter(|channel| !principal.user && !self.channels[*channel].removed)
            .map(|channel| (self.channels[channel].id, self.right(who, channel)))
            .filter(|(_, right)| !right.is_empty())
            .collect();
        Identity {
            id: principal.row.id,
            kind: self.kind(who),
            status: status(principal.row.enabled),
            credential: principal.credential,
            rights,
        }
    }

    pub(super) fn by_id(&self, id: EntityId) -> Option<usize> {
        self.principals
            .iter()
            .position(|principal| principal.row.id == id)
    }

    /// Identities of those that still exist.
    pub(super) fn identities(&self, held: &[EntityId]) -> Vec<Identity> {
        let mut found: Vec<usize> = held.iter().filter_map(|id| self.by_id(*id)).collect();
        found.sort_unstable();
        found.retain(|who| !self.principals[*who].row.removed);
        found.into_iter().map(|who| self.identity(who)).collect()
    }

    pub(super) fn answer(&self, question: &Question) -> Answer {
        match question {
            Question::Identify(shown) => {
                let name = shown.username.as_deref().and_then(|name| name.parse().ok());
                let known = name.filter(|who: &usize| {
                    *who < self.principals.len()
                        && !self.principals[*who].row.removed
                        && shown.password.as_deref()
                            == Some(self.principals[*who].credential.to_string().as_bytes())
                });
                match known {
                    None => Answer::Refused(Refusal::BadCredentials),
                    Some(who) if !self.may_log_in(who) => Answer::Refused(Refusal::NotAuthorized),
                    Some(who) => Answer::Identity(self.identity(who), None),
                }
            }
            Question::Rights { principal, channel } => {
                let who = self.by_id(*principal);
                let channel = self.channels.iter().position(|row| row.id == *channel);
                match who.zip(channel) {
                    Some((who, channel)) => Answer::Rights(self.right(who, channel)),
                    None => Answer::Rights(Right::NONE),
                }
            }
            Question::Token(_)
            | Question::Certificate(_)
            | Question::Key { .. }
            | Question::WrongKey { .. } => Answer::Refused(Refusal::BadCredentials),
        }
    }
}

fn row(number: usize, domain: usize, route: &str) -> Row {
    Row {
        id: EntityId::from_u128(number as u128),
        domain,
        route: route.to_owned(),
        enabled: true,
        removed: false,
    }
}
