//! Mail on its way out: into a folder, or to a relay by SMTP.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::MailSink;
use crate::model::Time;
use crate::secret::random_id;

/// Label of the digest under which tokens in mails are kept.
pub(super) const TOKEN_LABEL: &[u8] = b"mail token";
/// Kinds of tokens in mails.
pub(super) const VERIFY: i64 = 0;
pub(super) const RESET: i64 = 1;
/// How long a relay may take in all.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Mails that are sent beside the answers that caused them, at a time: so many connections to the
/// relay. A further one is not sent, and counted.
const BESIDE_MAX: usize = 32;
/// Longest line of a relay's answer.
const LINE_BYTES_MAX: u64 = 4_096;

/// Why a mail was not sent.
#[derive(Debug, Error)]
pub(crate) enum MailError {
    #[error("the mail could not be written: {0}")]
    Io(#[from] io::Error),
    #[error("the relay refused the mail: {0}")]
    Refused(String),
    #[error("the relay did not answer in time")]
    Silent,
}

/// Sends mail. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Mailer(Arc<Settings>);

#[derive(Debug)]
struct Settings {
    sink: MailSink,
    from: String,
    public_url: String,
    beside: Arc<Semaphore>,
    refused: AtomicU64,
}

impl Mailer {
    pub(crate) fn new(sink: MailSink, from: String, public_url: String) -> Mailer {
        Mailer(Arc::new(Settings {
            sink,
            from,
            public_url,
            beside: Arc::new(Semaphore::new(BESIDE_MAX)),
            refused: AtomicU64::new(0),
        }))
    }

    /// Where people reach this installation; links in mails begin with it.
    pub(super) fn public_url(&self) -> &str {
        &self.0.public_url
    }

    /// A place for a mail that is sent beside an answer; none if too many are under way.
    pub(crate) fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.0.beside.clone().try_acquire_owned().ok();
        if place.is_none() {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        }
        place
    }

    /// Mails that there was no place for.
    pub(crate) fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// Sends a mail.
    ///
    /// # Errors
    /// It could not be handed over.
    pub(super) async fn send(&self, to: &str, subject: &str, text: &str) -> Result<(), MailError> {
        let id = random_id();
        let message = format!(
            "From: {}\r\nTo: {to}\r\nSubject: {subject}\r\nMessage-ID: <{id}@turnpike>\r\n\
             MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{}",
            self.0.from,
            text.replace('\n', "\r\n")
        );
        match &self.0.sink {
            MailSink::Folder(folder) => into_folder(folder.clone(), message).await,
            MailSink::Relay(address) => {
                let sent = by_smtp(address, &self.0.from, to, &message);
                tokio::time::timeout(TIMEOUT, sent)
                    .await
                    .map_err(|_| MailError::Silent)?
            }
        }
    }
}

impl Mailer {
    /// Sends a mail about an invitation beside the answer, which does not tell by the time it takes
    /// whether one went out.
    pub(super) fn send_beside(
        &self,
        place: OwnedSemaphorePermit,
        to: String,
        subject: &'static str,
        text: String,
    ) {
        let mailer = self.clone();
        tokio::spawn(async move {
            if let Err(error) = mailer.send(&to, subject, &text).await {
                tracing::error!(%error, "a mail about an invitation could not be sent");
            }
            drop(place);
        });
    }
}

/// Writes a mail under a name that sorts by time; it appears as a whole.
async fn into_folder(folder: PathBuf, message: String) -> Result<(), MailError> {
    let name = format!("{}-{}", Time::now().micros(), random_id());
    tokio::fs::create_dir_all(&folder).await?;
    let unfinished = folder.join(format!("{name}.tmp"));
    tokio::fs::write(&unfinished, message).await?;
    tokio::fs::rename(unfinished, folder.join(format!("{name}.eml"))).await?;
    Ok(())
}

