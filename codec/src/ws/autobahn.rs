//! The Autobahn test suite's cases, written out: each row is one case by its number there. Sections
//! 12 and 13 are about compression, which is never agreed on; 9 is about speed at sizes, of which
//! the sizes are kept. Section 6 is in `autobahn_utf8`.

use crate::ws::{CloseCode, Event, Head, Opcode, Receiver, ReceiverLimits, Role};

pub(crate) const LIMITS: ReceiverLimits = ReceiverLimits {
    frame_bytes: 32 << 20,
    message_bytes: 32 << 20,
    fragments: 1 << 20,
};

/// What a server saw: whole messages, control frames, and how it ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Seen {
    Text(Vec<u8>),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
    /// The close code that the peer is told.
    Violation(u16),
}

/// Everything that `pieces` bring, up to the first violation.
pub(crate) fn receive(role: Role, limits: ReceiverLimits, pieces: &[&[u8]]) -> Vec<Seen> {
    let mut receiver = Receiver::new(role, limits);
    let mut seen = Vec::new();
    let mut message = Vec::new();
    for piece in pieces {
        let mut input = piece.to_vec();
        let mut at = 0;
        while at < input.len() {
            let (used, event) = match receiver.next(&mut input[at..]) {
                Ok(next) => next,
                Err(violation) => {
                    seen.push(Seen::Violation(violation.close_code().get()));
                    return seen;
                }
            };
            match event {
                Some(Event::Data { range, text, end }) => {
                    message.extend_from_slice(&input[at..][range]);
                    if end {
                        let message = std::mem::take(&mut message);
                        seen.push(if text {
                            Seen::Text(message)
                        } else {
                            Seen::Binary(message)
                        });
                    }
                }
                Some(Event::Ping) => seen.push(Seen::Ping(receiver.control().to_vec())),
                Some(Event::Pong) => seen.push(Seen::Pong(receiver.control().to_vec())),
                Some(Event::Close(code)) => seen.push(Seen::Close(code.map(CloseCode::get))),
                None => {}
            }
            assert!(used > 0, "every call takes something");
            at += used;
        }
    }
    seen
}

/// A client's frame.
pub(crate) fn frame(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xFA, 0x21, 0x3D];
    let mut out = Vec::new();
    let head = Head {
        fin,
        opcode,
        mask: Some(key),
        payload_len: payload.len() as u64,
    };
    head.write(&mut out);
    let start = out.len();
    out.extend_from_slice(payload);
    crate::ws::unmask(&mut out[start..], key, 0);
    out
}

/// A frame with this first byte.
fn raw(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = frame(true, Opcode::Binary, payload);
    out[0] = first;
    out
}

fn close(code: u16, reason: &[u8]) -> Vec<u8> {
    frame(
        true,
        Opcode::Close,
        &[&code.to_be_bytes()[..], reason].concat(),
    )
}

/// Whole, byte by byte, and in pieces of seven: the same is seen.
#[track_caller]
pub(crate) fn check(case: &str, frames: &[Vec<u8>], expected: &[Seen]) {
    let bytes = frames.concat();
    assert_eq!(receive(Role::Server, LIMITS, &[&bytes]), expected, "{case}");
    if bytes.len() < 1 << 16 {
        for size in [1, 7] {
            let pieces: Vec<&[u8]> = bytes.chunks(size).collect();
            assert_eq!(
                receive(Role::Server, LIMITS, &pieces),
                expected,
                "{case} by {size}"
            );
        }
    }
}

const VIOLATION: Seen = Seen::Violation(1002);

#[test]
fn section_1_messages_of_every_length_class_arrive() {
    for (number, len) in [0, 125, 126, 127, 128, 65_535, 65_536, 65_536]
        .into_iter()
        .enumerate()
    {
        let payload = vec![b'*'; len];
        let text = frame(true, Opcode::Text, &payload);
        check(
            &format!("1.1.{}", number + 1),
            &[text],
            &[Seen::Text(payload.clone())],
        );
        let payload = vec![0xFE; len];
        let binary = frame(true, Opcode::Binary, &payload);
        check(
            &format!("1.2.{}", number + 1),
            &[binary],
            &[Seen::Binary(payload.clone())],
        );
    }
}

