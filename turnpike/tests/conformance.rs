//! `docs/conformance.md`, made from the marks at the code and at the tests.
//!
//! A mark is `[MQTT-x.y.z-n]` (MQTT 5) or `[MQTT3-x.y.z-n]` (3.1.1) in a comment. In the code it
//! says which line meets the statement, in a test which test proves it. Every statement has both,
//! or a reason in `docs/conformance/exceptions.txt`.
//!
//! Rewrite the page with `UPDATE_CONFORMANCE=1 cargo test -p turnpike --test conformance`.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = "docs/conformance.md";
const STATEMENTS: &str = "docs/conformance/statements.txt";
const EXCEPTIONS: &str = "docs/conformance/exceptions.txt";
/// Statements met by the code that no test proves yet. Empty when all is done.
const UNTESTED: &str = "docs/conformance/untested.txt";

#[test]
fn every_statement_is_met_and_proved_or_has_its_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let update = std::env::var_os("UPDATE_CONFORMANCE").is_some();
    let statements = Statement::read(&root.join(STATEMENTS));
    let marks = Marks::collect(root);
    let exceptions = read_pairs(&root.join(EXCEPTIONS));
    let proved: BTreeSet<&String> = marks.tests.keys().collect();
    if update {
        prune_untested(&root.join(UNTESTED), &proved);
    }
    let untested: BTreeSet<String> = read_lines(&root.join(UNTESTED)).into_iter().collect();

    let known: BTreeSet<&str> = statements.iter().filter_map(Statement::mark).collect();
    let mut wrong = Vec::new();
    for mark in marks.code.keys().chain(marks.tests.keys()) {
        if !known.contains(mark.as_str()) {
            let (code, tests) = (marks.code.get(mark), marks.tests.get(mark));
            wrong.push(format!("{mark} names no statement: {code:?} {tests:?}"));
        }
    }
    for mark in exceptions.keys().chain(&untested) {
        if !known.contains(mark.as_str()) {
            wrong.push(format!("{mark} is listed as open and names no statement"));
        }
    }
    for mark in known {
        let (met, proved) = (
            marks.code.contains_key(mark),
            proved.contains(&mark.to_owned()),
        );
        match (met, exceptions.contains_key(mark)) {
            (false, false) => wrong.push(format!("{mark} is neither in the code nor excepted")),
            (true, true) => wrong.push(format!("{mark} is in the code and excepted")),
            (true, false) if !proved && !untested.contains(mark) => {
                wrong.push(format!("{mark} has no test"));
            }
            (true, false) if proved && untested.contains(mark) => {
                wrong.push(format!("{mark} has a test: take it out of {UNTESTED}"));
            }
            _ => {}
        }
    }
    let page = render(&statements, &marks, &exceptions);
    if update {
        fs::write(root.join(PAGE), &page).unwrap();
    } else if fs::read_to_string(root.join(PAGE)).ok().as_ref() != Some(&page) {
        wrong.push(format!(
            "{PAGE} is not what the marks say: run with UPDATE_CONFORMANCE=1 and commit it"
        ));
    }
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// A line of the list: a heading, or a statement.
enum Statement {
    Heading(String),
    Statement { mark: String, text: String },
}

impl Statement {
    fn read(path: &Path) -> Vec<Statement> {
        let text = fs::read_to_string(path).unwrap();
        let line = |line: &str| {
            if let Some(heading) = line.strip_prefix("## ") {
                return Some(Statement::Heading(heading.to_owned()));
            }
            if line.is_empty() || line.starts_with('#') {
                return None;
            }
            let fields: Vec<&str> = line.splitn(3, " | ").collect();
            let [mark, _version, text] = fields[..] else {
                panic!("three fields expected: {line}");
            };
            Some(Statement::Statement {
                mark: mark.to_owned(),
                text: text.to_owned(),
            })
        };
        let statements: Vec<Statement> = text.lines().filter_map(line).collect();
        let mut seen = BTreeSet::new();
        for mark in statements.iter().filter_map(Statement::mark) {
            assert!(seen.insert(mark), "{mark} is listed twice");
        }
        statements
    }

