//! Gates: conditions that a program or a Prometheus query stands for. How one is asked, and those before a start.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde::Deserialize;

use super::{
    alarms,
    compare::{self, Serving},
};
use crate::service::{Service, variables};
use crate::{
    api::{AuditEntry, Deploy},
    compose::DeployVars,
    config::{CompareGate, Gate, NoData, PrometheusGate, When},
    coordination::{Coordinator, DeployRecord, GateStep, Refusal},
    names::{BoxName, Place, Tag},
    process::{self, Failure, Program},
};

/// How long Prometheus may take for one answer.
const PROMETHEUS_PATIENCE: Duration = Duration::from_secs(15);

/// What a gate says.
#[derive(Debug, Clone, PartialEq)]
pub enum Reading {
    /// It passes; with what it read.
    Pass(String),
    /// It does not; with what it read.
    Fail(String),
    /// It could not be asked.
    Unknown(String),
}

/// The longest list of boxes that a program gets in a variable, in bytes: Linux takes 128 KiB, name included.
const LONGEST_LIST: usize = 120 * 1024;

/// Asks a gate about `deploy` and who serves what in it, for no longer than `timeout`.
pub fn ask(
    gate: &Gate,
    vars: &DeployVars,
    deploy: Option<&Deploy>,
    timeout: Duration,
    interrupted: &dyn Fn() -> bool,
) -> Reading {
    let deadline = Instant::now() + timeout;
    let serving = deploy.map(Serving::of).unwrap_or_default();
    let outcome = match gate {
        Gate { command: Some(argv), .. } => {
            return match program(argv, vars, &serving, deploy, timeout) {
                Ok(program) => ask_command(&program, interrupted),
                Err(error) => Reading::Unknown(format!("{error:#}")),
            };
        }
        Gate { prometheus: Some(gate), .. } => {
            let gate = PrometheusGate { query: serving.fill_in(&gate.query, &vars.tag), ..gate.clone() };
            query(&gate.url, &gate.query, deadline).map(|samples| judge(&gate, &samples))
        }
        Gate { compare: Some(gate), .. } => ask_both(gate, &serving, &vars.tag, deadline),
        Gate { cloudwatch_alarms, .. } => alarms::ask(cloudwatch_alarms, timeout, interrupted),
    };
    outcome.unwrap_or_else(|error| Reading::Unknown(format!("{error:#}")))
}

fn ask_both(gate: &CompareGate, serving: &Serving, tag: &Tag, deadline: Instant) -> Result<Reading> {
    if serving.others.is_empty() {
        return Ok(Reading::Pass("no box serves anything else that could be compared".to_owned()));
    }
    let number = |text: &str| -> Result<f64> {
        let text = serving.fill_in(text, tag);
        match query(&gate.url, &text, deadline)?.as_slice() {
            [] => Ok(0.0),
            [Sample { value, .. }] => Ok(*value),
            more => bail!("`{text}` gives {} numbers, and must give one: use sum()", more.len()),
        }
    };
    let samples = gate.samples.as_deref().map(number).transpose()?;
    Ok(compare::judge(gate, number(&gate.query)?, number(&gate.baseline)?, samples))
}

/// How often a gate is asked while a release rolls or bakes.
pub fn every(gate: &Gate) -> Duration {
    let every = gate.prometheus.as_ref().map(|gate| gate.every).or(gate.compare.as_ref().map(|gate| gate.every));
    every.unwrap_or(Duration::from_secs(15))
}