#[test]
fn section_2_pings_keep_their_payload_and_pongs_need_none() {
    let ping = |payload: &[u8]| frame(true, Opcode::Ping, payload);
    let pong = |payload: &[u8]| frame(true, Opcode::Pong, payload);
    let told = |payload: &[u8]| Seen::Ping(payload.to_vec());
    check("2.1", &[ping(b"")], &[told(b"")]);
    check("2.2", &[ping(b"Hello, world!")], &[told(b"Hello, world!")]);
    let binary = [0x00, 0xFF, 0xFE, 0xFD, 0xFC, 0xFB, 0x00, 0xFF];
    check("2.3", &[ping(&binary)], &[told(&binary)]);
    check("2.4", &[ping(&[0xFE; 125])], &[told(&[0xFE; 125])]);
    check("2.5", &[raw(0x89, &[0xFE; 126])], &[VIOLATION]);
    // Sent byte by byte, as `check` does with all of them.
    check("2.6", &[ping(&[0xFE; 125])], &[told(&[0xFE; 125])]);
    check("2.7", &[pong(b"")], &[Seen::Pong(vec![])]);
    check(
        "2.8",
        &[pong(b"unsolicited")],
        &[Seen::Pong(b"unsolicited".to_vec())],
    );
    check(
        "2.9",
        &[pong(b"unsolicited"), ping(b"ping")],
        &[Seen::Pong(b"unsolicited".to_vec()), told(b"ping")],
    );
    let pings: Vec<Vec<u8>> = (0..10u8).map(|n| ping(&[n])).collect();
    let seen: Vec<Seen> = (0..10u8).map(|n| told(&[n])).collect();
    check("2.10", &pings, &seen);
    check("2.11", &pings, &seen);
}

#[test]
fn section_3_reserved_bits_end_the_connection() {
    let hello = frame(true, Opcode::Text, b"Hello, world!");
    let before = Seen::Text(b"Hello, world!".to_vec());
    check("3.1", &[raw(0x81 | 0x10, b"small")], &[VIOLATION]);
    check(
        "3.2",
        &[
            hello.clone(),
            raw(0x81 | 0x20, b"x"),
            frame(true, Opcode::Ping, b""),
        ],
        &[before.clone(), VIOLATION],
    );
    check(
        "3.3",
        &[hello.clone(), raw(0x81 | 0x30, b"x")],
        &[before.clone(), VIOLATION],
    );
    check(
        "3.4",
        &[hello, raw(0x81 | 0x40, b"x")],
        &[before, VIOLATION],
    );
    check("3.5", &[raw(0x82 | 0x50, b"x")], &[VIOLATION]);
    check("3.6", &[raw(0x89 | 0x60, b"x")], &[VIOLATION]);
    check("3.7", &[raw(0x88 | 0x70, b"")], &[VIOLATION]);
}

#[test]
fn section_4_reserved_opcodes_end_the_connection() {
    let hello = frame(true, Opcode::Text, b"Hello, world!");
    let before = Seen::Text(b"Hello, world!".to_vec());
    for (number, opcode) in (3..=7u8).enumerate() {
        check(
            &format!("4.1.{}", number + 1),
            &[raw(0x80 | opcode, b"")],
            &[VIOLATION],
        );
        let frames = [
            hello.clone(),
            raw(0x80 | opcode, b"payload"),
            frame(true, Opcode::Ping, b""),
        ];
        check(
            &format!("4.1.{} behind text", number + 1),
            &frames,
            &[before.clone(), VIOLATION],
        );
    }
    for (number, opcode) in (11..=15u8).enumerate() {
        check(
            &format!("4.2.{}", number + 1),
            &[raw(0x80 | opcode, b"")],
            &[VIOLATION],
        );
        let frames = [
            hello.clone(),
            raw(0x80 | opcode, b"payload"),
            frame(true, Opcode::Ping, b""),
        ];
        check(
            &format!("4.2.{} behind text", number + 1),
            &frames,
            &[before.clone(), VIOLATION],
        );
    }
}

