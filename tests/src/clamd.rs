//! A real clamd with a folder of its own: it is paused, killed, made to forget what it knows, and left without room.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use nix::sys::signal::{Signal, kill};
use nix::sys::statvfs::statvfs;
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::chain::{program, root, wait_for};
use crate::clients::eicar;

/// A real clamd that knows the EICAR test file.
pub struct Clamd {
    folder: TempDir,
    /// Where it unpacks: in memory where there is some, as operators have it.
    temporary: TempDir,
    /// How much fits there, like `1m`, if that is a disk of its own.
    room: Option<&'static str>,
    child: Child,
}

impl Clamd {
    pub fn start() -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), &root().join("ops/clamav"), None)
    }

    /// One that unpacks on a tmpfs that holds no more than `size`, like `1m`.
    pub fn start_with_room(size: &'static str) -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), &root().join("ops/clamav"), Some(size))
    }

    /// One whose database is sound, and does not know the EICAR test file.
    pub fn start_ignorant() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("database");
        fs::create_dir(&database).unwrap();
        fs::write(database.join("other.hdb"), format!("{}:68:Other\n", "0".repeat(32))).unwrap();
        Self::start_on(folder, &database, None)
    }

    fn start_on(folder: TempDir, database: &Path, room: Option<&'static str>) -> Self {
        let temporary = if has_room(MEMORY) { tempfile::tempdir_in(MEMORY) } else { tempfile::tempdir() }.unwrap();
        let socket = folder.path().join("clamd.sock");
        let settings = fs::read_to_string(root().join("ops/clamd.conf")).unwrap();
        let own = format!(
            "LocalSocket {}\nDatabaseDirectory {}\nTemporaryDirectory {}\n",
            socket.display(),
            database.display(),
            temporary.path().display()
        );
        fs::write(folder.path().join("clamd.conf"), settings + &own).unwrap();
        let child = Self::spawn(folder.path(), temporary.path(), room);
        let clamd = Self { folder, temporary, room, child };
        clamd.wait();
        clamd
    }

    fn spawn(folder: &Path, temporary: &Path, room: Option<&'static str>) -> Child {
        let log = File::create(folder.join("clamd.log")).unwrap();
        let mut command = match room {
            Some(size) => within_small_disk(temporary, size),
            None => Command::new(program("clamd")),
        };
        command.arg("-c").arg(folder.join("clamd.conf")).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
    }

    fn wait(&self) {
        wait_for("clamd", || UnixStream::connect(self.socket()).is_ok());
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("clamd.sock")
    }

    /// Where it unpacks, as others see it.
    pub fn temporary(&self) -> PathBuf {
        let seen = self.temporary.path();
        match self.room {
            Some(_) => Path::new(&format!("/proc/{}/root", self.child.id())).join(seen.strip_prefix("/").unwrap()),
            None => seen.to_owned(),
        }
    }

    /// Makes the disk larger on which it unpacks.
    pub fn enlarge(&self, size: &str) {
        let (process, option) = (self.child.id().to_string(), format!("remount,size={size}"));
        let mut command = Command::new("nsenter");
        command.args(["--target", &process, "--mount", "mount", "-o", &option]).arg(self.temporary.path());
        assert!(command.status().unwrap().success());
    }

    /// What it says about a mail.
    pub fn says(&self, mail: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.socket()).unwrap();
        let length = u32::try_from(mail.len()).unwrap().to_be_bytes();
        stream.write_all(&[&b"zINSTREAM\0"[..], &length, mail, &[0; 4]].concat()).unwrap();
        let mut said = String::new();
        stream.read_to_string(&mut said).unwrap();
        said
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
        self.says(&eicar()).contains(" FOUND")
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // Its socket stays behind and refuses.
    }

    pub fn restart(&mut self) {
        self.child = Self::spawn(self.folder.path(), self.temporary.path(), self.room);
        self.wait();
    }
}

/// The tmpfs of every Linux, and whether clamd has room there: what it takes at most, and what must stay free.
const MEMORY: &str = "/dev/shm";

fn has_room(folder: &str) -> bool {
    statvfs(folder).is_ok_and(|disk| disk.blocks_available() * disk.fragment_size() >= 1 << 30)
}

/// clamd in a mount namespace of its own, where it unpacks on a small tmpfs.
fn within_small_disk(folder: &Path, size: &str) -> Command {
    let mount = format!("mount -t tmpfs -o size={size} none {} && exec \"$0\" \"$@\"", folder.display());
    let mut command = Command::new("unshare");
    command.args(["--map-root-user", "--mount", "sh", "-c", &mount]).arg(program("clamd"));
    command
}

impl Drop for Clamd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
