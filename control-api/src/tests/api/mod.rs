//! The control API over real sockets.

mod certificates;
mod denials;
mod entities;
mod held;
mod invitations;
mod keys;
mod lists;
mod oauth;
mod openapi;
mod people;
mod rates;
mod revocation;
mod roles;
mod switches;
mod telemetry;
mod waiting;

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Installation, installation, installation_with};
use crate::{ApiSettings, Control, HttpListener};

/// A listener of an installation.
pub(super) struct Server {
    address: String,
}

/// Starts the listener of an installation.
pub(super) async fn serve(control: &Control) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = control.clone();
    tokio::spawn(async move {
        let ready = Arc::new(|| true);
        serving
            .serve_http(
                HttpListener::new(listener, None),
                Arc::new(String::new),
                ready,
            )
            .await
            .unwrap();
    });
    Server { address }
}

impl Server {
    /// Sends a request; answers with status and body. Every answer that is an error must be JSON
    /// with a message.
    pub(super) async fn call(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> (u16, Value) {
        let body = body.map(Value::to_string).unwrap_or_default();
        let authorization = if token.is_empty() {
            String::new()
        } else {
            format!("authorization: Bearer {token}\r\n")
        };
        let length = body.len();
        let answer = self
            .exchange(&format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{authorization}\
                 content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            ))
            .await;
        let status = answer.get(9..12).and_then(|code| code.parse().ok());
        let status: u16 = status.unwrap_or_else(|| panic!("{method} {path}: {answer:?}"));
        let text = answer.split_once("\r\n\r\n").unwrap().1;
        let body: Value = serde_json::from_str(text).unwrap_or(Value::Null);
        if status >= 400 {
            assert!(body["message"].is_string(), "{method} {path}: {answer}");
            assert!(body["error"].is_string(), "{method} {path}: {answer}");
        }
        (status, body)
    }

    pub(super) async fn exchange(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer).await;
        answer
    }

    pub(super) async fn post(&self, path: &str, token: &str, body: &Value) -> (u16, Value) {
        self.call("POST", path, token, Some(body)).await
    }

    /// Posts what must succeed with this status.
    async fn made(&self, path: &str, token: &str, status: u16, body: Value) -> Value {
        let (got, answer) = self.post(path, token, &body).await;
        assert_eq!(got, status, "POST {path} {body}: {answer}");
        answer
    }

    async fn login(&self, username: &str, password: &str) -> String {
        let body = json!({ "username": username, "password": password });
        let tokens = self.made("/users/tokens/issue", "", 201, body).await;
        tokens["access_token"].as_str().unwrap().to_owned()
    }
}

/// A user who is logged in.
struct Person {
    id: String,
    token: String,
    username: String,
}

const PASSWORD: &str = "correct horse";

/// An installation with an administrator who is logged in.
struct World {
    at: Installation,
    server: Server,
    admin: String,
}

impl World {
    async fn new() -> World {
        World::of(installation().await).await
    }

    async fn with(settings: ApiSettings) -> World {
        World::of(installation_with(settings).await).await
    }

    async fn of(at: Installation) -> World {
        let server = serve(&at.control).await;
        let login = &at.first_run.as_ref().unwrap().admin;
        let admin = server.login(&login.username, login.password.reveal()).await;
        World { at, server, admin }
    }

    /// Registers a user and logs it in.
    async fn person(&self, username: &str) -> Person {
        let body = json!({
            "first_name": "First", "last_name": "Last", "email": format!("{username}@example.com"),
            "credentials": { "username": username, "secret": PASSWORD },
        });
        let made = self.server.made("/users", &self.admin, 201, body).await;
        Person {
            id: text(&made["id"]),
            token: self.server.login(username, PASSWORD).await,
            username: username.to_owned(),
        }
    }

    /// A domain of somebody.
    async fn domain(&self, owner: &Person, route: &str) -> String {
        let body = json!({ "name": route, "route": route });
        text(&self.server.made("/domains", &owner.token, 201, body).await["id"])
    }

    /// An object of a domain.
    async fn entity(&self, owner: &Person, domain: &str, plural: &str, body: Value) -> String {
        let path = format!("/{domain}/{plural}");
        text(&self.server.made(&path, &owner.token, 201, body).await["id"])
    }

    /// A role with these actions and members; `base` is what it is on.
    async fn role(&self, by: &Person, base: &str, actions: &[&str], members: &[&Person]) -> String {
        let members: Vec<&str> = members.iter().map(|member| member.id.as_str()).collect();
        let name = format!("role-{}", crate::secret::random_id());
        let body = json!({
            "role_name": name, "optional_actions": actions, "optional_members": members,
        });
        let made = self
            .server
            .made(&format!("{base}/roles"), &by.token, 201, body)
            .await;
        text(&made["id"])
    }

    async fn expect(
        &self,
        method: &str,
        path: &str,
        token: &str,
        body: Option<Value>,
        status: u16,
    ) -> Value {
        let (got, answer) = self.server.call(method, path, token, body.as_ref()).await;
        assert_eq!(got, status, "{method} {path} {body:?}: {answer}");
        answer
    }
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value}"))
        .to_owned()
}

fn names(page: &Value, plural: &str) -> Vec<String> {
    let items = page[plural].as_array().unwrap_or_else(|| panic!("{page}"));
    items.iter().map(|item| text(&item["name"])).collect()
}
