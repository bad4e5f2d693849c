//! Tells the program which sources it was built from. Two builds of the same sources are told the
//! same, on any machine.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A commit that is checked out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checkout {
    /// Its hash.
    pub(crate) commit: String,
    /// When it was made, in seconds since 1970.
    pub(crate) seconds: i64,
    /// Files that change when another commit is checked out.
    pub(crate) watched: Vec<PathBuf>,
}

impl Checkout {
    /// What is checked out in a folder; none if the folder is not the top of a repository, such as a
    /// source archive that was unpacked inside another one.
    pub(crate) fn of(folder: &Path) -> Option<Checkout> {
        let top = git(folder, &["rev-parse", "--show-toplevel"])?;
        if Path::new(&top).canonicalize().ok()? != folder.canonicalize().ok()? {
            return None;
        }
        let (commit, seconds) = {
            let shown = git(
                folder,
                &["log", "-1", "--no-show-signature", "--format=%H %ct"],
            )?;
            let (commit, seconds) = shown.split_once(' ')?;
            (commit.to_owned(), seconds.parse().ok()?)
        };
        // A commit is written to the branch, which may be among the packed ones.
        let branch = git(folder, &["rev-parse", "--symbolic-full-name", "HEAD"])?;
        let mut names = vec!["HEAD", "logs/HEAD", "packed-refs"];
        if branch != "HEAD" {
            names.push(&branch);
        }
        let watched = names.into_iter().filter_map(|name| {
            let path = folder.join(git(folder, &["rev-parse", "--git-path", name])?);
            path.exists().then_some(path)
        });
        Some(Checkout {
            commit,
            seconds,
            watched: watched.collect(),
        })
    }
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let mut git = Command::new("git");
    // A hook that builds has these of the repository that it runs for.
    for name in ["GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"] {
        git.env_remove(name);
    }
    let output = git.current_dir(folder).args(arguments).output().ok()?;
    let text = output.status.success().then_some(output.stdout)?;
    Some(String::from_utf8(text).ok()?.trim_end().to_owned())
}

/// When the sources were made: what the builder says (SOURCE_DATE_EPOCH), else the commit's time.
///
/// # Errors
/// The builder says something else than a number of seconds.
pub(crate) fn seconds(
    told: Option<&str>,
    checkout: Option<&Checkout>,
) -> Result<Option<i64>, String> {
    match told {
        None => Ok(checkout.map(|checkout| checkout.seconds)),
        Some(text) => {
            let seconds = text.parse().ok().filter(|seconds| *seconds >= 0);
            let expected = "expected seconds since 1970";
            let wrong = || format!("SOURCE_DATE_EPOCH is {text:?}; {expected}");
            Ok(Some(seconds.ok_or_else(wrong)?))
        }
    }
}

#[allow(dead_code, reason = "a test includes this file for the rest of it")]
fn main() -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let checkout = Checkout::of(&root);
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo:rerun-if-changed=build.rs");
    for path in checkout.iter().flat_map(|checkout| &checkout.watched) {
        println!("cargo:rerun-if-changed={}", path.display());
    }
    let told = std::env::var("SOURCE_DATE_EPOCH").ok();
    let seconds = seconds(told.as_deref(), checkout.as_ref())?;
    let seconds = seconds.map_or_else(String::new, |seconds| seconds.to_string());
    let commit = checkout.map_or_else(String::new, |checkout| checkout.commit);
    println!("cargo:rustc-env=BUILD_COMMIT={commit}");
    println!("cargo:rustc-env=BUILD_SECONDS={seconds}");
    Ok(())
}
