//! `GET /metrics`, in [Prometheus's text format](https://prometheus.io/docs/instrumenting/exposition_formats/).
//!
//! Everything is read from Redis when it is asked for, so two services say the same, and a restart resets no counter.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Result;

use super::{
    Service,
    api_error::ApiResult,
    auth::Caller,
    http::{Request, Response},
    now_ms,
    store::Notified,
};
use crate::{
    api::{Phase, PromotionState, State},
    config::Verb,
    names::{Place, Role},
};

const ENDED: [State; 4] = [State::Deployed, State::Broken, State::Cancelled, State::Failed];
const PHASES: [Phase; 13] = [
    Phase::Expected,
    Phase::Waiting,
    Phase::Pulling,
    Phase::Draining,
    Phase::Starting,
    Phase::Verifying,
    Phase::Registering,
    Phase::Done,
    Phase::Failed,
    Phase::RolledBack,
    Phase::Cancelled,
    Phase::Gone,
    Phase::Lost,
];

/// `GET /metrics`, for callers that may read in every environment.
pub fn show(service: &Service, caller: &Caller, _: &Request) -> ApiResult<Response> {
    caller.need(Verb::Read, None)?;
    Ok(Response::metrics(service.metrics()?))
}

/// A text in the making: families in order, each with its samples.
#[derive(Default)]
struct Text {
    families: Vec<(&'static str, &'static str, &'static str)>,
    samples: BTreeMap<&'static str, String>,
}

impl Text {
    fn family(&mut self, name: &'static str, kind: &'static str, help: &'static str) {
        self.families.push((name, kind, help));
    }

    /// A sample of a family. `suffix`: `_sum` and `_count` of a summary. Labels need no escapes: names have no quotes.
    fn add(&mut self, family: &'static str, suffix: &str, labels: &str, value: f64) {
        let samples = self.samples.entry(family).or_default();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
        // Writing to a text cannot fail.
        let _ = writeln!(samples, "{family}{suffix}{labels} {value}");
    }

