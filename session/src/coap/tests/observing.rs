//! Observations: registered, notified, confirmed, ended.

use super::*;

fn seen(sent: Vec<Vec<u8>>) -> Vec<Seen> {
    sent.iter().map(|sent| Seen::of(sent)).collect()
}

fn confirm(house: &mut House, sent: &[Seen]) {
    for seen in sent.iter().filter(|seen| seen.kind == Kind::Con) {
        house.datagram(&empty(Kind::Ack, seen.id));
    }
}

#[test]
fn observer_is_answered_with_what_is_retained_and_notified_in_sequence() {
    let mut house = House::new();
    house.retained.push(("m/d/c/x/t".into(), b"old".to_vec()));
    let first = house.answer(&Request::observe(T, b"o"));
    assert_eq!(
        (first.code, &first.payload[..]),
        (Code::CONTENT, &b"old"[..])
    );
    let mut last = first.observe.unwrap();
    for number in 0..100u32 {
        house.now += 10;
        let sent = seen(house.message("m/d/c/x/t", &number.to_be_bytes()));
        assert_eq!(sent.len(), 1);
        assert_eq!(
            (&sent[0].token[..], &sent[0].payload[..]),
            (&b"o"[..], &number.to_be_bytes()[..])
        );
        assert!(sent[0].observe.unwrap() > last);
        last = sent[0].observe.unwrap();
        assert_eq!(
            sent[0].kind == Kind::Con,
            number % 16 == 15,
            "every 16th is confirmed"
        );
        confirm(&mut house, &sent);
    }
    house.now += 60_000;
    let sent = seen(house.message("m/d/c/x/t", b"late"));
    assert_eq!(
        sent[0].kind,
        Kind::Con,
        "and whatever follows a minute's silence"
    );
}

#[test]
fn two_tokens_two_observations_and_a_repeated_token_only_one() {
    let mut house = House::new();
    for token in [&b"a"[..], b"b", b"a"] {
        assert!(house.answer(&Request::observe(T, token)).observe.is_some());
    }
    house.answer(&Request::observe("m/d/c/route/t?auth=s", b"c"));
    assert_eq!(house.subscriptions.len(), 1, "they share one subscription");
    let mut tokens: Vec<_> = seen(house.message("m/d/c/x/t", b"1"))
        .into_iter()
        .map(|seen| seen.token)
        .collect();
    tokens.sort();
    assert_eq!(tokens, [b"a", b"b", b"c"]);
    assert_eq!(
        house.answer(&Request::get(T)).code,
        Code::NOT_FOUND,
        "a GET meanwhile"
    );
    assert_eq!(house.message("m/d/c/x/t", b"1").len(), 3);
}

#[test]
fn retained_messages_below_a_wildcard_follow_the_first() {
    let mut house = House::new();
    for topic in ["m/d/c/x/a", "m/d/c/x/b", "m/d/c/x/c"] {
        house
            .retained
            .push((topic.into(), topic.as_bytes().to_vec()));
    }
    let came = house.ask(&Request::observe("m/d/c/x/#?auth=s", b"o"));
    let payloads: Vec<_> = came.iter().map(|seen| &seen.payload[..]).collect();
    assert_eq!(payloads, [b"m/d/c/x/a", b"m/d/c/x/b", b"m/d/c/x/c"]);
    assert_eq!(
        house.ask(&Request::observe("m/d/c/x/#?auth=s", b"p")).len(),
        3,
        "not told twice"
    );
}

#[test]
fn observation_ends_by_deregistering_and_by_reset_of_any_notification() {
    let mut house = House::new();
    for how in 0..3 {
        assert!(house.answer(&Request::observe(T, b"o")).observe.is_some());
        let sent = seen(house.message("m/d/c/x/t", b"1"));
        assert_eq!(sent[0].kind, Kind::Non);
        match how {
            0 => {
                let deregister = Request {
                    token: b"o",
                    ..Request::get(T)
                };
                let answer = house.answer(&deregister.uint(OptionNumber::OBSERVE, 1));
                assert_eq!((answer.code, answer.observe), (Code::CONTENT, None));
            }
            1 => drop(house.datagram(&empty(Kind::Rst, sent[0].id))),
            _ => {
                house.now += 60_000;
                let sent = seen(house.message("m/d/c/x/t", b"2"));
                assert_eq!(sent[0].kind, Kind::Con);
                house.datagram(&empty(Kind::Rst, sent[0].id));
            }
        }
        assert!(house.message("m/d/c/x/t", b"3").is_empty());
        assert!(house.subscriptions.is_empty() && house.endpoint.is_idle());
    }
    house.answer(&Request::observe(T, b"o"));
    let other = Request {
        token: b"other",
        ..Request::get(T)
    }
    .uint(OptionNumber::OBSERVE, 1);
    house.answer(&other);
    assert_eq!(
        house.message("m/d/c/x/t", b"3").len(),
        1,
        "t_coap_4: another token ends nothing"
    );
}

