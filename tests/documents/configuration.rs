//! The documents' configuration is read, and its table names every key with its default.

use std::collections::{BTreeMap, BTreeSet};

use deployctl::config::Config;
use serde_json::{Value, json};

use crate::documents::document::{bare, blocks, documents, file, table};

/// Where keys stand: the path as the table writes it, and a configuration with an empty object there.
fn places() -> Vec<(&'static str, Value)> {
    let balancer = |entry: Value| json!({"roles": {"app": {"load_balancers": [entry]}}});
    let elbv2 = json!({"target_group_arn": "a"});
    let notify = |entry: Value| json!({"service": {"notify": [entry]}});
    let repository = json!({"repository": "a/b", "token_file": "c"});
    let gate = |entry: Value| json!({"service": {"roles": {"app": {"gates": [entry]}}}});
    vec![
        ("", json!({})),
        ("roles.*.", json!({"roles": {"app": {"load_balancers": []}}})),
        ("roles.*.load_balancers[].elbv2.", balancer(json!({"elbv2": elbv2}))),
        ("roles.*.load_balancers[].elb.", balancer(json!({"elb": {"name": "a"}}))),
        (
            "roles.*.load_balancers[].command.",
            balancer(json!({"command": {"register": [], "deregister": [], "in_service": []}})),
        ),
        ("roles.*.health.", json!({"roles": {"app": {"load_balancers": [], "health": {}}}})),
        ("service.", json!({"service": {}})),
        ("service.trusted_proxy.", json!({"service": {"trusted_proxy": {"addresses": [], "header": "a"}}})),
        ("service.fleet_lock.", json!({"service": {"fleet_lock": {"groups": {}}}})),
        (
            "service.fleet_lock.groups.*.",
            json!({"service": {"fleet_lock": {"groups": {"app": {"environment": "production", "roles": ["app"]}}}}}),
        ),
        ("service.notify[].", notify(json!({"command": ["a"]}))),
        ("service.notify[].slack.", notify(json!({"slack": {"url_file": "a"}}))),
        ("service.notify[].webhook.", notify(json!({"webhook": {"url": "https://a", "secret_file": "b"}}))),
        ("service.notify[].github.", notify(json!({"github": repository}))),
        ("service.notify[].gitlab.", notify(json!({"gitlab": repository}))),
        ("service.tokens[].", json!({"service": {"tokens": [{"name": "a", "sha256": "b", "can": []}]}})),
        ("service.roles.*.", json!({"service": {"roles": {"app": {}}}})),
        ("service.roles.*.steps[].", json!({"service": {"roles": {"app": {"steps": [{"boxes": 1, "for": "1s"}]}}}})),
        (
            "service.roles.*.windows[].",
            json!({"service": {"roles": {"app": {"windows": [{"environment": "production"}]}}}}),
        ),
        ("service.roles.*.gates[].", gate(json!({"when": "bake", "command": ["true"]}))),
        (
            "service.roles.*.gates[].compare.",
            gate(json!({"when": "roll", "compare": {
                "url": "u", "query": "q", "baseline": "b", "max_ratio": 1.5,
            }})),
        ),
        (
            "service.roles.*.gates[].prometheus.",
            gate(json!({"when": "bake", "prometheus": {"url": "u", "query": "q", "max": 1.0}})),
        ),
    ]
}

/// The object in a configuration that a place means.
fn at<'a>(config: &'a mut Value, place: &str) -> &'a mut Value {
    place.split('.').filter(|step| !step.is_empty()).fold(config, |value, step| match step {
        "*" => &mut value["app"],
        _ => match step.strip_suffix("[]") {
            Some(list) => &mut value[list][0],
            None => &mut value[step],
        },
    })
}

/// The keys that the program knows, by its own words about one that it does not.
fn known_keys() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for (place, mut config) in places() {
        at(&mut config, place)["no such key"] = json!(1);
        let error = format!("{:#}", Config::parse(&config.to_string()).unwrap_err());
        let (_, expected) = error.split_once("expected ").unwrap_or_else(|| panic!("{place}: {error}"));
        keys.extend(expected.split('`').skip(1).step_by(2).map(|key| format!("{place}{key}")));
    }
    keys
}

fn documented() -> BTreeMap<String, String> {
    let rows = table(&documents(), "key");
    rows.into_iter().map(|row| (bare(&row[0]).to_owned(), row[1].clone())).collect()
}

#[test]
fn every_key_is_documented_and_no_other() {
    let documented: BTreeSet<String> = documented().into_keys().collect();
    assert_eq!(documented, known_keys());
}

#[test]
fn defaults_are_what_the_table_says() {
    let shown = |config: &Value| {
        format!("{:?}", Config::parse(&config.to_string()).unwrap_or_else(|e| panic!("{config}: {e:#}")))
    };
    let places = places();
    for (key, default) in documented() {
        // In backticks: as it would be written. In words: no value that could be written.
        let Some(default) = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`')) else { continue };
        let default: Value = serde_json::from_str(default).unwrap_or_else(|e| panic!("{key}: {default}: {e}"));
        let (place, config) =
            places.iter().filter(|(place, _)| key.starts_with(place)).max_by_key(|(place, _)| place.len()).unwrap();
        let mut written = config.clone();
        at(&mut written, place)[&key[place.len()..]] = default.clone();
        let same = shown(&written).replace("Some(Secret", "Secret") == shown(config).replace("Some(Secret", "Secret");
        assert!(same, "{key} is not {default} by default:\n{}\n{}", shown(&written), shown(config));
    }
}

#[test]
fn every_configuration_that_is_shown_is_read() {
    let mut read = 0;
    for block in blocks(&documents()).into_iter().filter(|block| block.kind == "json") {
        Config::parse(&block.text).unwrap_or_else(|error| panic!("{error:#}\n{}", block.text));
        read += 1;
    }
    assert!(read > 0, "no configuration is shown");
    for path in ["scripts/config/box.json", "scripts/config/service.json"] {
        Config::parse(&file(path)).unwrap_or_else(|error| panic!("{path}: {error:#}"));
    }
}
