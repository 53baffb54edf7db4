//! The nats-server of `run all`: a child process, started anew when it ends, and gone with its parent.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::config::Config;

/// A server that ends sooner than this is started again only after a pause.
const HEALTHY: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(500);
/// How long it may take to end.
const GRACE: Duration = Duration::from_secs(10);

/// The child, as long as it is wanted.
pub(crate) struct NatsServer {
    wanted: Arc<AtomicBool>,
    pid: Arc<AtomicU32>,
    thread: Option<std::thread::JoinHandle<()>>,
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
        let (thread_wanted, thread_pid) = (Arc::clone(&wanted), Arc::clone(&pid));
        let keep = move || keep_running(&program, &settings, &thread_wanted, &thread_pid);
        let thread = std::thread::Builder::new().name("nats-server".into()).spawn(keep)?;
        Ok(Self { wanted, pid, thread: Some(thread) })
    }

    /// Ends the server and waits for that.
    pub(crate) fn stop(mut self) {
        self.wanted.store(false, Ordering::Release);
        self.signal(Signal::SIGTERM);
        let deadline = Instant::now() + GRACE;
        let Some(thread) = self.thread.take() else { return };
        while !thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        if !thread.is_finished() {
            self.signal(Signal::SIGKILL);
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = self.pid.load(Ordering::Acquire);
        if let Ok(pid @ 1..) = i32::try_from(pid) {
            // It may have ended by itself at this moment.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
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

/// An operator's own nats-server on the PATH, else the one that ops/setup has put under `var`.
fn program(config: &Config) -> anyhow::Result<PathBuf> {
    let folders =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let own = [config.var.join("bin"), PathBuf::from("var/bin")];
    let found = folders.into_iter().chain(own).map(|folder| folder.join("nats-server")).find(|path| path.is_file());
    found.context("there is no nats-server: run ops/setup, or set broker.embedded to false and run one yourself")
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
    let folder = config.var.join("nats");
    std::fs::create_dir_all(&folder)?;
    let folder = folder.canonicalize()?;
    let path = folder.join("server.conf");
    // The limits of the streams are in the streams; the server's own must not come first.
    let text = format!(
        "server_name: chainmail\nlisten: \"{address}\"\nmax_payload: 8MB\nmax_pending: 256MB\nlog_file: \"{log}\"\nlogfile_size_limit: 16MB\n\
         jetstream {{\n  store_dir: \"{store}\"\n  max_memory_store: 64MB\n  max_file_store: 1TB\n}}\n",
        log = folder.join("server.log").display(),
        store = folder.display(),
    );
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
