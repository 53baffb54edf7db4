//! `chainmail check`: each folder of `tests/bad_configs` holds a wrong file and, in `expected.txt`, exactly what the
//! operator is told; the file at the top is right.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tests::chain::{Chain, Clamd, chainmail, root};

fn check(folder: &Path) -> Output {
    Command::new(chainmail()).arg("check").current_dir(folder).output().unwrap()
}

#[test]
fn every_mistake_is_told_as_expected() {
    let mut folders: Vec<_> =
        fs::read_dir(root().join("tests/bad_configs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(folders.len() >= 7);
    for folder in folders {
        let expected = fs::read_to_string(folder.join("expected.txt")).unwrap();
        let done = check(&folder);
        assert_eq!(done.status.code(), Some(1), "{}", folder.display());
        assert_eq!(String::from_utf8(done.stderr).unwrap(), expected, "{}", folder.display());
        assert!(done.stdout.is_empty(), "{}: something was printed of a wrong file", folder.display());
    }
}

#[test]
fn the_file_at_the_top_is_right_and_all_of_it_default() {
    let with_file = check(&root());
    assert!(with_file.status.success(), "{}", String::from_utf8_lossy(&with_file.stderr));
    let empty = tempfile::tempdir().unwrap();
    let without = check(empty.path());
    assert!(without.status.success());
    assert_eq!(String::from_utf8(with_file.stdout).unwrap(), String::from_utf8(without.stdout).unwrap());
}

#[test]
fn the_reference_is_fresh() {
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new(chainmail()).args(["check", "--reference"]).current_dir(folder.path()).output().unwrap();
    let written = fs::read_to_string(root().join("ops/config.md")).unwrap();
    let fresh = String::from_utf8(done.stdout).unwrap();
    assert!(written == fresh, "stale: run `chainmail check --reference > ops/config.md`");
}

fn generated(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let done = Command::new(chainmail()).arg("generate").args(arguments).current_dir(folder.path()).output().unwrap();
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

#[test]
fn the_reference_of_commands_is_fresh() {
    let written = fs::read_to_string(root().join("ops/commands.md")).unwrap();
    assert!(written == generated(&["commands"]), "stale: run `chainmail generate commands > ops/commands.md`");
}

#[test]
fn every_command_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    generated(&["man", folder.path().to_str().unwrap()]);
    let reference = fs::read_to_string(root().join("ops/commands.md")).unwrap();
    let headings = reference.lines().filter_map(|line| line.strip_prefix("## `")?.strip_suffix('`'));
    let commands: Vec<&str> = headings.collect();
    assert!(commands.len() > 20, "{commands:?}");
    for command in commands {
        let page = folder.path().join(format!("{}.1", command.replace(' ', "-")));
        let text = fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".SH SYNOPSIS") && text.contains(".SH DESCRIPTION"), "{command}: {text}");
    }
}

/// They were read from the folder of a site whose configuration is wrong, as they are where there is none.
#[test]
fn what_needs_no_configuration_reads_none() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("pipeline.yaml"), "nonsense: true\n").unwrap();
    for arguments in [&["generate", "commands"][..], &["generate", "completions", "bash"], &["check", "--reference"]] {
        let done = Command::new(chainmail()).args(arguments).current_dir(folder.path()).output().unwrap();
        assert!(done.status.success() && !done.stdout.is_empty(), "{arguments:?}: {done:?}");
    }
}

/// `chainmail generate commands | head` ended in a panic as soon as head had seen enough.
#[test]
fn a_reader_that_leaves_is_no_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(chainmail());
        command.args(arguments).current_dir(folder.path()).stdin(std::process::Stdio::null());
        let done = command.stdout(writer).stderr(std::process::Stdio::piped()).output().unwrap();
        let told = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success() && !told.contains("panicked"), "{arguments:?}: {told}");
    };
    run(&["setup", "example.org"]);
    run(&["generate", "commands"]);
    run(&["generate", "completions", "bash"]);
    run(&["check"]);
    run(&["check", "--reference"]);
    run(&["domain", "list"]);
    run(&["account", "list"]);
    run(&["account", "show", "postmaster@example.org"]);
}

#[test]
fn bash_completes_commands() {
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("chainmail.bash");
    fs::write(&script, generated(&["completions", "bash"])).unwrap();
    let asked = "source \"$0\"; COMP_WORDS=(chainmail account su); COMP_CWORD=2
        _chainmail chainmail su account; echo \"${COMPREPLY[@]}\"";
    let done = Command::new("bash").args(["-c", asked]).arg(&script).output().unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "suspend\n", "{}", String::from_utf8_lossy(&done.stderr));
}

/// systemd can read the unit, and finds little that it could do beyond its own folder.
#[test]
fn the_unit_is_right_and_hardened() {
    let folder = tempfile::tempdir().unwrap();
    let unit = fs::read_to_string(root().join("ops/chainmail@.service")).unwrap();
    // What systemd would start has to be there when it looks.
    let unit = unit.replace("/usr/local/bin/chainmail", chainmail().to_str().unwrap());
    let path = folder.path().join("chainmail@score.service");
    fs::write(&path, unit).unwrap();
    for arguments in [&["verify", "--man=no"][..], &["security", "--offline=true", "--threshold=20", "--no-pager"]] {
        let done = Command::new("systemd-analyze").args(arguments).arg(&path).output().unwrap();
        let told = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments:?}: {told}{}", String::from_utf8_lossy(&done.stdout));
        assert!(!told.contains("chainmail@"), "{arguments:?}: {told}");
    }
}

#[test]
fn a_file_that_is_not_there_is_an_error() {
    let done = Command::new(chainmail()).args(["--config", "nowhere.yaml", "check"]).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&done.stderr).contains("reading nowhere.yaml"), "{done:?}");
}

/// The passwords of a first run are known to everybody: with them nothing listens beyond loopback.
#[test]
fn a_first_run_does_not_leave_loopback() {
    let clamd = Clamd::start();
    let chain = Chain::start_parts(&clamd);
    let mut command = Command::new(chainmail());
    command.args(["run", "gate", "--listen", "0.0.0.0:0", "--admin", "127.0.0.1:0"]);
    let done = command.current_dir(chain.folder()).output().unwrap();
    let told = String::from_utf8_lossy(&done.stderr);
    assert!(!done.status.success(), "{told}");
    assert!(told.contains("still has the password of the first run, and 0.0.0.0:0 is not on loopback"), "{told}");
}
