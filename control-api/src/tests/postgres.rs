//! A PostgreSQL server of its own for a process of tests: in a temporary folder, on a Unix socket,
//! gone with the value.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// A server that runs until this is dropped.
pub struct Server {
    programs: PathBuf,
    folder: TempDir,
    owner: Option<(u32, u32)>,
    process: Child,
}

impl Server {
    /// Starts a server with an empty database; none where PostgreSQL is not installed, unless
    /// `TURNPIKE_REQUIRE_POSTGRES` is 1.
    pub fn start() -> Option<Server> {
        let Some(programs) = programs() else {
            let required =
                std::env::var("TURNPIKE_REQUIRE_POSTGRES").is_ok_and(|value| value == "1");
            assert!(
                !required,
                "TURNPIKE_REQUIRE_POSTGRES is 1, and there is no initdb"
            );
            eprintln!(
                "skipped: PostgreSQL is not installed (initdb is neither in PATH nor in /usr/lib/postgresql)"
            );
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // The server refuses to run as root.
        let owner = (own_uid() == 0).then(ordinary_user);
        if let Some((uid, gid)) = owner {
            std::os::unix::fs::chown(folder.path(), Some(uid), Some(gid)).unwrap();
        }
        let made = command(&programs, "initdb", owner)
            .args(["--no-sync", "--auth=trust", "--username=turnpike"])
            .args(["--encoding=UTF8", "--no-locale", "--pgdata"])
            .arg(folder.path().join("data"))
            .output()
            .unwrap();
        let told = String::from_utf8_lossy(&made.stderr);
        assert!(made.status.success(), "initdb failed: {told}");
        let process = run(&programs, folder.path(), owner);
        Some(Server {
            programs,
            folder,
            owner,
            process,
        })
    }

    /// URL of its database, without parameters.
    pub fn url(&self) -> String {
        let folder = self.folder.path().to_str().unwrap().replace('/', "%2F");
        format!("postgres://turnpike@{folder}/postgres")
    }

    /// Ends it as a crash would: no session is told, and nothing is written that was not.
    #[allow(dead_code, reason = "not every process of tests needs it")]
    pub fn crash(&mut self) {
        let id = self.process.id().to_string();
        let sent = Command::new("kill").args(["-QUIT", &id]).status().unwrap();
        assert!(sent.success());
        self.process.wait().unwrap();
    }

    /// Starts it again.
    #[allow(dead_code, reason = "not every process of tests needs it")]
    pub fn start_again(&mut self) {
        self.process = run(&self.programs, self.folder.path(), self.owner);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let id = self.process.id().to_string();
        let _ = Command::new("kill").args(["-QUIT", &id]).status();
        let _ = self.process.wait();
    }
}

fn run(programs: &Path, folder: &Path, owner: Option<(u32, u32)>) -> Child {
    let mut process = command(programs, "postgres", owner)
        // What is committed is the kernel's before the answer: it outlives the process, which is
        // all that tests end.
        .args(["-c", "listen_addresses=", "-c", "fsync=off"])
        .args(["-c", "full_page_writes=off"])
        .args(["-c", "max_connections=400", "-c", "shared_buffers=64MB"])
        .arg("-k")
        .arg(folder)
        .arg("-D")
        .arg(folder.join("data"))
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(process.stderr.take().unwrap()).lines();
    let mut begun = Vec::new();
    loop {
        let Some(Ok(line)) = told.next() else {
            panic!("the server ended: {begun:?}");
        };
        if line.contains("ready to accept connections") {
            break;
        }
        begun.push(line);
    }
    // Read on, so that the server never waits for a reader of its log.
    std::thread::spawn(move || told.for_each(drop));
    process
}

fn command(programs: &Path, name: &str, owner: Option<(u32, u32)>) -> Command {
    let mut command = Command::new(programs.join(name));
    command.env_clear().current_dir("/").stdin(Stdio::null());
    if let Some((uid, gid)) = owner {
        command.uid(uid).gid(gid);
    }
    command
}

/// The folder with PostgreSQL's programs: in PATH, or where Debian puts them.
fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let debian = versions.flatten().map(|version| version.path().join("bin"));
    std::env::split_paths(&path)
        .chain(debian)
        .find(|folder| folder.join("initdb").is_file() && folder.join("postgres").is_file())
}

/// User and group of `postgres`, else of `nobody`.
fn ordinary_user() -> (u32, u32) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let ids = |name: &str| {
        let line = users
            .lines()
            .find(|line| line.split(':').next() == Some(name))?;
        let mut fields = line.split(':').skip(2);
        Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
    };
    ids("postgres").or_else(|| ids("nobody")).unwrap()
}

fn own_uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").unwrap().uid()
}
