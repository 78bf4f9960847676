//! `/v1/pre-reboot` and `/v1/steady-state`: the [FleetLock protocol](https://coreos.github.io/zincati/development/fleetlock/protocol/),
//! by which Zincati and others ask before they reboot a machine. The places are those of the deploys: see `reserve.lua`.
//!
//! A client is known by its `id`: a box's name, or what the box's Serf tag `fleet_lock_id` says. Errors have the
//! protocol's shape, `{"kind", "value"}`, and few kinds, because clients count them.

use std::{collections::BTreeSet, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    api::AuditEntry,
    config::{FleetLockGroup, Verb, is_group},
    coordination::{ManualRunZone, Members, Reservation},
    names::{BoxName, Place, quoted},
    serf::{Member, MemberStatus},
    service::{
        Service,
        api_error::ApiError,
        auth::Caller,
        http::{Request, Response},
    },
    tags,
};

/// Another member with the name is as unlikely as one that appeared within this time.
const MEMBERS_AGE: Duration = Duration::from_secs(2);
/// The longest `id` that is taken, in bytes.
const ID_LIMIT: usize = 256;

/// An error as the protocol has it.
#[derive(Debug, Serialize)]
struct Refusal {
    #[serde(skip)]
    status: u16,
    kind: &'static str,
    value: String,
}

impl Refusal {
    fn new(status: u16, kind: &'static str, value: impl Into<String>) -> Self {
        Self { status, kind, value: value.into() }
    }

    fn identity(value: impl Into<String>) -> Self {
        Self::new(400, "invalid_client_identity", value)
    }
}

impl From<ApiError> for Refusal {
    fn from(error: ApiError) -> Self {
        Self::new(error.kind.status(), error.kind.word(), error.message)
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Self {
        ApiError::from(error).into()
    }
}

/// What a client sends.
#[derive(Debug, Deserialize)]
struct Body {
    client_params: ClientParams,
}

#[derive(Debug, Deserialize)]
struct ClientParams {
    id: String,
    group: String,
}

/// A client that may ask: who, and where.
struct Client<'a> {
    caller: Caller,
    params: ClientParams,
    group: &'a FleetLockGroup,
}

/// `POST /v1/pre-reboot`: 200 when the box may reboot.
pub fn pre_reboot(service: &Service, request: &Request) -> Response {
    answer(request, client(service, request).and_then(|client| one_at_a_time(service, &client, reserve)))
}

/// `POST /v1/steady-state`: 200 when the box has no place for a reboot any more.
pub fn steady_state(service: &Service, request: &Request) -> Response {
    answer(request, client(service, request).and_then(|client| one_at_a_time(service, &client, release)))
}

fn answer(request: &Request, outcome: Result<(), Refusal>) -> Response {
    match outcome {
        Ok(()) => Response::json(200, &serde_json::json!({})),
        Err(refusal) => {
            // Who asks without a token must not fill the log.
            log::debug!("{}: {}", request.path.join("/"), refusal.value);
            let response = Response::json(refusal.status, &refusal);
            if refusal.status == 405 { response.header("allow", "POST") } else { response }
        }
    }
}

/// Checks all that does not depend on the fleet.
fn client<'a>(service: &'a Service, request: &Request) -> Result<Client<'a>, Refusal> {
    let Some(fleet_lock) = &service.config.service.fleet_lock else {
        return Err(Refusal::new(404, "not_found", "this service has no service.fleet_lock in its configuration"));
    };
    if request.method != "POST" {
        return Err(Refusal::new(
            405,
            "method_not_allowed",
            format!("{} is not for this path: use POST", request.method),
        ));
    }
    // It also keeps web pages out: a browser asks before it sends such a header.
    if request.only_header("fleet-lock-protocol") != Some("true") {
        return Err(Refusal::identity("the header fleet-lock-protocol must be there and say true"));
    }
    let caller = service.auth.caller_by_password(request)?;
    let Body { client_params: params } =
        serde_json::from_slice(&request.body).map_err(|error| Refusal::identity(format!("the body: {error}")))?;
    if params.id.is_empty() || params.id.len() > ID_LIMIT {
        return Err(Refusal::identity("client_params.id is empty or too long"));
    }
    if !is_group(&params.group) {
        return Err(Refusal::identity(format!("client_params.group {} is no group", quoted(&params.group))));
    }
    let Some(group) = fleet_lock.groups.get(&params.group) else {
        let value = format!("service.fleet_lock.groups has no group {}", quoted(&params.group));
        return Err(Refusal::new(404, "unknown_group", value));
    };
    caller.need(Verb::Reboot, Some(&group.environment))?;
    Ok(Client { caller, params, group })
}

