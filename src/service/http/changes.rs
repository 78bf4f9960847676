//! A number that grows whenever something has changed, and the streams of server-sent events that tell it to whoever
//! watches ([format](https://html.spec.whatwg.org/multipage/server-sent-events.html)). A stream is a task of the
//! runtime: it takes no thread.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

/// How many may watch at once.
const MOST_WATCHERS: usize = 2000;
/// Between two signs of life: a proxy in front must not take a quiet stream for a dead one, and one whose reader is gone
/// is noticed.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How long a stream lasts. The browser opens the next one by itself, and is asked again who it is.
const LASTS: Duration = Duration::from_secs(600);

/// What everybody watches.
#[derive(Debug)]
pub struct Changes {
    /// The number; none once the service stops.
    number: watch::Sender<Option<u64>>,
    open: Arc<AtomicUsize>,
}

/// One who watches, until it is dropped.
#[derive(Debug)]
pub struct Watcher {
    number: watch::Receiver<Option<u64>>,
    open: Arc<AtomicUsize>,
}

impl Default for Changes {
    fn default() -> Self {
        Self { number: watch::Sender::new(Some(0)), open: Arc::default() }
    }
}

impl Changes {
    /// How often something has changed.
    pub fn number(&self) -> u64 {
        self.number.borrow().unwrap_or_default()
    }

    /// Something has changed.
    pub fn tell(&self) {
        self.number.send_modify(|number| *number = number.map(|number| number + 1));
    }

    /// Ends every stream.
    pub fn end(&self) {
        self.number.send_replace(None);
    }

    /// How many watch.
    pub fn watchers(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// One more who watches; none when there are too many.
    pub fn watch(&self) -> Option<Watcher> {
        let more = |open| (open < MOST_WATCHERS).then_some(open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Watcher { number: self.number.subscribe(), open: Arc::clone(&self.open) })
    }
}

impl Watcher {
    /// The body of the answer, filled by a task.
    pub(super) fn stream(self) -> Channel<Bytes, Infallible> {
        let (sender, channel) = Channel::new(1);
        tokio::spawn(self.tell(sender));
        channel
    }

    async fn tell(mut self, mut to: Sender<Bytes>) {
        let end = Instant::now() + LASTS;
        // The first word is the number as it is: what the reader shows may be older.
        self.number.mark_changed();
        loop {
            let by = end.min(Instant::now() + SIGN_OF_LIFE);
            let text = match timeout_at(by, self.number.changed()).await {
                Ok(Err(_)) => return,
                Ok(Ok(())) => match *self.number.borrow_and_update() {
                    Some(number) => format!("data: {number}\n\n"),
                    None => return,
                },
                Err(_) if Instant::now() >= end => return,
                Err(_) => ":\n\n".to_owned(),
            };
            let sent = tokio::select! {
                sent = to.send_data(Bytes::from(text)) => sent.is_ok(),
                // A reader that takes nothing holds its place no longer than any other.
                () = sleep_until(end) => false,
            };
            if !sent {
                return;
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_watch_and_who_goes_makes_room() {
        let changes = Changes::default();
        let mut watchers: Vec<Watcher> = (0..MOST_WATCHERS).map_while(|_| changes.watch()).collect();
        assert_eq!((watchers.len(), changes.watchers()), (MOST_WATCHERS, MOST_WATCHERS));
        assert!(changes.watch().is_none());
        watchers.pop();
        assert!(changes.watch().is_some());
    }
}
