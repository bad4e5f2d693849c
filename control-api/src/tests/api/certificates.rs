//! Certificates of clients.

use authcache::EntityId;
use authcache::feed::{Answer, CertificatePrint, Question, Refusal, ShownCertificate};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SerialNumber, SigningKey};

use super::*;
use crate::model::Time;
use crate::store::certificates::{self, CertificateRow};
use crate::store::sql;

/// A certificate with its key.
struct Made {
    pem: String,
    der: Vec<u8>,
    print: CertificatePrint,
    key: KeyPair,
}

/// A certificate of `serial`, signed by whoever `issuer` is.
fn certificate(issuer: &str, serial: &[u8]) -> Made {
    let mut by = CertificateParams::default();
    by.distinguished_name.push(DnType::CommonName, issuer);
    let by = Issuer::new(by, KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    let key = KeyPair::generate().unwrap();
    let made = params.signed_by(&key, &by).unwrap();
    Made {
        pem: made.pem(),
        der: made.der().to_vec(),
        print: CertificatePrint::of(made.der()),
        key,
    }
}

impl Made {
    /// A request that registers it for a client.
    fn body(&self, domain: &str, client: &str) -> Value {
        self.body_until(domain, client, in_seconds(3_600))
    }

    fn body_until(&self, domain: &str, client: &str, until: i64) -> Value {
        let signed = format!("turnpike certificate {domain} {client} until {until}");
        let proof = STANDARD.encode(self.key.sign(signed.as_bytes()).unwrap());
        json!({ "certificate": self.pem, "proof": proof, "proof_until": until })
    }
}

/// A moment from now on, in seconds since 1970.
fn in_seconds(seconds: i64) -> i64 {
    Time::now().micros() / 1_000_000 + seconds
}

/// Who comes with a certificate.
async fn who(
    world: &World,
    print: CertificatePrint,
    named: Option<&str>,
) -> Result<String, Refusal> {
    let shown = ShownCertificate {
        named: named.and_then(EntityId::from_text),
        print,
        claimed: None,
    };
    let question = Question::Certificate(shown);
    match world.at.control.0.identifier.answer(&question).await.1 {
        Answer::Identity(identity, None) => Ok(identity.id.to_string()),
        Answer::Refused(refusal) => Err(refusal),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_client_is_known_by_a_registered_certificate_until_it_is_forgotten() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let client = |name: &'static str| {
        let body = json!({ "name": name });
        world.entity(&ann, &domain, "clients", body)
    };
    let (press, pump) = (client("press").await, client("pump").await);
    let of = |client: &str| format!("/{domain}/clients/{client}/certs");
    let shown = certificate("an authority", &[0x4A, 0x3F]);
    let (pem, print) = (&shown.pem, shown.print);
    assert_eq!(who(&world, print, None).await, Err(Refusal::BadCredentials));
    let made = world
        .server
        .made(&of(&press), &ann.token, 201, shown.body(&domain, &press))
        .await;
    assert_eq!(made["serial_number"], "4a:3f");
    assert_eq!(made["entity_id"], press.as_str());
    assert_eq!(text(&made["certificate"]), pem.replace("\r\n", "\n"));
    assert_eq!(who(&world, print, None).await, Ok(press.clone()));
    // The same serial number of another authority is another certificate.
    let other = certificate("another authority", &[0x4A, 0x3F]).print;
    assert_eq!(who(&world, other, None).await, Err(Refusal::BadCredentials));
    // A client's own id goes first, and who says to be another one is refused.
    assert_eq!(who(&world, print, Some(&pump)).await, Ok(pump.clone()));
    let claims = ShownCertificate {
        named: None,
        print,
        claimed: EntityId::from_text(&pump),
    };
    let question = Question::Certificate(claims);
    let answer = world.at.control.0.identifier.answer(&question).await.1;
    assert_eq!(answer, Answer::Refused(Refusal::BadCredentials));
    // Registered once.
    for client in [&press, &pump] {
        let again = shown.body(&domain, client);
        world
            .expect("POST", &of(client), &ann.token, Some(again), 409)
            .await;
    }
    let page = world
        .expect("GET", &of(&press), &ann.token, None, 200)
        .await;
    assert_eq!(
        (
            &page["total"],
            page["certificates"].as_array().unwrap().len()
        ),
        (&json!(1), 1)
    );
    let of_pump = format!("{}/4a:3f", of(&pump));
    world
        .expect("DELETE", &of_pump, &ann.token, None, 404)
        .await;
    let path = format!("{}/4A:3F", of(&press));
    world.expect("DELETE", &path, &ann.token, None, 204).await;
    assert_eq!(who(&world, print, None).await, Err(Refusal::BadCredentials));
    world
        .expect(
            "POST",
            &of(&pump),
            &ann.token,
            Some(shown.body(&domain, &pump)),
            201,
        )
        .await;
    assert_eq!(who(&world, print, None).await, Ok(pump.clone()));
    // It goes with its client.
    let path = format!("/{domain}/clients/{pump}");
    world.expect("DELETE", &path, &ann.token, None, 204).await;
    assert_eq!(who(&world, print, None).await, Err(Refusal::BadCredentials));
}

#[tokio::test]
async fn what_is_no_certificate_and_one_too_many_are_refused() {
    let world = World::new().await;
    let (ann, bob) = (world.person("ann").await, world.person("bob").await);
    let domain = world.domain(&ann, "plant").await;
    let client = world
        .entity(&ann, &domain, "clients", json!({ "name": "press" }))
        .await;
    let path = format!("/{domain}/clients/{client}/certs");
    let made = certificate("an authority", &[1]);
    let (one, two) = (&made.pem, certificate("an authority", &[2]).pem);
    for bad in [
        String::new(),
        "none".to_owned(),
        one.replace("CERTIFICATE", "PRIVATE KEY"),
        one.replace("MII", "AAA"),
        format!("{one}{two}"),
        KeyPair::generate().unwrap().serialize_pem(),
    ] {
        let body = json!({ "certificate": bad });
        world
            .expect("POST", &path, &ann.token, Some(body), 400)
            .await;
    }
    let body = made.body(&domain, &client);
    world
        .expect("POST", &path, &bob.token, Some(body), 403)
        .await;
    world.expect("GET", &path, &bob.token, None, 403).await;
    for serial in 1..=16u8 {
        let body = certificate("an authority", &[serial]).body(&domain, &client);
        world
            .expect("POST", &path, &ann.token, Some(body), 201)
            .await;
    }
    let body = certificate("an authority", &[17]).body(&domain, &client);
    world
        .expect("POST", &path, &ann.token, Some(body), 400)
        .await;
    let page = world
        .expect(
            "GET",
            &format!("{path}?limit=5&offset=14"),
            &ann.token,
            None,
            200,
        )
        .await;
    assert_eq!(
        (
            &page["total"],
            page["certificates"].as_array().unwrap().len()
        ),
        (&json!(16), 2)
    );
}

#[tokio::test]
async fn t_id_3_nobody_registers_another_tenants_certificate_or_hears_of_it() {
    let world = World::new().await;
    let (ann, eve) = (world.person("ann").await, world.person("eve").await);
    let client = async |owner: &Person, route: &str| {
        let domain = world.domain(owner, route).await;
        let body = json!({ "name": "press" });
        let client = world.entity(owner, &domain, "clients", body).await;
        (format!("/{domain}/clients/{client}/certs"), domain, client)
    };
    let (own, domain, press) = client(&ann, "plant").await;
    let (path, elsewhere, theirs) = client(&eve, "elsewhere").await;
    let shown = certificate("an authority", &[0x4A, 0x3F]);
    // One that says the same of itself, under a key of eve's.
    let forged = certificate("an authority", &[0x4A, 0x3F]);
    let mut answers = Vec::new();
    for registered in [false, true] {
        if registered {
            let body = shown.body(&domain, &press);
            world.server.made(&own, &ann.token, 201, body).await;
        }
        let until = in_seconds(3_600);
        let with = |proof: &Value| json!({ "certificate": shown.pem, "proof": proof, "proof_until": until });
        let attempts = [
            json!({ "certificate": shown.pem, "proof_until": until }),
            with(&json!("")),
            with(&json!("none")),
            // A proof that was seen, for another client.
            with(&shown.body_until(&domain, &press, until)["proof"]),
            with(&shown.body_until(&elsewhere, &press, until)["proof"]),
            with(&shown.body_until(&domain, &theirs, until)["proof"]),
            with(&forged.body_until(&elsewhere, &theirs, until)["proof"]),
            // A proof with another end than was signed.
            with(&shown.body_until(&elsewhere, &theirs, until - 1)["proof"]),
        ];
        for body in attempts {
            let body = Some(body);
            answers.push(world.expect("POST", &path, &eve.token, body, 400).await);
        }
    }
    // The moment is in the text that is expected.
    for answer in &mut answers {
        let message = text(&answer["message"]);
        assert!(message.starts_with("proof: expected"), "{message}");
        let same = message.split(" until ").next().unwrap();
        answer["message"] = json!(same);
    }
    let (before, after) = answers.split_at(answers.len() / 2);
    assert_eq!(before, after, "they tell that it is registered elsewhere");
    assert_eq!(who(&world, shown.print, None).await, Ok(press.clone()));
    // What only says the same is another certificate, whoever registers it.
    let body = forged.body(&elsewhere, &theirs);
    world.server.made(&path, &eve.token, 201, body).await;
    assert_eq!(who(&world, shown.print, None).await, Ok(press.clone()));
    assert_eq!(who(&world, forged.print, None).await, Ok(theirs.clone()));
    // Its holder hears that it is registered; a platform administrator answers for one himself.
    let body = Some(shown.body(&elsewhere, &theirs));
    world.expect("POST", &path, &eve.token, body, 409).await;
    let other = json!({ "certificate": certificate("an authority", &[7]).pem });
    // He is logged in: a token or key of his that a program has does not do.
    let key = json!({ "type": 3 });
    let key = world.server.made("/keys", &world.admin, 201, key).await;
    let key = text(&key["value"]);
    let body = Some(other.clone());
    world.expect("POST", &path, &key, body, 400).await;
    world.server.made(&path, &world.admin, 201, other).await;
}

#[tokio::test]
async fn proof_is_good_for_a_day_at_most() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let client = world
        .entity(&ann, &domain, "clients", json!({ "name": "press" }))
        .await;
    let path = format!("/{domain}/clients/{client}/certs");
    let made = certificate("an authority", &[1]);
    let day = 24 * 3_600;
    for until in [
        in_seconds(0),
        in_seconds(-day),
        in_seconds(day + 60),
        0,
        i64::MIN,
        i64::MAX,
    ] {
        let body = made.body_until(&domain, &client, until);
        let told = world
            .expect("POST", &path, &ann.token, Some(body), 400)
            .await;
        let message = text(&told["message"]);
        assert!(message.starts_with("proof_until: expected"), "{message}");
    }
    let body = made.body_until(&domain, &client, in_seconds(day));
    world.server.made(&path, &ann.token, 201, body).await;
}