#[test]
fn section_5_fragments_make_one_message_and_only_control_frames_stand_between() {
    let first = |payload: &[u8]| frame(false, Opcode::Text, payload);
    let more = |payload: &[u8]| frame(false, Opcode::Continuation, payload);
    let last = |payload: &[u8]| frame(true, Opcode::Continuation, payload);
    let text = |text: &[u8]| Seen::Text(text.to_vec());
    let ping = || frame(true, Opcode::Ping, b"ping");
    let pinged = || Seen::Ping(b"ping".to_vec());
    check(
        "5.1",
        &[raw(0x09, b"fragment1"), last(b"fragment2")],
        &[VIOLATION],
    );
    check(
        "5.2",
        &[raw(0x0A, b"fragment1"), last(b"fragment2")],
        &[VIOLATION],
    );
    for case in ["5.3", "5.4", "5.5"] {
        check(
            case,
            &[first(b"fragment1"), last(b"fragment2")],
            &[text(b"fragment1fragment2")],
        );
    }
    for case in ["5.6", "5.7", "5.8"] {
        let frames = [first(b"fragment1"), ping(), last(b"fragment2")];
        check(case, &frames, &[pinged(), text(b"fragment1fragment2")]);
    }
    for case in ["5.9", "5.10", "5.11"] {
        let stray = last(b"non-continuation payload");
        check(
            case,
            &[stray, frame(true, Opcode::Text, b"Hello, world!")],
            &[VIOLATION],
        );
    }
    for case in ["5.12", "5.13", "5.14"] {
        let stray = more(b"non-continuation payload");
        check(
            case,
            &[stray, frame(true, Opcode::Text, b"Hello, world!")],
            &[VIOLATION],
        );
    }
    let frames = [
        first(b"fragment1"),
        last(b"fragment2"),
        more(b"fragment3"),
        frame(true, Opcode::Text, b"fragment4"),
    ];
    check("5.15", &frames, &[text(b"fragment1fragment2"), VIOLATION]);
    let frames = [
        more(b"fragment1"),
        frame(false, Opcode::Text, b"fragment2"),
        last(b"fragment3"),
    ];
    check("5.16", &frames, &[VIOLATION]);
    let frames = [
        last(b"fragment1"),
        frame(false, Opcode::Text, b"fragment2"),
        last(b"fragment3"),
    ];
    check("5.17", &frames, &[VIOLATION]);
    check(
        "5.18",
        &[first(b"fragment1"), frame(true, Opcode::Text, b"fragment2")],
        &[VIOLATION],
    );
    for case in ["5.19", "5.20"] {
        let frames = [
            first(b"fragment1"),
            more(b"fragment2"),
            ping(),
            more(b"fragment3"),
            more(b"fragment4"),
            ping(),
            last(b"fragment5"),
        ];
        let whole = text(b"fragment1fragment2fragment3fragment4fragment5");
        check(case, &frames, &[pinged(), pinged(), whole]);
    }
}

#[test]
fn section_7_closes_are_read_and_nothing_behind_them() {
    let hello = frame(true, Opcode::Text, b"Hello World!");
    let before = Seen::Text(b"Hello World!".to_vec());
    let normal = close(1000, b"");
    let closed = Seen::Close(Some(1000));
    check(
        "7.1.1",
        &[hello.clone(), normal.clone()],
        &[before.clone(), closed.clone()],
    );
    check(
        "7.1.2",
        &[normal.clone(), normal.clone()],
        std::slice::from_ref(&closed),
    );
    check(
        "7.1.3",
        &[normal.clone(), frame(true, Opcode::Ping, b"")],
        std::slice::from_ref(&closed),
    );
    check(
        "7.1.4",
        &[normal.clone(), hello.clone()],
        std::slice::from_ref(&closed),
    );
    let fragment = frame(false, Opcode::Text, b"fragment1");
    let frames = [
        fragment,
        normal.clone(),
        frame(true, Opcode::Continuation, b"fragment2"),
    ];
    check("7.1.5", &frames, std::slice::from_ref(&closed));
    let large = vec![b'B'; 256 << 10];
    let frames = [
        frame(true, Opcode::Text, &large),
        normal,
        frame(true, Opcode::Ping, b""),
    ];
    check("7.1.6", &frames, &[Seen::Text(large.clone()), closed]);
    check(
        "7.3.1",
        &[frame(true, Opcode::Close, b"")],
        &[Seen::Close(None)],
    );
    check("7.3.2", &[frame(true, Opcode::Close, b"a")], &[VIOLATION]);
    check("7.3.3", &[close(1000, b"")], &[Seen::Close(Some(1000))]);
    check(
        "7.3.4",
        &[close(1000, b"Hello World!")],
        &[Seen::Close(Some(1000))],
    );
    check(
        "7.3.5",
        &[close(1000, &[b'*'; 123])],
        &[Seen::Close(Some(1000))],
    );
    check("7.3.6", &[raw(0x88, &[0; 126])], &[VIOLATION]);
    check(
        "7.5.1",
        &[close(
            1000,
            b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xED\xA0\x80edited",
        )],
        &[Seen::Violation(1007)],
    );
    let valid = [
        1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999,
    ];
    for (number, code) in valid.into_iter().enumerate() {
        check(
            &format!("7.7.{}", number + 1),
            &[close(code, b"")],
            &[Seen::Close(Some(code))],
        );
    }
    // Autobahn's list, less 1012 to 1014, which are registered by now.
    for (number, code) in [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999]
        .into_iter()
        .enumerate()
    {
        check(
            &format!("7.9.{}", number + 1),
            &[close(code, b"")],
            &[VIOLATION],
        );
    }
    check("7.13.1", &[close(5000, b"")], &[VIOLATION]);
    check("7.13.2", &[close(65_535, b"")], &[VIOLATION]);
}

