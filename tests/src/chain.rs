//! A chain of real programs, each with its own ports and its own folder, all gone when the test ends.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

pub use crate::clamd::Clamd;
use crate::clients;
pub use crate::ports::free_port;

/// The stages, each of which can be a process by itself.
pub const PARTS: [&str; 6] = ["gate", "accept", "score", "scan", "deliver", "store"];

/// How long anything may take to start, or to come right again.
const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until a condition holds. The only place that sleeps between looks.
pub fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The project's folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A program on the PATH, or among those that ops/setup has fetched.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([root().join("var/bin"), "/usr/sbin".into()]);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not installed: run ops/setup --for test"))
}

/// The binary under test lies beside the tests' own folder.
pub fn chainmail() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let binary = own.parent().and_then(Path::parent).unwrap().join("chainmail");
    assert!(binary.is_file(), "{} is not there: run cargo build -p chainmail", binary.display());
    binary
}

/// The programs of a chain.
pub struct Chain {
    folder: TempDir,
    children: BTreeMap<&'static str, Vec<Child>>,
    /// A folder that is a disk of its own, and what it holds at most.
    small_disk: Option<(&'static str, &'static str)>,
    pub smtp: u16,
    pub pop3: u16,
    pub imap: u16,
    nats: u16,
    admin: u16,
}

fn set(settings: &mut Value, pointer: &str, value: &Value) {
    let (section, key) = pointer.rsplit_once('/').unwrap();
    settings.pointer_mut(section).unwrap()[key] = value.clone();
}

impl Chain {
    /// The whole chain with its own broker, not started yet.
    pub fn prepare(clamd: &Clamd, different: &[(&str, Value)]) -> Self {
        Self::new(clamd, true, different)
    }

    /// All stages in one process, with its own broker.
    pub fn start_all(clamd: &Clamd) -> Self {
        Self::start_all_with(clamd, &[])
    }

    /// The same, with settings that differ: each a JSON pointer into the configuration, and the value.
    pub fn start_all_with(clamd: &Clamd, different: &[(&str, Value)]) -> Self {
        let mut chain = Self::new(clamd, true, different);
        chain.start("all");
        chain
    }

    /// The same, with a journal on a disk of its own that holds no more than `size`, like `8m`.
    pub fn start_all_on_small_disk(clamd: &Clamd, size: &'static str, different: &[(&str, Value)]) -> Self {
        Self::start_all_with_small_disk(clamd, "var/journal", size, different)
    }

    /// The same, with a disk of its own for any folder.
    pub fn start_all_with_small_disk(
        clamd: &Clamd,
        folder: &'static str,
        size: &'static str,
        different: &[(&str, Value)],
    ) -> Self {
        let mut chain = Self::new(clamd, true, different);
        chain.small_disk = Some((folder, size));
        chain.start("all");
        chain
    }

    /// A process for each stage, and the broker beside them.
    pub fn start_parts(clamd: &Clamd) -> Self {
        Self::start_parts_with(clamd, &[])
    }

    /// The same, with settings that differ.
    pub fn start_parts_with(clamd: &Clamd, different: &[(&str, Value)]) -> Self {
        // The accounts are those of a first run, which is made by the whole chain.
        let mut chain = Self::new(clamd, false, different);
        chain.start("nats");
        chain.start("all");
        chain.stop("all");
        for part in PARTS {
            chain.start(part);
        }
        chain
    }

