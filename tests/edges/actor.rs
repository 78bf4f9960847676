//! Our own part of a test, in a process of its own: the AWS CLI inherits our environment, and all tests share one.

use std::{
    env, fs,
    process::Command,
    time::{Duration, Instant},
};

use deployctl::{
    config::LoadBalancer,
    load_balancer::{Auto, LoadBalancers, Setting, Waiting},
    process::never,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::support::Scope;

const REQUEST: &str = "DEPLOYCTL_TEST_REQUEST";
const ANSWER: &str = "DEPLOYCTL_TEST_ANSWER";

/// What the other process does.
#[derive(Debug, Serialize, Deserialize)]
pub struct Act {
    /// `survey`, `in_service`, `register`, `deregister`.
    pub verb: String,
    /// As the configuration has it.
    pub load_balancers: Value,
    /// What `auto` finds out.
    pub auto: String,
    /// When `register` gives up.
    pub within: Duration,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Outcome {
    /// What it answered, or its error as one line.
    pub result: Result<Value, String>,
    /// What it said meanwhile.
    pub progress: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// The answer; fails the test with the error.
    #[track_caller]
    pub fn ok(self) -> Value {
        self.result.unwrap()
    }

    /// The error; fails the test without one.
    #[track_caller]
    pub fn error(self) -> String {
        self.result.unwrap_err()
    }
}

impl Act {
    pub fn new(verb: &str, load_balancers: &Value) -> Self {
        let (verb, load_balancers) = (verb.to_owned(), load_balancers.clone());
        Self { verb, load_balancers, auto: String::new(), within: Duration::from_secs(30) }
    }

    pub fn auto(self, found: &str) -> Self {
        Self { auto: found.to_owned(), ..self }
    }

    pub fn within(self, within: Duration) -> Self {
        Self { within, ..self }
    }

    /// Does it in another process, whose environment `prepare` sets.
    #[track_caller]
    pub fn run(&self, scope: &Scope, prepare: impl FnOnce(&mut Command)) -> Outcome {
        let answer = scope.dir().join(format!("answer-{}", self.verb));
        let _ = fs::remove_file(&answer);
        let mut command = scope.command(env::current_exe().unwrap().to_str().unwrap());
        command.args(["--exact", "edges::actor::acts_when_it_is_told", "--nocapture"]);
        command.env(REQUEST, serde_json::to_string(self).unwrap()).env(ANSWER, &answer);
        // One try for each call of ours: how the CLI itself tries again is not what is tested.
        command.env("AWS_MAX_ATTEMPTS", "1");
        prepare(&mut command);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&fs::read(answer).unwrap()).unwrap()
    }

    fn play(&self, progress: &(dyn Fn(&str) + Sync)) -> anyhow::Result<Value> {
        let entries: Vec<LoadBalancer> = serde_json::from_value(self.load_balancers.clone())?;
        let auto = |auto: Auto| Ok(if auto == Auto::Region { "us-east-1".to_owned() } else { self.auto.clone() });
        let setting = Setting { auto: &auto, variables: &[], command_timeout: Duration::from_secs(30) };
        let balancers = LoadBalancers::resolve(&entries, &setting, &never)?;
        let waiting = Waiting { locks: 1, interrupted: &never, progress, looks: None };
        match self.verb.as_str() {
            "in_service" => Ok(json!(balancers.in_service(&waiting)?)),
            "register" => balancers.register(Instant::now() + self.within, &waiting).map(|()| Value::Null),
            "deregister" => balancers.deregister(&waiting).map(|()| Value::Null),
            "survey" => {
                let surveys = balancers.survey(&waiting)?;
                let table = |s: &deployctl::load_balancer::ServingTargets| json!({"key": s.key, "me": s.me, "in_service": s.in_service});
                Ok(surveys.iter().map(table).collect())
            }
            other => panic!("no such act: {other}"),
        }
    }
}

#[test]
fn acts_when_it_is_told() {
    let (Ok(request), Ok(answer)) = (env::var(REQUEST), env::var(ANSWER)) else { return };
    let act: Act = serde_json::from_str(&request).unwrap();
    let said = std::sync::Mutex::new(Vec::new());
    let started = Instant::now();
    let result = act.play(&|words| said.lock().unwrap().push(words.to_owned()));
    let result = result.map_err(|e| format!("{e:#}"));
    let outcome = Outcome { result, progress: said.into_inner().unwrap(), took: started.elapsed() };
    fs::write(answer, serde_json::to_string(&outcome).unwrap()).unwrap();
}
