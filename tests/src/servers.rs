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

/// A Postfix that relays everything to the gate, over STARTTLS only. Needs root: Postfix insists on users of its own.
pub struct Postfix {
    folder: TempDir,
    master: Child,
    /// Where it takes mail.
    pub port: u16,
}

impl Postfix {
    pub fn start(gate: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let path = folder.path().display();
        // What Postfix would improve in a mail is turned off: what is sent to it is what it sends. Its waits are those of
        // a test.
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
        // master leads a process group of its own; when the test ends, all of it does.
        let master = command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let master = master.spawn().unwrap();
        let postfix = Self { folder, master, port };
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
        let _ = killpg(Pid::from_raw(i32::try_from(self.master.id()).unwrap()), Signal::SIGKILL);
        let _ = self.master.wait();
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
