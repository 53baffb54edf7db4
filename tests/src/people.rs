//! What people read their mail with: fetchmail, getmail, mbsync, mutt, curl, Python's imaplib and imapflow. Each has a
//! folder of its own for its configuration and for what it fetched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::chain::Chain;
use crate::clients::Smtp;

/// A person with an account and a folder.
pub struct Person {
    folder: TempDir,
}

impl Default for Person {
    fn default() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }
}

impl Person {
    /// The address of everybody here.
    pub const ADDRESS: &str = "alice@example.org";
    pub const PASSWORD: &str = "chainmail";

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file that nobody else may read: most programs insist on it for their configuration.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path
    }

    /// Makes a path in the folder somebody else's.
    pub fn give(&self, path: &Path, user: &str) {
        assert!(Command::new("chown").arg(user).arg(path).status().unwrap().success(), "run as root");
    }

    /// Runs a program in the folder, which is also its home.
    pub fn run(&self, program: &Path, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(self.folder.path()).env("HOME", self.folder.path());
        command.env("FETCHMAILHOME", self.folder.path()).stdin(Stdio::null()).output().unwrap()
    }

    /// The same, where it has to succeed. Gives what it printed.
    #[track_caller]
    pub fn must(&self, program: &Path, arguments: &[&str]) -> String {
        let done = self.run(program, arguments);
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "{}: {}\n{out}\n{err}", program.display(), done.status);
        out.into_owned()
    }

    /// The mails in a folder of files, by the subject of each, with the files' names.
    pub fn mails(&self, folder: &str) -> BTreeMap<String, (String, String)> {
        let Ok(entries) = fs::read_dir(self.path(folder)) else { return BTreeMap::new() };
        let mails = entries.map(|entry| {
            let path = entry.unwrap().path();
            let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (subject(&text), (name, text))
        });
        mails.collect()
    }

    /// The subjects in a folder of files, in order.
    pub fn subjects(&self, folder: &str) -> Vec<String> {
        self.mails(folder).into_keys().collect()
    }

    /// A maildir's mails in `new` and `cur`: the subject, and its flags as the file's name has them.
    pub fn maildir(&self, folder: &str) -> BTreeMap<String, String> {
        let flags = |name: &str| name.rsplit_once(":2,").map_or_else(String::new, |(_, flags)| flags.to_owned());
        let parts = ["new", "cur"].map(|part| self.mails(&format!("{folder}/{part}")));
        parts.into_iter().flatten().map(|(subject, (name, _))| (subject, flags(&name))).collect()
    }
}

/// The subject of a mail.
pub fn subject(text: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap_or_else(|| panic!("no subject: {text}")).to_owned()
}

/// A mail with this subject.
pub fn mail(subject: &str) -> String {
    format!(
        "From: Bob <bob@sender.example>\r\nTo: {}\r\nSubject: {subject}\r\nDate: Tue, 24 Nov 2026 12:00:00 +0000\r\n\
         Message-ID: <{subject}@sender.example>\r\n\r\nHello from {subject}\r\n.\r\nFrom here on\r\n",
        Person::ADDRESS
    )
}

/// Sends mails with these subjects through the whole chain, in this order.
pub fn send(chain: &Chain, subjects: &[&str]) {
    let mut smtp = Smtp::connect(chain);
    for subject in subjects {
        let reply = smtp.send("bob@sender.example", &[Person::ADDRESS], mail(subject).as_bytes());
        assert!(reply.starts_with("250 "), "{reply}");
        // One after the other, so that their numbers are known.
        chain.settles();
    }
}
