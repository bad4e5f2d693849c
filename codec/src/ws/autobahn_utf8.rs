//! Section 6 of the Autobahn test suite: text that is and is not UTF-8, cut anywhere.

use crate::ws::Opcode;
use crate::ws::autobahn::{Seen, check, frame};

fn text(payload: &[u8]) -> Vec<Vec<u8>> {
    vec![frame(true, Opcode::Text, payload)]
}

/// One frame per byte.
fn bytewise(payload: &[u8]) -> Vec<Vec<u8>> {
    let count = payload.len();
    let opcode = |at| {
        if at == 0 {
            Opcode::Text
        } else {
            Opcode::Continuation
        }
    };
    let one = |(at, byte): (usize, &u8)| frame(at + 1 == count, opcode(at), &[*byte]);
    payload.iter().enumerate().map(one).collect()
}

#[track_caller]
fn valid(case: &str, payload: &[u8]) {
    let expected = [Seen::Text(payload.to_vec())];
    check(case, &text(payload), &expected);
    if !payload.is_empty() {
        check(case, &bytewise(payload), &expected);
    }
}

#[track_caller]
fn invalid(case: &str, payload: &[u8]) {
    check(case, &text(payload), &[Seen::Violation(1007)]);
    check(case, &bytewise(payload), &[Seen::Violation(1007)]);
}

const KOSME: &[u8] = b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5";

#[test]
fn section_6_1_empty_texts_arrive() {
    check("6.1.1", &text(b""), &[Seen::Text(vec![])]);
    let more = |fin| frame(fin, Opcode::Continuation, b"");
    let frames = [frame(false, Opcode::Text, b""), more(false), more(true)];
    check("6.1.2", &frames, &[Seen::Text(vec![])]);
    let frames = [
        frame(false, Opcode::Text, b""),
        frame(false, Opcode::Continuation, b"middle frame payload"),
        more(true),
    ];
    check(
        "6.1.3",
        &frames,
        &[Seen::Text(b"middle frame payload".to_vec())],
    );
}

#[test]
fn section_6_2_valid_text_may_be_cut_inside_a_character() {
    let hello = "Hello-\u{b5}@\u{df}\u{f6}\u{e4}\u{fc}\u{e0}\u{e1}-UTF-8!!".as_bytes();
    valid("6.2.1", hello);
    let frames = [
        frame(false, Opcode::Text, &hello[..7]),
        frame(true, Opcode::Continuation, &hello[7..]),
    ];
    check("6.2.2", &frames, &[Seen::Text(hello.to_vec())]);
    valid("6.2.3", hello);
    valid("6.2.4", KOSME);
}

#[test]
fn section_6_3_and_6_4_text_is_refused_at_the_first_impossible_byte() {
    let bad = [KOSME, b"\xED\xA0\x80edited"].concat();
    invalid("6.3.1", &bad);
    invalid("6.3.2", &bad);
    let impossible = [KOSME, b"\xF4\x90\x80\x80"].concat();
    // The rest of the message is not waited for.
    let first = frame(false, Opcode::Text, &impossible);
    check(
        "6.4.1",
        std::slice::from_ref(&first),
        &[Seen::Violation(1007)],
    );
    let cut = frame(true, Opcode::Text, &[&impossible[..], b"edited"].concat());
    let until = cut.len() - b"\x80\x80edited".len();
    check("6.4.3", &[cut[..until].to_vec()], &[Seen::Violation(1007)]);
}

