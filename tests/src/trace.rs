//! What a program writes, syncs and says, in that order: strace looks on.
//!
//! A program that is killed loses nothing that it has written, synced or not: the page cache survives it. That it has
//! synced in time, so that it bears the loss of power, shows in the order of its system calls only.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::chain::wait_for;

const CALLS: &str = "trace=write,writev,sendto,sendmsg,pwrite64,pwritev,pwritev2,fsync,fdatasync";
/// Bytes that are shown of what is said: more than a client gathers before it says it, so that nothing stands behind
/// them.
const STRING: &str = "65536";

/// An strace that looks on.
pub struct Trace {
    strace: Child,
    output: PathBuf,
}

impl Trace {
    /// Looks at a process and all its threads from now on.
    pub fn of(process: u32, folder: &Path) -> Self {
        let (output, log) = (folder.join("trace"), folder.join("strace.log"));
        let mut command = Command::new("strace");
        command.args(["-f", "-y", "-s", STRING, "-e", CALLS, "-p", &process.to_string(), "-o"]).arg(&output);
        let strace = command.stdin(Stdio::null()).stderr(File::create(&log).unwrap()).spawn().unwrap();
        wait_for("strace to look on", || fs::read_to_string(&log).unwrap().contains("attached"));
        Self { strace, output }
    }

    /// All that was seen.
    pub fn ends(mut self) -> Calls {
        kill(Pid::from_raw(i32::try_from(self.strace.id()).unwrap()), Signal::SIGTERM).unwrap();
        self.strace.wait().unwrap();
        Calls(fs::read_to_string(&self.output).unwrap())
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let _ = self.strace.kill();
        let _ = self.strace.wait();
    }
}

/// What strace has printed.
pub struct Calls(String);

/// How it stands with the files in the moment in which something is said.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Files {
    /// Written, and not synced since.
    pub unsynced: BTreeSet<String>,
    /// Seen written and then synced, at some time: whether or not they were written since.
    pub synced: BTreeSet<String>,
}

impl Calls {
    /// How it stands each time something was said: in a line of strace's that has this in it. Words to the broker are
    /// gathered, and may stand behind others.
    pub fn files_at(&self, said: &str) -> Vec<Files> {
        let (mut files, mut syncing, mut seen) = (Files::default(), BTreeMap::new(), Vec::new());
        for line in self.0.lines() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let call = call.trim_start();
            let is_sync = call.starts_with("fsync(") || call.starts_with("fdatasync(");
            if is_sync && call.ends_with("<unfinished ...>") {
                // What is written from now on is not what this sync is about.
                syncing.insert(thread, (path(call), files.unsynced.remove(path(call))));
            } else if is_sync && call.ends_with("= 0") {
                files.synced.extend(files.unsynced.take(path(call)));
            } else if call.starts_with("<... ") && call.contains("sync resumed>") {
                match syncing.remove(thread) {
                    Some((path, true)) if call.ends_with("= 0") => files.synced.insert(path.to_owned()),
                    Some((path, true)) => files.unsynced.insert(path.to_owned()),
                    _ => false,
                };
            } else if call.contains(said) {
                let mut now = files.clone();
                now.unsynced.extend(syncing.values().filter(|(_, wanted)| *wanted).map(|(path, _)| (*path).to_owned()));
                seen.push(now);
            } else if path(call).starts_with('/') {
                files.unsynced.insert(path(call).to_owned());
            }
        }
        seen
    }
}

/// The file of a call, as `-y` shows it.
fn path(call: &str) -> &str {
    let after = call.split_once('<').map_or("", |(_, after)| after);
    after.split_once('>').map_or("", |(path, _)| path)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files that were not synced, and those that were, each time it was said.
    #[track_caller]
    fn check(calls: &str, want: &[(&[&str], &[&str])]) {
        let seen = Calls(calls.to_owned()).files_at("\"250 ");
        let set = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        let want: Vec<_> = want.iter().map(|(not, are)| Files { unsynced: set(not), synced: set(are) }).collect();
        assert_eq!(seen, want);
    }

    const SAID: &str = "9 sendto(4<socket:[1]>, \"250 2.0.0 Ok\", 12, 0, NULL, 0) = 12\n";
    const WRITE: &str = "7 writev(5</j/1.mail>, [{iov_base=\"x\", iov_len=1}], 1) = 1\n";
    const BEGUN: &str = "7 fdatasync(5</j/1.mail> <unfinished ...>\n";
    const OVER: &str = "7 <... fdatasync resumed>) = 0\n";
    const FAILED: &str = "7 <... fdatasync resumed>) = -1 EIO (Input/output error)\n";
    const ONE: &[&str] = &["/j/1.mail"];

    #[test]
    fn what_is_said_before_the_sync_is_over() {
        check(SAID, &[(&[], &[])]);
        check(&format!("{WRITE}{SAID}"), &[(ONE, &[])]);
        check(&format!("{WRITE}7 fdatasync(5</j/1.mail>) = 0\n{SAID}"), &[(&[], ONE)]);
        check(&format!("{WRITE}7 fdatasync(5</j/1.mail>) = -1 EIO (Input/output error)\n{SAID}"), &[(ONE, &[])]);
        check(&format!("{WRITE}7 fsync(6</j/2.mail>) = 0\n{SAID}"), &[(ONE, &[])]);
        check(&[WRITE, BEGUN, SAID, OVER, SAID].concat(), &[(ONE, &[]), (&[], ONE)]);
        check(&[WRITE, BEGUN, FAILED, SAID].concat(), &[(ONE, &[])]);
        check(&[WRITE, BEGUN, OVER, WRITE, SAID].concat(), &[(ONE, ONE)]);
    }

    /// It was taken for synced: the sync ended after it.
    #[test]
    fn what_is_written_while_the_file_is_synced() {
        let other = WRITE.replacen('7', "8", 1);
        check(&[WRITE, BEGUN, &other, OVER, SAID].concat(), &[(ONE, ONE)]);
        check(&[BEGUN, SAID, FAILED, SAID].concat(), &[(&[], &[]), (&[], &[])]);
    }
}