/// A box may need several places: two requests of one client must not take and give them back side by side, whichever
/// service they reach.
fn one_at_a_time(
    service: &Service,
    client: &Client<'_>,
    act: fn(&Service, &Client<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    let lease = format!("fleet_lock:{}", client.params.id);
    if !service.store.lease(&lease)? {
        return Err(Refusal::new(503, "unavailable", "another request of this client is being answered: ask again"));
    }
    let done = act(service, client);
    service.store.give_back(&lease)?;
    done
}

fn reserve(service: &Service, client: &Client<'_>) -> Result<(), Refusal> {
    let Client { caller, params, group } = client;
    let (name, places) = box_of(service, client)?;
    let purpose = format!("reboot (FleetLock, group {})", params.group);
    let mut taken: Vec<&Place> = Vec::new();
    for place in &places {
        match reserve_at(service, place, &name, &params.id, &purpose) {
            Ok(true) => taken.push(place),
            Ok(false) => {}
            Err(refusal) => {
                // Also what an earlier request got that was not answered to its end: a client that is refused does not
                // reboot, and nobody is kept waiting by a box that waits itself.
                for place in &places {
                    service.store.at(place, |locks| locks.release(&params.id))?;
                }
                return Err(refusal);
            }
        }
    }
    for place in taken {
        let entry = AuditEntry::new(&caller.by(), "pre_reboot").place(place);
        service.audit(entry.detail(format!("{name} may reboot (FleetLock, group {})", params.group)));
    }
    if places.is_empty() {
        let roles: Vec<&str> = group.roles.iter().map(AsRef::as_ref).collect();
        let value = format!("{name} is no box of {} in {}", roles.join(", "), group.environment);
        return Err(Refusal::new(404, "unknown_node", value));
    }
    Ok(())
}

/// Whether the box got a place that it had not had before.
fn reserve_at(service: &Service, place: &Place, name: &BoxName, id: &str, purpose: &str) -> Result<bool, Refusal> {
    let Members { alive, zones, .. } = service.members(place, MEMBERS_AGE)?;
    // Its verdicts are passed at all known places.
    service.store.know(place)?;
    let epoch = service.epoch(place);
    let settle = 3 * service.config.renew_interval();
    let wanted = Reservation {
        name,
        id,
        purpose,
        size: u32::try_from(alive.len()).unwrap_or(u32::MAX),
        max_parallel: service.config.service.role(&place.role).max_parallel,
        zone: ManualRunZone::of(name, &alive, &zones),
        settle: u64::try_from(settle.as_millis()).unwrap_or(u64::MAX),
        epoch: epoch.as_deref(),
    };
    let reply = service.store.at(place, |locks| locks.reserve(&wanted))?;
    service.remember_epoch(place, &reply.epoch);
    if reply.reserved {
        return Ok(!reply.again);
    }
    let value = format!("{name} must wait, for {place}: {}", reply.wait.unwrap_or_default());
    Err(Refusal::new(409, "failed_lock_semaphore_full", value))
}

/// The box that a client is on, by the word of Serf, and the places of its group that the box is in.
fn box_of(service: &Service, client: &Client<'_>) -> Result<(BoxName, Vec<Place>), Refusal> {
    let Client { params, group, .. } = client;
    let members = service
        .fleet
        .all(MEMBERS_AGE, &|| service.is_stopping())
        .map_err(|error| Refusal::new(503, "unavailable", format!("cannot tell which boxes live: {error:#}")))?;
    let by_name = members.iter().find(|member| member.name == params.id);
    let has_tag = |member: &&Member| member.tags.get("fleet_lock_id").is_some_and(|id| *id == params.id);
    // A box that was renamed leaves its old name behind, dead, with the same tag.
    let by_tag = members.iter().filter(has_tag).max_by_key(|member| member.status == MemberStatus::Alive);
    let Some(member) = by_name.or(by_tag) else {
        let value = format!("no box has the name {}, or the Serf tag fleet_lock_id that says it", quoted(&params.id));
        return Err(Refusal::new(404, "unknown_node", value));
    };
    let name = member.name.parse().map_err(|error| Refusal::new(404, "unknown_node", format!("{error}")))?;
    let tag = |name: &str| member.tags.get(name).map_or("", String::as_str);
    let places = group.places().filter(|place| tags::matches(tag("images"), tag("environment"), place));
    Ok((name, places.collect()))
}

fn release(service: &Service, client: &Client<'_>) -> Result<(), Refusal> {
    let group = &client.group;
    let mut places: BTreeSet<Place> = group.places().collect();
    // A role that has left the group meanwhile is given back, too.
    places.extend(service.store.places()?.into_iter().filter(|place| place.environment == group.environment));
    for place in places {
        if let Some(name) = service.store.at(&place, |locks| locks.release(&client.params.id))? {
            let entry = AuditEntry::new(&client.caller.by(), "steady_state").place(&place);
            service.audit(entry.detail(format!("{name} has no reboot before it (FleetLock)")));
            service.notify();
        }
    }
    Ok(())
}
