//! Ports for servers under test, such that tests that run at once do not take each other's.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// A port on loopback that nobody has at the moment.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Below the ports that the kernel gives to clients; each test is a process, and begins somewhere else.
    let first = u16::try_from(std::process::id() % 1000).unwrap() * 20;
    loop {
        let port = 10_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
