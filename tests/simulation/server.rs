//! One Redis in memory for a whole fleet, spoken to by the real client: commands, transactions and scripts.
//!
//! Each schedule runs on one thread, and so does its Redis: a connection needs to know nothing more.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    io,
    rc::Rc,
    time::Duration,
};

use deployctl::coordination::{RedisServer, Wire};
use mlua::Function;
use redis::{ConnectionLike, RedisResult, Value};

use crate::model::{
    engine::{Engine, Mistake, SCRIPTS, believing},
    memory::{Memory, Reply, writes},
};

/// The keys' prefix, and those of the one place.
pub const PREFIX: &str = "m";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Serves,
    /// A replica, or one without its disk.
    ReadOnly,
    Down,
}

struct Server {
    engine: Engine,
    scripts: RefCell<HashMap<String, Function>>,
    mistake: RefCell<Option<Mistake>>,
    memory: RefCell<Memory>,
    mode: Cell<Mode>,
    /// After so many commands nobody is there any more to hear the answer.
    fuse: Cell<Option<u32>>,
    /// Who looks after each script.
    onlooker: RefCell<Option<Rc<dyn Fn()>>>,
}

thread_local! {
    static SERVER: Server = Server {
        engine: Engine::empty(),
        scripts: RefCell::default(),
        mistake: RefCell::default(),
        memory: RefCell::default(),
        mode: Cell::new(Mode::Serves),
        fuse: Cell::new(None),
        onlooker: RefCell::default(),
    };
}

/// An empty Redis whose scripts have `mistake`.
pub fn start(mistake: Option<Mistake>) {
    if let Some(Mistake { instead_of, .. }) = mistake {
        let made = SCRIPTS.iter().any(|script| script.source().contains(instead_of));
        assert!(made, "no script says {instead_of:?} any more");
    }
    SERVER.with(|server| {
        server.memory.replace(Memory::default());
        server.mode.set(Mode::Serves);
        server.fuse.set(None);
        let known = server.mistake.replace(mistake);
        if known.map(|m| m.written) != mistake.map(|m| m.written) {
            server.scripts.borrow_mut().clear();
        }
    });
}

/// How the boxes and the service reach it.
pub fn address() -> RedisServer {
    RedisServer::through(|| Ok(Box::new(Connection)), PREFIX, "memory")
}

pub fn memory<T>(look: impl FnOnce(&mut Memory) -> T) -> T {
    SERVER.with(|server| look(&mut server.memory.borrow_mut()))
}

pub fn set_mode(mode: Mode) {
    SERVER.with(|server| server.mode.set(mode));
}

pub fn mode() -> Mode {
    SERVER.with(|server| server.mode.get())
}

/// Whoever talks to Redis from here on is killed after `commands` of them.
pub fn light_fuse(commands: Option<u32>) {
    SERVER.with(|server| server.fuse.set(commands));
}

/// Whether it was.
pub fn is_blown() -> bool {
    SERVER.with(|server| server.fuse.get() == Some(0))
}

/// Calls `look` after each script, for as long as `act` runs.
pub fn observed<T>(look: impl Fn() + 'static, act: impl FnOnce() -> T) -> T {
    SERVER.with(|server| server.onlooker.replace(Some(Rc::new(look))));
    let done = act();
    SERVER.with(|server| server.onlooker.take());
    done
}

struct Connection;