    fn finish(self) -> String {
        let mut text = String::new();
        for (name, kind, help) in self.families {
            let samples = self.samples.get(name).map_or("", String::as_str);
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{samples}");
        }
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts and milliseconds are far below 2^52")]
fn number(value: u64) -> f64 {
    value as f64
}

fn seconds(milliseconds: i64) -> f64 {
    number(u64::try_from(milliseconds).unwrap_or_default()) / 1000.0
}

impl Service {
    fn metrics(&self) -> Result<String> {
        let mut text = Text::default();
        text.family("deployctl_deploys_total", "counter", "Deploys that have ended, by their end.");
        text.family("deployctl_deploy_duration_seconds", "summary", "How long deploys took, by their end.");
        text.family("deployctl_deploys", "gauge", "Deploys that roll or wait in the queue.");
        text.family("deployctl_rolling_seconds", "gauge", "For how long the deploy that rolls has been rolling.");
        text.family("deployctl_paused", "gauge", "1 while the deploy that rolls is paused.");
        text.family("deployctl_gate", "gauge", "1 while a gate holds the deploy that rolls.");
        text.family("deployctl_step", "gauge", "The step at which the deploy that rolls stands; 0 without one.");
        text.family("deployctl_remaining", "gauge", "Boxes that the deploy that rolls has still before it.");
        text.family("deployctl_boxes", "gauge", "Boxes of the newest deploy, by phase.");
        text.family("deployctl_locks_held", "gauge", "Locks that are held.");
        text.family("deployctl_boxes_out", "gauge", "Boxes that deployctl has taken out of service.");
        text.family(
            "deployctl_zone_boxes_out",
            "gauge",
            "Those of one zone, where the newest deploy has more than one.",
        );
        text.family("deployctl_zone_lost", "gauge", "1 while no box of the zone lives.");
        text.family("deployctl_frozen", "gauge", "1 while nothing new starts there.");
        text.family("deployctl_releases", "gauge", "Releases that are known.");
        text.family(
            "deployctl_waits_for_approval",
            "gauge",
            "1 while a release waits for a person to promote it there.",
        );
        text.family("deployctl_notifications_total", "counter", "Notifications, by what became of them.");
        text.family("deployctl_notifications_waiting", "gauge", "Notifications that are still to be sent.");
        self.measure_notifications(&mut text)?;
        let tallies = self.store.tallies()?;
        let freezes = self.store.freezes()?;
        let places = self.store.places()?;
        for place in &places {
            let labels = format!("role=\"{}\",environment=\"{}\"", place.role, place.environment);
            for state in ENDED {
                let tally =
                    tallies.get(&format!("{}:{}:{state}", place.environment, place.role)).cloned().unwrap_or_default();
                let labels = format!("{labels},state=\"{state}\"");
                text.add("deployctl_deploys_total", "", &labels, number(tally.count));
                text.add("deployctl_deploy_duration_seconds", "_sum", &labels, number(tally.took_ms) / 1000.0);
                text.add("deployctl_deploy_duration_seconds", "_count", &labels, number(tally.count));
            }
            text.add("deployctl_frozen", "", &labels, f64::from(u8::from(freezes.iter().any(|f| f.covers(place)))));
            self.measure(place, &labels, &mut text)?;
        }
        let mut roles: Vec<&Role> =
            places.iter().map(|place| &place.role).chain(self.config.service.roles.keys()).collect();
        roles.sort();
        roles.dedup();
        for role in roles {
            text.add("deployctl_releases", "", &format!("role=\"{role}\""), number(self.store.count_releases(role)?));
        }
        let waiting = self.promotions()?;
        for (role, policy) in &self.config.service.roles {
            for (_, target) in policy.ways_on() {
                let waits = waiting.iter().any(|promotion| {
                    promotion.role == *role
                        && promotion.environment == *target
                        && promotion.state == PromotionState::WaitsForApproval
                });
                let labels = format!("role=\"{role}\",environment=\"{target}\"");
                text.add("deployctl_waits_for_approval", "", &labels, f64::from(u8::from(waits)));
            }
        }
        Ok(text.finish())
    }

    /// A notification that was not taken and comes again is `failed` each time.
    fn measure_notifications(&self, text: &mut Text) -> Result<()> {
        let counts = self.store.notified()?;
        for target in self.config.service.notify.targets() {
            let labels = format!("target=\"{}\"", target.name);
            for result in Notified::ALL.map(Notified::as_str) {
                let count = counts.get(&format!("{}:{result}", target.name)).copied().unwrap_or_default();
                text.add("deployctl_notifications_total", "", &format!("{labels},result=\"{result}\""), number(count));
            }
            text.add("deployctl_notifications_waiting", "", &labels, number(self.store.count_waiting(&target.name)?));
        }
        Ok(())
    }

    fn measure(&self, place: &Place, labels: &str, text: &mut Text) -> Result<()> {
        let (current, queued, locks) = self.store.at(place, |locks| {
            let current = locks.current()?;
            let shown = current.as_ref().map(|doc| locks.show(doc, true)).transpose()?;
            Ok((current.zip(shown), locks.queued()?, locks.locks()?))
        })?;
        let rolls = current.as_ref().is_some_and(|(doc, _)| doc.state() == State::Rolling);
        for (state, holds) in [(State::Rolling, rolls), (State::Queued, queued.is_some())] {
            text.add("deployctl_deploys", "", &format!("{labels},state=\"{state}\""), f64::from(u8::from(holds)));
        }
        if let Some((doc, deploy)) = current {
            if rolls {
                text.add("deployctl_rolling_seconds", "", labels, seconds(now_ms() - doc.started.unwrap_or_default()));
                text.add("deployctl_paused", "", labels, f64::from(u8::from(deploy.pause.is_some())));
                text.add("deployctl_gate", "", labels, f64::from(u8::from(self.is_held_by_gate(place, &doc)?)));
                let step = deploy.step.as_ref().map_or(0, |step| step.number);
                text.add("deployctl_step", "", labels, number(u64::try_from(step).unwrap_or_default()));
                text.add("deployctl_remaining", "", labels, f64::from(deploy.remaining));
            }
            for zone in &deploy.zones {
                let labels = format!("{labels},zone=\"{}\"", zone.zone);
                let out = locks.out.iter().filter(|out| out.zone.as_ref() == Some(&zone.zone)).count();
                text.add("deployctl_zone_boxes_out", "", &labels, number(u64::try_from(out).unwrap_or_default()));
                text.add("deployctl_zone_lost", "", &labels, f64::from(u8::from(zone.lost)));
            }
            for phase in PHASES {
                let count = deploy.boxes.iter().filter(|row| row.phase == phase).count();
                let labels = format!("{labels},phase=\"{phase}\"");
                text.add("deployctl_boxes", "", &labels, number(u64::try_from(count).unwrap_or_default()));
            }
        }
        text.add("deployctl_locks_held", "", labels, number(u64::try_from(locks.locks.len()).unwrap_or_default()));
        text.add("deployctl_boxes_out", "", labels, number(u64::try_from(locks.out.len()).unwrap_or_default()));
        Ok(())
    }
}
