//! Certificates of a listener that is not the broker's own, kept as those of its own are.

use std::sync::Arc;

use crate::config::TlsOptions;
use crate::reactor::tls::{TlsDoor, TlsDoors};
use crate::start::watch_files;
use crate::tls::TlsError;

/// The TLS of a listener for HTTP elsewhere in this process, read again when its files change.
#[derive(Debug)]
pub struct Certificates {
    door: Arc<TlsDoor>,
    watching: tokio::task::JoinHandle<()>,
}

impl Certificates {
    /// Reads the files and watches them from now on; `name` is the listener's in the log. Has to be
    /// called in a tokio runtime.
    ///
    /// # Errors
    /// [`TlsError`], which names the file.
    pub fn open(name: &str, options: &TlsOptions) -> Result<Certificates, TlsError> {
        let door = Arc::new(TlsDoor::open(name, options, &[b"http/1.1"])?);
        let doors = TlsDoors {
            tls: vec![Arc::clone(&door)],
            dtls: Vec::new(),
        };
        let watching = tokio::spawn(watch_files(doors));
        Ok(Certificates { door, watching })
    }

    /// Reads the files again; where they are wrong, the old ones stay in force.
    pub fn reload(&self) {
        self.door.reload();
    }

    /// A function that gives what a connection gets that comes now.
    pub fn source(&self) -> impl Fn() -> Arc<rustls::ServerConfig> + Send + Sync + 'static {
        let door = Arc::clone(&self.door);
        move || door.config()
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        self.watching.abort();
    }
}
