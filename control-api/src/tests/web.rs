//! The HTTP listener and the operator socket, over real sockets.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};

use super::both::config;
use super::{Installation, installation, installation_with};
use crate::{Control, HttpListener, NewDomain, OperatorError, Request, operator_request};

/// Starts the listener; the flag says whether the broker is ready.
async fn serve(control: &Control) -> (String, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let ready = Arc::new(AtomicBool::new(true));
    let (serving, flag) = (control.clone(), ready.clone());
    tokio::spawn(async move {
        let metrics = Arc::new(|| "turnpike_connections 3\n# EOF\n".to_owned());
        let ready = Arc::new(move || flag.load(Ordering::Relaxed));
        let listener = HttpListener::new(listener, None);
        serving.serve_http(listener, metrics, ready).await.unwrap();
    });
    (address, ready)
}

async fn exchange(address: &str, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer).await;
    answer
}

async fn get(address: &str, path: &str) -> String {
    exchange(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
    )
    .await
}

async fn post(address: &str, content_type: &str, body: &str) -> String {
    let length = body.len();
    let head = format!(
        "POST /users/tokens/issue HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
         content-type: {content_type}\r\ncontent-length: {length}\r\n\r\n"
    );
    exchange(address, &(head + body)).await
}

fn body(answer: &str) -> serde_json::Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn admin(at: &Installation) -> serde_json::Value {
    serde_json::to_value(&at.first_run.as_ref().unwrap().admin).unwrap()
}

#[tokio::test]
async fn health_follows_the_broker() {
    let at = installation().await;
    let (address, ready) = serve(&at.control).await;
    let answer = get(&address, "/health").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        answer.contains("content-type: application/health+json"),
        "{answer}"
    );
    assert!(answer.contains("x-request-id: "), "{answer}");
    assert_eq!(body(&answer)["status"], "pass");
    assert_eq!(body(&answer)["instance_id"], at.control.node().to_string());
    for unknown in ["commit", "build_time"] {
        assert_eq!(body(&answer)[unknown], "unknown");
    }
    ready.store(false, Ordering::Relaxed);
    let answer = get(&address, "/health").await;
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(body(&answer)["status"], "fail");
}

#[tokio::test]
async fn health_says_what_the_program_was_built_from() {
    let folder = tempfile::tempdir().unwrap();
    let config = crate::Config {
        build: crate::Build {
            commit: Some("7d6f4dc"),
            time: Some(crate::Time::from_micros(1_000_000_000_000_000)),
        },
        ..config(folder.path())
    };
    let (control, _) = Control::open(config).await.unwrap();
    let (address, _) = serve(&control).await;
    let answer = body(&get(&address, "/health").await);
    assert_eq!(answer["commit"], "7d6f4dc");
    assert_eq!(answer["build_time"], "2001-09-09T01:46:40.000000Z");
}

#[tokio::test]
async fn metrics_join_the_brokers_and_controls() {
    let at = installation().await;
    let (address, _) = serve(&at.control).await;
    let answer = get(&address, "/metrics").await;
    assert!(answer.contains("application/openmetrics-text"), "{answer}");
    for line in [
        "turnpike_connections 3",
        "turnpike_auth_failures_total 0",
        "turnpike_control_revision 1",
    ] {
        assert!(answer.contains(&format!("\n{line}\n")), "{line}: {answer}");
    }
    assert!(
        answer.ends_with("# EOF\n") && answer.matches("# EOF").count() == 1,
        "{answer}"
    );
}

#[tokio::test]
async fn t_id_9_metrics_off_loopback_need_a_token_in_either_half() {
    let at = installation().await;
    let token = crate::Secret::new("scraper-0123456789".to_owned());
    let mut addresses = Vec::new();
    for half in ["control", "broker", "broker without a token"] {
        let socket = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = socket.local_addr().unwrap().port();
        let own = (half != "broker without a token").then(|| token.clone());
        let listener = HttpListener::new(socket, None).with_metrics_token(own);
        let metrics: crate::Metrics = Arc::new(|| "turnpike_connections 3\n# EOF\n".to_owned());
        let ready: crate::Ready = Arc::new(|| true);
        let control = at.control.clone();
        tokio::spawn(async move {
            let build = crate::Build::default();
            if half == "control" {
                return control.serve_http(listener, metrics, ready).await;
            }
            let (_stop, stopping) = tokio::sync::watch::channel(false);
            let sources = (metrics, ready);
            listener
                .serve_broker(control.node(), build, sources, stopping)
                .await
        });
        addresses.push(format!("127.0.0.1:{port}"));
    }
    let (address, _) = serve(&at.control).await;
    let login = post(&address, "application/json", &admin(&at).to_string()).await;
    let access = body(&login)["access_token"].as_str().unwrap().to_owned();
    let read = async |address: &str, token: &str| {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
             authorization: Bearer {token}\r\n\r\n"
        );
        let answer = exchange(address, &request).await;
        let status = answer[9..12].to_owned();
        assert_eq!(status == "200", answer.contains("turnpike_connections 3"));
        status
    };
    for (address, expected) in addresses.iter().zip([
        ["200", "200", "403"],
        ["200", "403", "403"],
        ["403", "403", "403"],
    ]) {
        let got = [
            read(address, token.reveal()).await,
            read(address, &access).await,
            read(address, "scraper").await,
        ];
        assert_eq!(got, expected, "{address}");
        let nothing = get(address, "/metrics").await;
        assert!(nothing.starts_with("HTTP/1.1 401"), "{nothing}");
        let health = get(address, "/health").await;
        assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    }
}

