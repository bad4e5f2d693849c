//! Messages confirmed, repeated, rejected, and what requests are answered.

use super::*;

#[test]
fn post_and_put_publish_and_are_answered_on_their_ack() {
    let mut house = House::new();
    let post = Request::post(T, b"21.5").uint(OptionNumber::CONTENT_FORMAT, 50);
    let seen = house.answer(&post);
    assert_eq!(
        (seen.kind, seen.code, seen.id),
        (Kind::Ack, Code::CHANGED, 101)
    );
    assert_eq!((&seen.token[..], &seen.payload[..]), (&b"t"[..], &b""[..]));
    let put = Request {
        code: Code::PUT,
        ..Request::post("m/d/c/x/t?auth=s&retain=true", b"x")
    };
    let seen = house.answer(&put.non());
    assert_eq!((seen.kind, seen.code), (Kind::Non, Code::CHANGED));
    let bridge = house.answer(&Request::post(
        "mqtt/publish/m/d/c/x/t?username=u&password=s",
        b"y",
    ));
    assert_eq!(
        (bridge.code, &bridge.payload[..]),
        (Code::CHANGED, &b"ok"[..])
    );
    assert_eq!(
        house.answer(&Request::post("hc/d?auth=s", b"")).code,
        Code::CHANGED
    );
    let topics: Vec<_> = house
        .published
        .iter()
        .map(|message| {
            (
                &*message.topic,
                &message.payload[..],
                message.content_type.as_deref(),
                message.retain,
            )
        })
        .collect();
    assert_eq!(
        topics,
        [
            ("m/d/c/x/t", &b"21.5"[..], Some("application/json"), false),
            ("m/d/c/x/t", b"x", None, true),
            ("m/d/c/x/t", b"y", None, false),
            ("hc/d", b"", None, false),
        ]
    );
    let manner = Manner {
        created: true,
        ..House::new().endpoint.manner
    };
    let mut compatible = House::of(manner);
    assert_eq!(
        compatible.answer(&Request::post(T, b"1")).code,
        Code::CREATED
    );
}

#[test]
fn get_answers_what_is_retained_or_404() {
    let mut house = House::new();
    let none = house.answer(&Request::get(T));
    assert_eq!((none.kind, none.code), (Kind::Ack, Code::NOT_FOUND));
    house.retained.push(("m/d/c/x/t".into(), b"21.5".to_vec()));
    let seen = house.answer(&Request::get(T));
    assert_eq!(
        (seen.code, &seen.payload[..]),
        (Code::CONTENT, &b"21.5"[..])
    );
    assert_eq!(
        (seen.format, seen.observe, seen.block2),
        (Some(50), None, None)
    );
    let again = Request::get(T).option(OptionNumber::ETAG, &seen.etag.unwrap());
    assert_eq!(house.answer(&again).code, Code::VALID);
    let other = Request::get(T).uint(OptionNumber::ACCEPT, 0);
    assert_eq!(house.answer(&other).code, Code::NOT_ACCEPTABLE);
    let by_route = house.answer(&Request::get("m/d/c/route/t?auth=s"));
    assert_eq!(by_route.code, Code::CONTENT);
    assert!(
        house.subscriptions.is_empty(),
        "a GET leaves nothing behind"
    );
}

#[test]
fn errors_are_those_of_the_table() {
    let mut house = House::new();
    house.refused = vec!["m/d/c/x/no".into()];
    let code = |house: &mut House, code, uri: &str| house.answer(&Request::new(code, uri)).code;
    for (method, uri, expected) in [
        (Code::POST, "m/d/c/?auth=s", Code::BAD_REQUEST),
        (Code::POST, "m/d/c/x/+?auth=s", Code::BAD_REQUEST),
        (Code::POST, "m/d/c/x?auth=s&retain=maybe", Code::BAD_REQUEST),
        (Code::GET, "m/d/c/x/#?auth=s", Code::BAD_REQUEST),
        (Code::POST, "m/d/c/x", Code::UNAUTHORIZED),
        (Code::POST, "m/d/c/x?auth=wrong", Code::UNAUTHORIZED),
        (Code::GET, "m/d/c/x?auth=wrong", Code::UNAUTHORIZED),
        (Code::POST, "m/d/c/x/no?auth=s", Code::FORBIDDEN),
        (Code::GET, "m/d/c/x/no?auth=s", Code::FORBIDDEN),
        (Code::DELETE, "m/d/c/x?auth=s", Code::METHOD_NOT_ALLOWED),
        (Code::new(5), "m/d/c/x?auth=s", Code::METHOD_NOT_ALLOWED),
        (Code::POST, ".well-known/core", Code::METHOD_NOT_ALLOWED),
        (
            Code::GET,
            "mqtt/publish/m/d/c/x?auth=s",
            Code::METHOD_NOT_ALLOWED,
        ),
        (Code::GET, "elsewhere?auth=s", Code::NOT_FOUND),
    ] {
        assert_eq!(code(&mut house, method, uri), expected, "{uri}");
    }
    assert!(house.published.is_empty());
    let unknown = Request::post(T, b"x").option(OptionNumber(9), b"?");
    assert_eq!(house.answer(&unknown).code, Code::BAD_OPTION);
    let rejected = house.answer(&unknown.non());
    assert_eq!((rejected.kind, rejected.code), (Kind::Rst, Code::EMPTY));
    let elective = Request::post(T, b"x").option(OptionNumber(2050), b"?");
    assert_eq!(house.answer(&elective).code, Code::CHANGED);
    let condition = Request::post(T, b"x").option(OptionNumber::IF_NONE_MATCH, b"");
    assert_eq!(house.answer(&condition).code, Code::BAD_OPTION);
    let proxy = Request::post(T, b"x").option(OptionNumber::PROXY_SCHEME, b"coap");
    assert_eq!(house.answer(&proxy).code, Code::PROXYING_NOT_SUPPORTED);
    house.incoming.serving = false;
    assert_eq!(code(&mut house, Code::POST, T), Code::SERVICE_UNAVAILABLE);
    house.incoming.serving = true;
    house.incoming.payload_max = 3;
    let large = house.answer(&Request::post(T, b"four"));
    assert_eq!(large.code, Code::REQUEST_ENTITY_TOO_LARGE);
    let links = house.answer(&Request::get(".well-known/core"));
    assert_eq!((links.code, links.format), (Code::CONTENT, Some(40)));
}

