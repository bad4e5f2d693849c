//! Without a lease nobody is heard and nothing is sent; who comes is refused, and after a while
//! those who were there are let go. (Threats 4.2.)

use codec::mqtt::ReasonCode;
use router::SlotId;

use crate::metrics::Closed;
use crate::shard::Shard;
use crate::shard::wires::Wires;

impl<W: Wires> Shard<W> {
    /// A turn without a lease: once the grace is over, connections are closed. What was accepted
    /// from them stays in their sessions.
    pub(super) fn wait_for_lease(&mut self) {
        let now = self.env.now;
        let since = *self.without_lease.get_or_insert(now);
        let ends = since.plus_millis(self.env.shared.limits.lease_grace_ms);
        if now < ends {
            return;
        }
        let used: Vec<SlotId> = self.outlets.slots.used().collect();
        for id in used {
            let slot = self.outlets.slots.slot(id);
            if slot.wire.is_some() && slot.hot.is_live() {
                self.fail(id, ReasonCode::SERVER_UNAVAILABLE, Closed::LeaseOver);
            }
        }
        // Nobody can have come since; looked at again when as much time has passed.
        self.without_lease = Some(now);
    }
}
