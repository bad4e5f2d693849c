//! Who a connection is, and what a user may do: asked of memory, then of control, and waited for by
//! this one connection alone.

use std::sync::atomic::Ordering;

use authcache::EntityId;
use authcache::feed::ShownCertificate;
use codec::mqtt::ReasonCode;
use router::SlotId;
use session::{Identify, IdentifyOutcome, Refusal, RightsQuestion, Step};

use crate::metrics::Closed;
use crate::shard::shared::ToControl;
use crate::shard::slot::Marks;
use crate::shard::timers::Due;
use crate::shard::wires::{Token, Wires};
use crate::shard::{Shard, closed_by};

/// Milliseconds a user's unknown right is waited for; then it is denied.
const RIGHTS_TIMEOUT_MS: u64 = 500;

impl<W: Wires> Shard<W> {
    /// [`Step::Identify`]: from memory if these credentials were seen, else by control. Whether
    /// the connection went on (and took `unread` along).
    pub(super) fn identify(&mut self, token: Token, what: Identify, unread: &[u8]) -> bool {
        let limits = &self.env.shared.limits;
        let used = self.env.shared.connections.load(Ordering::Relaxed);
        if limits.max_connections > 0 && used > limits.max_connections {
            let outcome = IdentifyOutcome::Refused(Refusal::Quota);
            return self.identified(token, outcome, unread);
        }
        if !self.env.may_serve() {
            let outcome = IdentifyOutcome::Refused(Refusal::Unavailable);
            return self.identified(token, outcome, unread);
        }
        let Some(what) = self.with_certificate(token, what) else {
            let outcome = IdentifyOutcome::Refused(Refusal::BadCredentials);
            return self.identified(token, outcome, unread);
        };
        let slot = self.outlets.slots.slot(token.slot);
        let listener = slot.hot.listener;
        if let Identify::Password {
            username: Some(username),
            password: Some(password),
        } = &what
        {
            let credentials = self.env.shared.cache.credentials();
            let known = if self.env.listeners[usize::from(listener)].open.is_some() {
                credentials.check(Some(&open_username(listener, username)), Some(password))
            } else {
                credentials.check(Some(username), Some(password))
            };
            if let Some(principal) = known {
                self.env.counters.identified_from_memory.add(1);
                return self.identified(token, IdentifyOutcome::Known(principal, None), unread);
            }
        }
        self.env.counters.identify_asked.add(1);
        let peer = slot
            .wire
            .as_ref()
            .and_then(|wire| self.outlets.wires.peer(wire));
        let question = ToControl::Identify {
            shard: self.env.id,
            token,
            listener,
            peer,
            what,
        };
        if !self.env.shared.control.ask(question) {
            let outcome = IdentifyOutcome::Refused(Refusal::Unavailable);
            return self.identified(token, outcome, unread);
        }
        let at = self.env.now.plus_millis(limits.auth_timeout_ms);
        self.outlets.deadlines.insert(at, token, Due::Identify);
        self.outlets.slots.slot_mut(token.slot).await_until(at);
        self.wait(token.slot);
        false
    }

    /// Where the transport's certificate says who comes, that counts and no password; `None` if
    /// the User Name is no client's.
    fn with_certificate(&self, token: Token, what: Identify) -> Option<Identify> {
        let wire = self.outlets.slots.slot(token.slot).wire.as_ref();
        let shown = wire.and_then(|wire| self.outlets.wires.certificate(wire));
        match (shown, what) {
            (Some(shown), Identify::Password { username, .. }) => {
                let claimed = match username.as_deref() {
                    None | Some("") => None,
                    Some(name) => Some(EntityId::from_text(name)?),
                };
                Some(Identify::Certificate(ShownCertificate {
                    claimed,
                    ..shown.clone()
                }))
            }
            (_, what) => Some(what),
        }
    }

    pub(super) fn wait(&mut self, id: SlotId) {
        self.outlets.slots.slot_mut(id).marks.set(Marks::WAITING);
        self.outlets.watch_as_marked(id);
    }

    /// The answer to an Identify is there. Whether the connection took `unread` along.
    pub(crate) fn identified(
        &mut self,
        token: Token,
        outcome: IdentifyOutcome,
        unread: &[u8],
    ) -> bool {
        let Some(slot) = self.outlets.slots.current(token) else {
            return true;
        };
        if !slot.machine().awaits_identity() {
            // It came after the timeout.
            return false;
        }
        slot.marks.clear(Marks::WAITING);
        let mut out = slot.out.take().unwrap_or_else(|| self.outlets.pool.out());
        let start = out.bytes.len();
        let rules = self.env.rules(token.slot, slot.hot.listener);
        let step = slot.machine().identified(outcome, &rules, &mut out.bytes);
        let credentials_end = slot.machine().credentials_end();
        out.claim(start);
        self.outlets.put_out(token.slot, out);
        if let Some(at) = credentials_end {
            self.outlets.deadlines.insert(at, token, Due::Credentials);
        }
        self.carry_out(token, step, unread)
    }

