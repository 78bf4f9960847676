//! The buttons. Each is a form that asks for a reason, and for the environment's name where its mistake would hurt most;
//! what is sent becomes the same call of the API that the command line makes, in the visitor's name. A button is absent
//! where that call would be refused.

use std::time::Duration;

use jiff::Timestamp;
use maud::{Markup, html};
use serde_json::{Value, json};

use super::{
    Visitor, form,
    html::form_token,
    needs::{self, begun, newest},
    own_path, see_other,
};
use crate::{
    api::{Deploy, Freeze, State, StatusAnswer},
    config::Verb,
    names::{BoxName, Environment, Place, Role},
    service::{
        Service,
        api_error::{ApiError, ApiResult, ErrorKind},
        handlers::{deploys, freezes, locks, pauses},
        http::{Form, Request, Response},
        ids,
    },
};

/// A form of the page at `back`, which its answer leads to again.
pub struct Forms<'a> {
    /// Knows which environment is the last.
    pub service: &'a Service,
    /// Whose page it is.
    pub visitor: &'a Visitor,
    /// The page's path.
    pub back: &'a str,
}

/// One button.
struct Button<'a> {
    action: &'a str,
    label: &'a str,
    /// What happens then.
    meaning: String,
    environment: &'a Environment,
    fields: Vec<(&'a str, &'a str)>,
    more: Markup,
}