#[tokio::test]
async fn links_in_mails_lead_to_a_page_that_runs_its_own_script_alone() {
    let at = installation().await;
    let (address, _) = serve(&at.control).await;
    for path in [
        "/verify-email",
        "/verify-email?utm_source=mail",
        "/password/reset",
        "/invitations/accept",
    ] {
        let answer = get(&address, path).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let (head, page) = answer.split_once("\r\n\r\n").unwrap();
        for line in [
            "content-type: text/html; charset=utf-8",
            "cache-control: no-store",
            "referrer-policy: no-referrer",
            "x-content-type-options: nosniff",
        ] {
            assert!(head.contains(line), "{line}: {head}");
        }
        let policy = head
            .lines()
            .find_map(|line| line.strip_prefix("content-security-policy: "));
        let policy = policy.unwrap();
        for part in [
            "default-src 'none'",
            "connect-src 'self'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.contains(part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        for element in ["script", "style"] {
            let (_, rest) = page.split_once(&format!("<{element}>")).unwrap();
            let (inner, _) = rest.split_once(&format!("</{element}>")).unwrap();
            let digest = STANDARD.encode(Sha256::digest(inner));
            assert!(
                policy.contains(&format!("{element}-src 'sha256-{digest}'")),
                "{policy}"
            );
        }
    }
    // The calls of these paths are what they were.
    for (method, path, status) in [
        ("GET", "/verify-email?token=x", 401),
        ("GET", "/verify-email?a=b&token", 401),
        ("POST", "/verify-email", 415),
        ("PUT", "/password/reset", 415),
        ("POST", "/password/reset", 405),
        ("POST", "/invitations/accept", 401),
    ] {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{{}}"
        );
        let answer = exchange(&address, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{method} {path}: {answer}"
        );
        assert!(body(&answer)["message"].is_string());
    }
}

#[tokio::test]
async fn page_of_an_invitation_offers_to_register_where_people_may() {
    for registers in [false, true] {
        let settings = crate::ApiSettings {
            self_registration: registers,
            ..crate::ApiSettings::default()
        };
        let at = installation_with(settings).await;
        let (address, _) = serve(&at.control).await;
        let answer = get(&address, "/invitations/accept").await;
        let (_, page) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(page.contains("<html data-registers "), registers, "{page}");
    }
}

#[tokio::test]
async fn tokens_are_issued_for_a_name_and_password() {
    let at = installation().await;
    let (address, _) = serve(&at.control).await;
    let admin = admin(&at);
    let answer = post(&address, "application/json", &admin.to_string()).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("cache-control: no-store"), "{answer}");
    let tokens = body(&answer);
    assert_eq!(tokens["access_type"], "Bearer");
    for token in ["access_token", "refresh_token"] {
        assert_eq!(tokens[token].as_str().unwrap().matches('.').count(), 2);
    }
    let older = serde_json::json!({ "identity": "admin", "secret": admin["password"] });
    let answer = post(
        &address,
        "application/json; charset=utf-8",
        &older.to_string(),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
}