#[test]
fn sections_6_5_to_6_23_characters_and_what_only_looks_like_them() {
    valid("6.5.1", KOSME);
    for (case, end) in [(1, 1), (3, 3), (4, 4), (6, 6), (8, 8), (10, 10)] {
        invalid(&format!("6.6.{case}"), &KOSME[..end]);
    }
    for (case, end) in [(2, 2), (5, 5), (7, 7), (9, 9), (11, 11)] {
        valid(&format!("6.6.{case}"), &KOSME[..end]);
    }
    for (case, text) in [
        ("6.7.1", "\0"),
        ("6.7.2", "\u{80}"),
        ("6.7.3", "\u{800}"),
        ("6.7.4", "\u{10000}"),
    ] {
        valid(case, text.as_bytes());
    }
    invalid("6.8.1", b"\xF8\x88\x80\x80\x80");
    invalid("6.8.2", b"\xFC\x84\x80\x80\x80\x80");
    for (case, text) in [
        ("6.9.1", "\x7F"),
        ("6.9.2", "\u{7FF}"),
        ("6.9.3", "\u{FFFF}"),
        ("6.9.4", "\u{10FFFF}"),
    ] {
        valid(case, text.as_bytes());
    }
    invalid("6.10.1", b"\xF7\xBF\xBF\xBF");
    invalid("6.10.2", b"\xFB\xBF\xBF\xBF\xBF");
    invalid("6.10.3", b"\xFD\xBF\xBF\xBF\xBF\xBF");
    for (case, text) in [
        ("6.11.1", "\u{D7FF}"),
        ("6.11.2", "\u{E000}"),
        ("6.11.3", "\u{FFFD}"),
        ("6.11.4", "\u{10FFFF}"),
    ] {
        valid(case, text.as_bytes());
    }
    invalid("6.11.5", b"\xF4\x90\x80\x80");
    for (case, bytes) in [
        ("6.12.1", &b"\x80"[..]),
        ("6.12.2", b"\xBF"),
        ("6.12.3", b"\x80\xBF"),
        ("6.12.4", b"\x80\xBF\x80"),
        ("6.12.5", b"\x80\xBF\x80\xBF"),
        ("6.12.6", b"\x80\xBF\x80\xBF\x80"),
        ("6.12.7", b"\x80\xBF\x80\xBF\x80\xBF"),
    ] {
        invalid(case, bytes);
    }
    let all: Vec<u8> = (0x80..=0xBF).collect();
    invalid("6.12.8", &all);
    let lonely = |range: std::ops::RangeInclusive<u8>| {
        range.flat_map(|byte| [byte, b' ']).collect::<Vec<u8>>()
    };
    invalid("6.13.1", &lonely(0xC0..=0xDF));
    invalid("6.13.2", &lonely(0xE0..=0xEF));
    invalid("6.13.3", &lonely(0xF0..=0xF7));
    invalid("6.13.4", &lonely(0xF8..=0xFB));
    invalid("6.13.5", &lonely(0xFC..=0xFD));
    for (case, bytes) in [
        ("6.14.1", &b"\xC0"[..]),
        ("6.14.2", b"\xE0\x80"),
        ("6.14.3", b"\xF0\x80\x80"),
        ("6.14.4", b"\xF8\x80\x80\x80"),
        ("6.14.5", b"\xFC\x80\x80\x80\x80"),
        ("6.14.6", b"\xDF"),
        ("6.14.7", b"\xEF\xBF"),
        ("6.14.8", b"\xF7\xBF\xBF"),
        ("6.14.9", b"\xFB\xBF\xBF\xBF"),
        ("6.14.10", b"\xFD\xBF\xBF\xBF\xBF"),
        (
            "6.15.1",
            b"\xC0\xE0\x80\xF0\x80\x80\xF8\x80\x80\x80\xFC\x80\x80\x80\x80",
        ),
        ("6.16.1", b"\xFE"),
        ("6.16.2", b"\xFF"),
        ("6.16.3", b"\xFE\xFE\xFF\xFF"),
        ("6.17.1", b"\xC0\xAF"),
        ("6.17.2", b"\xE0\x80\xAF"),
        ("6.17.3", b"\xF0\x80\x80\xAF"),
        ("6.17.4", b"\xF8\x80\x80\x80\xAF"),
        ("6.17.5", b"\xFC\x80\x80\x80\x80\xAF"),
        ("6.18.1", b"\xC1\xBF"),
        ("6.18.2", b"\xE0\x9F\xBF"),
        ("6.18.3", b"\xF0\x8F\xBF\xBF"),
        ("6.18.4", b"\xF8\x87\xBF\xBF\xBF"),
        ("6.18.5", b"\xFC\x83\xBF\xBF\xBF\xBF"),
        ("6.19.1", b"\xC0\x80"),
        ("6.19.2", b"\xE0\x80\x80"),
        ("6.19.3", b"\xF0\x80\x80\x80"),
        ("6.19.4", b"\xF8\x80\x80\x80\x80"),
        ("6.19.5", b"\xFC\x80\x80\x80\x80\x80"),
        ("6.20.1", b"\xED\xA0\x80"),
        ("6.20.2", b"\xED\xAD\xBF"),
        ("6.20.3", b"\xED\xAE\x80"),
        ("6.20.4", b"\xED\xAF\xBF"),
        ("6.20.5", b"\xED\xB0\x80"),
        ("6.20.6", b"\xED\xBE\x80"),
        ("6.20.7", b"\xED\xBF\xBF"),
        ("6.21.1", b"\xED\xA0\x80\xED\xB0\x80"),
        ("6.21.2", b"\xED\xA0\x80\xED\xBF\xBF"),
        ("6.21.3", b"\xED\xAD\xBF\xED\xB0\x80"),
        ("6.21.4", b"\xED\xAD\xBF\xED\xBF\xBF"),
        ("6.21.5", b"\xED\xAE\x80\xED\xB0\x80"),
        ("6.21.6", b"\xED\xAE\x80\xED\xBF\xBF"),
        ("6.21.7", b"\xED\xAF\xBF\xED\xB0\x80"),
        ("6.21.8", b"\xED\xAF\xBF\xED\xBF\xBF"),
    ] {
        invalid(case, bytes);
    }
    for (number, plane) in (0..=16u32).enumerate() {
        for last in [0xFFFE, 0xFFFF] {
            let text = char::from_u32(plane << 16 | last).unwrap().to_string();
            valid(
                &format!("6.22.{}", number * 2 + 1 + (last & 1) as usize),
                text.as_bytes(),
            );
        }
    }
    for (number, code) in (0xFFF9..=0xFFFD).enumerate() {
        let text = char::from_u32(code).unwrap().to_string();
        valid(&format!("6.23.{}", number + 1), text.as_bytes());
    }
}