impl Forms<'_> {
    fn may(&self, verb: Verb, environment: &Environment) -> bool {
        self.visitor.caller.may(verb, Some(environment))
    }

    /// Stop, let stand, go on; also for one that is queued.
    pub fn of_deploy(&self, deploy: &Deploy) -> Markup {
        let (id, environment) = (deploy.id.as_str(), &deploy.environment);
        let button = |action, label, meaning| Button {
            action,
            label,
            meaning,
            environment,
            fields: vec![("id", id)],
            more: html! {},
        };
        let (stops, starts) = (self.may(Verb::Cancel, environment), self.may(Verb::Start, environment));
        let rolls = deploy.state == State::Rolling;
        let waits = deploy.step.as_ref().is_some_and(|step| step.since.is_some() && step.lasts_ms.is_none());
        html! {
            @if rolls && starts && (deploy.pause.is_some() || waits) {
                (self.button(button("resume", "Resume", format!("The deploy of {} goes on.", deploy.tag))))
            }
            @if rolls && stops && deploy.pause.is_none() {
                (self.button(button("pause", "Pause", "Nobody begins; who is out comes back in service.".to_owned())))
            }
            @if rolls && stops {
                (self.button(Button {
                    more: html! {
                        label .check { input type="checkbox" name="broken" value="yes"; " The release is at fault: mark it broken, and take it back" }
                    },
                    ..button("cancel", "Cancel", "Boxes that wait stop; who is out finishes.".to_owned())
                }))
            }
            @if deploy.state == State::Queued && stops {
                (self.button(button("cancel", "Take out of the queue", format!("{} does not start.", deploy.tag))))
            }
        }
    }

    /// Back, and on to the next environment.
    pub fn of_place(&self, status: &StatusAnswer, place: &Place) -> Markup {
        let newest = newest(status, &place.environment, &place.role);
        let complete = |deploy: &&Deploy| deploy.state == State::Deployed;
        let mut past = begun(status, &place.environment, &place.role).filter(complete);
        let policy = self.service.config.service.role(&place.role);
        let may_promote = |to: &&Environment| self.may(Verb::Start, to) || self.may(Verb::Approve, to);
        let next = policy.next(&place.environment).filter(may_promote);
        let onward = next.zip(past.clone().next()).filter(|(next, deploy)| {
            let there = needs::newest(status, next, &place.role);
            there.is_none_or(|there| there.state.is_ended() && (there.tag != deploy.tag || !complete(&there)))
        });
        let back = newest
            .filter(|newest| past.any(|deploy| deploy.tag != newest.tag) && self.may(Verb::Start, &place.environment));
        let here = [("role", place.role.as_str()), ("environment", place.environment.as_str())];
        html! {
            @if let Some((next, deploy)) = onward {
                (self.button(Button {
                    action: "promote",
                    label: &format!("Promote {} to {next}", deploy.tag),
                    meaning: format!("Approves {} for {next}: it starts there once nothing else keeps it.", deploy.tag),
                    environment: next,
                    fields: here.to_vec(),
                    more: html! {},
                }))
            }
            @if let Some(newest) = back {
                (self.button(Button {
                    action: "rollback",
                    label: "Roll back",
                    meaning: format!("Starts the last complete release that is still good, and withholds {}.", newest.tag),
                    environment: &place.environment,
                    fields: here.to_vec(),
                    more: html! {},
                }))
            }
        }
    }

    /// Nothing new starts there.
    pub fn freeze(&self, environment: &Environment) -> Markup {
        html! {
            @if self.may(Verb::Start, environment) {
                (self.button(Button {
                    action: "freeze",
                    label: "Freeze",
                    meaning: "Nothing new starts. What rolls goes on, and a rollback stays possible.".to_owned(),
                    environment,
                    fields: vec![("environment", environment.as_str())],
                    more: html! {
                        label { "For how many hours (empty: until somebody unfreezes)"
                            input type="number" name="hours" min="1" max="8760" inputmode="numeric";
                        }
                    },
                }))
            }
        }
    }

    /// Ends a freeze.
    pub fn unfreeze(&self, freeze: &Freeze) -> Markup {
        let mut fields = vec![("environment", freeze.environment.as_str())];
        fields.extend(freeze.role.as_ref().map(|role| ("role", role.as_str())));
        html! {
            @if self.may(Verb::Start, &freeze.environment) {
                (self.button(Button {
                    action: "unfreeze",
                    label: "Unfreeze",
                    meaning: "Deploys may start again.".to_owned(),
                    environment: &freeze.environment,
                    fields,
                    more: html! {},
                }))
            }
        }
    }

    /// Frees what a dead box holds.
    pub fn unlock(&self, place: &Place, name: &BoxName) -> Markup {
        html! {
            @if self.may(Verb::Unlock, &place.environment) {
                (self.button(Button {
                    action: "unlock",
                    label: "Unlock",
                    meaning: format!("Another box may go out in the place of {name}. Be sure that {name} is not at work."),
                    environment: &place.environment,
                    fields: vec![
                        ("box", name.as_str()),
                        ("role", place.role.as_str()),
                        ("environment", place.environment.as_str()),
                    ],
                    more: html! {},
                }))
            }
        }
    }

    fn button(&self, button: Button<'_>) -> Markup {
        let Button { action, label, meaning, environment, fields, more } = button;
        let values: Vec<&str> = fields.iter().map(|(_, value)| *value).collect();
        let id = format!("{action}-{}", values.join("-"));
        html! {
            details .act id=(id) {
                summary { (label) }
                form method="post" action=(format!("/actions/{action}")) {
                    (form_token(self.visitor))
                    input type="hidden" name="back" value=(self.back);
                    @for (name, value) in fields { input type="hidden" name=(name) value=(value); }
                    p { (meaning) }
                    label { "Reason" input name="reason" required maxlength="1000" autocomplete="off"; }
                    (more)
                    @if is_last(self.service, environment) {
                        label { "Type “" (environment) "” to confirm"
                            input name="confirm" required pattern=(environment) autocomplete="off" autocapitalize="off" spellcheck="false";
                        }
                    }
                    button .main { (label) }
                }
            }
        }
    }
}

/// Whether an environment stands last in the order of promotion of some role: production, whatever its name is.
fn is_last(service: &Service, environment: &Environment) -> bool {
    service.config.service.roles.values().any(|policy| policy.environments.last() == Some(environment))
}

/// `POST /actions/NAME`.
pub fn act(service: &Service, visitor: &Visitor, request: &Request) -> ApiResult<Response> {
    let form = form(request)?;
    let action = request.path.get(1).map_or("", String::as_str);
    let reason = form.get("reason");
    if reason.is_empty() {
        return Err(ApiError::new(ErrorKind::BadRequest, "say why: the reason is empty"));
    }
    let environment = acts_in(service, action, &form)?;
    if is_last(service, &environment) && form.get("confirm") != environment.as_str() {
        let message = format!("type {environment} to confirm that you mean {environment}");
        return Err(ApiError::new(ErrorKind::BadRequest, message));
    }
    call(service, visitor, action, &form)?;
    service.forget_snapshot();
    Ok(see_other(own_path(form.get("back"))))
}

