//! Who gets in, and how: secrets, tokens, enhanced authentication.

use codec::mqtt::{Auth, ConnectProperties, ProtocolVersion, ReasonCode, UserProperties};

use crate::broker::Broker;
use crate::client::{Client, Credentials, Got, Options};

fn bearer(token: &str) -> Vec<u8> {
    format!("n,,\x01auth=Bearer {token}\x01\x01").into_bytes()
}

fn auth(reason: ReasonCode, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Auth {
        reason,
        method: Some("OAUTHBEARER"),
        data: Some(data),
        reason_string: None,
        user_properties: UserProperties::default(),
    }
    .encode(ProtocolVersion::V5, &mut bytes);
    bytes
}

fn by_token(data: Option<&[u8]>) -> Options<'_> {
    Options {
        properties: ConnectProperties {
            authentication_method: Some("OAUTHBEARER"),
            authentication_data: data,
            ..ConnectProperties::default()
        },
        ..Options::default()
    }
}

#[test]
fn administrator_connects_and_authenticates_again_with_new_tokens() {
    // [MQTT-4.12.0-2] [MQTT-4.12.0-5] [MQTT-4.12.1-2]
    let broker = Broker::start(&[]);
    let token = broker.token();
    let data = bearer(&token);
    let nobody = Credentials::default();
    let (mut at_once, _) = Client::connect(broker.address(), &nobody, &by_token(Some(&data)));
    assert_eq!(at_once.ping(), []);

    let (mut asked, got) = Client::try_connect(broker.address(), &nobody, &by_token(None));
    assert_eq!(got, Got::Auth(ReasonCode::CONTINUE_AUTHENTICATION));
    asked.send(&auth(ReasonCode::CONTINUE_AUTHENTICATION, &data));
    assert!(matches!(
        asked.next(),
        Got::ConnAck {
            code: ReasonCode::SUCCESS,
            ..
        }
    ));

    let newer = bearer(&broker.token());
    asked.send(&auth(ReasonCode::RE_AUTHENTICATE, &newer));
    assert_eq!(asked.next(), Got::Auth(ReasonCode::SUCCESS));
    assert_eq!(asked.ping(), []);
    asked.send(&auth(ReasonCode::RE_AUTHENTICATE, &bearer("no.real.token")));
    assert!(matches!(asked.next(), Got::Disconnect(code) if code.is_error()));
    assert_eq!(asked.next(), Got::Closed);
}

#[test]
fn token_works_as_a_password_and_a_refresh_token_does_not() {
    let broker = Broker::start(&[]);
    let login = |token: String| Credentials {
        username: Some(String::new()),
        password: Some(token),
    };
    Client::connect(
        broker.address(),
        &login(broker.token()),
        &Options::default(),
    );
    let refresh = login(broker.refresh_token());
    let (_, got) = Client::try_connect(broker.address(), &refresh, &Options::default());
    assert!(matches!(
        got,
        Got::ConnAck {
            code: ReasonCode::BAD_USER_NAME_OR_PASSWORD,
            ..
        }
    ));
}

#[test]
fn unknown_method_and_wrong_secret_are_refused_by_version() {
    // [MQTT-4.12.0-1] [MQTT-3.2.2-7] [MQTT-3.2.2-8] [MQTT3-3.2.2-5]
    let broker = Broker::start(&[]);
    let mut options = by_token(None);
    options.properties.authentication_method = Some("SOMETHING");
    let (mut client, got) =
        Client::try_connect(broker.address(), &Credentials::default(), &options);
    assert!(matches!(
        got,
        Got::ConnAck {
            code: ReasonCode::BAD_AUTHENTICATION_METHOD,
            ..
        }
    ));
    assert_eq!(client.next(), Got::Closed);
    for (version, expected) in [(ProtocolVersion::V311, 4), (ProtocolVersion::V5, 0x86)] {
        let mut wrong = broker.client(0);
        wrong.password = Some("wrong".to_owned());
        let options = Options {
            version,
            ..Options::default()
        };
        let (mut client, got) = Client::try_connect(broker.address(), &wrong, &options);
        let Got::ConnAck {
            code,
            present: false,
            ..
        } = got
        else {
            panic!("{got:?}")
        };
        assert_eq!(code.get(), expected);
        assert_eq!(client.next(), Got::Closed);
    }
}

#[test]
fn each_empty_identifier_gets_another_one() {
    // [MQTT-3.1.3-6] [MQTT-3.1.3-7] [MQTT-3.2.2-16] [MQTT3-3.1.3-6]
    let broker = Broker::start(&[]);
    let mut assigned = Vec::new();
    for _ in 0..20 {
        let (_, got) =
            Client::try_connect(broker.address(), &broker.client(0), &Options::default());
        let Got::ConnAck {
            assigned: Some(name),
            ..
        } = got
        else {
            panic!("{got:?}")
        };
        assigned.push(name);
    }
    assigned.sort_unstable();
    assigned.dedup();
    assert_eq!(assigned.len(), 20);
}
