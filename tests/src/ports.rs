//! Ports for servers under test, such that tests that run at once do not take each other's.

use std::fs::File;
use std::net::{TcpListener, UdpSocket};
use std::sync::Mutex;

/// Below the ports that the kernel gives to clients.
const FIRST: u16 = 10_000;
const COUNT: u16 = 20_000;

/// A port on loopback that nobody has at the moment, and that no other test takes before this one has ended: between
/// the look and the server that listens there is time. A lock on a file says so, which goes with its process, however
/// it ends.
pub fn free_port() -> u16 {
    static TAKEN: Mutex<Vec<File>> = Mutex::new(Vec::new());
    let folder = std::env::temp_dir().join("chainmail-test-ports");
    std::fs::create_dir_all(&folder).unwrap();
    let mut taken = TAKEN.lock().unwrap();
    // Each test begins somewhere else, and does not have to ask for what the others have.
    let first = std::process::id().wrapping_mul(61) % u32::from(COUNT);
    for offset in 0..COUNT {
        let port = FIRST + u16::try_from((first + u32::from(offset)) % u32::from(COUNT)).unwrap();
        let file =
            File::options().write(true).create(true).truncate(false).open(folder.join(port.to_string())).unwrap();
        if file.try_lock().is_ok()
            && TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok()
        {
            taken.push(file);
            return port;
        }
    }
    panic!("every port is taken");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice() {
        let ports: std::collections::BTreeSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
        for port in ports {
            let file = File::open(std::env::temp_dir().join("chainmail-test-ports").join(port.to_string())).unwrap();
            assert!(file.try_lock().is_err(), "{port}");
        }
    }
}