/// A gate's program: the usual variables, the names of who serves what, and the deploy's JSON to read. A list that is too
/// long for a variable is left out; the JSON has it.
fn program(
    argv: &[String],
    vars: &DeployVars,
    serving: &Serving,
    deploy: Option<&Deploy>,
    timeout: Duration,
) -> Result<Program> {
    let mut program = Program::new(timeout, argv).envs(vars.pairs());
    for (name, boxes) in [("DEPLOY_BOXES", &serving.boxes), ("DEPLOY_OTHERS", &serving.others)] {
        let list = boxes.iter().map(BoxName::as_str).collect::<Vec<_>>().join(" ");
        if list.len() <= LONGEST_LIST {
            program = program.env(name, list);
        }
    }
    let Some(deploy) = deploy else { return Ok(program) };
    let json = serde_json::to_string(deploy).context("cannot write a deploy")?;
    Ok(program.stdin(json + "\n"))
}

fn ask_command(program: &Program, interrupted: &dyn Fn() -> bool) -> Reading {
    match process::run(program, interrupted) {
        Ok(_) => Reading::Pass(format!("{} passed", process::command_line(&program.argv))),
        Err(failure @ Failure::Exit { code: Some(_), .. }) => Reading::Fail(failure.to_string()),
        Err(failure) => Reading::Unknown(failure.to_string()),
    }
}

/// One sample of an instant query.
#[derive(Debug, Clone, PartialEq)]
struct Sample {
    labels: String,
    value: f64,
}

/// A number as people read it: four digits of it.
#[must_use]
pub fn brief(number: f64) -> f64 {
    format!("{number:.3e}").parse().unwrap_or(number)
}

/// Holds every sample against the bounds.
fn judge(gate: &PrometheusGate, samples: &[Sample]) -> Reading {
    let query = &gate.query;
    if samples.is_empty() {
        let text = format!("`{query}` has no data");
        return if gate.no_data == NoData::Pass { Reading::Pass(text) } else { Reading::Fail(text) };
    }
    let within = |value: f64| {
        // Written so that NaN, which is what 0/0 gives, is not within.
        gate.max.is_none_or(|max| value <= max) && gate.min.is_none_or(|min| value >= min)
    };
    let bounds: Vec<String> =
        [gate.min.map(|min| format!("at least {min}")), gate.max.map(|max| format!("at most {max}"))]
            .into_iter()
            .flatten()
            .collect();
    let bounds = bounds.join(" and ");
    match samples.iter().find(|sample| !within(sample.value)) {
        Some(Sample { labels, value }) => {
            Reading::Fail(format!("`{query}` is {}{labels}, and must be {bounds}", brief(*value)))
        }
        None => Reading::Pass(format!("`{query}` is {bounds}")),
    }
}

/// [Instant queries](https://prometheus.io/docs/prometheus/latest/querying/api/#instant-queries).
fn query(server: &str, query: &str, deadline: Instant) -> Result<Vec<Sample>> {
    let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(left.min(PROMETHEUS_PATIENCE)))
        .build()
        .into();
    let url = format!("{}/api/v1/query", server.trim_end_matches('/'));
    let text = agent
        .get(&url)
        .query("query", query)
        .call()
        .and_then(|mut answer| answer.body_mut().read_to_string())
        .with_context(|| format!("cannot ask Prometheus at {server}"))?;
    samples(&text).with_context(|| format!("cannot use what Prometheus at {server} says to `{query}`"))
}

#[derive(Deserialize)]
struct Answer {
    status: String,
    #[serde(default)]
    error: String,
    data: Option<Data>,
}

#[derive(Deserialize)]
#[serde(tag = "resultType", content = "result", rename_all = "lowercase")]
enum Data {
    Vector(Vec<Series>),
    Scalar((f64, String)),
}

#[derive(Deserialize)]
struct Series {
    metric: std::collections::BTreeMap<String, String>,
    value: (f64, String),
}