#[test]
fn section_9_large_messages_arrive_whole_and_in_fragments() {
    for (case, len) in [
        ("9.1.1", 64 << 10),
        ("9.1.2", 256 << 10),
        ("9.1.3", 1 << 20),
        ("9.1.6", 16 << 20),
    ] {
        let payload = vec![b'*'; len];
        check(
            case,
            &[frame(true, Opcode::Text, &payload)],
            &[Seen::Text(payload.clone())],
        );
    }
    for (case, size) in [("9.3.1", 64), ("9.3.4", 4 << 10), ("9.3.9", 4 << 20)] {
        let payload = vec![b'*'; 4 << 20];
        let count = payload.len() / size;
        let frames: Vec<Vec<u8>> = payload
            .chunks(size)
            .enumerate()
            .map(|(at, chunk)| {
                let opcode = if at == 0 {
                    Opcode::Binary
                } else {
                    Opcode::Continuation
                };
                frame(at + 1 == count, opcode, chunk)
            })
            .collect();
        check(case, &frames, &[Seen::Binary(payload.clone())]);
    }
    // 9.5 and 9.6: one frame in small chops.
    let payload = vec![b'*'; 1 << 20];
    let bytes = frame(true, Opcode::Text, &payload);
    for chop in [64, 128, 256, 512, 1024, 2048] {
        let pieces: Vec<&[u8]> = bytes.chunks(chop).collect();
        let seen = receive(Role::Server, LIMITS, &pieces);
        assert_eq!(seen, [Seen::Text(payload.clone())], "9.5 and 9.6 by {chop}");
    }
}

#[test]
fn section_10_automatic_fragments_of_a_text_arrive() {
    let payload = vec![b'*'; 65_536];
    let frames: Vec<Vec<u8>> = payload
        .chunks(1300)
        .enumerate()
        .map(|(at, chunk)| {
            let opcode = if at == 0 {
                Opcode::Text
            } else {
                Opcode::Continuation
            };
            frame(chunk.len() < 1300, opcode, chunk)
        })
        .collect();
    check("10.1.1", &frames, &[Seen::Text(payload.clone())]);
}

#[test]
fn t_ws_1_what_autobahn_does_not_ask_is_refused_too() {
    let mut unmasked = Vec::new();
    crate::ws::put_frame(Opcode::Binary, b"x", &mut unmasked);
    check("unmasked", &[unmasked.clone()], &[VIOLATION]);
    assert_eq!(
        receive(Role::Client, LIMITS, &[&unmasked]),
        [Seen::Binary(b"x".to_vec())]
    );
    let masked = frame(true, Opcode::Binary, b"x");
    assert_eq!(
        receive(Role::Client, LIMITS, &[&masked]),
        [VIOLATION],
        "a server masks nothing"
    );
    check(
        "length of 2 bytes for 125",
        &[vec![0x82, 0xFE, 0, 125, 0, 0, 0, 0]],
        &[VIOLATION],
    );
    check(
        "length of 8 bytes for 65535",
        &[[&[0x82, 0xFF][..], &65_535u64.to_be_bytes()].concat()],
        &[VIOLATION],
    );
    check(
        "length of 2^63",
        &[[&[0x82, 0xFF][..], &(1u64 << 63).to_be_bytes()].concat()],
        &[VIOLATION],
    );
}

#[test]
fn t_ws_3_lengths_and_fragments_beyond_the_limits_are_told_before_the_payload() {
    let huge = [&[0x82, 0xFF][..], &(1u64 << 62).to_be_bytes(), &[0; 4]].concat();
    check("2^62", &[huge], &[Seen::Violation(1009)]);
    let limits = ReceiverLimits {
        frame_bytes: 10,
        message_bytes: 15,
        fragments: 3,
    };
    let first = frame(false, Opcode::Binary, &[0; 10]);
    assert_eq!(
        receive(
            Role::Server,
            limits,
            &[&frame(true, Opcode::Binary, &[0; 11])]
        ),
        [Seen::Violation(1009)]
    );
    let both = [first, frame(true, Opcode::Continuation, &[0; 6])].concat();
    assert_eq!(
        receive(Role::Server, limits, &[&both]),
        [Seen::Violation(1009)]
    );
    let mut many = frame(false, Opcode::Binary, b"");
    for _ in 0..3 {
        many.extend(frame(false, Opcode::Continuation, b""));
    }
    assert_eq!(
        receive(Role::Server, limits, &[&many]),
        [Seen::Violation(1008)]
    );
}