#[tokio::test]
async fn certificates_registered_by_issuer_and_serial_number_are_known_after_the_next_start() {
    let world = World::new().await;
    let ann = world.person("ann").await;
    let domain = world.domain(&ann, "plant").await;
    let press = world
        .entity(&ann, &domain, "clients", json!({ "name": "press" }))
        .await;
    let mut old = Vec::new();
    let mut write = world.at.control.0.store.write().await.unwrap();
    for serial in 1..=3_u8 {
        let made = certificate("an authority", &[serial]);
        let row = CertificateRow {
            client: EntityId::from_text(&press).unwrap(),
            serial: format!("{serial:02x}"),
            der: made.der.clone(),
            created_at: Time::now(),
        };
        let print = CertificatePrint::of(&[serial]);
        write.insert_certificate(&print, &row).await.unwrap();
        old.push(made.print);
    }
    let sql = "DELETE FROM counters WHERE name = 'certificates printed whole'";
    let done = sql::query(sql).execute(write.connection()).await.unwrap();
    assert_eq!(done, 1);
    // As at every start.
    for _ in 0..2 {
        certificates::complete(write.connection()).await.unwrap();
    }
    write.commit().await.unwrap();
    for print in old {
        assert_eq!(who(&world, print, None).await, Ok(press.clone()));
    }
}
