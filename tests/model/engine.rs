//! Runs the project's own Lua on the Redis in memory, as Redis would: Lua 5.1, `redis.call`, `cjson`, `KEYS`, `ARGV`.

use std::{cell::RefCell, fmt, mem, rc::Rc};

use deployctl::coordination::scripts::Script;
use mlua::{
    Either, Function, Lua, Table, Value, Variadic,
    state::{GcIncParams, GcMode},
};
use serde::{
    Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value as Json};

use crate::model::memory::{Memory, Reply};

/// The place in which everything happens.
pub const BASE: &str = "m:{staging:app}:";

pub const SCRIPTS: [Script; 14] = [
    Script::Begin,
    Script::Join,
    Script::Acquire,
    Script::Leave,
    Script::Renew,
    Script::Finish,
    Script::Cancel,
    Script::Hold,
    Script::Glance,
    Script::End,
    Script::Unlock,
    Script::Queue,
    Script::Gates,
    Script::Pause,
];

/// A change of the Lua: where this stands, that is written instead.
#[derive(Debug, Clone, Copy)]
pub struct Mistake {
    pub instead_of: &'static str,
    pub written: &'static str,
}

/// Who was not upgraded yet, and runs the scripts of the version that counted everything each time (`older/`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Older {
    /// The box `a`.
    Box,
    /// The service, and who cancels.
    Service,
}

impl Older {
    fn runs(self, script: Script, args: &Json) -> bool {
        match self {
            Self::Box => args["box"] == "a",
            Self::Service => matches!(script, Script::Begin | Script::End | Script::Cancel | Script::Pause),
        }
    }
}

/// The compiled scripts, and the memory they work on while one of them runs.
pub struct Engine {
    lua: Lua,
    memory: Rc<RefCell<Memory>>,
    scripts: Vec<Function>,
    pub older: Option<Older>,
    older_scripts: Vec<Function>,
}

impl Engine {
    pub fn new(mistake: Option<Mistake>) -> Self {
        let (lua, memory) = lua_with_redis();
        lua.globals().set("KEYS", vec![BASE]).unwrap();
        let mut made = mistake.is_none();
        let scripts = SCRIPTS.map(|script| {
            let mut source = believing(&script.source());
            if let Some(Mistake { instead_of, written }) = mistake {
                made |= source.contains(instead_of);
                source = source.replacen(instead_of, written, 1);
            }
            lua.load(source).set_name(format!("{script:?}")).into_function().unwrap()
        });
        assert!(made, "no script says {:?} any more", mistake.unwrap().instead_of);
        Self { lua, memory, scripts: scripts.into(), older: None, older_scripts: vec![] }
    }

    /// Where `older` has not been upgraded yet.
    pub fn mixed(older: Older) -> Self {
        let engine = Self::new(None);
        let scripts = SCRIPTS.map(|script| {
            let source = older_source(script).unwrap_or_else(|| script.source());
            engine.lua.load(source).set_name(format!("older {script:?}")).into_function().unwrap()
        });
        Self { older: Some(older), older_scripts: scripts.into(), ..engine }
    }

    /// Runs `script` with `args` on `memory`.
    pub fn run(&self, memory: &mut Memory, script: Script, args: &Json) -> Json {
        self.memory.replace(mem::take(memory));
        self.lua.globals().set("ARGV", vec![args.to_string()]).unwrap();
        let at = SCRIPTS.iter().position(|known| *known == script).unwrap();
        let is_older = self.older.is_some_and(|older| older.runs(script, args));
        let scripts = if is_older { &self.older_scripts } else { &self.scripts };
        let answer = scripts[at].call::<String>(());
        *memory = self.memory.take();
        let answer = answer.unwrap_or_else(|error| panic!("{script:?} {args}: {error}"));
        serde_json::from_str(&answer).unwrap()
    }
}

/// The scripts of whoever sends them, run as Redis does: by their own text, with any keys and arguments.
impl Engine {
    /// One that knows no script yet.
    pub fn empty() -> Self {
        let (lua, memory) = lua_with_redis();
        Self { lua, memory, scripts: vec![], older: None, older_scripts: vec![] }
    }

    pub fn compile(&self, source: &str) -> Function {
        self.lua.load(source).into_function().unwrap()
    }

    /// Runs `script` on `memory`. What it does not give back as a text is nothing.
    pub fn call(&self, memory: &mut Memory, script: &Function, keys: &[String], argv: &[String]) -> Option<String> {
        self.memory.replace(mem::take(memory));
        self.lua.globals().set("KEYS", keys).unwrap();
        self.lua.globals().set("ARGV", argv).unwrap();
        let answer = script.call::<Value>(());
        *memory = self.memory.take();
        let answer = answer.unwrap_or_else(|error| panic!("{argv:?}: {error}"));
        answer.as_string().map(mlua::LuaString::to_string_lossy)
    }
}

/// The script in which what is kept is always believed, however few locks there are and for however long: what the
/// model finds, no counting anew has mended.
pub fn believing(source: &str) -> String {
    let (few, long) = ("local FEW = 32\n", "local RECOUNT = 2000\n");
    assert!(source.contains(few) && source.contains(long), "the prelude says something else");
    source.replace(few, "local FEW = 0\n").replace(long, "local RECOUNT = 1000000000000\n")
}

