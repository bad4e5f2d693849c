//! Certificates of clients.

use authcache::EntityId;
use authcache::feed::{Answer, CertificatePrint, Question, Refusal, ShownCertificate};
use rcgen::{CertificateParams, DnType, Issuer, KeyPair, SerialNumber};

use super::*;

/// A certificate of `serial`, signed by whoever `issuer` is: PEM, and what a broker sees of it.
fn certificate(issuer: &str, serial: &[u8]) -> (String, CertificatePrint) {
    let mut by = CertificateParams::default();
    by.distinguished_name.push(DnType::CommonName, issuer);
    let by = Issuer::new(by, KeyPair::generate().unwrap());
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(serial.to_vec()));
    let key = KeyPair::generate().unwrap();
    let made = params.signed_by(&key, &by).unwrap();
    let parsed = webpki::EndEntityCert::try_from(made.der()).unwrap();
    let print = CertificatePrint::new(parsed.issuer(), parsed.serial());
    (made.pem(), print)
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
    let (pem, print) = certificate("an authority", &[0x4A, 0x3F]);
    assert_eq!(who(&world, print, None).await, Err(Refusal::BadCredentials));
    let made = world
        .server
        .made(&of(&press), &ann.token, 201, json!({ "certificate": pem }))
        .await;
    assert_eq!(made["serial_number"], "4a:3f");
    assert_eq!(made["entity_id"], press.as_str());
    assert_eq!(text(&made["certificate"]), pem.replace("\r\n", "\n"));
    assert_eq!(who(&world, print, None).await, Ok(press.clone()));
    // The same serial number of another authority is another certificate.
    let (_, other) = certificate("another authority", &[0x4A, 0x3F]);
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
    let again = json!({ "certificate": pem });
    for client in [&press, &pump] {
        world
            .expect("POST", &of(client), &ann.token, Some(again.clone()), 409)
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
        .expect("POST", &of(&pump), &ann.token, Some(again), 201)
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
    let (one, _) = certificate("an authority", &[1]);
    let (two, _) = certificate("an authority", &[2]);
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
    let body = json!({ "certificate": one });
    world
        .expect("POST", &path, &bob.token, Some(body), 403)
        .await;
    world.expect("GET", &path, &bob.token, None, 403).await;
    for serial in 1..=16u8 {
        let (pem, _) = certificate("an authority", &[serial]);
        let body = json!({ "certificate": pem });
        world
            .expect("POST", &path, &ann.token, Some(body), 201)
            .await;
    }
    let (pem, _) = certificate("an authority", &[17]);
    let body = json!({ "certificate": pem });
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
