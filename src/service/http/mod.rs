//! A small HTTP/1.1 server: as many threads as it may have, each of which takes one connection, reads one request,
//! answers and closes.
//!
//! It is our own because the synchronous servers on crates.io put no limit on threads, on a head, on a body or on how
//! long a sender may take, and every box of the fleet depends on this one. The parsing that is worth sharing is
//! `httparse`'s. Requests are small and rare (a waiting worker asks once in some seconds), so connections are not kept.

mod request;
mod response;
mod stream;

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use self::{request::ReadError, stream::Deadlined};
pub use self::{request::Request, response::Response};

/// How many requests are answered at once; more wait in the kernel's queue.
const THREADS: usize = 64;
/// The longest that a request may take to arrive, and its answer to leave.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest that the rest of a refused request is read, so that its sender gets to see the answer.
const LINGER: Duration = Duration::from_secs(1);

/// A listening server that answers nothing yet.
pub struct Server {
    listener: TcpListener,
    /// Where it listens: the port that the kernel chose, when it was asked for port 0.
    pub address: SocketAddr,
    stopping: Arc<AtomicBool>,
    busy: Arc<AtomicUsize>,
}

impl Server {
    /// Takes the address.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address}: choose a free address for service.listen"))?;
        let address = listener.local_addr().context("cannot tell where the service listens")?;
        Ok(Self { listener, address, stopping: Arc::default(), busy: Arc::default() })
    }

    /// Starts to answer.
    pub fn start(&self, answer: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Result<()> {
        let answer = Arc::new(answer);
        for number in 0..THREADS {
            let listener = self.listener.try_clone().context("cannot share the listening socket")?;
            let (answer, stopping, busy) = (Arc::clone(&answer), Arc::clone(&self.stopping), Arc::clone(&self.busy));
            let serve = move || {
                while !stopping.load(Ordering::SeqCst) {
                    match listener.accept() {
                        Ok((connection, _)) => {
                            let _busy = Busy::new(&busy);
                            if !stopping.load(Ordering::SeqCst) {
                                converse(&connection, &*answer);
                            }
                        }
                        Err(error) => {
                            // Out of file descriptors, say: asking again at once would only burn the processor.
                            log::error!("cannot accept a connection: {error}");
                            thread::sleep(Duration::from_millis(100));
                        }
                    }
                }
            };
            thread::Builder::new()
                .name(format!("http-{number}"))
                .spawn(serve)
                .context("cannot start a thread for requests")?;
        }
        Ok(())
    }

    /// Takes no more requests, and waits until those that are being answered have been, `patience` at most.
    /// Threads that wait for a connection are left: they hold nothing, and end with the process.
    pub fn stop(&self, patience: Duration) {
        self.stopping.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + patience;
        while self.busy.load(Ordering::SeqCst) > 0 && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Counts one request that is being answered, until it is dropped, even by a panic.
struct Busy<'a>(&'a AtomicUsize);

impl<'a> Busy<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn converse(connection: &TcpStream, answer: &dyn Fn(&Request) -> Response) {
    let mut stream = Deadlined::new(connection, PATIENCE);
    let (response, read_whole) = match request::read(&mut stream) {
        Ok(request) => (answer(&request), true),
        Err(ReadError::Refused(response)) => (response, false),
        Err(ReadError::Lost(error)) => {
            // A port scan, a health check that only connects, a client that gave up.
            log::debug!("a request did not arrive: {error}");
            return;
        }
    };
    if let Err(error) = send(connection, &response, read_whole) {
        log::debug!("an answer did not leave: {error}");
    }
}

fn send(connection: &TcpStream, response: &Response, read_whole: bool) -> io::Result<()> {
    response.write(&mut Deadlined::new(connection, PATIENCE))?;
    if !read_whole {
        // Closing a socket with unread input resets it, and the answer with it.
        connection.shutdown(std::net::Shutdown::Write)?;
        io::copy(&mut Deadlined::new(connection, LINGER), &mut io::sink())?;
    }
    Ok(())
}