#[test]
fn observer_that_confirms_nothing_is_given_up_and_its_messages_waited_in_bounds() {
    let mut house = House::new();
    house.answer(&Request::observe(T, b"o"));
    house.now = 60_000;
    let sent = seen(house.message("m/d/c/x/t", b"0"));
    assert_eq!(sent[0].kind, Kind::Con);
    for number in 1..=40u8 {
        assert!(
            house.message("m/d/c/x/t", &[number]).is_empty(),
            "one unconfirmed at a time"
        );
    }
    assert_eq!(house.tally.notifications_dropped, 24);
    let again = house.pass(400_000);
    assert_eq!(again.len(), 4);
    assert!(again.iter().all(|(_, again)| *again == sent[0]));
    assert!(house.endpoint.observations.is_empty() && house.subscriptions.is_empty());
    assert_eq!(house.tally.given_up, 1);
}

#[test]
fn messages_that_waited_follow_the_confirmation_in_order() {
    let mut house = House::new();
    house.answer(&Request::observe(T, b"o"));
    house.now = 60_000;
    let sent = seen(house.message("m/d/c/x/t", b"0"));
    house.message("m/d/c/x/t", b"1");
    house.message("m/d/c/x/t", b"2");
    let rest = seen(house.datagram(&empty(Kind::Ack, sent[0].id)));
    let payloads: Vec<_> = rest
        .iter()
        .map(|seen| (seen.kind, &seen.payload[..]))
        .collect();
    assert_eq!(payloads, [(Kind::Non, &b"1"[..]), (Kind::Non, b"2")]);
}

#[test]
fn nothing_follows_a_revocation_but_its_notice() {
    let mut house = House::new();
    house.answer(&Request::observe(T, b"o"));
    house.now = 60_000;
    let sent = seen(house.message("m/d/c/x/t", b"0"));
    house.message("m/d/c/x/t", b"secret");
    house.right = Right::Unclear;
    assert!(
        house.pass(63_100).is_empty(),
        "not sent again while it is unclear"
    );
    house.right = Right::Lost;
    let rest = seen(house.datagram(&empty(Kind::Ack, sent[0].id)));
    assert_eq!(rest.len(), 1);
    assert_eq!(
        (rest[0].code, rest[0].observe, &rest[0].payload[..]),
        (Code::FORBIDDEN, None, &b""[..])
    );
    house.right = Right::Held;
    house.answer(&Request::observe(T, b"o"));
    house.now += 60_000;
    house.message("m/d/c/x/t", b"secret");
    house.right = Right::Lost;
    let end = house.now + 100_000;
    let again = house.pass(end);
    assert_eq!(again.len(), 1);
    assert_eq!(
        (again[0].1.code, again[0].1.token.as_slice()),
        (Code::FORBIDDEN, &b"o"[..])
    );
    house.right = Right::Held;
    house.answer(&Request::observe(T, b"o"));
    house.right = Right::Lost;
    assert_eq!(house.review()[0].code, Code::FORBIDDEN);
    assert!(house.review().is_empty() && house.subscriptions.is_empty());
}

#[test]
fn end_of_a_guest_ends_its_observations_with_the_reason() {
    for (reason, code) in [
        (ReasonCode::NOT_AUTHORIZED, Code::FORBIDDEN),
        (ReasonCode::MAXIMUM_CONNECT_TIME, Code::UNAUTHORIZED),
        (ReasonCode::SERVER_SHUTTING_DOWN, Code::SERVICE_UNAVAILABLE),
        (ReasonCode::SERVER_BUSY, Code::SERVICE_UNAVAILABLE),
    ] {
        let mut house = House::new();
        house.answer(&Request::observe(T, b"o"));
        house.answer(&Request::observe("m/d/c/x/u?auth=s", b"p"));
        let ends = seen(house.disconnect(0, reason));
        assert_eq!(ends.len(), 2);
        assert!(
            ends.iter()
                .all(|end| end.code == code && end.observe.is_none())
        );
        assert_eq!(
            house.answer(&Request::post(T, b"1")).code,
            Code::CHANGED,
            "and may come again"
        );
    }
}

#[test]
fn observations_of_one_peer_are_bounded_and_the_next_is_answered_once() {
    let mut house = House::new();
    for number in 0..70u8 {
        let uri = format!("m/d/c/x/{number}?auth=s");
        let seen = house.answer(&Request::observe(&uri, &[number]));
        assert_eq!(seen.code, Code::CONTENT);
        assert_eq!(seen.observe.is_some(), number < 64);
    }
    assert_eq!(house.subscriptions.len(), 64);
}

#[test]
fn silent_observer_is_asked_after_a_day_whether_it_is_there() {
    let mut house = House::new();
    house.answer(&Request::observe(T, b"o"));
    let day = 24 * 3600 * 1000;
    let mut sent = house.pass(day + 1_000);
    sent.retain(|(_, seen)| seen.code == Code::EMPTY);
    assert_eq!(sent.len(), 1);
    assert_eq!(sent[0].1.kind, Kind::Con);
    house.datagram(&empty(Kind::Rst, sent[0].1.id));
    assert_eq!(house.message("m/d/c/x/t", b"1").len(), 1, "it is there");
    house.pass(3 * day);
    assert!(house.message("m/d/c/x/t", b"1").is_empty(), "it is not");
}

#[test]
fn another_format_than_the_observer_takes_ends_the_observation() {
    let mut house = House::new();
    let observe = Request::observe(T, b"o").uint(OptionNumber::ACCEPT, 60);
    assert!(house.answer(&observe).observe.is_some());
    let sent = seen(house.message("m/d/c/x/t", b"{}"));
    assert_eq!(sent[0].code, Code::NOT_ACCEPTABLE);
    assert!(house.message("m/d/c/x/t", b"{}").is_empty());
}
