//! What a build says of the sources it was made from.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::process::Command;

#[path = "../build.rs"]
#[allow(
    clippy::print_stdout,
    reason = "that is how a build script tells cargo"
)]
mod script;

use script::{Checkout, seconds};

/// What a hook has of its own repository.
const FOREIGN: [&str; 3] = ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"];

fn git(folder: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.current_dir(folder)
        .args(["-c", "user.name=a", "-c", "user.email=a@example.com"])
        .args(["-c", "commit.gpgsign=false"])
        .args(arguments)
        .env("GIT_COMMITTER_DATE", "1000000000 +0200");
    for name in FOREIGN {
        git.env_remove(name);
    }
    assert!(git.output().unwrap().status.success(), "{arguments:?}");
}

#[test]
fn a_checkout_is_named_and_an_archive_inside_another_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Checkout::of(folder.path()), None);
    git(folder.path(), &["init", "-q"]);
    assert_eq!(Checkout::of(folder.path()), None, "nothing is committed");
    git(folder.path(), &["commit", "-q", "--allow-empty", "-m", "x"]);
    let checkout = Checkout::of(folder.path()).unwrap();
    assert_eq!(
        (checkout.commit.len(), checkout.seconds),
        (40, 1_000_000_000)
    );
    let watches = |checkout: &Checkout, end: &str| {
        let mut paths = checkout.watched.iter();
        paths.any(|path| path.to_string_lossy().contains(end))
    };
    for end in [".git/HEAD", ".git/logs/HEAD", ".git/refs/heads/"] {
        assert!(watches(&checkout, end), "{end}: {checkout:?}");
    }
    git(folder.path(), &["pack-refs", "--all"]);
    let packed = Checkout::of(folder.path()).unwrap();
    assert!(watches(&packed, ".git/packed-refs"), "{packed:?}");
    git(folder.path(), &["checkout", "-q", "--detach"]);
    let detached = Checkout::of(folder.path()).unwrap();
    assert_eq!(detached.commit, checkout.commit);
    let archive = folder.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    assert_eq!(Checkout::of(&archive), None);
}

#[test]
fn build_inside_a_hook_tells_of_its_own_repository() {
    let program = std::env::current_exe().unwrap();
    let mut again = Command::new(program);
    again.arg("a_checkout_is_named_and_an_archive_inside_another_one_is_not");
    let foreign = tempfile::tempdir().unwrap();
    for name in FOREIGN {
        again.env(name, foreign.path().join("none"));
    }
    let told = again.output().unwrap();
    assert!(told.status.success(), "{told:?}");
}

#[test]
fn the_builders_time_goes_before_the_commits() {
    let checkout = Checkout {
        commit: "0".repeat(40),
        seconds: 5,
        watched: vec![],
    };
    assert_eq!(seconds(None, None), Ok(None));
    assert_eq!(seconds(None, Some(&checkout)), Ok(Some(5)));
    assert_eq!(seconds(Some("7"), Some(&checkout)), Ok(Some(7)));
    assert_eq!(seconds(Some("7"), None), Ok(Some(7)));
    for wrong in ["", "yesterday", "-1", "1.5"] {
        let told = seconds(Some(wrong), Some(&checkout)).unwrap_err();
        assert!(told.ends_with("expected seconds since 1970"), "{told}");
    }
}
