//! The open connections. When there are as many as the process has file descriptors for, those give way that have been
//! open longest without a request: whoever only connects keeps nobody out.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::task::AbortHandle;

/// Descriptors for everything but connections: Redis, log, programs.
const RESERVED: u64 = 256;
/// Where the system sets no limit.
const UNLIMITED: u64 = 65_536;

/// All open connections, oldest first.
pub struct Connections {
    most: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    next: u64,
    by_age: BTreeMap<u64, (AbortHandle, Arc<AtomicBool>)>,
}

/// One connection's place among all; given up when it is dropped.
pub struct Connection {
    number: u64,
    busy: Arc<AtomicBool>,
    all: Arc<Connections>,
}

/// Says that a connection has a request, until it is dropped.
pub struct Busy<'a>(&'a AtomicBool);

impl Connections {
    /// As many as there can be: raises the soft limit of descriptors to the hard one first.
    pub fn within_the_limit_of_descriptors() -> Arc<Self> {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let current = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(error) => {
                log::debug!("the limit of open files stays as it is: {error}");
                limit.current
            }
        };
        let most = current.unwrap_or(UNLIMITED).min(UNLIMITED).saturating_sub(RESERVED).max(16);
        Arc::new(Self { most: usize::try_from(most).unwrap_or(usize::MAX), open: Mutex::default() })
    }

    /// Runs `conversation` in a task of its own.
    pub fn open<F>(self: &Arc<Self>, conversation: impl FnOnce(Connection) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut open = self.lock();
        if open.by_age.len() >= self.most {
            open.close_idle(1);
        }
        let number = open.next;
        open.next += 1;
        let busy = Arc::new(AtomicBool::new(false));
        let connection = Connection { number, busy: Arc::clone(&busy), all: Arc::clone(self) };
        // Registered before it can end: its end waits for this lock.
        let task = tokio::spawn(conversation(connection));
        open.by_age.insert(number, (task.abort_handle(), busy));
    }

    /// Closes some that have no request: the system has no descriptor left.
    pub fn close_idle(&self) {
        self.lock().close_idle(16);
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // A poisoned list is still a list.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn close_idle(&mut self, count: usize) {
        let idle = self.by_age.iter().filter(|(_, (_, busy))| !busy.load(Ordering::SeqCst));
        let oldest: Vec<u64> = idle.map(|(number, _)| *number).take(count).collect();
        for number in oldest {
            if let Some((task, _)) = self.by_age.remove(&number) {
                task.abort();
            }
        }
    }
}

impl Connection {
    /// It has a request from now on.
    pub fn busy(&self) -> Busy<'_> {
        self.busy.store(true, Ordering::SeqCst);
        Busy(&self.busy)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.lock().by_age.remove(&self.number);
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}