fn samples(text: &str) -> Result<Vec<Sample>> {
    let answer: Answer =
        serde_json::from_str(text).with_context(|| format!("it answered {}", crate::names::quoted(text)))?;
    if answer.status != "success" {
        bail!("{}", answer.error);
    }
    let number = |text: &str| match text {
        "+Inf" => Ok(f64::INFINITY),
        "-Inf" => Ok(f64::NEG_INFINITY),
        other => other.parse().map_err(|_| anyhow!("{other:?} is no number")),
    };
    match answer.data.context("it has no data")? {
        Data::Scalar((_, value)) => Ok(vec![Sample { labels: String::new(), value: number(&value)? }]),
        Data::Vector(series) => series
            .into_iter()
            .map(|Series { metric, value: (_, value) }| {
                let labels: Vec<String> = metric.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
                let labels = if labels.is_empty() { String::new() } else { format!(" for {{{}}}", labels.join(",")) };
                Ok(Sample { labels, value: number(&value)? })
            })
            .collect(),
    }
}

impl Service {
    /// Asks the gates before the start of a deploy, once, and opens or ends it. The caller holds the lease; so gates
    /// that somebody has claimed were asked by a service that is no more.
    pub fn ask_start_gates(&self, place: &Place, doc: &DeployRecord) -> Result<()> {
        let step = |step, reason: Option<&str>| {
            self.store.at(place, |locks| locks.gates(&doc.id, step, self.store.me(), reason))
        };
        let claimed = step(GateStep::Claim, None)?;
        let outcome = match claimed.refused {
            None => self.start_gates(place, doc),
            Some(Refusal::Claimed) => {
                Err("the service stopped while a gate was asked: start the deploy again".to_owned())
            }
            Some(_) => return Ok(()),
        };
        let entry = AuditEntry::new("service", "gate").place(place).tag(&doc.tag).deploy(&doc.id);
        match outcome {
            Ok(()) => {
                step(GateStep::Pass, None)?;
                self.audit(entry.detail("the gates before the start passed"));
            }
            Err(reason) => {
                step(GateStep::Fail, Some(&reason))?;
                self.audit(entry.detail(reason));
            }
        }
        Ok(())
    }

