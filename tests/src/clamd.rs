//! A real clamd with a folder of its own: it is paused, killed, and made to forget what it knows.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::chain::{program, root, wait_for};
use crate::clients::eicar;

/// A real clamd that knows the EICAR test file.
pub struct Clamd {
    folder: TempDir,
    child: Child,
}

impl Clamd {
    pub fn start() -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), &root().join("ops/clamav"))
    }

    /// One whose database is sound, and does not know the EICAR test file.
    pub fn start_ignorant() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("database");
        fs::create_dir(&database).unwrap();
        fs::write(database.join("other.hdb"), format!("{}:68:Other\n", "0".repeat(32))).unwrap();
        Self::start_on(folder, &database)
    }

    fn start_on(folder: TempDir, database: &Path) -> Self {
        let socket = folder.path().join("clamd.sock");
        let settings = fs::read_to_string(root().join("ops/clamd.conf")).unwrap();
        let own = format!("LocalSocket {}\nDatabaseDirectory {}\nUser root\n", socket.display(), database.display());
        fs::write(folder.path().join("clamd.conf"), settings + &own).unwrap();
        let child = Self::spawn(folder.path());
        let clamd = Self { folder, child };
        clamd.wait();
        clamd
    }

    fn spawn(folder: &Path) -> Child {
        let log = File::create(folder.join("clamd.log")).unwrap();
        let mut command = Command::new(program("clamd"));
        command.arg("-c").arg(folder.join("clamd.conf")).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn wait(&self) {
        wait_for("clamd", || UnixStream::connect(self.socket()).is_ok());
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("clamd.sock")
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// It takes connections and answers nothing.
    pub fn pause(&self) {
        self.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// One that began ignorant has the EICAR signatures in its database from now on.
    pub fn learn(&self) {
        for name in ["eicar.hdb", "eicar.ndb"] {
            fs::copy(root().join("ops/clamav").join(name), self.folder.path().join("database").join(name)).unwrap();
        }
        self.signal(Signal::SIGUSR2);
    }

    /// And no longer.
    pub fn forget(&self) {
        for name in ["eicar.hdb", "eicar.ndb"] {
            fs::remove_file(self.folder.path().join("database").join(name)).unwrap();
        }
        self.signal(Signal::SIGUSR2);
    }

    /// Whether it finds the EICAR test file at this moment.
    pub fn knows(&self) -> bool {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let mail = eicar();
        let length = u32::try_from(mail.len()).unwrap().to_be_bytes();
        stream.write_all(&[&b"zINSTREAM\0"[..], &length, &mail, &[0; 4]].concat()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said.contains(" FOUND")
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // Its socket stays behind and refuses.
    }

    pub fn restart(&mut self) {
        self.child = Self::spawn(self.folder.path());
        self.wait();
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
