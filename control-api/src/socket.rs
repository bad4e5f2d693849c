//! The operator socket: whoever may write to the data directory may provision.
//!
//! One JSON object per line and operation, answered by one line: `{"ok": …}` or
//! `{"error": {"fault": …, "message": …}}`. It carries secrets, so it is the owner's alone from
//! its first moment: it is made in a private folder and moved into place.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::{Control, Provision, Request};

/// Longest line in bytes: a request with 10 000 ids has 0.4 MB.
const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Operators at a time.
const CONNECTIONS_MAX: usize = 16;

/// Why an operation over the socket gave no result.
#[derive(Debug, Error)]
pub enum OperatorError {
    /// Nobody serves this data directory.
    #[error("no server runs on this data directory")]
    NotRunning,
    /// The socket failed.
    #[error("the server could not be asked: {0}")]
    Io(#[from] io::Error),
    /// The answer was no JSON line.
    #[error("the server's answer makes no sense; is it of the same version?")]
    Nonsense,
    /// The server refused.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What the server said to an operation it did not carry out.
#[derive(Clone, Debug, PartialEq, Eq, Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Refused {
    /// Whose fault it is: `invalid`, `not_found`, `conflict` or `unavailable`.
    pub fault: String,
    /// What is wrong and what is expected.
    pub message: String,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Ok(serde_json::Value),
    Error(Refused),
}

impl Control {
    /// Serves operators on a socket at `path` until [`close`](Self::close), then removes it.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub async fn serve_socket(&self, path: &Path) -> io::Result<()> {
        let listener = bind(path)?;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        let mut stopped = std::pin::pin!(self.stopped());
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                break;
            };
            // Cancellation safe: an operator that was not accepted waits in the kernel's queue.
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = &mut stopped => break,
            };
            match accepted {
                Ok((stream, _)) => {
                    let provision = self.provision().clone();
                    connections.spawn(async move {
                        if let Err(error) = serve(stream, &provision).await {
                            tracing::debug!(%error, "an operator's connection ended badly");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an operator could not be accepted");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
        let _ = fs::remove_file(path);
        Ok(())
    }
}

/// Asks the server of a data directory to carry out one operation.
///
/// # Errors
/// No server runs there, it could not be asked, or it refused.
pub async fn operator_request(
    path: &Path,
    request: &Request,
) -> Result<serde_json::Value, OperatorError> {
    let (_folder, short) = short_path(path).map_err(not_running)?;
    let stream = UnixStream::connect(short).await.map_err(not_running)?;
    let mut stream = BufReader::new(stream);
    let mut line = serde_json::to_vec(request).map_err(|_| OperatorError::Nonsense)?;
    line.push(b'\n');
    stream.write_all(&line).await?;
    line.clear();
    (&mut stream)
        .take(LINE_BYTES_MAX)
        .read_until(b'\n', &mut line)
        .await?;
    match serde_json::from_slice(&line) {
        Ok(Line::Ok(value)) => Ok(value),
        Ok(Line::Error(refused)) => Err(refused.into()),
        Err(_) => Err(OperatorError::Nonsense),
    }
}

fn not_running(error: io::Error) -> OperatorError {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => OperatorError::NotRunning,
        _ => OperatorError::Io(error),
    }
}

async fn serve(stream: UnixStream, provision: &Provision) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut stream)
            .take(LINE_BYTES_MAX)
            .read_until(b'\n', &mut line)
            .await?;
        if line.is_empty() {
            return Ok(());
        }
        let whole = line.ends_with(b"\n");
        let answer = if whole {
            answer(&line, provision).await
        } else {
            too_long()
        };
        let mut bytes = serde_json::to_vec(&answer)?;
        bytes.push(b'\n');
        stream.write_all(&bytes).await?;
        if !whole {
            return Ok(());
        }
    }
}

async fn answer(line: &[u8], provision: &Provision) -> Line {
    let request = match serde_json::from_slice::<Request>(line) {
        Ok(request) => request,
        // serde_json may quote what it could not read; a request may hold a secret.
        Err(error) => {
            let message = format!("not an operation (column {})", error.column());
            return Line::Error(Refused {
                fault: "invalid".to_owned(),
                message,
            });
        }
    };
    match provision.execute(request).await {
        Ok(response) => Line::Ok(serde_json::to_value(response).unwrap_or_default()),
        Err(error) => Line::Error(Refused {
            fault: error.fault().word().to_owned(),
            message: error.to_string(),
        }),
    }
}

fn too_long() -> Line {
    let message = format!("the line has no end within {LINE_BYTES_MAX} bytes");
    Line::Error(Refused {
        fault: "invalid".to_owned(),
        message,
    })
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    let (_folder, short) = short_path(path)?;
    let private = short.with_extension("new");
    let _ = fs::remove_dir_all(&private);
    DirBuilder::new().mode(0o700).create(&private)?;
    let listener = UnixListener::bind(private.join("s"))?;
    fs::set_permissions(private.join("s"), Permissions::from_mode(0o600))?;
    // Replaces what a killed process left; the lock of the data directory says that it is gone.
    fs::rename(private.join("s"), &short)?;
    fs::remove_dir(&private)?;
    Ok(listener)
}

/// The same path by way of an open descriptor of its folder: the address of a socket has room for
/// 107 bytes, a data directory may have a longer name. Good while the descriptor is open.
fn short_path(path: &Path) -> io::Result<(File, PathBuf)> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(
            ErrorKind::InvalidInput,
            "a socket needs a folder and a name",
        ));
    };
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let descriptor = File::open(folder)?;
    let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    let short = if by_descriptor.exists() {
        by_descriptor.join(name)
    } else {
        path.to_owned()
    };
    Ok((descriptor, short))
}
