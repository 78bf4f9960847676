//! Alarms of AWS `CloudWatch` as a gate, by the AWS CLI.

use std::time::Duration;

use anyhow::{Context, Result};
use serde::Deserialize;

use super::gates::Reading;
use crate::process::{self, Program};

/// Asks how `names` stand. A failure of the call is an error: nothing is known.
pub fn ask(names: &[String], timeout: Duration, interrupted: &dyn Fn() -> bool) -> Result<Reading> {
    let call = ["aws", "--output", "json", "cloudwatch", "describe-alarms"];
    let which = ["--alarm-types", "MetricAlarm", "CompositeAlarm", "--alarm-names"];
    let argv = call.into_iter().chain(which).chain(names.iter().map(String::as_str));
    let output = process::run(&Program::new(timeout, argv), interrupted).context("cannot ask CloudWatch")?;
    judge(names, &output.stdout)
}

/// [DescribeAlarms](https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_DescribeAlarms.html).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    metric_alarms: Vec<Alarm>,
    #[serde(default)]
    composite_alarms: Vec<Alarm>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Alarm {
    #[serde(rename = "AlarmName")]
    name: String,
    state_value: String,
    #[serde(default)]
    state_reason: String,
}

/// One alarm is enough to fail; with none, one whose state is not known leaves it open.
fn judge(names: &[String], text: &str) -> Result<Reading> {
    let answer: Answer = serde_json::from_str(text).context("cannot read what CloudWatch answers")?;
    let alarms: Vec<Alarm> = answer.metric_alarms.into_iter().chain(answer.composite_alarms).collect();
    if let Some(alarm) = alarms.iter().find(|alarm| names.contains(&alarm.name) && alarm.state_value == "ALARM") {
        return Ok(Reading::Fail(format!("the alarm {} rings: {}", alarm.name, alarm.state_reason)));
    }
    for name in names {
        match alarms.iter().find(|alarm| alarm.name == *name) {
            None => return Ok(Reading::Unknown(format!("CloudWatch has no alarm {name} in this account and region"))),
            Some(alarm) if alarm.state_value != "OK" => {
                return Ok(Reading::Unknown(format!("the alarm {name} is in {}", alarm.state_value)));
            }
            Some(_) => {}
        }
    }
    Ok(Reading::Pass(format!("no alarm: {}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alarm_is_enough_and_silence_is_not() {
        let names = ["a", "b"].map(str::to_owned);
        let reading = |states: &[(&str, &str)]| {
            let alarms: Vec<_> = states
                .iter()
                .map(|(name, state)| serde_json::json!({"AlarmName": name, "StateValue": state, "StateReason": "why"}))
                .collect();
            judge(&names, &serde_json::json!({"MetricAlarms": alarms}).to_string()).unwrap()
        };
        assert!(matches!(reading(&[("a", "OK"), ("b", "OK")]), Reading::Pass(_)));
        assert_eq!(
            reading(&[("a", "INSUFFICIENT_DATA"), ("b", "ALARM")]),
            Reading::Fail("the alarm b rings: why".into())
        );
        assert!(matches!(reading(&[("a", "OK"), ("b", "INSUFFICIENT_DATA")]), Reading::Unknown(_)));
        assert!(matches!(reading(&[("a", "OK")]), Reading::Unknown(_)), "an alarm that is not there");
        assert!(judge(&names, "<html>").is_err());
    }
}