impl Wire for Connection {
    fn wait_at_most(&self, _: Duration) -> RedisResult<()> {
        Ok(())
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command(&mut self, command: &[u8]) -> RedisResult<Value> {
        SERVER.with(|server| server.serve(&commands(command)[0]))
    }

    fn req_packed_commands(&mut self, packed: &[u8], offset: usize, count: usize) -> RedisResult<Vec<Value>> {
        SERVER.with(|server| {
            let (mut answers, mut inside) = (vec![], None);
            for words in commands(packed) {
                match (words[0].as_str(), &mut inside) {
                    ("MULTI", _) => {
                        inside = Some(vec![]);
                        answers.push(Value::Okay);
                    }
                    ("EXEC", Some(done)) => answers.push(Value::Array(std::mem::take(done))),
                    (_, Some(done)) => {
                        done.push(server.serve(&words)?);
                        answers.push(Value::SimpleString("QUEUED".to_owned()));
                    }
                    (_, None) => answers.push(server.serve(&words)?),
                }
            }
            Ok(answers[offset..offset + count].to_vec())
        })
    }

    fn get_db(&self) -> i64 {
        0
    }

    fn check_connection(&mut self) -> bool {
        true
    }

    fn is_open(&self) -> bool {
        true
    }
}

/// Commands as the client packs them.
fn commands(mut packed: &[u8]) -> Vec<Vec<String>> {
    fn number(packed: &mut &[u8]) -> usize {
        let end = packed.iter().position(|byte| *byte == b'\r').unwrap();
        let number = std::str::from_utf8(&packed[1..end]).unwrap().parse().unwrap();
        *packed = &packed[end + 2..];
        number
    }
    let mut found = vec![];
    while !packed.is_empty() {
        let words = number(&mut packed);
        let mut word = || {
            let length = number(&mut packed);
            let text = String::from_utf8(packed[..length].to_vec()).unwrap();
            packed = &packed[length + 2..];
            text
        };
        found.push((0..words).map(|_| word()).collect());
    }
    found
}

fn refused(line: &str) -> RedisResult<Value> {
    redis::parse_redis_value(format!("-{line}\r\n").as_bytes())?.extract_error()
}

fn value(reply: Reply) -> Value {
    match reply {
        Reply::Nothing => Value::Nil,
        Reply::Fine => Value::Okay,
        Reply::Number(number) => Value::Int(number),
        Reply::Text(text) => Value::BulkString(text.into_bytes()),
        Reply::List(items) => Value::Array(items.into_iter().map(value).collect()),
    }
}

impl Server {
    fn serve(&self, words: &[String]) -> RedisResult<Value> {
        if let Some(left) = self.fuse.get() {
            if left == 0 {
                return Err(io::Error::from(io::ErrorKind::TimedOut).into());
            }
            self.fuse.set(Some(left - 1));
        }
        match self.mode.get() {
            Mode::Down => return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into()),
            Mode::ReadOnly if writes(&words[0]) && words[0] != "SCRIPT" => {
                return refused("READONLY You can't write against a read only replica.");
            }
            _ => {}
        }
        match words[0].as_str() {
            "SCRIPT" => Ok(Value::BulkString(self.load(&words[2]).into_bytes())),
            "EVALSHA" => {
                let Some(script) = self.scripts.borrow().get(&words[1]).cloned() else {
                    return refused("NOSCRIPT No matching script.");
                };
                let keys: usize = words[2].parse().unwrap();
                let (keys, arguments) = words[3..].split_at(keys);
                let answer = self.engine.call(&mut self.memory.borrow_mut(), &script, keys, arguments);
                let onlooker = self.onlooker.borrow().clone();
                if let Some(look) = onlooker {
                    look();
                }
                Ok(answer.map_or(Value::Nil, |text| Value::BulkString(text.into_bytes())))
            }
            _ => Ok(value(self.memory.borrow_mut().call(words))),
        }
    }

    fn load(&self, source: &str) -> String {
        let hash = redis::Script::new(source).get_hash().to_owned();
        // Fleets are small: here the counts that are kept would else be made anew each time.
        let source = if source.contains("local FEW") { believing(source) } else { source.to_owned() };
        let mistaken = match *self.mistake.borrow() {
            Some(Mistake { instead_of, written }) => source.replacen(instead_of, written, 1),
            None => source,
        };
        self.scripts.borrow_mut().insert(hash.clone(), self.engine.compile(&mistaken));
        hash
    }
}