    /// Carries out a step that an answer led to. Whether the connection took `unread` along.
    pub(super) fn carry_out(&mut self, token: Token, step: Step<'_>, unread: &[u8]) -> bool {
        match step {
            Step::Claim(_) => {
                self.claim(token, unread);
                true
            }
            Step::Close(code) => {
                let why = if self.outlets.slots.slot(token.slot).hot.is_live() {
                    closed_by(code)
                } else {
                    Closed::Refused
                };
                self.close(token.slot, why);
                true
            }
            Step::Wait(question) => {
                self.ask_rights(token, question);
                false
            }
            _ => {
                self.outlets.watch_as_marked(token.slot);
                self.hungry(token.slot);
                false
            }
        }
    }

    /// [`Step::Wait`]: this connection alone is not read until control has answered.
    pub(super) fn ask_rights(&mut self, token: Token, question: RightsQuestion) {
        self.env.counters.rights_asked.add(1);
        let shard = self.env.id;
        if self.env.shared.control.ask(ToControl::Rights {
            shard,
            token: Some(token),
            question,
        }) {
            let at = self.env.now.plus_millis(RIGHTS_TIMEOUT_MS);
            self.outlets.deadlines.insert(at, token, Due::Rights);
            self.outlets.slots.slot_mut(token.slot).await_until(at);
            if self.is_claiming(token) {
                let mut claiming = std::mem::take(&mut self.claiming);
                claiming.retain(|other| self.is_claiming(*other));
                claiming.push(token);
                self.claiming = claiming;
            }
            self.wait(token.slot);
        } else {
            self.rights_unknown(token);
        }
    }

    pub(super) fn is_claiming(&mut self, token: Token) -> bool {
        let slot = self.outlets.slots.current(token);
        slot.is_some_and(|slot| slot.machine().is_before_connack())
    }

    /// A right could not be found out: whoever asked for it is told to come back.
    pub(super) fn rights_unknown(&mut self, token: Token) {
        if self.outlets.slots.current(token).is_some() {
            self.fail(
                token.slot,
                ReasonCode::SERVER_UNAVAILABLE,
                Closed::AuthTimeout,
            );
        }
    }

    pub(super) fn rights_answered(&mut self, token: Token, answered: bool) {
        let Some(slot) = self.outlets.slots.current(token) else {
            return;
        };
        if !slot.marks.has(Marks::WAITING) {
            return;
        }
        slot.marks.clear(Marks::WAITING);
        if !answered {
            return self.rights_unknown(token);
        }
        slot.hot.rights_changed();
        if slot.machine().is_before_connack() {
            let mut out = slot.out.take().unwrap_or_else(|| self.outlets.pool.out());
            let rules = self.env.rules(token.slot, slot.hot.listener);
            let step = slot.machine().check_will(&rules, &mut out.bytes);
            self.outlets.put_out(token.slot, out);
            let slot = self.outlets.slots.slot_mut(token.slot);
            let unread = slot
                .partial
                .take()
                .map_or_else(Vec::new, |partial| *partial);
            if !self.carry_out(token, step, &unread)
                && let Some(slot) = self.outlets.slots.current(token)
            {
                slot.partial = Some(Box::new(unread));
            }
            return;
        }
        self.outlets.watch_as_marked(token.slot);
        self.hungry(token.slot);
    }

    /// Asks for the rights of users that routing found unknown; their subscriptions sleep until
    /// the answer is there.
    pub(super) fn ask_unknown(&mut self) {
        for (principal, channel) in self.subs.take_unknown() {
            // A full mailbox is asked again when the subscription is judged again.
            self.ask_for_what_waits(RightsQuestion { principal, channel });
        }
    }

    /// Asks for a right that no connection waits for; `false` when too much is asked already.
    pub(super) fn ask_for_what_waits(&self, question: RightsQuestion) -> bool {
        self.env.shared.control.ask(ToControl::Rights {
            shard: self.env.id,
            token: None,
            question,
        })
    }
}

/// The user name of an open listener as it is remembered: names are unique only there.
pub(crate) fn open_username(listener: u8, username: &str) -> String {
    format!("{listener}\0{username}")
}
