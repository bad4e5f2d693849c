//! Turnpike's control API, as far as a load needs it: HTTP/1.1 over one connection, in TLS or not.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use crate::endpoint::{TlsFiles, client_config};
use crate::error::Error;
use crate::target::Admin;

/// A connection to the control API with an administrator's token.
pub struct Control {
    address: String,
    admin: Admin,
    token: String,
    tls: Option<Arc<ClientConfig>>,
    stream: Option<BufReader<Box<dyn Stream>>>,
}

/// A connection, in TLS or not.
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// What a call may take: making ten thousand objects takes a second or two.
const PATIENCE: Duration = Duration::from_secs(120);

/// Longest answer: ten thousand clients have six megabytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

const UNAUTHORIZED: u16 = 401;

impl Control {
    /// Connects and logs in. `address` is `HOST:PORT`, with or without `http://`; with `https://` its
    /// certificate is checked against the authorities in `ca`.
    ///
    /// # Errors
    /// There is no control API, or it does not know the administrator; or the authorities are not
    /// given or cannot be read.
    pub fn log_in(address: &str, admin: Admin, ca: Option<&Path>) -> Result<Control, Error> {
        let (address, tls) = match address.strip_prefix("https://") {
            None if ca.is_some() => {
                let why = "--api-ca is of no use without TLS; expected --api https://HOST:PORT";
                return Err(Error::Plan(why.into()));
            }
            None => (address.trim_start_matches("http://"), None),
            Some(address) => {
                let Some(ca) = ca else {
                    let why = "https:// needs --api-ca FILE with the authority of the control \
                               API's certificate";
                    return Err(Error::Plan(why.into()));
                };
                let files = TlsFiles {
                    ca: Some(ca.to_owned()),
                    ..TlsFiles::default()
                };
                (address, Some(client_config(&files)?))
            }
        };
        let address = address.trim_end_matches('/');
        let mut control = Control {
            tls,
            address: address.to_owned(),
            admin,
            token: String::new(),
            stream: None,
        };
        control.refresh()?;
        Ok(control)
    }

    fn refresh(&mut self) -> Result<(), Error> {
        let name = self.admin.username.clone();
        let login = json!({ "username": name, "password": self.admin.password });
        let (status, answer) = self.exchange("POST", "/users/tokens/issue", Some(&login))?;
        match answer["access_token"].as_str() {
            Some(token) if status < 300 => {
                self.token = token.to_owned();
                Ok(())
            }
            _ => Err(Error::Control(format!(
                "login as {name:?} was answered with {status}"
            ))),
        }
    }

    /// One call; its answer's body.
    ///
    /// # Errors
    /// It was refused, or the server is gone.
    pub fn call(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, Error> {
        let body = (!body.is_null()).then_some(body);
        let mut answer = self.exchange(method, path, body)?;
        if answer.0 == UNAUTHORIZED {
            // The token has ended: making a million clients takes longer.
            self.refresh()?;
            answer = self.exchange(method, path, body)?;
        }
        let (status, value) = answer;
        if (200..300).contains(&status) {
            return Ok(value);
        }
        Err(Error::Control(format!(
            "{method} {path} was answered with {status}: {value}"
        )))
    }

    fn exchange(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(u16, Value), Error> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let authorization = if self.token.is_empty() {
            String::new()
        } else {
            format!("Authorization: Bearer {}\r\n", self.token)
        };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\n{authorization}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.address,
            body.len()
        );
        let fault = |why: String| Error::Control(format!("{method} {path}: {why}"));
        let ask = |stream: &mut BufReader<Box<dyn Stream>>| {
            let inner = stream.get_mut();
            let sent = inner.write_all(request.as_bytes());
            sent.and_then(|()| inner.flush())
                .map_err(|error| error.to_string())?;
            // Whether the server closed it before this request is seen only now.
            match stream.fill_buf() {
                Ok([]) => Ok(None),
                Ok(_) => read_answer(stream).map(Some),
                Err(error) => Err(error.to_string()),
            }
        };
        // A connection that idled may be closed by now; then nothing was done.
        if let Some(mut stream) = self.stream.take()
            && let Ok(Some(answer)) = ask(&mut stream)
        {
            return Ok(self.keep(stream, answer));
        }
        let mut stream = connect(&self.address, self.tls.as_ref())?;
        let answer = ask(&mut stream).map_err(&fault)?;
        let answer = answer.ok_or_else(|| fault("the server closed the connection".into()))?;
        Ok(self.keep(stream, answer))
    }

    fn keep(&mut self, stream: BufReader<Box<dyn Stream>>, answer: Answer) -> (u16, Value) {
        if !answer.closes {
            self.stream = Some(stream);
        }
        let value = serde_json::from_slice(&answer.body).unwrap_or(Value::Null);
        (answer.status, value)
    }
}