    fn new(clamd: &Clamd, embedded: bool, different: &[(&str, Value)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [smtp, accept, pop3, imap, nats, admin] = std::array::from_fn(|_| free_port());
        let at = |port: u16| format!("127.0.0.1:{port}");
        let mut settings = json!({
            "broker": {"url": format!("nats://127.0.0.1:{nats}"), "embedded": embedded},
            "admin": {"listen": at(admin)},
            "stages": {
                "gate": {"listen": [at(smtp)], "accept": [at(accept)], "per_address": 1000},
                "accept": {"listen": [at(accept)], "verdict_wait": "3s", "journal": {}},
                // Nobody answers there: DNS is never asked for real.
                "score": {"resolver": "127.0.0.1:9", "deadline": "20ms"},
                "scan": {
                    "clamd": format!("unix:{}", clamd.socket().display()),
                    "temporary": clamd.temporary(),
                    "deadline": "5s",
                    "work": {"backoff_first": "200ms", "backoff_most": "1s"},
                },
                "store": {"imap": [at(imap)], "imaps": [], "pop3": [at(pop3)], "pop3s": []},
            },
        });
        different.iter().for_each(|(pointer, value)| set(&mut settings, pointer, value));
        fs::write(folder.path().join("pipeline.yaml"), settings.to_string()).unwrap();
        Self { folder, children: BTreeMap::new(), small_disk: None, smtp, pop3, imap, nats, admin }
    }

    fn settings(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.folder.path().join("pipeline.yaml")).unwrap()).unwrap()
    }

    /// Tells the gate of one more accept node.
    pub fn add_accept(&self, port: u16) {
        let mut nodes = self.settings()["stages"]["gate"]["accept"].clone();
        nodes.as_array_mut().unwrap().push(json!(format!("127.0.0.1:{port}")));
        self.change("/stages/gate/accept", &nodes);
    }

    /// Changes the configuration that parts read when they are started.
    pub fn change(&self, pointer: &str, value: &Value) {
        let mut settings = self.settings();
        set(&mut settings, pointer, value);
        fs::write(self.folder.path().join("pipeline.yaml"), settings.to_string()).unwrap();
    }

    /// Starts a part as another node, with settings of its own.
    pub fn start_node(&mut self, part: &'static str, node: &str, different: &[(&str, Value)]) {
        let mut settings = self.settings();
        settings["node"] = json!(node);
        settings["stages"]["accept"]["journal"]["folder"] = json!(format!("var/journal-{node}"));
        different.iter().for_each(|(pointer, value)| set(&mut settings, pointer, value));
        let file = format!("{node}.yaml");
        fs::write(self.folder.path().join(&file), settings.to_string()).unwrap();
        self.spawn(part, &["--config", &file]);
    }

    /// Starts a part and waits until it is there.
    pub fn start(&mut self, part: &'static str) {
        self.start_again(part);
        match part {
            "nats" => wait_for("nats-server", || TcpStream::connect(("127.0.0.1", self.nats)).is_ok()),
            "all" => wait_for("/ready", || self.ready().starts_with("HTTP/1.1 200")),
            "store" => wait_for("the store", || TcpStream::connect(("127.0.0.1", self.pop3)).is_ok()),
            _ => {}
        }
    }

    /// Starts one more process of a part.
    pub fn start_again(&mut self, part: &'static str) {
        self.spawn(part, &[]);
    }

    fn spawn(&mut self, part: &'static str, options: &[&str]) {
        let log =
            File::options().append(true).create(true).open(self.folder.path().join(format!("{part}.log"))).unwrap();
        let mut command = if part == "nats" {
            // Without a bound of its own it counts the streams' bounds against the disk's free space.
            let store = self.folder.path().join("broker");
            let settings = format!("jetstream {{ store_dir: {store:?}, max_file_store: 1TB }}");
            fs::write(self.folder.path().join("nats.conf"), settings).unwrap();
            let mut command = Command::new(program("nats-server"));
            command.args(["-a", "127.0.0.1", "-p", &self.nats.to_string(), "-c", "nats.conf"]);
            command
        } else {
            let mut command = self.chainmail_command();
            command.args(options).args(["run", part]);
            if part != "all" {
                command.args(["--admin", "127.0.0.1:0"]);
            }
            command.env("PATH", path_with_programs());
            command
        };
        let command = command.current_dir(self.folder.path()).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.children.entry(part).or_default().push(child);
    }

    /// The binary under test; where a folder is a small disk, in a mount namespace of its own.
    fn chainmail_command(&self) -> Command {
        let Some((folder, size)) = self.small_disk else { return Command::new(chainmail()) };
        fs::create_dir_all(self.folder.path().join(folder)).unwrap();
        let mount = format!("mount -t tmpfs -o size={size} none {folder} && exec \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--mount", "sh", "-c", &mount]).arg(chainmail());
        command
    }

    /// A path as the first process of a part sees it.
    pub fn path_within(&self, part: &str, path: &str) -> PathBuf {
        let process = self.children[part][0].id();
        Path::new(&format!("/proc/{process}/root")).join(self.folder.path().strip_prefix("/").unwrap()).join(path)
    }

    /// What the whole chain answers to `/ready`.
    pub fn ready(&self) -> String {
        clients::http(self.admin, "/ready")
    }

    /// The memory that the first process of a part has, in bytes.
    pub fn memory(&self, part: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.children[part][0].id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }

    /// The number of the first process of a part.
    pub fn process(&self, part: &str) -> u32 {
        self.children[part][0].id()
    }

    /// The folder in which the chain runs.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Kills the first process of a part, without a word.
    pub fn kill(&mut self, part: &str) {
        let mut child = self.children.get_mut(part).unwrap().remove(0);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Stops the first process of a part, or has it go on.
    pub fn signal(&self, part: &str, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.children[part][0].id()).unwrap()), signal).unwrap();
    }

    /// Asks a part to end, and waits until it has.
    pub fn stop(&mut self, part: &str) {
        let mut child = self.children.get_mut(part).unwrap().remove(0);
        kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let ended = child.wait().unwrap();
        assert!(ended.success(), "{part} did not end cleanly: {ended}\n{}", self.log(part));
    }

    /// Deletes everything that the broker has on its disk, whether it runs or not.
    pub fn wipe_broker(&self) {
        for folder in ["broker", "var/nats/jetstream"].map(|folder| self.folder.path().join(folder)) {
            // What it writes at this moment may come in between.
            wait_for("the broker's folder to go", || !folder.exists() || fs::remove_dir_all(&folder).is_ok());
        }
    }

    /// Deletes one of the broker's streams under everybody's hands.
    pub fn delete_stream(&self, name: &str) {
        self.publish(&format!("$JS.API.STREAM.DELETE.{name}"), "");
    }

    /// Says something to the broker.
    pub fn publish(&self, subject: &str, what: &str) {
        let mut broker = TcpStream::connect(("127.0.0.1", self.nats)).unwrap();
        broker.set_read_timeout(Some(PATIENCE)).unwrap();
        let said = format!("CONNECT {{}}\r\nPUB {subject} {}\r\n{what}\r\nPING\r\n", what.len());
        std::io::Write::write_all(&mut broker, said.as_bytes()).unwrap();
        let lines = std::io::BufRead::lines(std::io::BufReader::new(broker));
        assert!(lines.map_while(Result::ok).any(|line| line == "PONG"), "the broker did not hear it");
    }

    pub fn log(&self, part: &str) -> String {
        fs::read_to_string(self.folder.path().join(format!("{part}.log"))).unwrap_or_default()
    }

    /// What a command of the operator's prints.
    pub fn command(&self, arguments: &[&str]) -> String {
        let done = Command::new(chainmail()).args(arguments).current_dir(self.folder.path()).output().unwrap();
        let error = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "{arguments:?}: {error}");
        String::from_utf8(done.stdout).unwrap()
    }

    /// The same, with something on its standard input.
    pub fn command_with(&self, arguments: &[&str], input: &str) -> String {
        self.attempt(arguments, input).unwrap_or_else(|| panic!("{arguments:?}"))
    }

    /// The same, if it succeeds.
    pub fn attempt(&self, arguments: &[&str], input: &str) -> Option<String> {
        let mut command = Command::new(chainmail());
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        std::io::Write::write_all(&mut child.stdin.take().unwrap(), input.as_bytes()).unwrap();
        let done = child.wait_with_output().unwrap();
        done.status.success().then(|| String::from_utf8(done.stdout).unwrap())
    }

    fn status(&self) -> Option<Value> {
        let mut command = Command::new(chainmail());
        let done = command.args(["status", "--json"]).current_dir(self.folder.path()).output().unwrap();
        done.status.success().then(|| serde_json::from_slice(&done.stdout).unwrap())
    }

    /// Waits until nothing is on its way any more, and no copy of what has ended either.
    pub fn settles(&self) {
        wait_for("the books to settle", || {
            self.status().is_some_and(|status| status["in_flight"] == 0 && status["balanced"] == true)
        });
        wait_for("the streams to run empty", || {
            self.status().is_some_and(|status| status["stages"].as_object().unwrap().values().all(is_idle))
        });
    }

    /// Checks the books: these counts, and that they balance.
    #[track_caller]
    pub fn books(&self, want: &[(&str, u64)]) {
        // Who is asked has little time to answer: on a busy machine not all do, and then the books are not known in
        // full.
        let mut known = None;
        wait_for("the books to be known", || {
            known = self.status();
            known.is_some()
        });
        let status = known.unwrap();
        assert_eq!(status["balanced"], true, "{status}");
        for (name, count) in want {
            assert_eq!(status[name], *count, "{name} in {status}");
        }
    }

    /// Every message of an account, read over POP3.
    pub fn read(&self, user: &str) -> Vec<Vec<u8>> {
        clients::maildrop(self.pop3, user, "chainmail")
    }
}

/// Whether nothing waits for a stage. Where the broker does not have its stream, that is not known: it may be made anew
/// and filled in the next moment.
fn is_idle(stage: &Value) -> bool {
    stage["waiting"] == 0
}

impl Drop for Chain {
    fn drop(&mut self) {
        let status = std::thread::panicking().then(|| self.status());
        for child in self.children.values_mut().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            for part in self.children.keys() {
                let log = self.log(part);
                let last: Vec<&str> = log.lines().rev().filter(|line| !line.contains(" INFO ")).take(15).collect();
                eprintln!("--- {part}, last lines first\n{}", last.join("\n"));
            }
            eprintln!("--- status\n{}", status.flatten().unwrap_or_default());
        }
    }
}

fn path_with_programs() -> std::ffi::OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths([root().join("var/bin")].into_iter().chain(std::env::split_paths(&path))).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream that was missing counted as one in which nothing waits.
    #[test]
    fn who_is_not_known_is_not_idle() {
        for (stage, want) in [
            (json!({"waiting": 0}), true),
            (json!({"waiting": 1}), false),
            (json!({"waiting": null}), false),
            (json!({"workers": 8}), false),
        ] {
            assert_eq!(is_idle(&stage), want, "{stage}");
        }
    }
}
