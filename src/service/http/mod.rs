//! The HTTP edge of the service, by hyper on a small tokio runtime. No other module uses either.
//!
//! The runtime holds the connections: thousands of idle or slow ones cost memory and nothing else. A request that has
//! arrived whole is answered by a synchronous handler on a bounded pool of threads.
//!
//! | file | what it does |
//! | --- | --- |
//! | [`connections`] | the open connections; the longest idle ones give way when there are too many |
//! | [`request`] | reads a request within its limits, splits it into what handlers ask for |
//! | [`response`] | one answer, and the shape of errors |
//! | [`changes`], [`stream`] | streams of server-sent events, which take no thread: that something has changed; what has happened |

mod changes;
mod connections;
mod request;
mod response;
mod stream;

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use tokio::{
    net::TcpStream,
    sync::{Semaphore, oneshot},
    time::{sleep, timeout},
};

use self::connections::{Connection, Connections};
pub use self::{
    changes::Changes,
    request::{Form, Request},
    response::Response,
    stream::{Feed, Item, Story},
};

/// How many requests are answered at once.
const HANDLERS: usize = 64;
/// How long a request waits for a free handler before it is told to come again.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may take to send the head of its first, or its next, request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after an accept that failed: asking again at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

type Handler = dyn Fn(&Request) -> Response + Send + Sync;

/// A listening server that answers nothing yet.
pub struct Server {
    listener: TcpListener,
    /// Where it listens: the port that the kernel chose, when it was asked for port 0.
    pub address: SocketAddr,
}

/// A server that answers.
pub struct RunningServer {
    stop: oneshot::Sender<()>,
    stopped: mpsc::Receiver<()>,
}

impl Server {
    /// Takes the address. Fails if another program has it.
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .with_context(|| format!("cannot listen on {address}: choose a free address for service.listen"))?;
        let address = listener.local_addr().context("cannot tell where the service listens")?;
        Ok(Self { listener, address })
    }

    /// Starts to answer by `handler`, from a thread of its own.
    pub fn start(self, handler: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Result<RunningServer> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(HANDLERS)
            .thread_name("http")
            .build()
            .context("cannot start the HTTP runtime")?;
        self.listener.set_nonblocking(true).context("cannot prepare the listening socket")?;
        let connections = Connections::within_the_limit_of_descriptors();
        let (stop, stopping) = oneshot::channel();
        let (tell, stopped) = mpsc::channel();
        let run = move || {
            let outcome = runtime.block_on(serve(self.listener, connections, Arc::new(handler), stopping));
            if let Err(error) = outcome {
                log::error!("{error:#}");
            }
            runtime.shutdown_background();
            // Nobody listens when the service has given up waiting.
            let _ = tell.send(());
        };
        thread::Builder::new().name("http".to_owned()).spawn(run).context("cannot start the thread for requests")?;
        Ok(RunningServer { stop, stopped })
    }
}

impl RunningServer {
    /// Takes no more requests, and waits until those that are being answered have been, `patience` at most.
    pub fn stop(self, patience: Duration) {
        // A server that has ended by itself has said why.
        let _ = self.stop.send(());
        if self.stopped.recv_timeout(patience).is_err() {
            log::warn!("requests are still being answered after {}s; stopping all the same", patience.as_secs());
        }
    }
}

async fn serve(
    listener: TcpListener,
    connections: Arc<Connections>,
    handler: Arc<Handler>,
    mut stopping: oneshot::Receiver<()>,
) -> Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener).context("cannot listen")?;
    let (graceful, handlers) = (GracefulShutdown::new(), Arc::new(Semaphore::new(HANDLERS)));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = &mut stopping => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let (handler, handlers) = (Arc::clone(&handler), Arc::clone(&handlers));
                let watcher = graceful.watcher();
                connections.open(|connection| converse((stream, peer), connection, handler, handlers, watcher));
            }
            Err(error) => {
                log::error!("cannot accept a connection: {error}");
                connections.close_idle();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    graceful.shutdown().await;
    Ok(())
}

/// One connection, from its first request to its last.
async fn converse(
    (stream, peer): (TcpStream, SocketAddr),
    connection: Connection,
    handler: Arc<Handler>,
    handlers: Arc<Semaphore>,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let service = service_fn(|incoming: hyper::Request<Incoming>| async {
        let _busy = connection.busy();
        let response = match request::read(incoming, BODY_TIMEOUT).await {
            Ok(request) => answer(request.sent_by(peer.ip()), &handler, &handlers).await,
            Err(refusal) => refusal,
        };
        Ok::<_, Infallible>(response.into_hyper())
    });
    let conversation = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(request::HEAD_LIMIT)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(conversation).await {
        // A port scan, a health check that only connects, a client that gave up.
        log::debug!("a connection ended early: {error}");
    }
}

/// Runs the handler on a thread of the pool. A handler that panics costs its own request only.
async fn answer(request: Request, handler: &Arc<Handler>, handlers: &Arc<Semaphore>) -> Response {
    let Ok(Ok(permit)) = timeout(QUEUE_TIMEOUT, Arc::clone(handlers).acquire_owned()).await else {
        return Response::error(503, "unavailable", "the service answers as many requests as it can: try again");
    };
    let handler = Arc::clone(handler);
    let work = move || {
        let _permit = permit;
        handler(&request)
    };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        log::error!("a request failed: {:#}", anyhow!(error));
        Response::error(500, "internal", "the service failed on this request; its log says why")
    })
}
