//! Subscriptions enter and leave the router, and new ones get what is retained.

use codec::mqtt::QoS;
use router::SlotId;
use session::{FilterRequest, SubscribeRequest, UnsubscribeRequest};

use crate::shard::Shard;
use crate::shard::inbox::RetainedAsk;
use crate::shard::wires::Wires;

impl<W: Wires> Shard<W> {
    /// [`session::Step::Subscribe`]: entered first, then answered, then what is retained follows.
    pub(crate) fn subscribe(&mut self, id: SlotId, request: SubscribeRequest) {
        let token = self.outlets.slots.token(id);
        let mut codes = Vec::with_capacity(request.filters.len());
        let mut asks = Vec::new();
        for filter in request.filters {
            match filter {
                FilterRequest::Granted(granted) => {
                    let subscription = &granted.subscription;
                    if granted.replay {
                        asks.push(RetainedAsk {
                            shard: self.env.id,
                            token,
                            channel: subscription.channel,
                            filter: subscription.filter.clone(),
                            qos: granted.qos,
                            identifier: subscription.identifier.map(|number| number.get()),
                            prefix: subscription.prefix.clone(),
                        });
                    }
                    codes.push(granted.qos.as_u8());
                    let entered = self.subs.subscribe(granted.subscription, id);
                    if !entered.replaced {
                        self.env.counters.subscriptions.add(1);
                    }
                }
                FilterRequest::Refused(code) => {
                    self.env.counters.subscribe_refused.add(1);
                    codes.push(code.get());
                }
            }
        }
        self.answer(id, |machine, out| machine.subscribed(request.packet_id, &mut codes, out));
        for ask in asks {
            self.ask_retained(ask);
        }
    }

    /// [`session::Step::Unsubscribe`].
    pub(crate) fn unsubscribe(&mut self, id: SlotId, request: UnsubscribeRequest) {
        for removed in request.filters.iter().flatten() {
            let share = removed.share.as_deref();
            self.subs.unsubscribe(id, removed.channel, &removed.filter, share);
            self.env.counters.subscriptions.sub(1);
        }
        let existed = request.filters.iter().map(Option::is_some);
        self.answer(id, |machine, out| machine.unsubscribed(request.packet_id, existed, out));
    }
}

/// The QoS that an entry's bits mean.
pub(crate) fn qos_of(bits: u8) -> QoS {
    QoS::from_bits(bits).unwrap_or(QoS::AtMostOnce)
}
