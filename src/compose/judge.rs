//! What a look at a project's containers means, and what several looks in a row do. Pure: time comes in as a value.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use super::inspect::{Container, ContainerState, HealthState};
use crate::config::duration;

/// How often each container had been restarted before `up`: one that came through without being made anew may have a
/// past, a new one may not.
#[derive(Debug, Clone, Default)]
pub struct Restarts(HashMap<String, u64>);

impl Restarts {
    pub(super) fn of(containers: &[Container]) -> Self {
        Self(containers.iter().map(|container| (container.id.clone(), container.restarts)).collect())
    }

    fn since(&self, container: &Container) -> u64 {
        container.restarts.saturating_sub(self.0.get(&container.id).copied().unwrap_or(0))
    }
}

/// What one look at a project says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// All is well. Another value next time means that something was started anew in between.
    Good(Vec<(String, String)>),
    /// It may become well yet.
    NotYet(Fault),
    /// It will not.
    Failed(Fault),
}

/// Which container is not well, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) container: String,
    pub(super) reason: String,
}

/// Judges the containers of a project whose service `watched` must run, and whose services must have as many containers
/// as `counts` says. What fails for good is told first.
pub(super) fn judge(
    containers: &[Container],
    watched: &str,
    counts: &BTreeMap<String, u64>,
    before: &Restarts,
) -> Look {
    let looks: Vec<Look> = containers.iter().map(|container| judge_one(container, watched, before)).collect();
    let mut marks = Vec::new();
    let mut waiting = None;
    for look in looks {
        match look {
            Look::Failed(_) => return look,
            Look::NotYet(_) => waiting = waiting.or(Some(look)),
            Look::Good(mark) => marks.extend(mark),
        }
    }
    waiting.or_else(|| missing(containers, counts).map(Look::NotYet)).unwrap_or(Look::Good(marks))
}

/// A service that lacks a container: somebody removed it, or it was never made.
fn missing(containers: &[Container], counts: &BTreeMap<String, u64>) -> Option<Fault> {
    counts.iter().find_map(|(service, wanted)| {
        let own: Vec<&Container> = containers.iter().filter(|container| container.service == *service).collect();
        let there = u64::try_from(own.len()).unwrap_or(u64::MAX);
        (there < *wanted).then(|| Fault {
            container: own.first().copied().or(containers.first()).map_or_else(String::new, |other| other.id.clone()),
            reason: format!("{service} has {there} of {wanted} containers"),
        })
    })
}

/// The watched service must come up at once. A helper may need several tries, as `restart` allows: what it may not do is
/// go on needing them.
fn judge_one(container: &Container, watched: &str, before: &Restarts) -> Look {
    let is_watched = container.service == watched;
    let fault = |what: &str| Fault { container: container.id.clone(), reason: format!("{} {what}", container.service) };
    let ended = if container.oom_killed {
        format!("ran out of memory (exit code {})", container.exit_code)
    } else {
        format!("exited with code {}", container.exit_code)
    };
    let always = ["always", "unless-stopped"].contains(&container.policy.as_str());
    match container.state {
        // One that runs again has no exit code any more.
        ContainerState::Running if is_watched && before.since(container) > 0 => {
            Look::Failed(fault("ended and was restarted"))
        }
        ContainerState::Running => match container.health {
            None | Some(HealthState::None | HealthState::Healthy) => {
                Look::Good(vec![(container.id.clone(), container.started_at.clone())])
            }
            Some(HealthState::Starting) => Look::NotYet(fault(&format!("is not healthy yet{}", last_probe(container)))),
            Some(HealthState::Unhealthy) => Look::NotYet(fault(&format!("is unhealthy{}", last_probe(container)))),
        },
        // A one-shot service that did its work.
        ContainerState::Exited if container.exit_code == 0 && !is_watched && !always => Look::Good(Vec::new()),
        ContainerState::Restarting if is_watched => Look::Failed(fault(&format!("{ended} and restarts"))),
        ContainerState::Restarting => Look::NotYet(fault(&format!("{ended} and restarts"))),
        // About to be restarted, or stopped by somebody.
        ContainerState::Exited if !is_watched && always => Look::NotYet(fault(&ended)),
        ContainerState::Exited | ContainerState::Dead => Look::Failed(fault(&ended)),
        ContainerState::Created if container.error.is_empty() => Look::NotYet(fault("has not been started")),
        ContainerState::Created => Look::Failed(fault(&format!("cannot be started: {}", container.error))),
        ContainerState::Paused => Look::NotYet(fault("is paused")),
        ContainerState::Removing => Look::NotYet(fault("is being removed")),
    }
}

fn last_probe(container: &Container) -> String {
    match container.probes.last().map(|probe| probe.output.split_whitespace().collect::<Vec<_>>().join(" ")) {
        Some(words) if !words.is_empty() => format!(", its health check says: {words}"),
        _ => String::new(),
    }
}

