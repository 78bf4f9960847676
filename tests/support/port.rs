//! Ports that no other test takes.

use std::{
    fs::{self, File},
    net::{TcpListener, UdpSocket},
    sync::Mutex,
};

/// Below the range from which the kernel takes ports for outgoing connections, so that none of those can be in the way.
const FIRST: u16 = 12_000;
const COUNT: u16 = 18_000;

/// Held until this process ends: tests run as processes side by side, and a port that is free now must stay so until
/// the program it is meant for binds it.
static HELD: Mutex<Vec<File>> = Mutex::new(Vec::new());

/// A port that is free for TCP and UDP on every loopback address, and this process's own until it ends.
pub fn free_port() -> u16 {
    let dir = std::env::temp_dir().join("deployctl-test-ports");
    fs::create_dir_all(&dir).unwrap();
    let start = u16::try_from(std::process::id() % u32::from(COUNT)).unwrap();
    for step in 0..COUNT {
        let port = FIRST + (start + step) % COUNT;
        let file = File::create(dir.join(port.to_string())).unwrap();
        if file.try_lock().is_err() || TcpListener::bind(("0.0.0.0", port)).is_err() {
            continue;
        }
        if UdpSocket::bind(("0.0.0.0", port)).is_ok() {
            HELD.lock().unwrap().push(file);
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
