//! The load generator as another program against a chain.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::chain::{Chain, chainmail};

fn binary() -> PathBuf {
    let binary = chainmail().with_file_name("loadgen");
    assert!(binary.is_file(), "{} is not there: run cargo build -p loadgen", binary.display());
    binary
}

fn command(chain: &Chain, arguments: &[&str], patience: &str) -> Command {
    let mut command = Command::new(binary());
    command.current_dir(chain.folder()).args(arguments).args(["--json", "--quarantine", "quarantine@example.org"]);
    command.args(["--imap", &format!("127.0.0.1:{}", chain.imap), "--settle", patience]);
    command
}

/// A run that goes on while things are done to the chain. It is killed when the test ends.
pub struct Running(Option<Child>, PathBuf);

impl Running {
    /// Begins to send to so many people, and whatever else is given.
    pub fn start(chain: &Chain, arguments: &[&str]) -> Self {
        let told = chain.folder().join("loadgen.json");
        let mut command = command(chain, &[&["run"], arguments].concat(), "60s");
        command.args(["--smtp", &format!("127.0.0.1:{}", chain.smtp)]);
        let child = command.stdin(Stdio::null()).stdout(File::create(&told).unwrap()).spawn().unwrap();
        Self(Some(child), told)
    }

    /// Tells it to begin no more mails, as ctrl-C does: it waits for the last words, and reads back.
    pub fn interrupt(&self) {
        let child = self.0.as_ref().unwrap();
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    }

    /// Waits for its end: whether it found the chain true to its word, and what it told.
    pub fn end(mut self) -> (bool, Value) {
        let ended = self.0.take().unwrap().wait().unwrap();
        let told = std::fs::read_to_string(&self.1).unwrap();
        (ended.success(), serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}")))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Reads back what a run with this ledger has sent: whether all is as it was said, and what was found. Of a chain that
/// has settled: nothing is on its way.
pub fn verify(chain: &Chain, ledger: &str) -> (bool, Value) {
    told(&mut command(chain, &["verify", ledger], "2s"))
}

/// The same, over POP3.
pub fn verify_over_pop3(chain: &Chain, ledger: &str) -> (bool, Value) {
    let mut command = Command::new(binary());
    command.current_dir(chain.folder()).args(["verify", ledger, "--json", "--settle", "2s"]);
    command.args(["--quarantine", "quarantine@example.org", "--pop3", &format!("127.0.0.1:{}", chain.pop3)]);
    told(&mut command)
}

fn told(command: &mut Command) -> (bool, Value) {
    let done = command.output().unwrap();
    let error = String::from_utf8_lossy(&done.stderr);
    (done.status.success(), serde_json::from_slice(&done.stdout).unwrap_or_else(|_| panic!("{error}")))
}

/// The lines for `chainmail account import`.
pub fn accounts(count: u32) -> String {
    let done = Command::new(binary()).args(["accounts", &count.to_string()]).output().unwrap();
    String::from_utf8(done.stdout).unwrap()
}
