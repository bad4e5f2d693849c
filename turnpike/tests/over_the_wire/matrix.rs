//! Every door against every other: what is published at one is received at all, under the same
//! rights.

use codec::mqtt::QoS;

use crate::client::{Client, Credentials, Options};
use crate::doors::{DOORS, Door, Place, Publisher, Seen, Subscriber, Told};

/// `verb` for a right of a demo client to the demo channel.
fn switch(place: &Place, verb: &str, number: usize, right: &str) {
    let id = place.broker.client(number).username.unwrap();
    let channel = place.broker.channel().to_owned();
    let of = ["--domain", "demo", "--client", &id, "--channel", &channel];
    place
        .broker
        .provision(&[&[verb][..], &of, &["--type", right]].concat());
}

fn subscribers(place: &Place, subtopic: &str) -> Vec<(Door, Box<dyn Subscriber>)> {
    let open = |door: Door| {
        let subscriber = door.subscriber(place, 1, subtopic);
        (
            door,
            subscriber.unwrap_or_else(|| panic!("{door:?}: no right")),
        )
    };
    DOORS.map(open).into_iter().collect()
}

fn publishers(place: &Place, subtopic: &str) -> Vec<(Door, Box<dyn Publisher>)> {
    let open = |door: Door| (door, door.publisher(place, 0, subtopic));
    DOORS.map(open).into_iter().collect()
}

/// The next message is this one, as far as the door shows.
fn expect(subscriber: &mut dyn Subscriber, payload: &str, qos: QoS, retain: bool, pair: &str) {
    let Seen {
        payload: came,
        qos: at,
        retain: flag,
    } = subscriber.message();
    assert_eq!(came, payload, "{pair}");
    assert_eq!(at.unwrap_or(qos), qos, "{pair}");
    assert_eq!(flag.unwrap_or(retain), retain, "{pair}");
}

#[test]
fn message_of_each_door_reaches_each_other_once_and_at_its_quality() {
    let place = Place::new();
    let mut subscribers = subscribers(&place, "matrix");
    for (from, mut publisher) in publishers(&place, "matrix") {
        for &qos in from.qualities() {
            let payload = format!("{from:?} at {qos:?}");
            let told = publisher.publish(&payload, qos, false);
            assert_ne!(told, Told::Denied, "{payload}");
            // One that came twice would be taken for the next.
            for (to, subscriber) in &mut subscribers {
                let pair = format!("{payload}, to {to:?}");
                expect(&mut **subscriber, &payload, qos, false, &pair);
            }
        }
    }
}

#[test]
fn message_retained_at_each_door_is_given_to_who_comes_by_each_other() {
    let place = Place::new();
    for from in DOORS.into_iter().filter(|door| door.retains()) {
        let subtopic = format!("kept/{from:?}").replace(['(', ')', ' ', ','], "-");
        let mut publisher = from.publisher(&place, 0, &subtopic);
        let &qos = from.qualities().last().unwrap();
        let payload = format!("kept by {from:?}");
        assert_ne!(publisher.publish(&payload, qos, true), Told::Denied);
        let mut subscribers = subscribers(&place, &subtopic);
        for (to, subscriber) in &mut subscribers {
            let pair = format!("{payload}, for {to:?}");
            expect(&mut **subscriber, &payload, qos, true, &pair);
        }
        // To who is there it is an ordinary message, and so is the one that takes it away.
        for payload in ["again", ""] {
            publisher.publish(payload, qos, true);
            for (to, subscriber) in &mut subscribers {
                let pair = format!("{payload:?} by {from:?}, to {to:?}");
                expect(&mut **subscriber, payload, qos, false, &pair);
            }
        }
        let late = DOORS[0].subscriber(&place, 1, &subtopic);
        late.unwrap().ended();
    }
}

#[test]
fn right_that_is_taken_away_is_gone_at_every_door_when_the_call_returns() {
    let place = Place::new();
    let silenced = subscribers(&place, "revoked");
    let mut publishers = publishers(&place, "revoked");
    let watcher = place
        .broker
        .provision(&["client", "create", "--domain", "demo", "watcher"]);
    let login = Credentials {
        username: watcher["id"].as_str().map(str::to_owned),
        password: watcher["secret"].as_str().map(str::to_owned),
    };
    let (id, channel) = (login.username.clone().unwrap(), place.broker.channel());
    let of = ["--domain", "demo", "--client", &id, "--channel", channel];
    place.broker.provision(&[&["connect"][..], &of].concat());
    let (mut watcher, _) = Client::connect(place.broker.address(), &login, &Options::default());
    watcher.subscribe(&place.broker.topic("revoked"), QoS::AtMostOnce);

    switch(&place, "disconnect", 1, "subscribe");
    for (from, publisher) in &mut publishers {
        let payload = format!("after, by {from:?}");
        let &qos = from.qualities().last().unwrap();
        assert_ne!(publisher.publish(&payload, qos, false), Told::Denied);
        assert_eq!(watcher.payload(), payload);
    }
    for (_, subscriber) in silenced {
        subscriber.ended();
    }
    for to in DOORS {
        let again = to.subscriber(&place, 1, "revoked");
        assert!(again.is_none(), "{to:?} lets in whose right is gone");
    }

    switch(&place, "disconnect", 0, "publish");
    for (from, publisher) in &mut publishers {
        for &qos in from.qualities() {
            let told = publisher.publish("never", qos, false);
            assert_ne!(told, Told::Accepted, "{from:?} at {qos:?}");
            if matches!(from, Door::Socket) {
                assert_eq!(told, Told::Denied, "closed for good");
            }
        }
    }
    for from in DOORS.into_iter().filter(|door| door.retains()) {
        let told = from
            .publisher(&place, 0, "revoked")
            .publish("never", QoS::AtLeastOnce, true);
        assert_ne!(told, Told::Accepted, "{from:?}");
    }
    assert_eq!(watcher.ping(), []);

    switch(&place, "connect", 0, "publish");
    switch(&place, "connect", 1, "subscribe");
    let mut back = subscribers(&place, "revoked");
    watcher.publish(
        &place.broker.topic("revoked"),
        b"back",
        QoS::AtMostOnce,
        false,
    );
    for (to, subscriber) in &mut back {
        expect(
            &mut **subscriber,
            "back",
            QoS::AtMostOnce,
            false,
            &format!("{to:?}"),
        );
    }
}
