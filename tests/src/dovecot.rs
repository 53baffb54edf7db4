//! Dovecot as the server that imaptest's scripts were written for: it shows that our interpreter of them can say yes.
//! It has a folder and a port of its own, takes every user with any password, and is gone when the test ends.

use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tempfile::TempDir;

use crate::chain::{free_port, program, wait_for};
use crate::servers::Group;

/// A running Dovecot. Needs root: its parts run as users of their own.
pub struct Dovecot {
    _processes: Group,
    folder: TempDir,
    pub imap: u16,
}

impl Dovecot {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let imap = free_port();
        let path = folder.path().display();
        // Mail belongs to `nobody`, and all connections come from one address. Without the index of its mailboxes,
        // which sessions that create and select at the same time lock in different orders: the kernel finds the
        // deadlock (EDEADLK), and Dovecot ends the session that meets it.
        let settings = format!(
            "base_dir = {path}/run\nstate_dir = {path}/state\nlog_path = {path}/log\nprotocols = imap\n\
             listen = 127.0.0.1\nssl = no\ndisable_plaintext_auth = no\nfirst_valid_uid = 0\n\
             mail_location = sdbox:~/sdbox\nmail_uid = nobody\nmail_gid = nogroup\nmail_max_userip_connections = 0\n\
             mailbox_list_index = no\n\
             passdb {{\n  driver = static\n  args = nopassword=y\n}}\n\
             userdb {{\n  driver = static\n  args = home={path}/mail/%u\n}}\n\
             service imap-login {{\n  chroot =\n  inet_listener imap {{\n    port = {imap}\n  }}\n  \
             inet_listener imaps {{\n    port = 0\n  }}\n}}\n"
        );
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for (name, mode) in [("run", 0o755), ("state", 0o755), ("mail", 0o777)] {
            fs::create_dir(folder.path().join(name)).unwrap();
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        fs::write(folder.path().join("dovecot.conf"), settings).unwrap();
        let mut command = Command::new(program("dovecot"));
        command.arg("-F").arg("-c").arg(folder.path().join("dovecot.conf"));
        let dovecot = Self { _processes: Group::start(&command), folder, imap };
        wait_for("Dovecot", || TcpStream::connect(("127.0.0.1", imap)).is_ok());
        dovecot
    }

    /// Whether a process of Dovecot's has ended itself because it found a mistake of its own.
    pub fn panicked(&self) -> bool {
        self.log().contains(" Panic: ")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let last: Vec<&str> = log.lines().rev().take(10).collect();
            eprintln!("--- Dovecot, last lines first\n{}", last.join("\n"));
        }
    }
}
