//! `deployctl cancel`: stop the deploy that is rolling; through Redis where the service is down.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};

use crate::{
    api::{Deploy, NewCancel, State},
    cli::CancelArgs,
    client::{self, Client, Error},
    config::Config,
    coordination::{CancelReply, Coordinator, RedisConnection},
    exit::Exit,
    names::Place,
    screen,
};

/// Runs the command.
pub fn run(config: &Config, args: &CancelArgs) -> Result<Exit> {
    let place = super::place(config, &args.place)?;
    let service = super::service(config)?;
    match through_service(&service, &place, args) {
        Ok(lines) => tell(&lines),
        Err(error @ Error::Unreachable { .. }) if config.names_redis() => {
            log::warn!("{error}; cancelling through Redis");
            tell(&through_redis(config, &place, args)?)
        }
        Err(error @ Error::Unreachable { .. }) => {
            Err(error).context("cannot cancel; with DEPLOYCTL_REDIS_URL it works without the service")
        }
        Err(error) => Err(error.into()),
    }
}

fn tell(lines: &[String]) -> Result<Exit> {
    screen::print(lines)?;
    Ok(Exit::Done)
}

fn through_service(service: &Client, place: &Place, args: &CancelArgs) -> Result<Vec<String>, Error> {
    let newest = service.deploys(Some(&place.role), Some(&place.environment), 20)?;
    let at = |state| newest.iter().find(|deploy| deploy.state == state);
    let Some(rolling) = at(State::Rolling).or_else(|| at(State::Queued)) else {
        // It says so, where no such place is known.
        service.status(Some(&place.role), Some(&place.environment))?;
        let last = newest.first().map(|last| format!("; the last deploy, of {}, ended {}", last.tag, last.state));
        return Ok(vec![format!("nothing rolls for {place}{}", last.unwrap_or_default())]);
    };
    service.cancel(&rolling.id, &NewCancel { reason: args.reason.clone(), broken: args.broken })?;
    let deploy = service.deploy(&rolling.id)?;
    let running = service.running(Some(&place.role), Some(&place.environment))?;
    let tags = running.into_iter().map(|row| row.tag.to_string());
    let mut lines = summary(place, &deploy, tags, args.broken);
    if rolling.state == State::Rolling
        && let Some(next) = at(State::Queued)
    {
        lines.push(format!("{} is queued and starts now; cancel it, too, if it must not", next.tag));
    }
    Ok(lines)
}

fn through_redis(config: &Config, place: &Place, args: &CancelArgs) -> Result<Vec<String>> {
    let store = RedisConnection::new(&config.redis_url()?, &config.redis_prefix)?;
    let mut locks = Coordinator::new(store, place);
    let by = client::claimed_by(&super::variable)?;
    let reason = args.reason.as_deref().unwrap_or_default();
    match locks.cancel(None, &by, reason, args.broken)? {
        CancelReply::Refused { state, .. } => {
            let state = state.map(|state| format!("; the last deploy ended {state}")).unwrap_or_default();
            Ok(vec![format!("nothing rolls for {place}{state}")])
        }
        CancelReply::Stopped { id } => {
            let deploy = locks.deploy(&id)?.with_context(|| format!("the deploy {id} is not in Redis any more"))?;
            let running = locks.running()?.into_values();
            Ok(summary(place, &deploy, running, args.broken))
        }
    }
}

/// What was stopped, what runs where, and what can be done next.
fn summary(place: &Place, deploy: &Deploy, running: impl Iterator<Item = String>, broken: bool) -> Vec<String> {
    let (role, environment, tag) = (&place.role, &place.environment, &deploy.tag);
    let mut lines = vec![format!("cancelled: the deploy of {tag} for {place}")];
    let mut tags = BTreeMap::<String, u32>::new();
    for tag in running {
        *tags.entry(tag).or_default() += 1;
    }
    lines.extend(tags.iter().map(|(tag, boxes)| format!("  {boxes} on {tag}")));
    let working = deploy.boxes.iter().filter(|row| row.phase.is_working()).count();
    if working > 0 {
        let what = if broken { "go back to their previous tag" } else { "finish" };
        lines.push(format!("  {working} out of service now: they {what} and return"));
    }
    lines.push("next:".to_owned());
    let mut next = vec![
        (format!("deployctl rollback -r {role} -e {environment}"), "every box back to the last complete tag"),
        (format!("deployctl status -r {role} -e {environment} --watch"), "see where the boxes are"),
    ];
    if !broken {
        next.insert(0, (format!("deployctl start -r {role} -e {environment} -t {tag}"), "go on with it"));
    }
    let width = next.iter().map(|(command, _)| command.len()).max().unwrap_or(0);
    lines.extend(next.iter().map(|(command, what)| format!("  {command:width$}  {what}")));
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cancel_says_what_runs_and_what_can_be_done() {
        let place = Place { environment: "staging".parse().unwrap(), role: "app".parse().unwrap() };
        let deploy: Deploy = serde_json::from_value(json!({
            "id": "x", "role": "app", "environment": "staging", "tag": "v2", "kind": "deploy", "state": "rolling",
            "size": 3, "locks": 1, "remaining": 2, "by": "ci", "started_at": "2026-01-01T00:00:00Z", "boxes": [
                {"box": "a", "phase": "starting", "since": "2026-01-01T00:00:09Z"},
                {"box": "b", "phase": "cancelled", "since": "2026-01-01T00:00:01Z"},
            ],
        }))
        .unwrap();
        let running = ["v1", "v2", "v1"].into_iter().map(str::to_owned);
        let lines = summary(&place, &deploy, running.clone(), false);
        assert_eq!(
            lines[..4],
            [
                "cancelled: the deploy of v2 for app in staging",
                "  2 on v1",
                "  1 on v2",
                "  1 out of service now: they finish and return"
            ]
        );
        assert!(lines.iter().any(|line| line.contains("deployctl start -r app -e staging -t v2 ")), "{lines:?}");
        let lines = summary(&place, &deploy, running, true);
        assert!(lines.iter().all(|line| !line.contains("deployctl start")), "{lines:?}");
    }
}
