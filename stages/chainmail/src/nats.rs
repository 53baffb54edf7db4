//! The nats-server of `run all`: a child process, started anew when it ends, and gone with its parent.
//!
//! It is watched, too: once its disk was full, a stream stays shut until the server is started again, so that is done
//! as soon as there is room. A server that an operator runs is left alone; `/ready` says what is wrong with it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use runtime::admin::Readiness;
use runtime::broker::Broker;
use runtime::health::Trouble;
use runtime::tasks::Tasks;
use runtime::{telemetry, version};

use crate::config::Config;

/// A server that ends sooner than this is started again only after a pause.
const HEALTHY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
/// How long it may take to end.
const GRACE: Duration = Duration::from_secs(10);
/// How often the broker is looked at.
const PROBE: Duration = Duration::from_secs(1);
/// Between two restarts of a server that takes nothing. It may have a large store to read before it takes anything
/// again. Twice as long each time that it did not help: a server that is merely slow gets slower by them.
const BETWEEN_RESTARTS: Duration = Duration::from_secs(20);
const BETWEEN_RESTARTS_MOST: Duration = Duration::from_secs(900);
/// For so long after its disk was full one sign that a server takes nothing is enough.
const AFTER_FULL: Duration = Duration::from_secs(300);
/// With less room than this on its disk a server that takes nothing is not started again: it would be shut again at
/// once.
const LEAST_ROOM: u64 = 16 << 20;

/// The child, as long as it is wanted.
pub(crate) struct NatsServer {
    child: Child,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// Which process was told to end, when, and for how long no other is.
#[derive(Clone, Copy)]
struct Told {
    pid: u32,
    at: Instant,
    wait: Duration,
}

/// What can be done to the child from outside its thread.
#[derive(Clone)]
pub(crate) struct Child {
    wanted: Arc<AtomicBool>,
    pid: Arc<AtomicU32>,
    /// Where its streams are.
    folder: PathBuf,
}

impl NatsServer {
    /// Starts the server at the configured address, with its files under `var`.
    ///
    /// # Errors
    /// When there is no nats-server, or the address is not one on this machine.
    pub(crate) fn start(config: &Config) -> anyhow::Result<Self> {
        let program = program(config)?;
        let settings = write_settings(config)?;
        let (wanted, pid) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
        let child = Child { wanted, pid, folder: folder(config) };
        let theirs = child.clone();
        let keep = move || keep_running(&program, &settings, &theirs.wanted, &theirs.pid);
        let thread = std::thread::Builder::new().name("nats-server".into()).spawn(keep)?;
        Ok(Self { child, thread: Some(thread) })
    }

    /// The child, for who watches it.
    pub(crate) fn child(&self) -> Child {
        self.child.clone()
    }