    fn mark(&self) -> Option<&str> {
        match self {
            Statement::Heading(_) => None,
            Statement::Statement { mark, .. } => Some(mark),
        }
    }
}

/// Mark → where it stands: for code the file, for a test the file and the test's name.
#[derive(Default)]
struct Marks {
    code: BTreeMap<String, BTreeSet<String>>,
    tests: BTreeMap<String, BTreeSet<(String, String)>>,
}

impl Marks {
    fn collect(root: &Path) -> Marks {
        let mut files = Vec::new();
        for member in fs::read_dir(root).unwrap() {
            let member = member.unwrap().path();
            if member.join("Cargo.toml").exists() {
                for part in ["src", "tests"] {
                    walk(&member.join(part), &mut files);
                }
            }
        }
        files.sort();
        let sources: Vec<(PathBuf, String)> = files
            .into_iter()
            .map(|path| {
                let text = fs::read_to_string(&path).unwrap();
                (path, text)
            })
            .collect();
        let mut only_tests = BTreeSet::new();
        for (path, text) in &sources {
            test_modules(path, text, &mut only_tests);
        }
        let mut marks = Marks::default();
        for (path, text) in &sources {
            let name = path
                .strip_prefix(root)
                .unwrap()
                .to_str()
                .unwrap()
                .replace('\\', "/");
            let test_file = name.contains("/tests/")
                || name.ends_with("tests.rs")
                || only_tests.iter().any(|module| path.starts_with(module));
            marks.read(&name, text, test_file);
        }
        marks
    }

    fn read(&mut self, name: &str, text: &str, test_file: bool) {
        // What this file says about itself is no mark.
        if name == "turnpike/tests/conformance.rs" {
            return;
        }
        let mut in_tests = test_file;
        let mut function = String::new();
        let mut attribute = false;
        let mut waiting: Vec<String> = Vec::new();
        let lines: Vec<&str> = text.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let trimmed = line.trim();
            if !in_tests && trimmed == "#[cfg(test)]" {
                // Tests come last in a file; a module in a file of its own is known by its path.
                let module = lines[at + 1..]
                    .iter()
                    .find(|line| !line.trim().starts_with("#["));
                in_tests = module.is_some_and(|line| line.trim().ends_with('{'));
            }
            if in_tests {
                attribute |= trimmed == "#[test]";
                if let Some(named) = function_name(trimmed) {
                    function = if attribute {
                        named.to_owned()
                    } else {
                        String::new()
                    };
                    attribute = false;
                    for mark in waiting.drain(..) {
                        let place = (name.to_owned(), function.clone());
                        self.tests.entry(mark).or_default().insert(place);
                    }
                }
            }
            for mark in marks_of(trimmed) {
                if !in_tests {
                    self.code.entry(mark).or_default().insert(name.to_owned());
                } else if trimmed.starts_with("///") {
                    waiting.push(mark);
                } else {
                    let place = (name.to_owned(), function.clone());
                    self.tests.entry(mark).or_default().insert(place);
                }
            }
        }
        for mark in waiting {
            let place = (name.to_owned(), String::new());
            self.tests.entry(mark).or_default().insert(place);
        }
    }
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            walk(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// Files and folders of the modules that a file declares for tests only.
fn test_modules(path: &Path, text: &str, found: &mut BTreeSet<PathBuf>) {
    let folder = path.parent().unwrap();
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let inside = match stem {
        "mod" | "lib" | "main" => folder.to_owned(),
        stem => folder.join(stem),
    };
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    for (at, line) in lines.iter().enumerate() {
        if *line != "#[cfg(test)]" {
            continue;
        }
        let mut named = None;
        for next in &lines[at + 1..] {
            if let Some(file) = next.strip_prefix("#[path = \"") {
                named = file.strip_suffix("\"]").map(|file| folder.join(file));
            } else if !next.starts_with("#[") {
                let module = next.trim_start_matches("pub(crate) ").strip_prefix("mod ");
                if let Some(module) = module.and_then(|rest| rest.strip_suffix(';')) {
                    found.insert(inside.join(format!("{module}.rs")));
                    found.insert(inside.join(module));
                    found.extend(named);
                }
                break;
            }
        }
    }
}

fn function_name(line: &str) -> Option<&str> {
    let line = line
        .trim_start_matches("pub ")
        .trim_start_matches("pub(crate) ");
    let rest = line.strip_prefix("fn ")?;
    rest.split(['(', '<']).next()
}

fn marks_of(line: &str) -> Vec<String> {
    let mut marks = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("[MQTT") {
        rest = &rest[at + 1..];
        let Some(end) = rest.find(']') else { break };
        let numbers = rest[..end]
            .trim_start_matches("MQTT3-")
            .trim_start_matches("MQTT-");
        if numbers.len() < end
            && numbers
                .split(['.', '-'])
                .all(|part| part.parse::<u32>().is_ok())
        {
            marks.push(rest[..end].to_owned());
        }
    }
    marks
}

fn read_lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let kept = |line: &&str| !line.trim().is_empty() && !line.starts_with('#');
    text.lines()
        .filter(kept)
        .map(|line| line.trim().to_owned())
        .collect()
}