/// The container that evidence is wanted of: one that failed, else one that is not well, else the watched one.
pub(super) fn worst<'a>(containers: &'a [Container], watched: &str) -> Option<&'a Container> {
    let before = Restarts::of(containers);
    containers.iter().min_by_key(|container| match judge_one(container, watched, &before) {
        Look::Failed(_) => 0,
        // It may only wait for the one that is not well.
        Look::NotYet(_) if container.state == ContainerState::Created => 3,
        Look::NotYet(_) => 1,
        // It runs just now, and may be the one that does not stay up.
        Look::Good(_) if container.restarts > 0 => 2,
        Look::Good(_) if container.service == watched => 4,
        Look::Good(_) => 5,
    })
}

/// How long the containers may take to be healthy: `timeout`, and more where a health check has a longer
/// `start_period`, for which its author says that it may fail, or a longer `interval`, after which it is asked first.
pub(super) fn time_to_start(containers: &[Container], timeout: Duration) -> Duration {
    let longest = containers.iter().map(|container| container.unasked_for).max().unwrap_or_default();
    if longest > timeout { longest + timeout } else { timeout }
}

/// What comes of a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Healthy,
    Unhealthy(Fault),
    Wait,
}

/// The wait for a project: at most `timeout` until it is well, and then well without a break for `stable_for`.
pub(super) struct Wait {
    started: Instant,
    timeout: Duration,
    stable_for: Duration,
    well: Option<(Instant, Vec<(String, String)>)>,
}

impl Wait {
    /// `timeout`: [`time_to_start`].
    pub(super) fn new(started: Instant, timeout: Duration, stable_for: Duration) -> Self {
        Self { started, timeout, stable_for, well: None }
    }

    /// What a look at `now` means.
    pub(super) fn see(&mut self, now: Instant, look: Look) -> Verdict {
        match look {
            Look::Failed(fault) => Verdict::Unhealthy(self.told(now, fault)),
            Look::NotYet(fault) => {
                self.well = None;
                if now.duration_since(self.started) < self.timeout {
                    return Verdict::Wait;
                }
                Verdict::Unhealthy(self.told(now, fault))
            }
            Look::Good(mark) => {
                let since = match &self.well {
                    Some((since, before)) if *before == mark => *since,
                    _ => now,
                };
                self.well = Some((since, mark));
                if now.duration_since(since) < self.stable_for { Verdict::Wait } else { Verdict::Healthy }
            }
        }
    }

    fn told(&self, now: Instant, fault: Fault) -> Fault {
        let after = duration::display(now.duration_since(self.started));
        Fault { reason: format!("{} after {after}", fault.reason), ..fault }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::inspect::example, *};

    fn running(service: &str) -> Container {
        example(service, ContainerState::Running)
    }

    fn reason(look: Look) -> String {
        match look {
            Look::Failed(fault) => format!("failed: {}", fault.reason),
            Look::NotYet(fault) => format!("not yet: {}", fault.reason),
            Look::Good(_) => "good".to_owned(),
        }
    }

    fn alone(container: Container) -> String {
        reason(judge(&[container], "app", &BTreeMap::new(), &Restarts::default()))
    }

    #[test]
    fn one_container_is_judged() {
        let exited = |code| Container { exit_code: code, ..example("app", ContainerState::Exited) };
        let healthy = |health| Container { health: Some(health), ..running("app") };
        assert_eq!(alone(running("app")), "good");
        assert_eq!(alone(healthy(HealthState::Healthy)), "good");
        assert_eq!(alone(healthy(HealthState::Starting)), "not yet: app is not healthy yet");
        assert_eq!(alone(healthy(HealthState::Unhealthy)), "not yet: app is unhealthy");
        assert_eq!(alone(exited(0)), "failed: app exited with code 0");
        assert_eq!(alone(exited(3)), "failed: app exited with code 3");
        let killed = Container { oom_killed: true, ..exited(137) };
        assert_eq!(alone(killed), "failed: app ran out of memory (exit code 137)");
        let restarted = Container { restarts: 1, ..running("app") };
        assert_eq!(alone(restarted), "failed: app ended and was restarted");
        let restarting = Container { exit_code: 1, ..example("app", ContainerState::Restarting) };
        assert_eq!(alone(restarting), "failed: app exited with code 1 and restarts");
        assert_eq!(alone(example("app", ContainerState::Created)), "not yet: app has not been started");
    }

    #[test]
    fn a_health_check_has_the_last_word() {
        let probe = super::super::inspect::Probe { exit_code: 1, output: "db:\n refused\n".to_owned() };
        let container = Container { health: Some(HealthState::Unhealthy), probes: vec![probe], ..running("app") };
        assert_eq!(alone(container), "not yet: app is unhealthy, its health check says: db: refused");
    }

    #[test]
    fn one_shot_services_may_end_and_others_may_not() {
        let shot = |code| Container { exit_code: code, ..example("migrate", ContainerState::Exited) };
        let both = |other| reason(judge(&[running("app"), other], "app", &BTreeMap::new(), &Restarts::default()));
        assert_eq!(both(shot(0)), "good");
        assert_eq!(both(shot(1)), "failed: migrate exited with code 1");
        assert_eq!(both(running("side")), "good");
    }

