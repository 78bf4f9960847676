//! A program's output, read by a thread into bounded memory.
//!
//! What has been read so far can be had at any time, so that nobody need wait for a pipe that never closes.

use std::{
    collections::VecDeque,
    io::{self, PipeWriter, Read},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

/// How much of the beginning, and how much of the end, is kept.
const HALF: usize = 512 * 1024;

#[derive(Default)]
struct Kept {
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: usize,
    closed: bool,
}

impl Kept {
    fn push(&mut self, bytes: &[u8]) {
        let (head, rest) = bytes.split_at(bytes.len().min(HALF - self.head.len()));
        self.head.extend_from_slice(head);
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(HALF);
        self.tail.drain(..over);
        self.left_out += over;
    }

    fn text(&self) -> String {
        let mut bytes = self.head.clone();
        if self.left_out > 0 {
            bytes.extend_from_slice(format!("\n… {} bytes left out …\n", self.left_out).as_bytes());
        }
        bytes.extend(&self.tail);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

pub(super) struct Capture(Arc<(Mutex<Kept>, Condvar)>);

impl Capture {
    /// Starts to read what is written to the pipe. It ends when every copy of the writer is closed.
    pub(super) fn start() -> io::Result<(Self, PipeWriter)> {
        let (mut reader, writer) = io::pipe()?;
        let capture = Self(Arc::default());
        let reading = Self(Arc::clone(&capture.0));
        thread::Builder::new().spawn(move || reading.read(&mut reader))?;
        Ok((capture, writer))
    }

    fn read(&self, pipe: &mut impl Read) {
        let mut buffer = [0; 16 * 1024];
        loop {
            match pipe.read(&mut buffer) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // A pipe that cannot be read has no more to give; the exit code tells whether that matters.
                Ok(0) | Err(_) => break,
                Ok(n) => self.kept().push(&buffer[..n]),
            }
        }
        self.kept().closed = true;
        self.0.1.notify_all();
    }

    /// Returns when the output has ended, or at `deadline`.
    pub(super) fn wait_until(&self, deadline: Instant) {
        let mut kept = self.kept();
        while !kept.closed {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            kept = self.0.1.wait_timeout(kept, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What has been read so far.
    pub(super) fn text(&self) -> String {
        self.kept().text()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_too_much_the_head_and_the_tail_are_kept() {
        let mut kept = Kept::default();
        kept.push(b"first");
        for _ in 0..20 {
            kept.push(&vec![b'.'; 100_000]);
        }
        kept.push(b"last");
        let text = kept.text();
        assert!(text.starts_with("first") && text.ends_with("last"));
        let left_out = 2_000_009 - 2 * HALF;
        assert!(text.contains(&format!("\n… {left_out} bytes left out …\n")));
        assert!(text.len() < 2 * HALF + 100, "{}", text.len());
    }
}
