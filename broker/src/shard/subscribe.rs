//! Subscriptions enter and leave the router, and new ones get what is retained.

use router::SlotId;
use session::{FilterRequest, SubscribeRequest, UnsubscribeRequest};

use crate::shard::Shard;
use crate::shard::inbox::RetainedAsk;
use crate::shard::wires::Wires;

impl<W: Wires> Shard<W> {
    /// [`session::Step::Subscribe`]: entered first, then answered, then what is retained follows.
    /// Whether something retained is asked for.
    pub(crate) fn subscribe(&mut self, id: SlotId, request: SubscribeRequest) -> bool {
        let token = self.outlets.slots.token(id);
        let wire = self.outlets.slots.slot(id).wire.as_ref();
        let tell_end = wire.is_some_and(|wire| self.outlets.wires.awaits_replays(wire));
        let mut codes = Vec::with_capacity(request.filters.len());
        let mut asks: Vec<RetainedAsk> = Vec::new();
        for filter in request.filters {
            match filter {
                FilterRequest::Granted(granted) => {
                    let subscription = &granted.subscription;
                    if granted.replay {
                        // Named twice in one packet it is one subscription, as it was named last.
                        asks.retain(|ask| {
                            ask.channel != subscription.channel || ask.filter != subscription.filter
                        });
                        asks.push(RetainedAsk {
                            shard: self.env.id,
                            token,
                            channel: subscription.channel,
                            filter: subscription.filter.clone(),
                            qos: granted.qos,
                            identifier: subscription.identifier.map(|number| number.get()),
                            prefix: subscription.prefix.clone(),
                            tell_end,
                        });
                    }
                    codes.push(granted.qos.as_u8());
                    let entered = self.subs.subscribe(granted.subscription, id);
                    if !entered.replaced {
                        self.env.counters.subscriptions.add(1);
                        self.outlets.slots.tally_mut(id).subscribed(1);
                    }
                }
                FilterRequest::Refused(code) => {
                    self.env.counters.subscribe_refused.add(1);
                    codes.push(code.get());
                }
            }
        }
        self.answer(id, |machine, out| {
            machine.subscribed(request.packet_id, &mut codes, out)
        });
        let asks_any = !asks.is_empty();
        for ask in asks {
            self.ask_retained(ask);
        }
        asks_any
    }

    /// [`session::Step::Unsubscribe`].
    pub(crate) fn unsubscribe(&mut self, id: SlotId, request: UnsubscribeRequest) {
        for removed in request.filters.iter().flatten() {
            let share = removed.share.as_deref();
            if share.is_none() {
                self.stop_replay(id, removed.channel, &removed.filter);
            }
            self.subs
                .unsubscribe(id, removed.channel, &removed.filter, share);
            self.env.counters.subscriptions.sub(1);
            self.outlets.slots.tally_mut(id).subscribed(-1);
        }
        let existed = request.filters.iter().map(Option::is_some);
        self.answer(id, |machine, out| {
            machine.unsubscribed(request.packet_id, existed, out)
        });
    }
}
