//! Gates: conditions for starting, for going on and for promoting.

use std::{num::NonZeroU32, time::Duration};

use serde::Deserialize;

use super::duration;

/// A condition, and when it is asked. Exactly one of `command`, `prometheus`, `compare` and
/// `cloudwatch_alarms` is given.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gate {
    /// Before the event of a deploy, while it rolls, or between its end and its promotion.
    pub when: When,
    /// A program on the service's host; exit code 0 passes.
    pub command: Option<Vec<String>>,
    /// A Prometheus query and its bound.
    pub prometheus: Option<PrometheusGate>,
    /// Boxes of the new release beside those of the old one; while a release rolls only.
    pub compare: Option<CompareGate>,
    /// Alarms of AWS `CloudWatch`, in the account and the region that the AWS CLI uses: none of them may be in `ALARM`.
    #[serde(default)]
    pub cloudwatch_alarms: Vec<String>,
    /// While a release rolls: how many failures in a row are a verdict.
    #[serde(default = "failures")]
    pub failures: NonZeroU32,
    /// While a release rolls: how long a gate that cannot be asked holds the deploy.
    #[serde(default = "unknown_for", deserialize_with = "duration::deserialize")]
    pub unknown_for: Duration,
    /// What it means after that.
    #[serde(default)]
    pub unknown: NoData,
}

impl Gate {
    /// What is wrong with what is written.
    pub(super) fn check(&self) -> Result<(), String> {
        let kinds = [
            self.command.is_some(),
            self.prometheus.is_some(),
            self.compare.is_some(),
            !self.cloudwatch_alarms.is_empty(),
        ];
        let bounds = self.prometheus.as_ref().is_none_or(|p| p.max.is_some() || p.min.is_some());
        let refuse = |text: &str| Err(text.to_owned());
        if kinds.into_iter().filter(|given| *given).count() != 1 || !bounds {
            return refuse("a gate has a command, a prometheus query with max or min, a compare, or cloudwatch_alarms");
        }
        let Some(compare) = &self.compare else { return Ok(()) };
        if self.when != When::Roll {
            return refuse("compare is asked while a release rolls: write \"when\": \"roll\"");
        }
        if compare.samples.is_some() != compare.min_samples.is_some() {
            return refuse("compare.min_samples needs compare.samples, a query that counts them");
        }
        if !(compare.max_ratio.is_finite() && compare.max_ratio > 0.0) {
            return refuse("compare.max_ratio must be a number above 0");
        }
        Ok(())
    }
}

/// When a gate is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum When {
    /// Once, before the event; a failure ends the deploy `failed`.
    Start,
    /// Repeatedly, before promotion; a failure marks the release broken.
    Bake,
    /// Repeatedly, from the first done box on until the release has baked; failures in a row mark it broken and stop it.
    Roll,
}

/// An instant query ([HTTP API](https://prometheus.io/docs/prometheus/latest/querying/api/)) whose every sample must
/// stand within the bounds.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PrometheusGate {
    /// The server, `http://host:9090`.
    pub url: String,
    /// PromQL.
    pub query: String,
    /// The largest value that passes.
    pub max: Option<f64>,
    /// The smallest value that passes.
    pub min: Option<f64>,
    /// The time between two questions.
    #[serde(default = "every", deserialize_with = "duration::deserialize")]
    pub every: Duration,
    /// What an answer without data means.
    #[serde(default)]
    pub no_data: NoData,
}

/// Two instant queries that give one number each: the boxes that serve the release must not be worse than the others by
/// more than a factor. What hits both is not the release's fault.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompareGate {
    /// The server, `http://host:9090`.
    pub url: String,
    /// PromQL about the boxes that serve the release, with `$boxes`. No data counts as 0.
    pub query: String,
    /// PromQL about the others, with `$others`. No data counts as 0.
    pub baseline: String,
    /// The query may be so many times the baseline.
    pub max_ratio: f64,
    /// PromQL with `$boxes`: how many requests the query rests on.
    pub samples: Option<String>,
    /// With fewer of them nothing is known yet.
    pub min_samples: Option<f64>,
    /// The time between two questions.
    #[serde(default = "every", deserialize_with = "duration::deserialize")]
    pub every: Duration,
}

/// What an answer without data means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoData {
    /// A metric that vanished is as bad as a bad one.
    #[default]
    Fail,
    /// Nothing to complain of.
    Pass,
}

fn failures() -> NonZeroU32 {
    NonZeroU32::MIN.saturating_add(2)
}

fn unknown_for() -> Duration {
    Duration::from_secs(600)
}

fn every() -> Duration {
    Duration::from_secs(15)
}
