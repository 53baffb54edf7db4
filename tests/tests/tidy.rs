//! The rules of the house that a compiler does not know: sizes, opening lines, pure decisions, the direction of
//! dependencies, nothing left over. Every breach is told at once.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use tests::chain::root;

/// Lines of a function, its signature and brackets included.
const FUNCTION: usize = 60;
/// Lines of a file without its tests.
const FILE: usize = 400;
/// Characters of a line. A formatter keeps to it in code, and breaks neither strings nor comments.
const WIDTH: usize = 120;

/// Every file below the top that is part of the project and ends so, with its text.
fn files(ending: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    walk(&root(), &mut found);
    let name = |path: &PathBuf| path.strip_prefix(root()).unwrap().display().to_string();
    let read = |path: PathBuf| (name(&path), fs::read_to_string(&path).unwrap_or_default());
    found.into_iter().filter(|path| path.to_string_lossy().ends_with(ending)).map(read).collect()
}

fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if ["target", "var", ".git", "corpus", "artifacts"].contains(&name.as_str()) {
            continue;
        }
        if path.is_dir() { walk(&path, found) } else { found.push(path) }
    }
}

/// The lines before the tests at a file's end.
fn without_tests(text: &str) -> Vec<&str> {
    let end = text.find("\n#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end].lines().collect()
}

#[track_caller]
fn none(breaches: &[String]) {
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent = files(".rs").into_iter().filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#!["));
    none(&silent.map(|(name, _)| format!("{name}: does not open with //!")).collect::<Vec<_>>());
}

#[test]
fn files_and_functions_are_short() {
    let mut breaches = Vec::new();
    for (name, text) in files(".rs") {
        let lines = without_tests(&text);
        if lines.len() > FILE && !name.contains("/tests") {
            breaches.push(format!("{name}: {} lines, at most {FILE} without its tests", lines.len()));
        }
        let mut begun: Option<(usize, usize)> = None;
        for (number, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let word = line.trim_start().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
            let word = word.trim_start_matches("pub(super) ").trim_start_matches("async ").trim_start_matches("const ");
            if begun.is_none() && word.starts_with("fn ") && !line.ends_with('}') && !line.ends_with(';') {
                begun = Some((number, indent));
            } else if let Some((from, depth)) = begun
                && indent == depth
                && (line.trim_start() == "}" || line.ends_with(';') && number == from + 1)
            {
                let length = number - from + 1;
                if length > FUNCTION {
                    breaches.push(format!("{name}:{}: a function of {length} lines, at most {FUNCTION}", from + 1));
                }
                begun = None;
            }
        }
    }
    none(&breaches);
}

/// What nobody would break: one word that is longer than a line, like an address or a hash; a row of a comment's table;
/// and a field of the configuration, which is a row of a table, too: its name, default, range and text.
fn is_unbreakable(line: &str) -> bool {
    let is_one_word =
        line.chars().skip(WIDTH).all(|letter| !letter.is_whitespace()) && line.split_whitespace().count() <= 3;
    let line = line.trim_start();
    is_one_word || line.starts_with("//! |") || !line.starts_with("//") && line.contains("section.")
}

#[test]
fn lines_are_narrow() {
    let mut breaches = Vec::new();
    for ending in [".rs", ".py", "/run", "/setup", "/test", "/compare"] {
        for (name, text) in files(ending) {
            for (number, line) in text.lines().enumerate() {
                if line.chars().count() > WIDTH && !is_unbreakable(line) {
                    breaches.push(format!("{name}:{}: more than {WIDTH} columns", number + 1));
                }
            }
        }
    }
    none(&breaches);
}

#[test]
fn decisions_are_pure() {
    let words =
        ["async ", ".await", "tokio::", "Instant", "SystemTime", "rand::", "std::fs", "std::net::Tcp", "clock::"];
    let decisions = files("/decide.rs");
    assert!(decisions.len() >= 4, "the filters' decisions are gone");
    let impure = decisions.iter().flat_map(|(name, text)| {
        let code = without_tests(text).join("\n");
        words
            .iter()
            .filter(move |word| code.contains(*word))
            .map(move |word| format!("{name}: {word}"))
            .collect::<Vec<_>>()
    });
    none(&impure.collect::<Vec<_>>());
}

/// proto, wire ← runtime ← directory ← stages ← chainmail ← tests. Stages never depend on each other.
#[test]
fn dependencies_point_one_way() {
    let stages = ["gate", "accept", "score", "scan", "deliver", "store"];
    let rank = |name: &str| match name {
        "proto" | "wire" => 0,
        "runtime" => 1,
        "directory" => 2,
        stage if stages.contains(&stage) => 3,
        "chainmail" => 4,
        _ => 5,
    };
    let mut breaches = Vec::new();
    for (name, text) in files("Cargo.toml") {
        let Some(own) = name.strip_suffix("/Cargo.toml").and_then(|path| path.rsplit('/').next()) else { continue };
        for other in ["proto", "wire", "runtime", "directory", "chainmail"].into_iter().chain(stages) {
            let depends =
                text.contains(&format!("\n{other}.workspace")) || text.contains(&format!("\n{other} = {{ path"));
            if depends && own != "fuzz" && rank(other) >= rank(own) {
                breaches.push(format!("{own} depends on {other}"));
            }
        }
    }
    none(&breaches);
}

#[test]
fn only_the_house_stands_at_the_top() {
    let allowed = [
        "Cargo.toml",
        "Cargo.lock",
        "stages",
        "proto",
        "pipeline.yaml",
        "ops",
        "tests",
        "loadgen",
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "deny.toml",
        "clippy.toml",
        "rustfmt.toml",
        "target",
        "var",
    ];
    let names = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
    let strange = names.filter(|name| !name.starts_with('.') && !allowed.contains(&name.as_str()));
    none(&strange.map(|name| format!("{name} has no place at the top")).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_over() {
    // Put together, so that this list does not find itself.
    let words = [
        ["to", "do!("],
        ["unimple", "mented!("],
        ["db", "g!("],
        ["FIX", "ME"],
        ["TO", "DO"],
        ["XX", "X:"],
        ["for ", "now,"],
        ["#[ign", "ore"],
        ["should_", "panic"],
        ["/work", "/main"],
        ["/work", "/shared"],
        ["/home", "/"],
    ];
    let mut breaches = Vec::new();
    for ending in [".rs", ".toml", ".md", ".yaml", ".conf", "/run", "/setup", "/test"] {
        for (name, text) in files(ending) {
            for word in words.map(|parts| parts.concat()) {
                if text.contains(&word) {
                    breaches.push(format!("{name}: {word}"));
                }
            }
        }
    }
    none(&breaches);
}

#[test]
fn every_stage_is_on_the_map() {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let stages = fs::read_dir(root().join("stages")).unwrap().map(|entry| entry.unwrap().file_name());
    let missing = stages.filter(|name| !readme.contains(&*format!("{}/`", name.to_string_lossy())));
    none(&missing.map(|name| format!("the README does not name stages/{}", name.display())).collect::<Vec<_>>());
}