/// Hands a mail to a relay (RFC 5321).
async fn by_smtp(address: &str, from: &str, to: &str, message: &str) -> Result<(), MailError> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    expect(&mut stream, '2').await?;
    for (command, answer) in [
        ("EHLO turnpike".to_owned(), '2'),
        (format!("MAIL FROM:<{from}>"), '2'),
        (format!("RCPT TO:<{to}>"), '2'),
        ("DATA".to_owned(), '3'),
    ] {
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .await?;
        expect(&mut stream, answer).await?;
    }
    // A line that begins with a dot would end the mail.
    let mut stuffed = message.replace("\r\n.", "\r\n..");
    stuffed.push_str("\r\n.\r\n");
    stream.write_all(stuffed.as_bytes()).await?;
    expect(&mut stream, '2').await?;
    stream.write_all(b"QUIT\r\n").await?;
    Ok(())
}

/// Reads an answer, all its lines, and checks its first digit.
async fn expect(stream: &mut BufReader<TcpStream>, digit: char) -> Result<(), MailError> {
    loop {
        let mut line = String::new();
        stream.take(LINE_BYTES_MAX).read_line(&mut line).await?;
        if line.as_bytes().get(3) == Some(&b'-') {
            continue;
        }
        if line.starts_with(digit) {
            return Ok(());
        }
        return Err(MailError::Refused(line.trim_end().to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A relay that takes one mail, or refuses its recipient.
    async fn relay(refuses: bool) -> (Mailer, tokio::task::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let served = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = BufReader::new(stream);
            stream.write_all(b"220 relay\r\n").await.unwrap();
            let mut heard = String::new();
            let mut in_message = false;
            loop {
                let mut line = String::new();
                if stream.read_line(&mut line).await.unwrap() == 0 {
                    return heard;
                }
                heard.push_str(&line);
                let answer = match line.trim_end() {
                    "." if in_message => "250 taken",
                    _ if in_message => continue,
                    "DATA" => "354 go on",
                    line if line.starts_with("EHLO") => "250-relay\r\n250 SIZE",
                    line if line.starts_with("RCPT") && refuses => "550 nobody here",
                    "QUIT" => "221 bye",
                    _ => "250 ok",
                };
                in_message = answer.starts_with("354");
                stream
                    .write_all(format!("{answer}\r\n").as_bytes())
                    .await
                    .unwrap();
            }
        });
        let from = "turnpike@example.com".to_owned();
        let mailer = Mailer::new(MailSink::Relay(address), from, String::new());
        (mailer, served)
    }

    #[tokio::test]
    async fn a_mail_is_handed_to_a_relay_whole() {
        let (mailer, served) = relay(false).await;
        mailer
            .send("ann@example.com", "Hello", "one\n.two\n")
            .await
            .unwrap();
        let heard = served.await.unwrap();
        for part in [
            "MAIL FROM:<turnpike@example.com>\r\n",
            "RCPT TO:<ann@example.com>\r\n",
            "Subject: Hello\r\n",
            "one\r\n..two\r\n",
            "\r\n.\r\nQUIT\r\n",
        ] {
            assert!(heard.contains(part), "{part:?} in {heard}");
        }
    }

    #[test]
    fn mails_beside_answers_are_bounded_and_those_too_many_are_counted() {
        let sink = MailSink::Folder("unused".into());
        let mailer = Mailer::new(sink, String::new(), String::new());
        let places: Vec<_> = std::iter::from_fn(|| mailer.place()).collect();
        assert_eq!((places.len(), mailer.refused()), (BESIDE_MAX, 1));
        drop(places);
        assert!(mailer.place().is_some());
        assert_eq!(mailer.refused(), 1);
    }

    #[tokio::test]
    async fn a_relay_that_refuses_is_quoted() {
        let (mailer, _served) = relay(true).await;
        let sent = mailer.send("nobody@example.com", "Hello", "x").await;
        assert!(
            matches!(&sent, Err(MailError::Refused(text)) if text == "550 nobody here"),
            "{sent:?}"
        );
    }
}
