//! Other people's servers that take part in tests: Postfix as the sending MTA, rbldnsd as the DNS lists. Each has a
//! folder and ports of its own, runs in the foreground, and is gone when the test ends.

use std::fs;
use std::net::{TcpStream, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::chain::{free_port, program, wait_for};

/// A server with processes of its own. They are one process group, and when the test ends, all of it does: a shell
/// leads it, and reads from a pipe that is closed with the test, in whatever way that ends. Signals for the test's own
/// group do not come so far, and the kernel forgets to end with its parent who changes its user meanwhile, as Postfix
/// does.
pub(crate) struct Group(Child);

impl Group {
    pub(crate) fn start(server: &Command) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", "\"$@\" & read -r _; kill -KILL 0", "sh"]);
        command.arg(server.get_program()).args(server.get_args());
        command.envs(server.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let command = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}

/// A Postfix that relays everything to the gate, over STARTTLS only. Needs root: Postfix insists on users of its own.
pub struct Postfix {
    _processes: Group,
    folder: TempDir,
    /// Where it takes mail.
    pub port: u16,
}

impl Postfix {
    pub fn start(gate: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let path = folder.path().display();
        // What Postfix would improve in a mail is turned off: what is sent to it is what it sends. Its waits are those
        // of a test.
        let main = format!(
            "compatibility_level = 3.6\nqueue_directory = {path}/queue\ndata_directory = {path}/data\n\
             command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\nmail_owner = postfix\n\
             setgid_group = postdrop\nmyhostname = sender.example\nmydestination =\nlocal_recipient_maps =\n\
             alias_maps =\nalias_database =\ninet_interfaces = 127.0.0.1\ninet_protocols = ipv4\n\
             mynetworks = 127.0.0.0/8\nrelayhost = [127.0.0.1]:{gate}\ndisable_dns_lookups = yes\n\
             smtp_host_lookup = native\nsmtp_tls_security_level = encrypt\nsmtp_tls_loglevel = 1\n\
             smtp_line_length_limit = 0\nlocal_header_rewrite_clients =\nmessage_drop_headers =\n\
             disable_mime_output_conversion = yes\nmessage_size_limit = 30000000\nminimal_backoff_time = 1s\n\
             maximal_backoff_time = 2s\nqueue_run_delay = 1s\nsmtp_connection_cache_on_demand = no\n\
             smtp_destination_concurrency_failed_cohort_limit = 100000\ndestination_concurrency_feedback_debug = no\n\
             smtpd_client_connection_count_limit = 0\nmaillog_file_prefixes = {path}\nmaillog_file = {path}/log\n"
        );
        let mut services = format!("127.0.0.1:{port} inet n - n - - smtpd\npostlog unix-dgram n - n - 1 postlogd\n");
        for (name, kind, private, wakeup, most, daemon) in [
            ("pickup", "unix", "n", "60", "1", "pickup"),
            ("cleanup", "unix", "n", "-", "0", "cleanup"),
            ("qmgr", "unix", "n", "1", "1", "qmgr"),
            ("rewrite", "unix", "-", "-", "-", "trivial-rewrite"),
            ("bounce", "unix", "-", "-", "0", "bounce"),
            ("defer", "unix", "-", "-", "0", "bounce"),
            ("trace", "unix", "-", "-", "0", "bounce"),
            ("flush", "unix", "n", "1000", "0", "flush"),
            ("proxymap", "unix", "-", "-", "-", "proxymap"),
            ("smtp", "unix", "-", "-", "-", "smtp"),
            ("relay", "unix", "-", "-", "-", "smtp"),
            ("error", "unix", "-", "-", "-", "error"),
            ("retry", "unix", "-", "-", "-", "error"),
            ("discard", "unix", "-", "-", "-", "discard"),
            ("anvil", "unix", "-", "-", "1", "anvil"),
            ("scache", "unix", "-", "-", "1", "scache"),
            ("tlsmgr", "unix", "-", "1000", "1", "tlsmgr"),
        ] {
            services += &format!("{name} {kind} {private} - n {wakeup} {most} {daemon}\n");
        }
        fs::write(folder.path().join("main.cf"), main).unwrap();
        fs::write(folder.path().join("master.cf"), services).unwrap();
        open_to_all(folder.path());
        for name in ["queue", "data"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        let chown = Command::new("chown").args(["postfix", &format!("{path}/data")]).status().unwrap();
        assert!(chown.success(), "Postfix needs root and its own user: run as root after ops/setup --for test");
        let check = Command::new(program("postfix")).arg("-c").arg(folder.path()).arg("check").output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
        let mut command = Command::new("/usr/lib/postfix/sbin/master");
        command.arg("-c").arg(folder.path()).arg("-d").env("MAIL_CONFIG", folder.path());
        let postfix = Self { _processes: Group::start(&command), folder, port };
        wait_for("Postfix", || TcpStream::connect(("127.0.0.1", port)).is_ok());
        postfix
    }

    /// How many mails are in its queue.
    pub fn waiting(&self) -> usize {
        let queues = ["maildrop", "incoming", "active", "deferred", "hold"];
        queues.iter().map(|name| files(&self.folder.path().join("queue").join(name))).sum()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(10).collect();
            eprintln!("--- Postfix, last lines first\n{}", last.join("\n"));
        }
    }
}

fn files(folder: &Path) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { files(&entry.path()) } else { 1 }).sum()
}

/// Daemons with users of their own have to get into the folder.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A real list server with one zone for each name, each an `ip4set`.
pub struct Rbldnsd {
    _folder: TempDir,
    child: Child,
    pub port: u16,
}

impl Rbldnsd {
    /// `zones` are names with their data: lines like `:127.0.0.2:Why` and addresses.
    pub fn start(zones: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        let port = free_port();
        let mut command = Command::new(program("rbldnsd"));
        command.args(["-n", "-q", "-u", "nobody", "-w"]).arg(folder.path()).args(["-b", &format!("127.0.0.1/{port}")]);
        for (zone, data) in zones {
            fs::write(folder.path().join(zone), data).unwrap();
            command.arg(format!("{zone}:ip4set:{zone}"));
        }
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { _folder: folder, child, port };
        wait_for("rbldnsd", || server.answers());
        server
    }

    /// Whether it answers a question at all: for the root, which it refuses.
    fn answers(&self) -> bool {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).unwrap();
        let question = [0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1];
        let _ = socket.send_to(&question, ("127.0.0.1", self.port));
        socket.recv(&mut [0; 512]).is_ok()
    }
}

impl Drop for Rbldnsd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A test that took too long was ended, and its Postfix went on for ever.
    #[test]
    fn a_group_ends_with_the_pipe_of_its_test() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Command::new("sh");
        server.args(["-c", "sleep 1000 & touch \"$HERE/begun\"; wait"]).env("HERE", folder.path());
        let mut group = Group::start(&server);
        wait_for("the server", || folder.path().join("begun").exists());
        let leader = Pid::from_raw(i32::try_from(group.0.id()).unwrap());
        assert!(killpg(leader, None).is_ok(), "it goes on");
        drop(group.0.stdin.take());
        group.0.wait().unwrap();
        wait_for("all of it to end", || killpg(leader, None).is_err());
    }
}
