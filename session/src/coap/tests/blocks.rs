//! Bodies of more than a block, both ways.

use super::*;

fn block(number: u32, more: bool, exponent: u8) -> u32 {
    Block {
        number,
        more,
        exponent,
    }
    .value()
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 % 251) as u8).collect()
}

/// Puts a body in blocks; the last answer.
fn put(house: &mut House, body: &[u8], exponent: u8) -> Seen {
    let size = 16 << exponent;
    let count = body.len().div_ceil(size);
    let mut last = None;
    for (number, piece) in body.chunks(size).enumerate() {
        let more = number + 1 < count;
        let request = Request::post("m/d/c/x/t?auth=s&retain=true", piece)
            .uint(OptionNumber::BLOCK1, block(number as u32, more, exponent));
        let seen = house.answer(&request);
        assert_eq!(seen.block1.map(|block| block.number), Some(number as u32));
        if more {
            assert_eq!(seen.code, Code::CONTINUE);
        }
        last = Some(seen);
    }
    last.unwrap()
}

fn fetch(house: &mut House, exponent: u8) -> Vec<u8> {
    let mut fetched = Vec::new();
    for number in 0.. {
        let request = Request::get(T).uint(OptionNumber::BLOCK2, block(number, false, exponent));
        let seen = house.answer(&request);
        assert_eq!(seen.code, Code::CONTENT);
        fetched.extend_from_slice(&seen.payload);
        let answered = seen.block2.unwrap();
        assert_eq!((answered.number, answered.exponent), (number, exponent));
        if !answered.more {
            break;
        }
    }
    fetched
}

#[test]
fn twenty_thousand_bytes_go_both_ways_in_blocks_of_any_size() {
    for exponent in 0..=6 {
        let mut house = House::new();
        let body = body(20_000);
        assert_eq!(put(&mut house, &body, exponent).code, Code::CHANGED);
        assert_eq!(house.published.len(), 1);
        assert!(house.published[0].payload == body);
        assert!(fetch(&mut house, exponent) == body);
        assert!(house.subscriptions.is_empty());
        assert_eq!(house.endpoint.bytes(), 20_000, "kept for a while");
        house.pass(100_000);
        assert_eq!(house.endpoint.bytes(), 0);
    }
}

#[test]
fn large_notification_begins_with_its_first_block_and_the_rest_is_fetched() {
    let mut house = House::new();
    house.answer(&Request::observe(T, b"o").uint(OptionNumber::BLOCK2, block(0, false, 2)));
    let body = body(200);
    let sent = house.message("m/d/c/x/t", &body);
    let first = Seen::of(&sent[0]);
    assert_eq!(first.payload.len(), 64);
    assert!(first.block2.unwrap().more);
    let mut fetched = first.payload.clone();
    for number in 1..4 {
        let request = Request::get(T).uint(OptionNumber::BLOCK2, block(number, false, 2));
        let seen = house.answer(&request);
        assert_eq!(seen.etag, first.etag);
        fetched.extend_from_slice(&seen.payload);
    }
    assert!(fetched == body);
    assert_eq!(
        house.message("m/d/c/x/t", b"1").len(),
        1,
        "it is observed still"
    );
    let beyond = Request::get(T).uint(OptionNumber::BLOCK2, block(9, false, 2));
    assert_eq!(house.answer(&beyond).code, Code::BAD_REQUEST);
    house.refused.push("m/d/c/x/t".into());
    let revoked = Request::get(T).uint(OptionNumber::BLOCK2, block(1, false, 2));
    assert_eq!(
        house.answer(&revoked).code,
        Code::FORBIDDEN,
        "each block is judged"
    );
}

#[test]
fn blocks_without_an_end_or_a_beginning_have_their_codes() {
    let mut house = House::new();
    let piece = [1; 16];
    let mut code = |number, more, room: usize| {
        house.incoming.room = room;
        let request = Request::post(T, &piece).uint(OptionNumber::BLOCK1, block(number, more, 0));
        house.answer(&request).code
    };
    assert_eq!(code(3, true, 100), Code::REQUEST_ENTITY_INCOMPLETE);
    assert_eq!(code(0, true, 10), Code::SERVICE_UNAVAILABLE);
    assert_eq!(code(0, true, 100), Code::CONTINUE);
    assert_eq!(
        code((1 << 20) - 1, true, 100),
        Code::REQUEST_ENTITY_TOO_LARGE
    );
    assert_eq!(
        code(1, true, 100),
        Code::REQUEST_ENTITY_INCOMPLETE,
        "forgotten"
    );
    let announced = Request::post(T, &piece)
        .uint(OptionNumber::BLOCK1, block(0, true, 0))
        .uint(OptionNumber::SIZE1, 40_000);
    assert_eq!(
        house.answer(&announced).code,
        Code::REQUEST_ENTITY_TOO_LARGE
    );
    let reserved = Request::post(T, &piece).uint(OptionNumber::BLOCK1, 7);
    assert_eq!(house.answer(&reserved).code, Code::BAD_REQUEST);
    let wrong =
        Request::post("m/d/c/x/t?auth=wrong", &piece).uint(OptionNumber::BLOCK1, block(0, true, 0));
    assert_eq!(
        house.answer(&wrong).code,
        Code::UNAUTHORIZED,
        "at the first block"
    );
    assert!(house.published.is_empty());
}