/// What the older version ran.
fn older_source(script: Script) -> Option<String> {
    let own = match script {
        Script::Begin => include_str!("older/begin.lua"),
        Script::Join => include_str!("older/join.lua"),
        Script::Acquire => include_str!("older/acquire.lua"),
        Script::Leave => include_str!("older/leave.lua"),
        Script::Renew => include_str!("older/renew.lua"),
        Script::Finish => include_str!("older/finish.lua"),
        Script::Hold => include_str!("older/hold.lua"),
        Script::End => include_str!("older/end.lua"),
        Script::Cancel => include_str!("older/cancel.lua"),
        Script::Pause => include_str!("older/pause.lua"),
        _ => return None,
    };
    let source = script.source();
    let (prelude, _) = source.split_once("-- What every script shares").expect("the prelude, then common.lua");
    Some(format!("{prelude}{}\n{own}", include_str!("older/common.lua")))
}

fn lua_with_redis() -> (Lua, Rc<RefCell<Memory>>) {
    let (lua, memory) = (Lua::new(), Rc::new(RefCell::new(Memory::default())));
    // What a script leaves behind is small: to clean up after each would take longer than the script.
    lua.gc_set_mode(GcMode::Incremental(GcIncParams::default().pause(1000)));
    give_redis(&lua, &memory).unwrap();
    give_cjson(&lua).unwrap();
    (lua, memory)
}

fn give_redis(lua: &Lua, memory: &Rc<RefCell<Memory>>) -> mlua::Result<()> {
    let memory = Rc::clone(memory);
    let call = lua.create_function(move |lua, (command, key, first, second, rest): Words| {
        let words = [Some(command), key, first, second].into_iter().flatten();
        let words: Vec<String> = words.chain(rest.iter().map(word)).collect();
        // A text goes back as it is: most answers are one.
        match memory.borrow_mut().call(&words) {
            Reply::Text(text) => Ok(Either::Left(text)),
            reply => to_lua(lua, reply).map(Either::Right),
        }
    })?;
    let redis = lua.create_table()?;
    redis.set("call", call)?;
    // It is only asked whether two are the same.
    redis.set("sha1hex", lua.create_function(|_, text: String| Ok(text))?)?;
    lua.globals().set("redis", redis)
}

/// What `redis.call` is given. The first words are taken as texts at once: that is much faster than to ask each what it is.
type Words = (String, Option<String>, Option<String>, Option<String>, Variadic<Value>);

/// An argument as Redis sees it.
fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string_lossy(),
        Value::Integer(number) => number.to_string(),
        Value::Number(number) => number.to_string(),
        other => panic!("redis.call takes strings and numbers, not {other:?}"),
    }
}

fn to_lua(lua: &Lua, reply: Reply) -> mlua::Result<Value> {
    Ok(match reply {
        Reply::Nothing => Value::Boolean(false),
        Reply::Fine => Value::Table(lua.create_table_from([("ok", "OK")])?),
        Reply::Number(number) => Value::Integer(number),
        Reply::Text(text) => Value::String(lua.create_string(text)?),
        Reply::List(replies) => {
            let table = lua.create_table()?;
            for reply in replies {
                table.raw_push(to_lua(lua, reply)?)?;
            }
            Value::Table(table)
        }
    })
}

fn give_cjson(lua: &Lua) -> mlua::Result<()> {
    let cjson = lua.create_table()?;
    let decode = lua.create_function(|lua, text: String| {
        let mut json = serde_json::Deserializer::from_str(&text);
        let value = IntoLua(lua).deserialize(&mut json).map_err(mlua::Error::external)?;
        json.end().map(|()| value).map_err(mlua::Error::external)
    })?;
    cjson.set("decode", decode)?;
    cjson.set("encode", lua.create_function(|_, value: Value| Ok(to_json(&value).to_string()))?)?;
    cjson.set("null", Value::NULL)?;
    lua.globals().set("cjson", cjson)
}

/// JSON as cjson reads it, without a stop on the way: the scripts read more than they do anything else.
struct IntoLua<'a>(&'a Lua);

impl<'de> DeserializeSeed<'de> for IntoLua<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Value, D::Error> {
        json.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for IntoLua<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::NULL)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Boolean(truth))
    }

    #[allow(clippy::cast_precision_loss, reason = "Lua has no other numbers")]
    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    #[allow(clippy::cast_precision_loss, reason = "Lua has no other numbers")]
    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.0.create_string(text).map(Value::String).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let table = self.0.create_table().map_err(A::Error::custom)?;
        while let Some(item) = items.next_element_seed(IntoLua(self.0))? {
            table.raw_push(item).map_err(A::Error::custom)?;
        }
        Ok(Value::Table(table))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let table = self.0.create_table().map_err(A::Error::custom)?;
        while let Some(name) = fields.next_key::<String>()? {
            let value = fields.next_value_seed(IntoLua(self.0))?;
            table.raw_set(name, value).map_err(A::Error::custom)?;
        }
        Ok(Value::Table(table))
    }
}

/// As cjson writes it: a table without entries is an object, whole numbers have no point.
fn to_json(value: &Value) -> Json {
    match value {
        Value::Boolean(truth) => Json::Bool(*truth),
        Value::Integer(number) => Json::from(*number),
        #[allow(clippy::cast_possible_truncation, reason = "a whole number")]
        Value::Number(number) if number.fract() == 0.0 => Json::from(*number as i64),
        Value::Number(number) => Json::from(*number),
        Value::String(text) => Json::String(text.to_string_lossy()),
        Value::Table(table) => table_to_json(table),
        _ => Json::Null,
    }
}

fn table_to_json(table: &Table) -> Json {
    if table.raw_len() > 0 {
        return Json::Array(table.sequence_values().map(|item| to_json(&item.unwrap())).collect());
    }
    let mut fields = Map::new();
    for pair in table.pairs::<String, Value>() {
        let (name, value) = pair.unwrap();
        fields.insert(name, to_json(&value));
    }
    Json::Object(fields)
}
