//! What control is started with.

use std::path::PathBuf;

/// Configuration of control, checked where it was read.
#[derive(Clone, Debug)]
pub struct Config {
    /// Folder for the database, the pepper, the lock and the operator socket.
    pub data_dir: PathBuf,
    /// `sqlite:PATH` for a database elsewhere; `control.db` in the data directory if absent.
    pub database_url: Option<String>,
    /// User name of the platform administrator made at the first start.
    pub admin_username: String,
    /// Whether the first start makes a demo domain.
    pub demo: bool,
    /// Whether the domain of the open namespace is made.
    pub open: bool,
}

impl Config {
    /// The defaults, in this folder.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Config {
        Config {
            data_dir: data_dir.into(),
            database_url: None,
            admin_username: "admin".to_owned(),
            demo: true,
            open: false,
        }
    }
}
