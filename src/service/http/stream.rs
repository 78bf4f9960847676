//! A connection whose deadline counts for everything that is read or written, however slowly it dribbles.

use std::{
    io::{self, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

/// A connection until a moment.
pub struct Deadlined<'a> {
    connection: &'a TcpStream,
    deadline: Instant,
}

impl<'a> Deadlined<'a> {
    pub fn new(connection: &'a TcpStream, patience: Duration) -> Self {
        Self { connection, deadline: Instant::now() + patience }
    }

    /// What is left of the time; a socket takes no time-out of zero.
    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }
}

impl Read for Deadlined<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.connection.set_read_timeout(Some(self.left()?))?;
        self.connection.read(buffer)
    }
}

impl Write for Deadlined<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.connection.set_write_timeout(Some(self.left()?))?;
        self.connection.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.connection.flush()
    }
}
