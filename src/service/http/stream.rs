//! Texts that follow each other, each with a number that grows, and the streams of server-sent events that tell them to
//! whoever listens ([format](https://html.spec.whatwg.org/multipage/server-sent-events.html)). A stream is a task of the
//! runtime: it takes no thread.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::channel::{Channel, Sender};
use hyper::body::Bytes;
use tokio::{
    sync::broadcast,
    time::{Instant, sleep_until, timeout_at},
};

/// How many may listen at once.
const MOST_LISTENERS: usize = 500;
/// How many texts a slow listener may be behind before its stream ends. It asks again from the last one that it got.
const BEHIND: usize = 256;
/// Between two signs of life: a proxy in front must not take a quiet stream for a dead one.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);
/// How long a stream lasts. The listener asks again, and is asked again who it is.
const LASTS: Duration = Duration::from_secs(600);
/// How soon a listener whose stream has ended asks again, in milliseconds.
const RETRY: u32 = 1000;

/// One text.
#[derive(Debug)]
pub struct Item<T> {
    /// Grows from one to the next.
    pub number: u64,
    /// What kind of text it is.
    pub event: &'static str,
    /// One line.
    pub data: String,
    /// What decides who may read it.
    pub about: T,
}

/// Everybody who listens.
#[derive(Debug)]
pub struct Feed<T> {
    /// None once the service stops.
    sender: Mutex<Option<broadcast::Sender<Arc<Item<T>>>>>,
    open: Arc<AtomicUsize>,
}

/// One who listens, until it is dropped. Texts that came before are told first.
pub struct Listener<T> {
    receiver: broadcast::Receiver<Arc<Item<T>>>,
    open: Arc<AtomicUsize>,
}

/// What a stream tells.
pub struct Story<T> {
    /// The number after which it begins.
    pub after: u64,
    /// What is there already, oldest first.
    pub before: Vec<Item<T>>,
    /// Whether there is more of that: the stream then ends with it, and is to be asked for again.
    pub is_cut: bool,
    /// Which texts this listener gets.
    pub wants: Box<dyn Fn(&T) -> bool + Send + Sync>,
}

/// A stream that is about to begin, whatever it tells of.
pub struct Stream(Box<dyn FnOnce(Sender<Bytes>) + Send>);

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Stream")
    }
}

impl<T> Default for Feed<T> {
    fn default() -> Self {
        Self { sender: Mutex::new(Some(broadcast::Sender::new(BEHIND))), open: Arc::default() }
    }
}

impl<T: Send + Sync + 'static> Feed<T> {
    /// Tells everybody who listens.
    pub fn tell(&self, item: Item<T>) {
        if let Some(sender) = &*self.sender.lock().unwrap_or_else(PoisonError::into_inner) {
            // Nobody may listen.
            let _ = sender.send(Arc::new(item));
        }
    }

    /// Ends every stream.
    pub fn end(&self) {
        *self.sender.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// One more who listens; none when there are too many, or the service stops.
    pub fn listen(&self) -> Option<Listener<T>> {
        let receiver = self.sender.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.subscribe();
        let more = |open| (open < MOST_LISTENERS).then_some(open + 1);
        self.open.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(Listener { receiver, open: Arc::clone(&self.open) })
    }
}

impl<T: Send + Sync + 'static> Listener<T> {
    /// The stream that tells `story`, and what comes then.
    #[must_use]
    pub fn hear(self, story: Story<T>) -> Stream {
        Stream(Box::new(move |to| {
            tokio::spawn(self.follow(story, to));
        }))
    }

    async fn follow(mut self, story: Story<T>, mut to: Sender<Bytes>) {
        let end = Instant::now() + LASTS;
        let Story { after, before, is_cut, wants } = story;
        let mut last = after;
        // A listener that is cut off before the first text asks again from here.
        if !send(&mut to, end, format!("retry: {RETRY}\nid: {last}\n\n")).await {
            return;
        }
        for item in before {
            last = item.number;
            if wants(&item.about) && !send(&mut to, end, event(&item)).await {
                return;
            }
        }
        if is_cut {
            return;
        }
        loop {
            let by = end.min(Instant::now() + SIGN_OF_LIFE);
            let text = match timeout_at(by, self.receiver.recv()).await {
                Ok(Ok(item)) if item.number <= last || !wants(&item.about) => continue,
                Ok(Ok(item)) => {
                    last = item.number;
                    event(&item)
                }
                // It lags too far behind, or the service stops.
                Ok(Err(_)) => return,
                Err(_) if Instant::now() >= end => return,
                Err(_) => ":\n\n".to_owned(),
            };
            if !send(&mut to, end, text).await {
                return;
            }
        }
    }
}

/// Whether the listener has taken it. One that takes nothing holds its place no longer than any other.
async fn send(to: &mut Sender<Bytes>, end: Instant, text: String) -> bool {
    tokio::select! {
        sent = to.send_data(Bytes::from(text)) => sent.is_ok(),
        () = sleep_until(end) => false,
    }
}

fn event<T>(item: &Item<T>) -> String {
    format!("id: {}\nevent: {}\ndata: {}\n\n", item.number, item.event, item.data)
}

impl Stream {
    /// The body of the answer, filled by a task.
    pub(super) fn begin(self) -> Channel<Bytes, Infallible> {
        let (sender, channel) = Channel::new(1);
        (self.0)(sender);
        channel
    }
}

impl<T> Drop for Listener<T> {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_listen_and_who_goes_makes_room() {
        let feed = Feed::<()>::default();
        let mut listeners: Vec<Listener<()>> = (0..=MOST_LISTENERS).map_while(|_| feed.listen()).collect();
        assert_eq!(listeners.len(), MOST_LISTENERS);
        listeners.pop();
        assert!(feed.listen().is_some());
        feed.end();
        assert!(feed.listen().is_none());
    }
}