    #[test]
    fn restarts_of_long_ago_do_not_count() {
        let old = Container { restarts: 7, ..running("side") };
        let before = Restarts::of(std::slice::from_ref(&old));
        assert_eq!(reason(judge(std::slice::from_ref(&old), "app", &BTreeMap::new(), &before)), "good");
        let app = Container { restarts: 7, ..running("app") };
        let before = Restarts::of(std::slice::from_ref(&app));
        assert_eq!(reason(judge(std::slice::from_ref(&app), "app", &BTreeMap::new(), &before)), "good");
        let again = Container { restarts: 8, ..app };
        assert_eq!(reason(judge(&[again], "app", &BTreeMap::new(), &before)), "failed: app ended and was restarted");
    }

    #[test]
    fn a_helper_may_need_several_tries() {
        let both = |other| reason(judge(&[running("app"), other], "app", &BTreeMap::new(), &Restarts::default()));
        let restarting = Container { exit_code: 1, ..example("side", ContainerState::Restarting) };
        assert_eq!(both(restarting), "not yet: side exited with code 1 and restarts");
        assert_eq!(both(Container { restarts: 1, ..running("side") }), "good");
        let gave_up = Container { exit_code: 1, restarts: 3, ..example("side", ContainerState::Exited) };
        assert_eq!(both(Container { policy: "on-failure".to_owned(), ..gave_up }), "failed: side exited with code 1");
        let stopped = Container { policy: "unless-stopped".to_owned(), ..example("side", ContainerState::Exited) };
        assert_eq!(both(stopped), "not yet: side exited with code 0");
    }

    #[test]
    fn a_container_that_is_missing_is_missed() {
        let counts = BTreeMap::from([("app".to_owned(), 2), ("off".to_owned(), 0)]);
        let look = |containers: &[Container]| reason(judge(containers, "app", &counts, &Restarts::default()));
        assert_eq!(look(&[running("app")]), "not yet: app has 1 of 2 containers");
        assert_eq!(look(&[running("app"), running("app")]), "good");
    }

    #[test]
    fn evidence_is_of_the_one_at_fault() {
        let of = |containers: &[Container]| worst(containers, "app").map(|container| container.service.clone());
        let unhealthy = Container { health: Some(HealthState::Unhealthy), ..running("side") };
        let failed = Container { exit_code: 1, ..example("side", ContainerState::Exited) };
        assert_eq!(of(&[running("aa"), running("app")]).as_deref(), Some("app"));
        assert_eq!(of(&[running("app"), failed]).as_deref(), Some("side"));
        assert_eq!(of(&[example("app", ContainerState::Created), unhealthy]).as_deref(), Some("side"));
        let flaps = Container { restarts: 4, ..running("side") };
        assert_eq!(of(&[running("app"), flaps]).as_deref(), Some("side"));
        assert_eq!(of(&[]), None);
    }

    fn good(started: &str) -> Look {
        Look::Good(vec![("a".to_owned(), started.to_owned())])
    }

    fn not_yet() -> Look {
        Look::NotYet(Fault { container: "a".to_owned(), reason: "app is unhealthy".to_owned() })
    }

    /// Feeds looks, each at its second, and says what came of the last.
    fn after(looks: impl IntoIterator<Item = (u64, Look)>) -> Verdict {
        let start = Instant::now();
        let mut wait = Wait::new(start, Duration::from_secs(60), Duration::from_secs(5));
        let mut last = Verdict::Wait;
        for (second, look) in looks {
            assert_eq!(last, Verdict::Wait);
            last = wait.see(start + Duration::from_secs(second), look);
        }
        last
    }

    #[test]
    fn well_for_long_enough_is_healthy() {
        assert_eq!(after([(0, not_yet()), (1, good("t")), (5, good("t"))]), Verdict::Wait);
        assert_eq!(after([(0, not_yet()), (1, good("t")), (6, good("t"))]), Verdict::Healthy);
    }

    #[test]
    fn a_break_or_another_start_begins_anew() {
        assert_eq!(after([(1, good("t")), (3, not_yet()), (4, good("t")), (7, good("t"))]), Verdict::Wait);
        assert_eq!(after([(1, good("t")), (4, good("u")), (7, good("u"))]), Verdict::Wait);
        assert_eq!(after([(1, good("t")), (4, good("u")), (9, good("u"))]), Verdict::Healthy);
    }

    #[test]
    fn not_in_time_is_unhealthy_and_says_after_how_long() {
        let Verdict::Unhealthy(fault) = after([(59, not_yet()), (60, not_yet())]) else { panic!() };
        assert_eq!(fault.reason, "app is unhealthy after 1m 0s");
        assert_eq!(after([(59, good("t")), (64, good("t"))]), Verdict::Healthy);
    }

    #[test]
    fn a_health_check_that_says_nothing_for_longer_than_the_timeout_gets_more_time() {
        let after = |seconds: &[u64]| {
            let of = |seconds: &u64| Container { unasked_for: Duration::from_secs(*seconds), ..running("app") };
            time_to_start(&seconds.iter().map(of).collect::<Vec<_>>(), Duration::from_secs(60)).as_secs()
        };
        assert_eq!((after(&[]), after(&[0, 60]), after(&[0, 90])), (60, 60, 150));
    }
}
