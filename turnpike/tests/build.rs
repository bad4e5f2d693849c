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

fn git(folder: &Path, arguments: &[&str]) {
    let mut git = Command::new("git");
    git.current_dir(folder)
        .args(["-c", "user.name=a", "-c", "user.email=a@example.com"])
        .args(arguments)
        .env("GIT_COMMITTER_DATE", "1000000000 +0200");
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
    assert_eq!(checkout.watched.len(), 2, "{checkout:?}");
    let archive = folder.path().join("archive");
    std::fs::create_dir(&archive).unwrap();
    assert_eq!(Checkout::of(&archive), None);
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