#[test]
fn pings_and_what_is_no_request_are_reset() {
    let mut house = House::new();
    let reset = |house: &mut House, datagram: &[u8]| {
        let sent = house.datagram(datagram);
        sent.iter()
            .map(|sent| Seen::of(sent).kind)
            .collect::<Vec<_>>()
    };
    assert_eq!(reset(&mut house, &empty(Kind::Con, 5)), [Kind::Rst]);
    assert_eq!(reset(&mut house, b"\x49\x01\x00\x01123456789"), [Kind::Rst]);
    assert_eq!(
        reset(&mut house, b"\x40\x45\x00\x07\xffx"),
        [Kind::Rst],
        "an answer"
    );
    assert_eq!(
        reset(&mut house, b"\x40\x25\x00\x08"),
        [Kind::Rst],
        "a reserved class"
    );
    for ignored in [
        &b"\x59\x01\x00\x01123456789"[..],
        b"\x80\x01\x00\x01",
        b"\x50\x00\x00\x01",
        b"\x70\x00\x00\x01",
        b"\x60\x00\x00\x01",
        b"\x50\x45\x00\x01",
        b"x",
        b"",
    ] {
        assert!(reset(&mut house, ignored).is_empty(), "{ignored:?}");
    }
}

#[test]
fn repeated_request_is_carried_out_once_and_answered_the_same() {
    let mut house = House::new();
    let datagram = Request::post(T, b"1").encode(9);
    let first = house.datagram(&datagram);
    assert_eq!(house.datagram(&datagram), first);
    let datagram = Request::post(T, b"2").non().encode(10);
    assert_eq!(house.datagram(&datagram).len(), 1);
    assert!(house.datagram(&datagram).is_empty());
    assert_eq!(house.published.len(), 2);
    assert_eq!((house.tally.requests, house.tally.repeated), (2, 2));
}

#[test]
fn answer_that_takes_long_comes_on_its_own_and_is_sent_again_until_confirmed() {
    let mut house = House::new();
    house.answer(&Request::post(T, b"0"));
    house.asleep = true;
    let datagram = Request::post(T, b"1").encode(9);
    assert!(house.datagram(&datagram).is_empty());
    let sent = house.pass(1_900);
    assert_eq!(sent.len(), 1);
    assert_eq!(
        (sent[0].1.kind, sent[0].1.code, sent[0].1.id),
        (Kind::Ack, Code::EMPTY, 9)
    );
    let again = house.datagram(&datagram);
    assert_eq!(
        Seen::of(&again[0]).kind,
        Kind::Ack,
        "it is still on the way"
    );
    let answer = house.awake().remove(0);
    assert_eq!((answer.kind, answer.code), (Kind::Con, Code::CHANGED));
    assert_eq!(answer.token, b"t");
    let sent = house.pass(12_000);
    assert_eq!(sent.len(), 2);
    assert!(sent.iter().all(|(_, again)| *again == answer));
    house.datagram(&empty(Kind::Ack, answer.id));
    assert!(house.pass(200_000).is_empty());
    assert_eq!(house.published.len(), 2);
}