fn read_pairs(path: &Path) -> BTreeMap<String, String> {
    read_lines(path)
        .into_iter()
        .map(|line| {
            let (mark, reason) = line.split_once(" | ").expect("mark | reason");
            (mark.to_owned(), reason.to_owned())
        })
        .collect()
}

/// Takes statements that are proved by now off the list.
fn prune_untested(path: &Path, proved: &BTreeSet<&String>) {
    let text = fs::read_to_string(path).unwrap();
    let kept: Vec<&str> = text
        .lines()
        .filter(|line| !proved.contains(&line.trim().to_owned()))
        .collect();
    fs::write(path, kept.join("\n") + "\n").unwrap();
}

fn render(
    statements: &[Statement],
    marks: &Marks,
    exceptions: &BTreeMap<String, String>,
) -> String {
    let all = statements.iter().filter_map(Statement::mark).count();
    let mut page = String::from("# Conformance\n\n");
    page.push_str(
        "Made from the marks at the code and at the tests by `turnpike/tests/conformance.rs`; \
         not edited by hand.\n",
    );
    writeln!(
        page,
        "{} statements of MQTT 5.0 and MQTT 3.1.1 bind a server; {} are met.",
        all,
        all - exceptions.len()
    )
    .unwrap();
    for statement in statements {
        match statement {
            Statement::Heading(heading) => {
                writeln!(page, "\n## {heading}\n").unwrap();
                page.push_str("| statement | | code | tests |\n| --- | --- | --- | --- |\n");
            }
            Statement::Statement { mark, text } => {
                let code = match (marks.code.get(mark), exceptions.contains_key(mark)) {
                    (Some(files), _) => list(files.iter().map(|file| format!("`{file}`"))),
                    (None, _) => "see the end".to_owned(),
                };
                let tests = marks.tests.get(mark).map_or_else(String::new, |places| {
                    list(places.iter().map(|(file, test)| match test.as_str() {
                        "" => format!("`{file}`"),
                        test => format!("`{file}` {test}"),
                    }))
                });
                writeln!(page, "| {mark} | {text} | {code} | {tests} |").unwrap();
            }
        }
    }
    page.push_str("\n## Not met\n\n| statement | reason |\n| --- | --- |\n");
    for (mark, reason) in exceptions {
        writeln!(page, "| {mark} | {reason} |").unwrap();
    }
    page
}

fn list(items: impl Iterator<Item = String>) -> String {
    items.collect::<Vec<_>>().join("<br>")
}
