//! Channel sockets: a connection with one subscription ends when it loses the right to it.

use authcache::{Action, Denied};
use codec::mqtt::ReasonCode;

use crate::metrics::Closed;
use crate::shard::Shard;
use crate::shard::wires::{Token, Wires};

impl<W: Wires> Shard<W> {
    /// Closes an open channel socket whose right to its channel is gone. (It is silent from the
    /// moment of the revocation on; this only tells its peer.)
    pub(crate) fn close_without_right(&mut self, token: Token) {
        let Some(slot) = self.outlets.slots.current(token) else {
            return;
        };
        let principal = slot.hot.principal;
        let mut machine = slot.machine();
        let Some(session) = machine.session() else {
            return;
        };
        let channel = session.subscriptions().first().map(|sub| sub.channel);
        let allowed =
            channel.map(|channel| self.env.gate.allows(principal, Action::Subscribe, channel));
        // A user's right that is not known is asked for, and one without lease may still be there.
        let lost = match allowed {
            None | Some(Err(Denied::NoRight | Denied::NotLive)) => true,
            Some(Ok(_) | Err(Denied::Unknown | Denied::LeaseOver)) => false,
        };
        if lost {
            self.fail(
                token.slot,
                ReasonCode::NOT_AUTHORIZED,
                Closed::Administrative,
            );
        }
    }
}