#[test]
fn classes_that_a_peer_does_not_want_to_hear_of_are_not_told() {
    let mut house = House::new();
    let silent = Request::post(T, b"1").uint(OptionNumber::NO_RESPONSE, 2);
    let seen = house.answer(&silent);
    assert_eq!((seen.kind, seen.code), (Kind::Ack, Code::EMPTY));
    assert!(house.ask(&silent.non()).is_empty());
    let wrong = Request::post("m/d/c/x?auth=wrong", b"").uint(OptionNumber::NO_RESPONSE, 2);
    assert_eq!(house.answer(&wrong).code, Code::UNAUTHORIZED);
    assert_eq!(house.published.len(), 2);
}

#[test]
fn t_coap_2_stranger_gets_at_most_three_times_what_it_sent_until_it_proves_its_address() {
    let manner = Manner {
        proven: false,
        ..House::new().endpoint.manner
    };
    let mut house = House::of(manner);
    house.retained.push(("m/d/c/x/t".into(), vec![b'x'; 900]));
    let challenge = house.answer(&Request::get(T));
    assert_eq!(challenge.code, Code::UNAUTHORIZED);
    assert_eq!(challenge.echo.as_deref(), Some(&ECHO[0][..]));
    assert_eq!(
        house.answer(&Request::post(T, b"1")).code,
        Code::CHANGED,
        "a short answer"
    );
    let observe = house.answer(&Request::observe(T, b"o"));
    assert_eq!((observe.code, observe.observe), (Code::UNAUTHORIZED, None));
    let forged = Request::get(T).option(OptionNumber::ECHO, b"forged!!");
    assert_eq!(house.answer(&forged).code, Code::UNAUTHORIZED);
    let short = Request::get(".well-known/core");
    assert!(
        house.answer(&short).payload.is_empty(),
        "smaller without links"
    );
    let old = Request::observe(T, b"o").option(OptionNumber::ECHO, &ECHO[1]);
    let seen = house.answer(&old);
    assert_eq!((seen.code, seen.payload.len()), (Code::CONTENT, 900));
    assert_eq!(
        house.answer(&Request::get(T)).payload.len(),
        900,
        "proven from now on"
    );
    assert_eq!(house.tally.challenges, 4);
}

#[test]
fn t_coap_5_credentials_are_refused_where_others_can_read_along() {
    let manner = Manner {
        credentials: false,
        ..House::new().endpoint.manner
    };
    let mut house = House::of(manner);
    assert_eq!(
        house.answer(&Request::post(T, b"1")).code,
        Code::UNAUTHORIZED
    );
    let certified = Manner {
        certified: true,
        ..manner
    };
    let mut house = House::of(certified);
    assert_eq!(
        house.answer(&Request::post("m/d/c/x", b"1")).code,
        Code::UNAUTHORIZED
    );
    assert!(
        house.published.is_empty(),
        "the house knows no certificates"
    );
}

#[test]
fn credentials_of_one_address_are_few_and_an_idle_one_makes_room() {
    let mut house = House::new();
    for name in 0..20 {
        let uri = format!("m/d/c/x/t?username=u{name}&password=s");
        assert_eq!(house.answer(&Request::post(&uri, b"1")).code, Code::CHANGED);
    }
    assert_eq!(house.published.len(), 20);
    for name in 0..Endpoint::GUESTS_MAX {
        let uri = format!("m/d/c/x/t?username=u{name}&password=s");
        let token = [name as u8];
        assert_eq!(
            house.answer(&Request::observe(&uri, &token)).code,
            Code::CONTENT
        );
    }
    let seen = house.answer(&Request::post("m/d/c/x/t?username=new&password=s", b"1"));
    assert_eq!(seen.code, Code::SERVICE_UNAVAILABLE, "all of them observe");
}

proptest::proptest! {
    #[test]
    fn any_datagrams_are_taken_and_what_is_sent_is_small_and_sound(
        datagrams in proptest::collection::vec(
            (0u8..8, proptest::collection::vec(proptest::prelude::any::<u8>(), 0..60)), 1..12,
        ),
        proven: bool,
    ) {
        let mut house = House::of(Manner { proven, ..House::new().endpoint.manner });
        house.retained.push(("m/d/c/x/t".into(), vec![b'x'; 2000]));
        for (kind, bytes) in datagrams {
            let mut datagram = match kind {
                0 => Request::get(T).encode(kind.into()),
                1 => Request::observe(T, b"o").encode(kind.into()),
                2 => Request::post(T, b"1").encode(kind.into()),
                _ => vec![0x40 | (kind & 3) << 4, kind, 0, kind],
            };
            datagram.extend_from_slice(&bytes);
            let sent = house.datagram(&datagram);
            for datagram in &sent {
                proptest::prop_assert!(Message::parse(datagram).is_ok());
                proptest::prop_assert!(datagram.len() <= 1024 + 64);
            }
            if !house.endpoint.manner.proven {
                let bytes: usize = sent.iter().map(Vec::len).sum();
                proptest::prop_assert!(bytes <= 3 * datagram.len());
            }
        }
    }
}
