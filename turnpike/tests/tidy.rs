//! Habits of the repository that no compiler checks: who depends on whom, what stays out of
//! crates without I/O, names and lengths of files, links in documentation.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Each crate with the crates of the workspace it may use, and outside crates that must not
/// appear in its manifest.
const CRATES: &[(&str, &[&str], &[&str])] = &[
    ("codec", &[], IO),
    ("authcache", &[], IO),
    ("router", &["authcache"], IO),
    ("session", &["authcache", "codec", "router"], IO),
    (
        "broker",
        &["authcache", "codec", "router", "session"],
        &["sqlx", "axum"],
    ),
    ("control-api", &["authcache"], &["rustix", "socket2"]),
    ("loadtest", &["codec"], &["sqlx", "axum"]),
    (
        "turnpike",
        &["authcache", "broker", "control-api", "loadtest"],
        &[],
    ),
];

/// What a crate without I/O has no use for.
const IO: &[&str] = &[
    "tokio",
    "rustix",
    "socket2",
    "sqlx",
    "axum",
    "tracing",
    "parking_lot",
];

/// Folders where neither a clock nor a socket nor a runtime may be named.
const PURE: &[&str] = &[
    "codec/src",
    "authcache/src",
    "router/src",
    "session/src",
    "broker/src/shard",
];

const IMPURE: &[&str] = &[
    "tokio::",
    "std::net::Tcp",
    "Instant::now",
    "SystemTime::now",
    "std::thread::spawn",
];

const MODULES_FORBIDDEN: &[&str] = &[
    "utils", "util", "common", "helpers", "misc", "types", "manager",
];

/// A longer file is split.
const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace")
        .to_path_buf()
}

fn files(below: &Path, ending: &str, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(below) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && name != ".git" && name != "node_modules" {
                files(&path, ending, found);
            }
        } else if path.to_string_lossy().ends_with(ending) {
            found.push(path);
        }
    }
}

fn sources() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&root(), ".rs", &mut found);
    found
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).expect("a source file is UTF-8");
            (
                path.strip_prefix(root())
                    .expect("below the root")
                    .to_path_buf(),
                text,
            )
        })
        .collect()
}

/// The names under `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut inside = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == "[dependencies]";
        } else if inside && let Some((name, _)) = line.split_once(['.', ' ', '=']) {
            found.insert(name.to_owned());
        }
    }
    found
}

#[test]
fn crates_depend_only_on_whom_the_architecture_names() {
    let all: BTreeSet<&str> = CRATES.iter().map(|(name, ..)| *name).collect();
    for (name, allowed, forbidden) in CRATES {
        let path = root().join(name).join("Cargo.toml");
        let Ok(manifest) = fs::read_to_string(&path) else {
            assert!(*name == "loadtest", "{name} has no manifest");
            continue;
        };
        for dependency in dependencies(&manifest) {
            let inner = all.contains(dependency.as_str());
            assert!(
                !inner || allowed.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
            assert!(
                !forbidden.contains(&dependency.as_str()),
                "{name} must not depend on {dependency}"
            );
        }
    }
}

#[test]
fn code_without_io_names_no_clock_socket_or_runtime() {
    for (path, text) in sources() {
        if !PURE.iter().any(|folder| path.starts_with(folder)) {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in IMPURE {
                assert!(
                    !code.contains(word),
                    "{}:{}: {word}",
                    path.display(),
                    number + 1
                );
            }
        }
    }
}

#[test]
fn modules_are_named_for_what_they_are() {
    for (path, _) in sources() {
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        assert!(
            !MODULES_FORBIDDEN.contains(&stem),
            "{} says nothing",
            path.display()
        );
    }
}

#[test]
fn every_source_file_is_part_of_its_crate() {
    let all = sources();
    for (path, _) in &all {
        let text = path.to_string_lossy();
        let stem = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .unwrap_or_default();
        let inside = text
            .split_once("/src/")
            .is_some_and(|(krate, _)| !krate.contains('/'));
        if !inside || matches!(stem, "lib" | "main" | "mod") {
            continue;
        }
        let declared = all.iter().any(|(other, text)| {
            let near = other.parent() == path.parent()
                || other.with_extension("") == path.parent().expect("a folder");
            near && (text.contains(&format!("mod {stem};"))
                || text.contains(&format!("\"{stem}.rs\"")))
        });
        assert!(declared, "{} is declared nowhere", path.display());
    }
}

#[test]
fn files_are_short() {
    for (path, text) in sources() {
        let lines = text.lines().count();
        assert!(
            lines <= LINES_MAX,
            "{} has {lines} lines, expected at most {LINES_MAX}",
            path.display()
        );
    }
}

#[test]
fn nothing_unfinished_is_left() {
    let marks = [
        concat!("to", "do!("),
        concat!("unimple", "mented!("),
        concat!("db", "g!("),
        concat!("FIX", "ME"),
    ];
    for (path, text) in sources() {
        for mark in marks {
            assert!(!text.contains(mark), "{} has {mark}", path.display());
        }
    }
}

/// I1: what one thread alone touches needs no lock, no atomic and no shared count. What a slot boxes
/// (a backlog's shared frames, a session's messages) is behind these files.
#[test]
fn i1_slot_of_a_connection_shares_nothing_between_threads() {
    for path in ["broker/src/shard/slot.rs", "session/src/hot.rs"] {
        let text = fs::read_to_string(root().join(path)).expect("a slot has its file");
        for shared in ["Arc", "Atomic", "Mutex", "RwLock"] {
            let found = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"));
            let found = found.filter(|line| line.contains(shared)).count();
            assert_eq!(found, 0, "{path} names {shared}");
        }
    }
}

#[test]
fn links_in_documentation_lead_somewhere() {
    let mut pages = Vec::new();
    files(&root(), ".md", &mut pages);
    for page in pages {
        let text = fs::read_to_string(&page).expect("a page is UTF-8");
        for part in text.split("](").skip(1) {
            let target = part.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = page.parent().expect("a folder").join(target);
            assert!(path.exists(), "{}: no {target}", page.display());
        }
    }
}