    /// Ends the server and waits for that.
    pub(crate) fn stop(mut self) {
        self.child.wanted.store(false, Ordering::Release);
        self.child.signal(Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !thread.is_finished() {
            self.child.signal(Signal::SIGKILL);
        }
    }
}

impl Child {
    fn signal(&self, signal: Signal) {
        let pid = self.pid.load(Ordering::Acquire);
        if let Ok(pid @ 1..) = i32::try_from(pid) {
            // It may have ended by itself at this moment.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// How many bytes its disk has left; none when that cannot be found out.
    fn room(&self) -> u64 {
        let Ok(disk) = nix::sys::statvfs::statvfs(&self.folder) else { return 0 };
        disk.blocks_available().saturating_mul(disk.fragment_size())
    }

    /// Ends the server, so that it is started again, if that helps and was not done just now. Says whether it did.
    fn mend(&self, trouble: &Trouble, told: &mut Option<Told>) -> bool {
        let is_early = told.is_some_and(|told| told.at.elapsed() < told.wait);
        if is_early || !trouble.wants_restart() || self.room() < LEAST_ROOM {
            return false;
        }
        tracing::warn!(%trouble, "nats-server is told to end, to be started again");
        telemetry::broker_restarted();
        let pid = self.pid.load(Ordering::Acquire);
        // One that did not end when it was asked to is not asked a second time.
        let is_deaf = told.is_some_and(|told| told.pid == pid);
        self.signal(if is_deaf { Signal::SIGKILL } else { Signal::SIGTERM });
        let wait = told.map_or(BETWEEN_RESTARTS, |told| (told.wait * 2).min(BETWEEN_RESTARTS_MOST));
        *told = Some(Told { pid, at: Instant::now(), wait });
        true
    }
}

/// Says in `/ready` what is wrong with the broker, until the shutdown, and starts the child again where that helps.
pub(crate) async fn watch(broker: Broker, child: Option<Child>, readiness: Readiness, tasks: Tasks) {
    let (mut told, mut full) = (None, None);
    while !tasks.is_stopping() {
        let room = child.as_ref().map(Child::room);
        if room.is_some_and(|room| room < LEAST_ROOM) {
            full = Some(Instant::now());
        }
        let was_full = full.is_some_and(|at: Instant| at.elapsed() < AFTER_FULL);
        if !broker.is_connected() {
            readiness.waiting("broker", "not connected; mail waits in the journal");
        } else if let Some(trouble) = broker.trouble().or_else(|| broker.suspect().filter(|_| was_full)) {
            // After a full disk one sign is enough: what it could not write then, nobody may ask it to write again.
            readiness.waiting("broker", explain(&trouble, room));
            if let Some(child) = &child
                && child.mend(&trouble, &mut told)
            {
                full = None;
            }
        } else {
            readiness.ready("broker");
            // It was well for long: the next trouble is another one.
            told = told.filter(|told: &Told| told.at.elapsed() < told.wait * 4);
        }
        tokio::select! {
            () = tasks.stopping() => {}
            () = tokio::time::sleep(PROBE) => {}
        }
    }
}

/// What is wrong and what will be done about it. `room` is known of the disk of a child.
fn explain(trouble: &Trouble, room: Option<u64>) -> String {
    let what = match room {
        _ if !trouble.wants_restart() => String::new(),
        None => "; has its disk room? When it has, start nats-server again".to_owned(),
        Some(room) if room < LEAST_ROOM => format!("; its disk has {} KiB left: make room", room / 1024),
        Some(_) => "; nats-server is started again".to_owned(),
    };
    format!("{trouble}{what}; mail waits in the journal")
}

/// The child belongs to this thread: `setpriv` has the kernel end it when the thread, and with it the process, ends in
/// whatever way.
fn keep_running(program: &PathBuf, settings: &PathBuf, wanted: &AtomicBool, pid: &AtomicU32) {
    while wanted.load(Ordering::Acquire) {
        let begun = Instant::now();
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .arg("--config")
            .arg(settings)
            .stdin(Stdio::null())
            .spawn();
        match child {
            Ok(mut child) => {
                pid.store(child.id(), Ordering::Release);
                let ended = child.wait();
                pid.store(0, Ordering::Release);
                if wanted.load(Ordering::Acquire) {
                    tracing::warn!(?ended, "nats-server ended; starting it again");
                }
            }
            Err(error) => tracing::error!(%error, "nats-server cannot be started"),
        }
        if begun.elapsed() < HEALTHY && wanted.load(Ordering::Acquire) {
            std::thread::sleep(PAUSE);
        }
    }
}

/// An operator's own nats-server on the PATH, if it is new enough, else the one that ops/setup has put under `var`.
fn program(config: &Config) -> anyhow::Result<PathBuf> {
    let folders =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    find(folders.into_iter().chain([config.var.join("bin"), PathBuf::from("var/bin")]))
}

/// The first in these folders that can be used.
fn find(folders: impl Iterator<Item = PathBuf>) -> anyhow::Result<PathBuf> {
    let mut refused = None;
    for path in folders.map(|folder| folder.join("nats-server")).filter(|path| path.is_file()) {
        match is_new_enough(&path) {
            Ok(()) => return Ok(path),
            Err(error) => {
                tracing::warn!(%error, "a nats-server is passed over");
                refused = refused.or(Some(error));
            }
        }
    }
    Err(refused.unwrap_or_else(|| {
        anyhow!("there is no nats-server: run ops/setup, or set broker.embedded to false and run one yourself")
    }))
}

fn is_new_enough(program: &Path) -> anyhow::Result<()> {
    let shown = program.display();
    let said = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    let said = said.with_context(|| format!("{shown} cannot be started"))?;
    let version = String::from_utf8_lossy(&said.stdout);
    version::check(&shown.to_string(), version.trim().trim_start_matches("nats-server:").trim())
}

fn folder(config: &Config) -> PathBuf {
    config.var.join("nats")
}

fn write_settings(config: &Config) -> anyhow::Result<PathBuf> {
    let url = config.broker.url.strip_prefix("nats://").unwrap_or(&config.broker.url);
    let Ok(address) = url.parse::<std::net::SocketAddr>() else {
        bail!("broker.url {:?} is not one address on this machine; set broker.embedded to false", config.broker.url)
    };
    if !address.ip().is_loopback() {
        bail!(
            "broker.url {address} leaves loopback, and the server of `run all` asks for no password; run one yourself"
        );
    }
    let folder = folder(config);
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let path = folder.join("server.conf");
    // The limits of the streams are in the streams; the server's own must not come first.
    let text = format!(
        "server_name: chainmail\nlisten: \"{address}\"\nmax_payload: 8MB\nmax_pending: 256MB\nlog_file: \"{log}\"\n\
         logfile_size_limit: 16MB\njetstream {{\n  store_dir: \"{store}\"\n  max_memory_store: 64MB\n  max_file_store: \
         1TB\n}}\n",
        log = folder.join("server.log").display(),
        store = folder.display(),
    );
    // Its disk may be full: what is there already serves as well.
    if std::fs::read_to_string(&path).ok().as_deref() != Some(&text) {
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_first_that_is_new_enough_is_taken() {
        let here = tempfile::tempdir().unwrap();
        let folder = |name: &str| here.path().join(name);
        for (name, version) in [("old", "v2.9.25"), ("good", "v2.12.0"), ("new", "v2.15.1")] {
            fs::create_dir(folder(name)).unwrap();
            let program = folder(name).join("nats-server");
            fs::write(&program, format!("#!/bin/sh\necho nats-server: {version}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let find = |names: &[&str]| find(names.iter().map(|name| folder(name))).map_err(|error| error.to_string());
        assert_eq!(find(&["none", "old", "good", "new"]).unwrap(), folder("good").join("nats-server"));
        let error = find(&["old", "none"]).unwrap_err();
        assert!(error.contains("old/nats-server is nats-server \"v2.9.25\", and 2.12 or later is needed"), "{error}");
        assert!(find(&["none"]).unwrap_err().starts_with("there is no nats-server"));
    }

    #[track_caller]
    fn check(trouble: Trouble, room: Option<u64>, want: &str) {
        assert_eq!(explain(&trouble, room), format!("{want}; mail waits in the journal"));
    }

    #[test]
    fn what_ready_says() {
        let shut = || Trouble::Shut("SCAN".to_owned());
        let takes = "the stream SCAN takes nothing";
        check(shut(), None, &format!("{takes}; has its disk room? When it has, start nats-server again"));
        check(shut(), Some(8192), &format!("{takes}; its disk has 8 KiB left: make room"));
        check(shut(), Some(LEAST_ROOM), &format!("{takes}; nats-server is started again"));
        check(Trouble::NoStreams, Some(LEAST_ROOM), "JetStream does not answer; nats-server is started again");
        check(Trouble::Disorder("odd".to_owned()), Some(0), "the streams are not in order: odd");
    }
}
