//! The pages say what the binary says.

#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::path::Path;
use std::process::Command;

/// The keys that `turnpike config show` prints.
fn keys() -> Vec<String> {
    let shown = Command::new(env!("CARGO_BIN_EXE_turnpike"))
        .args(["config", "show"])
        .env_clear()
        .output()
        .unwrap();
    assert!(shown.status.success());
    let mut section = String::new();
    let mut keys = Vec::new();
    for line in String::from_utf8(shown.stdout).unwrap().lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = format!("{}.", name.trim_end_matches(']'));
        } else if let Some((key, _)) = line.split_once(" = ") {
            keys.push(format!("{section}{key}"));
        }
    }
    keys
}

#[test]
fn every_key_of_the_configuration_is_described() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let keys = keys();
    assert!(keys.len() > 40, "{keys:?}");
    for key in &keys {
        assert!(
            page.contains(&format!("| `{key}` |")),
            "{key} is not described"
        );
    }
    let described = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for key in described {
        assert!(
            keys.iter().any(|known| known == key),
            "{key} does not exist"
        );
    }
}
