//! A small HTTP server that writes down what it is sent, answers as it is told to, and is as slow as it is told to.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// A request, as it came.
#[derive(Debug, Clone)]
pub struct Received {
    pub at: Instant,
    pub method: String,
    pub path: String,
    /// By names in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Received {
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

type Answers = dyn Fn(&Received) -> (u16, String) + Send + Sync;

struct State {
    received: Mutex<Vec<Received>>,
    /// The statuses of the next answers; afterwards `answers` decides.
    next: Mutex<VecDeque<u16>>,
    delay: Mutex<Duration>,
    answers: Box<Answers>,
}

/// The server, which ends with the test.
#[derive(Clone)]
pub struct Listener {
    pub url: String,
    state: Arc<State>,
}

impl Listener {
    /// One that says that all is well.
    pub fn start() -> Self {
        Self::answering(|_| (200, "ok".to_owned()))
    }

    pub fn answering(answers: impl Fn(&Received) -> (u16, String) + Send + Sync + 'static) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", socket.local_addr().unwrap());
        let state = State {
            received: Mutex::default(),
            next: Mutex::default(),
            delay: Mutex::default(),
            answers: Box::new(answers),
        };
        let listener = Self { url, state: Arc::new(state) };
        let state = Arc::clone(&listener.state);
        thread::spawn(move || {
            for stream in socket.incoming().flatten() {
                let state = Arc::clone(&state);
                thread::spawn(move || answer(&state, stream));
            }
        });
        listener
    }

    /// What the next requests are answered with, before all is well again.
    pub fn fail(&self, statuses: &[u16]) {
        self.state.next.lock().unwrap().extend(statuses);
    }

    /// All is well from now on.
    pub fn recover(&self) {
        self.state.next.lock().unwrap().clear();
    }

    /// How long it takes from now on to answer.
    pub fn delay(&self, time: Duration) {
        *self.state.delay.lock().unwrap() = time;
    }

    pub fn received(&self) -> Vec<Received> {
        self.state.received.lock().unwrap().clone()
    }

    /// The kinds of what it was told, by a webhook.
    pub fn types(&self) -> Vec<String> {
        self.received().iter().map(|one| one.json()["type"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn answer(state: &State, stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    // A service that was killed may have sent half of it.
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        return;
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, path) = (words.next().unwrap(), words.next().unwrap());
    let mut headers = BTreeMap::new();
    loop {
        line.clear();
        if reader.read_line(&mut line).unwrap_or(0) <= 2 {
            break;
        }
        let (name, value) = line.split_once(':').unwrap();
        headers.insert(name.to_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    if reader.read_exact(&mut body).is_err() {
        return;
    }
    let received = Received { at: Instant::now(), method, path, headers, body: String::from_utf8(body).unwrap() };
    state.received.lock().unwrap().push(received.clone());
    let delay = *state.delay.lock().unwrap();
    thread::sleep(delay);
    let next = state.next.lock().unwrap().pop_front();
    let (status, text) = match next {
        Some(status) => (status, format!("no: {}", received.path)),
        None => (state.answers)(&received),
    };
    let wait = if status == 429 { "Retry-After: 3\r\n" } else { "" };
    let head = format!("HTTP/1.1 {status} X\r\n{wait}Content-Length: {}\r\nConnection: close\r\n\r\n", text.len());
    let _ = reader.get_mut().write_all(format!("{head}{text}").as_bytes());
}
