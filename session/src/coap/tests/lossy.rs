//! A peer behind a network that loses, repeats and reorders datagrams, from seeds.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// xorshift64*
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % sides
    }
}

/// Datagrams on their way, by when they arrive.
#[derive(Default)]
struct Link {
    flying: BTreeMap<(u64, u64), Vec<u8>>,
    count: u64,
}

impl Link {
    /// Of ten datagrams two are lost and one comes twice; each takes up to 300 ms.
    fn send(&mut self, datagram: &[u8], now: u64, dice: &mut Dice) {
        let times = match dice.roll(10) {
            0 | 1 => 0,
            2 => 2,
            _ => 1,
        };
        for _ in 0..times {
            self.count += 1;
            let at = now + dice.roll(300);
            self.flying.insert((at, self.count), datagram.to_vec());
        }
    }

    fn arrived(&mut self, now: u64) -> Vec<Vec<u8>> {
        let later = self.flying.split_off(&(now + 1, 0));
        std::mem::replace(&mut self.flying, later)
            .into_values()
            .collect()
    }
}

/// A request that is sent until it is answered.
struct Open {
    datagram: Vec<u8>,
    tries: u32,
    at: u64,
}

/// Publishes and observes over the link for two minutes of virtual time.
fn run(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let mut house = House::new();
    let (mut up, mut down) = (Link::default(), Link::default());
    let mut open: BTreeMap<u16, Open> = BTreeMap::new();
    let mut answered = BTreeSet::new();
    let mut given_up = 0;
    let observe = Request::observe("m/d/c/x/other?auth=s", b"obs").encode(1);
    open.insert(
        1,
        Open {
            datagram: observe,
            tries: 0,
            at: 0,
        },
    );
    let (mut next_id, mut sequence, mut noticed) = (2u16, None::<u32>, Vec::new());
    let mut spoken = 0u32;
    for now in 0..240_000u64 {
        house.now = now;
        // One request at a time (NSTART), as RFC 7252 has it.
        if open.is_empty() && now < 120_000 && dice.roll(50) == 0 {
            let payload = next_id.to_be_bytes();
            let datagram = Request {
                token: &payload,
                ..Request::post(T, &payload)
            }
            .encode(next_id);
            open.insert(
                next_id,
                Open {
                    datagram,
                    tries: 0,
                    at: now,
                },
            );
            next_id += 1;
        }
        let mut gone = Vec::new();
        for (id, request) in &mut open {
            if request.at > now {
                continue;
            }
            if request.tries == 5 {
                gone.push(*id);
                continue;
            }
            up.send(&request.datagram, now, &mut dice);
            request.at = now + (2_000 << request.tries) + dice.roll(1_000);
            request.tries += 1;
        }
        for id in gone {
            open.remove(&id);
            given_up += 1;
        }
        let mut sent = Vec::new();
        for datagram in up.arrived(now) {
            sent.extend(house.datagram(&datagram));
        }
        if now > 5_000 && now < 120_000 && dice.roll(400) == 0 {
            spoken += 1;
            sent.extend(house.message("m/d/c/x/other", &spoken.to_be_bytes()));
        }
        for datagram in sent {
            down.send(&datagram, now, &mut dice);
        }
        house.pass(now);
        for datagram in house.timed.drain(..) {
            down.send(&datagram, now, &mut dice);
        }
        for datagram in down.arrived(now) {
            let seen = Seen::of(&datagram);
            if seen.kind == Kind::Con {
                up.send(&empty(Kind::Ack, seen.id), now, &mut dice);
            }
            if seen.token == b"obs" {
                if let Some(observe) = seen.observe {
                    // (RFC 7641, 3.4)
                    let fresh = sequence.is_none_or(|last| observe > last);
                    if fresh {
                        sequence = Some(observe);
                        if seen.payload.len() == 4 {
                            noticed.push(u32::from_be_bytes(seen.payload[..].try_into().unwrap()));
                        }
                    }
                }
                open.remove(&1);
            } else if seen.code != Code::EMPTY {
                let id = u16::from_be_bytes(seen.token[..].try_into().unwrap());
                assert_eq!(seen.code, Code::CHANGED, "seed {seed}");
                answered.insert(id);
                open.remove(&id);
            }
        }
    }
    let published: Vec<u16> = house
        .published
        .iter()
        .map(|message| u16::from_be_bytes(message.payload[..].try_into().unwrap()))
        .collect();
    let once: BTreeSet<u16> = published.iter().copied().collect();
    assert_eq!(
        once.len(),
        published.len(),
        "seed {seed}: a message was published twice"
    );
    assert!(
        answered.is_subset(&once),
        "seed {seed}: an answer without a message"
    );
    assert!(
        given_up <= 2 && answered.len() > 5,
        "seed {seed}: {given_up} given up"
    );
    assert!(
        noticed.is_sorted(),
        "seed {seed}: notifications out of order"
    );
    // Five losses in a row end an observation, and nothing else does.
    let ended = house.endpoint.observations.is_empty();
    assert_eq!(ended, house.tally.given_up > 0, "seed {seed}");
    let enough = noticed.len() * 4 > spoken as usize;
    assert!(
        ended || enough,
        "seed {seed}: {} of {spoken}",
        noticed.len()
    );
    assert!(house.endpoint.unconfirmed.is_empty() && house.endpoint.exchanges.is_empty());
}

#[test]
fn messages_pass_once_and_in_order_over_a_network_that_loses_repeats_and_reorders() {
    if let Ok(seed) = std::env::var("TURNPIKE_SEED") {
        return run(seed.parse().unwrap());
    }
    for seed in 1..=6 {
        run(seed);
    }
}
