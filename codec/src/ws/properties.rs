//! What holds for any WebSocket traffic.

use proptest::prelude::*;

use crate::ws::autobahn::{LIMITS, Seen, receive};
use crate::ws::{Head, Opcode, Role, unmask};

fn opcode() -> impl Strategy<Value = Opcode> {
    prop_oneof![
        Just(Opcode::Continuation),
        Just(Opcode::Text),
        Just(Opcode::Binary),
        Just(Opcode::Close),
        Just(Opcode::Ping),
        Just(Opcode::Pong),
    ]
}

/// A frame that any of the two sides may have written, allowed at its place or not.
fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..140),
        "\\PC{0,40}".prop_map(String::into_bytes),
    ];
    (any::<bool>(), opcode(), any::<[u8; 4]>(), payload).prop_map(|(fin, opcode, key, payload)| {
        let control = opcode.is_control();
        let payload = &payload[..if control {
            payload.len().min(125)
        } else {
            payload.len()
        }];
        let mut out = Vec::new();
        let head = Head {
            fin: fin || control,
            opcode,
            mask: Some(key),
            payload_len: payload.len() as u64,
        };
        head.write(&mut out);
        let start = out.len();
        out.extend_from_slice(payload);
        unmask(&mut out[start..], key, 0);
        out
    })
}

proptest! {
    #[test]
    fn heads_are_read_as_they_were_written(
        fin: bool,
        opcode in opcode(),
        mask: Option<[u8; 4]>,
        len in prop_oneof![0u64..126, 126u64..65_536, 65_536u64..1 << 63],
    ) {
        let control = opcode.is_control();
        let head = Head {
            fin: fin || control,
            opcode,
            mask,
            payload_len: if control { len % 126 } else { len },
        };
        let mut bytes = Vec::new();
        head.write(&mut bytes);
        prop_assert_eq!(Head::read(&bytes), Ok(Some((head, bytes.len()))));
        for end in 0..bytes.len() {
            prop_assert_eq!(Head::read(&bytes[..end]), Ok(None));
        }
    }

    #[test]
    fn unmasking_agrees_with_one_byte_at_a_time_from_any_offset(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        key: [u8; 4],
        offset in 0usize..9,
    ) {
        let mut fast = bytes.clone();
        unmask(&mut fast, key, offset);
        let slow: Vec<u8> = bytes
            .iter()
            .enumerate()
            .map(|(at, byte)| byte ^ key[(at + offset) % 4])
            .collect();
        prop_assert_eq!(fast, slow);
    }

    #[test]
    fn a_split_anywhere_changes_nothing(
        frames in prop::collection::vec(any_frame(), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let bytes = frames.concat();
        let whole = receive(Role::Server, LIMITS, &[&bytes]);
        let at = cut.index(bytes.len() + 1);
        prop_assert_eq!(&receive(Role::Server, LIMITS, &[&bytes[..at], &bytes[at..]]), &whole);
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(&receive(Role::Server, LIMITS, &single), &whole);
    }

    #[test]
    fn any_bytes_are_taken_or_refused_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        for role in [Role::Server, Role::Client] {
            let seen = receive(role, LIMITS, &[&bytes]);
            let texts = seen.iter().filter_map(|seen| match seen {
                Seen::Text(text) => Some(text),
                _ => None,
            });
            for text in texts {
                prop_assert!(std::str::from_utf8(text).is_ok());
            }
        }
    }
}