/// The environment in which something is to happen.
fn acts_in(service: &Service, action: &str, form: &Form) -> ApiResult<Environment> {
    match action {
        "cancel" | "pause" | "resume" => ids::place(form.get("id"))
            .map(|place| place.environment)
            .ok_or_else(|| ApiError::new(ErrorKind::NotFound, "there is no such deploy")),
        "promote" => {
            let (role, source): (Role, Environment) = (name(form, "role")?, name(form, "environment")?);
            Ok(service.config.service.role(&role).next(&source).cloned().unwrap_or(source))
        }
        _ => name(form, "environment"),
    }
}

fn name<T: std::str::FromStr<Err = crate::names::BadName>>(form: &Form, field: &str) -> ApiResult<T> {
    form.get(field).parse().map_err(|error: T::Err| ApiError::new(ErrorKind::BadRequest, error.to_string()))
}

/// The call of the API that a form means.
fn call(service: &Service, visitor: &Visitor, action: &str, form: &Form) -> ApiResult<Response> {
    let (caller, reason, id) = (&visitor.caller, form.get("reason"), form.get("id"));
    let place = || json!({ "role": form.get("role"), "environment": form.get("environment"), "reason": reason });
    let post = |path: &[&str], body: &Value| Request::call("POST", path, &[], body.to_string().as_bytes());
    match action {
        "cancel" => {
            let body = json!({ "reason": reason, "broken": !form.get("broken").is_empty() });
            deploys::cancel(service, caller, &post(&["v1", "deploys", id, "cancel"], &body))
        }
        "pause" => pauses::pause(service, caller, &post(&["v1", "deploys", id, "pause"], &json!({ "reason": reason }))),
        "resume" => {
            pauses::resume(service, caller, &post(&["v1", "deploys", id, "resume"], &json!({ "reason": reason })))
        }
        "rollback" => deploys::roll_back(service, caller, &post(&["v1", "rollbacks"], &place())),
        "promote" => deploys::promote(service, caller, &post(&["v1", "promotions"], &place())),
        "freeze" | "unfreeze" => {
            let mut body = place();
            if form.get("role").is_empty() {
                body["role"] = Value::Null;
            }
            if action == "unfreeze" {
                return freezes::unfreeze(service, caller, &post(&["v1", "freezes"], &body));
            }
            body["until"] = json!(until(form.get("hours"), Timestamp::now())?);
            freezes::freeze(service, caller, &post(&["v1", "freezes"], &body))
        }
        "unlock" => {
            let query = ["role", "environment", "reason"].map(|name| (name, form.get(name)));
            locks::free(service, caller, &Request::call("DELETE", &["v1", "locks", form.get("box")], &query, b""))
        }
        _ => Err(ApiError::new(ErrorKind::NotFound, "there is no such button")),
    }
}

/// The end of a freeze of so many hours; none for an empty text.
fn until(hours: &str, now: Timestamp) -> ApiResult<Option<Timestamp>> {
    if hours.is_empty() {
        return Ok(None);
    }
    let hours = hours.parse::<u16>().ok().filter(|hours| (1..=8760).contains(hours));
    let hours = hours.ok_or_else(|| ApiError::new(ErrorKind::BadRequest, "hours: write a number from 1 to 8760"))?;
    Ok(now.checked_add(Duration::from_secs(u64::from(hours) * 3600)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freeze_ends_after_so_many_hours() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        assert_eq!(until("", now).unwrap(), None);
        assert_eq!(until("26", now).unwrap(), Some("2026-01-02T02:00:00Z".parse().unwrap()));
        for bad in ["0", "-1", "1.5", "9999", "99999999999"] {
            assert!(until(bad, now).unwrap_err().message.contains("hours"), "{bad}");
        }
    }
}
