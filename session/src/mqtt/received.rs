//! Packet Identifiers of QoS 2 messages that the client sent and has not released (MQTT 5, 4.3.3).

use codec::mqtt::PacketId;

/// The identifiers, and which of them an earlier connection left behind.
///
/// Only identifiers are kept, never messages: 2 to 4 bytes each (threats T-SES-1). Both lists
/// ascend and `carried` is part of `ids`; `used() == ids.len() - carried.len()` is what counts
/// against the Receive Maximum, which begins anew with each connection.
#[derive(Debug, Default)]
pub(crate) struct Received {
    ids: Vec<u16>,
    carried: Vec<u16>,
}

/// What a QoS 2 PUBLISH with some identifier is.
#[derive(Copy, Clone, Debug, Eq, PartialEq)]
pub(crate) enum Arrival {
    /// A message not seen before.
    New,
    /// A message that was accepted before. [MQTT-4.3.3-10]
    Repeated,
    /// More than the client may have under way.
    TooMany,
}

impl Received {
    /// Judges a PUBLISH: at most `window` exchanges of this connection, `total` with older ones.
    pub(crate) fn arrival(&mut self, id: PacketId, window: usize, total: usize) -> Arrival {
        let room = self.used() < window;
        if self.ids.binary_search(&id.get()).is_ok() {
            match self.carried.binary_search(&id.get()) {
                // Sent again after a resume, it takes its part of the window again.
                Ok(_) if !room => return Arrival::TooMany,
                Ok(at) => {
                    self.carried.remove(at);
                }
                Err(_) => {}
            }
            return Arrival::Repeated;
        }
        if room && self.ids.len() < total {
            Arrival::New
        } else {
            Arrival::TooMany
        }
    }

    /// A message was accepted: its identifier is taken until PUBREL.
    pub(crate) fn insert(&mut self, id: PacketId) {
        if let Err(at) = self.ids.binary_search(&id.get()) {
            self.ids.insert(at, id.get());
        }
    }

    /// PUBREL: frees an identifier; whether it was taken. [MQTT-4.3.3-12]
    pub(crate) fn release(&mut self, id: PacketId) -> bool {
        if let Ok(at) = self.carried.binary_search(&id.get()) {
            self.carried.remove(at);
        }
        match self.ids.binary_search(&id.get()) {
            Ok(at) => {
                self.ids.remove(at);
                true
            }
            Err(_) => false,
        }
    }

    /// The connection ended; its identifiers stay with the session.
    pub(crate) fn disconnected(&mut self) {
        self.carried.clone_from(&self.ids);
    }

    fn used(&self) -> usize {
        self.ids.len() - self.carried.len()
    }

    /// Checks the invariant of the type.
    pub(crate) fn invariants(&self) {
        debug_assert!(self.ids.is_sorted_by(|a, b| a < b));
        debug_assert!(self.carried.is_sorted_by(|a, b| a < b));
        debug_assert!(
            self.carried
                .iter()
                .all(|id| self.ids.binary_search(id).is_ok())
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u16) -> PacketId {
        PacketId::new(number).expect("not zero")
    }

    #[test]
    fn identifier_is_taken_from_publish_to_pubrel() {
        // [MQTT-4.3.3-10] [MQTT-4.3.3-12]
        let mut received = Received::default();
        assert_eq!(received.arrival(id(7), 2, 9), Arrival::New);
        received.insert(id(7));
        assert_eq!(received.arrival(id(7), 2, 9), Arrival::Repeated);
        assert!(received.release(id(7)));
        assert!(!received.release(id(7)));
        assert_eq!(received.arrival(id(7), 2, 9), Arrival::New);
    }

    #[test]
    fn window_begins_anew_with_each_connection_and_the_total_does_not() {
        let mut received = Received::default();
        received.insert(id(1));
        received.insert(id(2));
        assert_eq!(received.arrival(id(3), 2, 3), Arrival::TooMany);
        received.disconnected();
        assert_eq!(received.arrival(id(3), 2, 3), Arrival::New);
        received.insert(id(3));
        assert_eq!(
            received.arrival(id(4), 2, 3),
            Arrival::TooMany,
            "three in all"
        );
        assert_eq!(
            received.arrival(id(1), 2, 3),
            Arrival::Repeated,
            "takes its part again"
        );
        assert_eq!(received.arrival(id(2), 2, 3), Arrival::TooMany);
        received.invariants();
    }
}