    fn start_gates(&self, place: &Place, doc: &DeployRecord) -> Result<(), String> {
        let rolls = || {
            let cancel = self.store.at(place, |locks| locks.cancel_of(&doc.id));
            let current = self.store.at(place, Coordinator::current);
            // A Redis that does not answer is no reason to stop a migration half-way.
            cancel.map_or(true, |cancel| cancel.is_none())
                && current.map_or(true, |current| current.is_some_and(|current| current.id == doc.id))
        };
        let stop = || self.is_stopping() || !rolls();
        let vars = variables(place, &doc.tag, &doc.id, doc.kind);
        let deploy = self.store.at(place, |locks| locks.deploy(&doc.id));
        let deploy = deploy.map_err(|error| format!("a gate was not asked: {error:#}"))?;
        let gates = self.config.service.role(&place.role).gates;
        for gate in gates.iter().filter(|gate| gate.when == When::Start) {
            match ask(gate, &vars, deploy.as_ref(), self.config.command_timeout, &stop) {
                Reading::Pass(_) => {}
                Reading::Fail(reason) | Reading::Unknown(reason) => {
                    return Err(format!("a gate did not pass: {reason}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate(min: Option<f64>, max: Option<f64>, no_data: NoData) -> PrometheusGate {
        let (url, query) = ("http://127.0.0.1:9090".to_owned(), "errors".to_owned());
        PrometheusGate { url, query, max, min, every: Duration::from_secs(15), no_data }
    }

    fn at(value: f64) -> Vec<Sample> {
        vec![Sample { labels: " for {job=\"app\"}".to_owned(), value }]
    }

    #[test]
    fn numbers_are_shown_with_four_digits() {
        let shown = [0.0, 7.0, 0.214_285_714, -12.345_678, 123_456.7, f64::NAN].map(|number| brief(number).to_string());
        assert_eq!(shown, ["0", "7", "0.2143", "-12.35", "123500", "NaN"]);
    }

    #[test]
    fn every_sample_must_stand_within_the_bounds() {
        let gate = gate(Some(1.0), Some(2.0), NoData::Fail);
        let passes = |samples: &[Sample]| matches!(judge(&gate, samples), Reading::Pass(_));
        assert!(passes(&at(1.0)) && passes(&at(2.0)) && !passes(&at(0.9)) && !passes(&at(2.1)));
        assert!(!passes(&at(f64::NAN)) && !passes(&at(f64::INFINITY)));
        assert!(!passes(&[at(1.5), at(3.0)].concat()));
        let Reading::Fail(text) = judge(&gate, &at(3.0)) else { panic!("it passed") };
        assert_eq!(text, "`errors` is 3 for {job=\"app\"}, and must be at least 1 and at most 2");
    }

    #[test]
    fn no_data_fails_unless_said_otherwise() {
        assert!(matches!(judge(&gate(None, Some(1.0), NoData::Fail), &[]), Reading::Fail(_)));
        assert!(matches!(judge(&gate(None, Some(1.0), NoData::Pass), &[]), Reading::Pass(_)));
    }

    #[test]
    fn recorded_answers_are_read() {
        let vector = r#"{"status":"success","data":{"resultType":"vector","result":[
            {"metric":{"__name__":"up","job":"app"},"value":[1795000000.1,"1"]},{"metric":{},"value":[1795000000.1,"+Inf"]}]}}"#;
        let read = samples(vector).unwrap();
        assert_eq!(read[0], Sample { labels: r#" for {__name__="up",job="app"}"#.to_owned(), value: 1.0 });
        assert_eq!(read[1], Sample { labels: String::new(), value: f64::INFINITY });
        let scalar = r#"{"status":"success","data":{"resultType":"scalar","result":[1795000000.1,"NaN"]}}"#;
        assert!(samples(scalar).unwrap()[0].value.is_nan());
        let error = r#"{"status":"error","errorType":"bad_data","error":"parse error at char 3"}"#;
        assert!(format!("{:#}", samples(error).unwrap_err()).contains("parse error at char 3"));
        let matrix = r#"{"status":"success","data":{"resultType":"matrix","result":[]}}"#;
        assert!(samples(matrix).is_err() && samples("<html>").is_err());
    }

    #[test]
    fn a_command_that_exits_badly_fails_and_one_that_cannot_run_proves_nothing() {
        let place = Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() };
        let vars = variables(&place, &"v2".parse().unwrap(), "app.staging.x", crate::api::Kind::Deploy);
        let ask = |argv: &[&str], timeout| {
            let argv: Vec<String> = argv.iter().map(|word| (*word).to_owned()).collect();
            ask_command(&program(&argv, &vars, &Serving::default(), None, timeout).unwrap(), &process::never)
        };
        let long = Duration::from_secs(10);
        assert!(matches!(ask(&["sh", "-c", "test $DEPLOY_TAG = v2"], long), Reading::Pass(_)));
        assert!(matches!(ask(&["sh", "-c", "exit 3"], long), Reading::Fail(_)));
        assert!(matches!(ask(&["/nowhere/gate"], long), Reading::Unknown(_)));
        assert!(matches!(ask(&["sleep", "9"], Duration::from_millis(50)), Reading::Unknown(_)));
    }

    #[test]
    fn a_list_that_no_variable_can_hold_is_left_out() {
        let place = Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() };
        let vars = variables(&place, &"v2".parse().unwrap(), "app.staging.x", crate::api::Kind::Deploy);
        let others = (0..20_000).map(|number| format!("box-{number}").parse().unwrap()).collect();
        let serving = Serving { boxes: vec!["a.1".parse().unwrap(), "b".parse().unwrap()], others, last_good: None };
        let argv = ["true".to_owned()];
        let program = program(&argv, &vars, &serving, None, Duration::from_secs(10)).unwrap();
        let value = |name: &str| program.env.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str());
        assert_eq!((value("DEPLOY_BOXES"), value("DEPLOY_OTHERS")), (Some("a.1 b"), None));
        assert!(matches!(ask_command(&program, &process::never), Reading::Pass(_)));
    }
}
