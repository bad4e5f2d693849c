//! DTLS in a turn: handshakes, the keys they wait for, and what peers seal.

use std::net::IpAddr;
use std::time::Instant;

use authcache::feed::SharedKey;
use session::coap::Incoming;
use session::web::Login;

use crate::reactor::Reactor;
use crate::reactor::coap::{Peer, PeerId};
use crate::reactor::dtls::{Over, Secure, Told};
use crate::reactor::dtls_records::offers_psk;
use crate::shard::shared::ToControl;

/// The type of a record that carries what was sealed.
const APPLICATION_DATA: u8 = 23;

impl Reactor {
    /// A datagram in DTLS.
    pub(super) fn sealed(&mut self, id: PeerId, datagram: &[u8], incoming: &Incoming) {
        let now = Instant::now();
        let coap = &mut self.shard.outlets.wires.coap;
        let Some(peer) = coap.peer(id) else {
            return;
        };
        let door = usize::from(peer.door);
        // (RFC 6347, 4.2.8: a peer that begins anew is the same one only when it has shaken hands.)
        let anew = peer.candidate.is_none()
            && peer.secure.as_ref().is_none_or(|secure| secure.is_open())
            && offers_psk(datagram).is_some();
        if anew {
            let Some(options) = self.doors[door].dtls.clone() else {
                return;
            };
            let Some(secure) = Secure::new(&options, datagram, now) else {
                return self.forget_peer(id);
            };
            if let Some(oldest) = coap.begin_handshake(id, secure) {
                self.give_up(oldest);
            }
        }
        let coap = &mut self.shard.outlets.wires.coap;
        let has_candidate = coap.peer(id).is_some_and(|peer| peer.candidate.is_some());
        let candidate = has_candidate && datagram.first() != Some(&APPLICATION_DATA);
        let mut plain = Vec::new();
        let told = self.with_secure(id, candidate, |secure, options, send| {
            secure.datagram(options, datagram, now, &mut plain, send)
        });
        match told {
            None => return,
            Some(Err(Over)) => return self.ended(id, candidate),
            Some(Ok(Told::Done)) => {}
            Some(Ok(Told::Key(identity))) => self.ask_key(id, identity),
        }
        for datagram in plain {
            self.opened(id, &datagram, incoming);
        }
    }

    fn ask_key(&mut self, id: PeerId, identity: Vec<u8>) {
        let number = self.shard.outlets.wires.coap.number_of(id);
        let shard = self.shard.env.id;
        let peer = self.address_of(id);
        let asked = String::from_utf8(identity).is_ok_and(|identity| {
            self.shard.env.shared.control.ask(ToControl::Key {
                shard,
                number,
                identity,
                peer,
            })
        });
        if !asked {
            self.key_told(number, None);
        }
    }

    fn address_of(&mut self, id: PeerId) -> Option<IpAddr> {
        let peer = self.shard.outlets.wires.coap.peer(id)?;
        Some(peer.address.ip().to_canonical())
    }

    /// The key that a handshake waits for is there, or there is none.
    pub(super) fn key_told(&mut self, number: u64, key: Option<SharedKey>) {
        let Some(id) = self.shard.outlets.wires.coap.numbered(number) else {
            return;
        };
        let now = Instant::now();
        let coap = &mut self.shard.outlets.wires.coap;
        let candidate = coap.peer(id).is_some_and(|peer| peer.candidate.is_some());
        let told = self.with_secure(id, candidate, |secure, options, send| {
            // What comes behind the handshake is a datagram of its own.
            secure.key(options, key.map(|key| key.0), now, &mut Vec::new(), send)
        });
        if let Some(Err(Over)) = told {
            self.ended(id, candidate);
        }
    }

    /// A session or handshake is over.
    fn ended(&mut self, id: PeerId, candidate: bool) {
        if !candidate {
            return self.forget_peer(id);
        }
        let coap = &mut self.shard.outlets.wires.coap;
        coap.handshake_faults += 1;
        if let Some(peer) = coap.peer(id) {
            peer.candidate = None;
        }
    }

    /// Gives up the handshake of a peer, for others.
    fn give_up(&mut self, id: PeerId) {
        let coap = &mut self.shard.outlets.wires.coap;
        let candidate = coap.peer(id).is_some_and(|peer| peer.candidate.is_some());
        self.ended(id, candidate);
    }

    /// Time has passed for a handshake; whether its peer is still there.
    pub(super) fn handshake_timeout(&mut self, id: PeerId) -> bool {
        let now = Instant::now();
        for candidate in [true, false] {
            let told = self.with_secure(id, candidate, |secure, _, send| {
                let due = secure.next_timeout().is_some_and(|at| at <= now);
                if due {
                    secure.timeout(now, send)
                } else {
                    Ok(())
                }
            });
            if let Some(Err(Over)) = told {
                self.ended(id, candidate);
                if !candidate {
                    return false;
                }
            }
        }
        true
    }

    /// Calls a peer's session, or the candidate for it, and notes what a handshake found out. A
    /// candidate that is done takes the session's place, and whatever its peer was before is over.
    fn with_secure<T>(
        &mut self,
        id: PeerId,
        candidate: bool,
        call: impl FnOnce(
            &mut Secure,
            &crate::reactor::dtls::DtlsDoor,
            &mut dyn FnMut(&[u8]),
        ) -> Result<T, Over>,
    ) -> Option<Result<T, Over>> {
        let coap = &mut self.shard.outlets.wires.coap;
        let mut peer = coap.take_peer(id)?;
        if candidate {
            let Peer {
                secure, candidate, ..
            } = &mut *peer;
            std::mem::swap(secure, candidate);
        }
        let mut former = None;
        let door = &self.doors[usize::from(peer.door)];
        let mut called = None;
        let (mut sent, mut opened) = (0, false);
        let mut wrong = None;
        if let (Some(secure), Some(options)) = (&mut peer.secure, &door.dtls) {
            let was_open = secure.is_open();
            let address = peer.address;
            let mut send = |datagram: &[u8]| {
                // As if it were lost on its way: a handshake sends it again.
                sent += u64::from(door.socket.send_to(datagram, address).is_ok());
            };
            called = Some(call(secure, options, &mut send));
            wrong = secure.take_wrong_key().map(<[u8]>::to_vec);
            opened = secure.is_open() && !was_open;
            if opened {
                let login = secure.identity().map(|(identity, key)| Login {
                    username: identity.to_owned(),
                    password: key.to_owned(),
                });
                let certified = secure.certificate().is_some();
                if candidate {
                    let here = peer.address.ip().to_canonical().is_loopback();
                    peer.endpoint = coap.new_endpoint(peer.door, here);
                    peer.candidate = None;
                    former = Some(std::mem::take(&mut peer.keys));
                }
                peer.endpoint.secured(login, certified);
            }
        }
        if candidate && !opened {
            let Peer {
                secure, candidate, ..
            } = &mut *peer;
            std::mem::swap(secure, candidate);
        }
        coap.datagrams_out += sent;
        coap.handshakes += u64::from(opened);
        let address = peer.address.ip().to_canonical();
        coap.put_back(id, peer);
        if let Some(Ok(identity)) = wrong.map(String::from_utf8) {
            // Control counts it as a failed login of the address. A full mailbox means that control
            // is behind with logins; then this one is not counted.
            let _ = self.shard.env.shared.control.ask(ToControl::WrongKey {
                identity,
                peer: Some(address),
            });
        }
        for key in former.into_iter().flatten().flatten() {
            self.part(key);
        }
        called
    }
}