impl std::fmt::Debug for Control {
    /// Leaves out password and token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

fn connect(
    address: &str,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<BufReader<Box<dyn Stream>>, Error> {
    let fault = |why: String| {
        let advice = "expected HOST:PORT of Turnpike's control API";
        Error::Control(format!("{address} cannot be reached: {why}; {advice}"))
    };
    let found = address
        .to_socket_addrs()
        .map_err(|error| fault(error.to_string()))?;
    let mut last = "the host is unknown".to_owned();
    for one in found {
        match TcpStream::connect(one) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_nodelay(true)?;
                return Ok(BufReader::new(layered(address, stream, tls)?));
            }
            Err(error) => last = error.to_string(),
        }
    }
    Err(fault(last))
}

/// The connection, in TLS if there is one. Its handshake is made by the first request.
fn layered(
    address: &str,
    stream: TcpStream,
    tls: Option<&Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, Error> {
    let Some(config) = tls else {
        return Ok(Box::new(stream));
    };
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|_| Error::Plan(format!("{host:?} is no name of a host")))?;
    let connection = ClientConnection::new(Arc::clone(config), name);
    let connection = connection.map_err(|error| Error::Control(format!("{address}: {error}")))?;
    Ok(Box::new(StreamOwned::new(connection, stream)))
}

struct Answer {
    status: u16,
    body: Vec<u8>,
    closes: bool,
}

fn read_answer(stream: &mut impl BufRead) -> Result<Answer, String> {
    let first = line(stream)?;
    let status = first
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| format!("{first:?} is no answer of HTTP"))?;
    let (mut length, mut chunked, mut closes) = (0, false, false);
    loop {
        let line = line(stream)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let value = value.trim().to_ascii_lowercase();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().map_err(|_| "a bad Content-Length")?,
            "transfer-encoding" => chunked = value.ends_with("chunked"),
            "connection" => closes = value == "close",
            _ => {}
        }
    }
    let mut body = Vec::new();
    if chunked {
        loop {
            let size = line(stream)?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).map_err(|_| "a bad chunk")?;
            part(stream, size, &mut body)?;
            line(stream)?;
            if size == 0 {
                break;
            }
        }
    } else {
        part(stream, length, &mut body)?;
    }
    Ok(Answer {
        status,
        body,
        closes,
    })
}

fn line(stream: &mut impl BufRead) -> Result<String, String> {
    let mut line = String::new();
    let read = stream.take(LINE_BYTES_MAX).read_line(&mut line);
    match read.map_err(|error| error.to_string())? {
        0 => Err("the server closed the connection".into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

const LINE_BYTES_MAX: u64 = 64 << 10;

fn part(stream: &mut impl Read, size: usize, body: &mut Vec<u8>) -> Result<(), String> {
    if size > ANSWER_BYTES_MAX - body.len().min(ANSWER_BYTES_MAX) {
        return Err("the answer is too long".into());
    }
    let read = stream.take(size as u64).read_to_end(body);
    match read.map_err(|error| error.to_string())? {
        read if read == size => Ok(()),
        _ => Err("the answer is cut".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_whole_in_both_encodings() {
        // bytes; status, body, closes
        let cases: [(&str, u16, &str, bool); 3] = [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
                200,
                "{}",
                false,
            ),
            (
                "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
                201,
                "{}",
                false,
            ),
            (
                "HTTP/1.1 204 No\r\nConnection: close\r\n\r\n",
                204,
                "",
                true,
            ),
        ];
        for (bytes, status, body, closes) in cases {
            let answer = read_answer(&mut bytes.as_bytes()).unwrap();
            assert_eq!(answer.status, status);
            assert_eq!(answer.body, body.as_bytes());
            assert_eq!(answer.closes, closes);
        }
        for cut in [
            "",
            "junk\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}",
        ] {
            assert!(read_answer(&mut cut.as_bytes()).is_err(), "{cut:?}");
        }
    }

    #[test]
    fn an_address_without_a_server_is_told() {
        let admin = Admin {
            username: "admin".into(),
            password: "p".into(),
        };
        let error = Control::log_in("127.0.0.1:1", admin.clone(), None).unwrap_err();
        assert!(error.to_string().contains("127.0.0.1:1"), "{error}");
        let error = Control::log_in("https://localhost:1", admin.clone(), None).unwrap_err();
        assert!(error.to_string().contains("--api-ca"), "{error}");
        let ca = Path::new("ca.pem");
        let error = Control::log_in("http://localhost:1", admin, Some(ca)).unwrap_err();
        assert!(
            error.to_string().contains("of no use without TLS"),
            "{error}"
        );
    }
}
