//! Simulated time, and what runs in it: tasks that wait for a time or for a word, one at a time, in one order.

use std::{
    cell::{Cell, RefCell},
    cmp::Reverse,
    collections::BinaryHeap,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, Waker},
};

use crate::model::memory::BEGIN;

pub type ProcessId = usize;
pub type TaskId = usize;

struct Task {
    work: Option<Pin<Box<dyn Future<Output = ()>>>>,
    process: ProcessId,
}

#[derive(Clone, Copy)]
struct Process {
    alive: bool,
    paused_until: i64,
}

/// Time in milliseconds, the tasks, and the processes that they belong to.
pub struct Clock {
    now: Cell<i64>,
    moments: Cell<u64>,
    queue: RefCell<BinaryHeap<Reverse<(i64, u64, TaskId)>>>,
    tasks: RefCell<Vec<Task>>,
    processes: RefCell<Vec<Process>>,
    running: Cell<TaskId>,
}

impl Clock {
    /// The process 0 is the world: nothing kills or pauses it.
    pub fn new() -> Self {
        Self {
            now: Cell::new(BEGIN),
            moments: Cell::new(0),
            queue: RefCell::default(),
            tasks: RefCell::default(),
            processes: RefCell::new(vec![Process { alive: true, paused_until: 0 }]),
            running: Cell::new(0),
        }
    }

    pub fn now(&self) -> i64 {
        self.now.get()
    }

    pub fn process(&self) -> ProcessId {
        let mut processes = self.processes.borrow_mut();
        processes.push(Process { alive: true, paused_until: 0 });
        processes.len() - 1
    }

    pub fn is_alive(&self, process: ProcessId) -> bool {
        self.processes.borrow()[process].alive
    }

    /// SIGKILL: its tasks never run again.
    pub fn kill(&self, process: ProcessId) {
        self.processes.borrow_mut()[process].alive = false;
        let dropped: Vec<_> = self
            .tasks
            .borrow_mut()
            .iter_mut()
            .filter(|task| task.process == process)
            .map(|task| task.work.take())
            .collect();
        drop(dropped);
    }

    /// SIGSTOP, until then.
    pub fn pause(&self, process: ProcessId, until: i64) {
        self.processes.borrow_mut()[process].paused_until = until;
    }

    pub fn is_paused(&self, process: ProcessId) -> bool {
        self.processes.borrow()[process].paused_until > self.now()
    }

    pub fn spawn(&self, process: ProcessId, work: impl Future<Output = ()> + 'static) -> TaskId {
        let mut tasks = self.tasks.borrow_mut();
        tasks.push(Task { work: Some(Box::pin(work)), process });
        let task = tasks.len() - 1;
        drop(tasks);
        self.wake_at(task, self.now());
        task
    }

    pub fn running(&self) -> TaskId {
        self.running.get()
    }

    pub fn wake(&self, task: TaskId) {
        self.wake_at(task, self.now());
    }

    fn wake_at(&self, task: TaskId, time: i64) {
        self.moments.set(self.moments.get() + 1);
        self.queue.borrow_mut().push(Reverse((time, self.moments.get(), task)));
    }

    /// Ends at `deadline`, or when `said` is true after a wake-up.
    pub async fn until(&self, deadline: i64, said: impl Fn() -> bool) {
        let mut set = false;
        poll_fn(|_| {
            if self.now() >= deadline || said() {
                return Poll::Ready(());
            }
            if !set {
                self.wake_at(self.running(), deadline);
                set = true;
            }
            Poll::Pending
        })
        .await;
    }

    pub async fn sleep(&self, time: i64) {
        self.until(self.now() + time, || false).await;
    }

    /// What happens next; nothing when nothing is left to happen. `before` sees the new time first.
    pub fn turn(&self, before: impl FnOnce(i64)) -> bool {
        let Some(Reverse((time, _, task))) = self.queue.borrow_mut().pop() else { return false };
        self.now.set(self.now().max(time));
        let (process, work) = {
            let mut tasks = self.tasks.borrow_mut();
            let process = self.processes.borrow()[tasks[task].process];
            if process.paused_until > self.now() {
                drop(tasks);
                self.wake_at(task, process.paused_until);
                return true;
            }
            (tasks[task].process, tasks[task].work.take())
        };
        let Some(mut work) = work else { return true };
        before(self.now());
        self.running.set(task);
        let done = work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
        if !done && self.is_alive(process) {
            self.tasks.borrow_mut()[task].work = Some(work);
        }
        true
    }

    /// Ends everything.
    pub fn clear(&self) {
        let dropped: Vec<_> = self.tasks.borrow_mut().iter_mut().map(|task| task.work.take()).collect();
        drop(dropped);
    }
}