#[tokio::test]
async fn bad_logins_and_bodies_are_refused_in_json() {
    let at = installation().await;
    let (address, _) = serve(&at.control).await;
    let json = "application/json";
    let wrong = r#"{"username":"admin","password":"hunter2"}"#;
    let unknown = r#"{"username":"nobody","password":"hunter2"}"#;
    let cases = [
        (json, wrong.to_owned(), 401),
        (json, unknown.to_owned(), 401),
        ("text/plain", wrong.to_owned(), 415),
        ("", wrong.to_owned(), 415),
        (json, r#"{"username":"hunter2""#.to_owned(), 400),
        (
            json,
            r#"{"username":["hunter2"],"password":"hunter2"}"#.to_owned(),
            400,
        ),
        (json, r#"{"username":"admin"}"#.to_owned(), 400),
        (json, "[".repeat(50_000), 400),
        (json, format!("{wrong}{}", " ".repeat(70_000)), 413),
    ];
    for (content_type, text, status) in cases {
        let answer = post(&address, content_type, &text).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{status}: {answer}"
        );
        let body = body(&answer);
        assert!(
            body["error"].is_string() && body["message"].is_string(),
            "{body}"
        );
        assert!(!answer.contains("hunter2"), "{answer}");
    }
    let same = [
        post(&address, json, wrong).await,
        post(&address, json, unknown).await,
    ];
    assert_eq!(body(&same[0]), body(&same[1]));
    assert!(get(&address, "/nowhere").await.starts_with("HTTP/1.1 404"));
    assert!(
        get(&address, "/users/tokens/issue")
            .await
            .starts_with("HTTP/1.1 405")
    );
    let long = format!("/health?{}", "x".repeat(20_000));
    let answer = get(&address, &long).await;
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
        "{answer}"
    );
}

#[tokio::test]
async fn failed_logins_are_throttled_by_address() {
    let at = installation().await;
    let (address, _) = serve(&at.control).await;
    let wrong = r#"{"username":"admin","password":"wrong"}"#;
    for _ in 0..10 {
        post(&address, "application/json", wrong).await;
    }
    let answer = post(&address, "application/json", &admin(&at).to_string()).await;
    assert!(
        answer.starts_with("HTTP/1.1 429") && answer.contains("retry-after: 60"),
        "{answer}"
    );
}

#[tokio::test]
async fn closing_lets_the_listener_go() {
    let at = installation().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = at.control.clone();
    let task = tokio::spawn(async move {
        serving
            .serve_http(
                HttpListener::new(listener, None),
                Arc::new(String::new),
                Arc::new(|| true),
            )
            .await
    });
    let _idle = TcpStream::connect(address).await.unwrap();
    at.control.close().await;
    tokio::time::timeout(std::time::Duration::from_secs(6), task)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn an_operator_provisions_over_a_socket_that_is_the_owners_alone() {
    let at = installation().await;
    let path = at.control.socket_path().to_owned();
    let request = Request::CreateDomain(NewDomain {
        route: "plant".into(),
        ..NewDomain::default()
    });
    let nobody = operator_request(&path, &request).await;
    assert!(
        matches!(nobody, Err(OperatorError::NotRunning)),
        "{nobody:?}"
    );
    // What a killed server left does not hinder.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let nobody = operator_request(&path, &request).await;
    assert!(
        matches!(nobody, Err(OperatorError::NotRunning)),
        "{nobody:?}"
    );
    let serving = at.control.clone();
    let served = path.clone();
    let task = tokio::spawn(async move { serving.serve_socket(&served).await });
    let made = loop {
        match operator_request(&path, &request).await {
            Err(OperatorError::NotRunning) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(made["route"], "plant");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let OperatorError::Refused(refused) = operator_request(&path, &request).await.unwrap_err()
    else {
        panic!("refused");
    };
    assert_eq!(refused.fault, "conflict");
    assert!(
        refused.message.contains("\"plant\" is taken"),
        "{}",
        refused.message
    );

    let mut stream = UnixStream::connect(&path).await.unwrap();
    stream
        .write_all(b"{\"operation\":\"no such\"}\nnonsense\n")
        .await
        .unwrap();
    stream.shutdown().await.unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.unwrap();
    assert_eq!(
        answers.matches(r#"{"error":{"fault":"invalid""#).count(),
        2,
        "{answers}"
    );
    at.control.close().await;
    task.await.unwrap().unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_in_a_folder_with_a_long_name_can_be_served() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("d".repeat(120)).join("e".repeat(120));
    let (control, _) = Control::open(config(&data)).await.unwrap();
    let path = control.socket_path().to_owned();
    let serving = control.clone();
    let served = path.clone();
    tokio::spawn(async move { serving.serve_socket(&served).await });
    let listed = loop {
        match operator_request(&path, &Request::ListDomains(Default::default())).await {
            Err(OperatorError::NotRunning) => tokio::task::yield_now().await,
            other => break other.unwrap(),
        }
    };
    assert_eq!(listed["total"], 1);
}
