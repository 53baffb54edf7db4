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
        command.args(["-f", "-y", "-s", "200", "-e", CALLS, "-p", &process.to_string(), "-o"]).arg(&output);
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

impl Calls {
    /// Each time something was said that begins like this: the files that were written and not yet synced.
    pub fn unsynced_at(&self, said: &str) -> Vec<BTreeSet<String>> {
        let said = format!("\"{said}");
        let (mut unsynced, mut syncing, mut seen) = (BTreeSet::new(), BTreeMap::new(), Vec::new());
        for line in self.0.lines() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let call = call.trim_start();
            let is_sync = call.starts_with("fsync(") || call.starts_with("fdatasync(");
            if is_sync && call.ends_with("<unfinished ...>") {
                syncing.insert(thread, path(call));
            } else if is_sync && call.ends_with("= 0") {
                unsynced.remove(path(call));
            } else if call.starts_with("<... ") && call.contains("sync resumed>") {
                let synced = syncing.remove(thread).filter(|_| call.ends_with("= 0"));
                synced.map(|path| unsynced.remove(path));
            } else if call.contains(&said) {
                seen.push(unsynced.clone());
            } else if path(call).starts_with('/') {
                unsynced.insert(path(call).to_owned());
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

    #[track_caller]
    fn check(calls: &str, want: &[&[&str]]) {
        let seen = Calls(calls.to_owned()).unsynced_at("250 ");
        let want: Vec<BTreeSet<String>> =
            want.iter().map(|paths| paths.iter().map(|path| (*path).to_owned()).collect()).collect();
        assert_eq!(seen, want);
    }

    #[test]
    fn what_is_said_before_the_sync_is_over() {
        let said = "9 sendto(4<socket:[1]>, \"250 2.0.0 Ok\", 12, 0, NULL, 0) = 12\n";
        let write = "7 writev(5</j/1.mail>, [{iov_base=\"x\", iov_len=1}], 1) = 1\n";
        check(said, &[&[]]);
        check(&format!("{write}{said}"), &[&["/j/1.mail"]]);
        check(&format!("{write}7 fdatasync(5</j/1.mail>) = 0\n{said}"), &[&[]]);
        check(&format!("{write}7 fdatasync(5</j/1.mail>) = -1 EIO (Input/output error)\n{said}"), &[&["/j/1.mail"]]);
        check(&format!("{write}7 fsync(6</j/2.mail>) = 0\n{said}"), &[&["/j/1.mail"]]);
        let begun = format!("{write}7 fdatasync(5</j/1.mail> <unfinished ...>\n");
        let over = "7 <... fdatasync resumed>) = 0\n";
        check(&format!("{begun}{said}{over}{said}"), &[&["/j/1.mail"], &[]]);
        check(&format!("{begun}7 <... fdatasync resumed>) = -1 EIO (Input/output error)\n{said}"), &[&["/j/1.mail"]]);
        check(&format!("{begun}{over}{write}{said}"), &[&["/j/1.mail"]]);
    }
}
