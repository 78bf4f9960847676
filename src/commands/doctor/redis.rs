//! Redis: reachable, new enough, and keeping what it was told.

use std::collections::HashMap;

use anyhow::{Context as _, Result, anyhow, bail};

use super::Finding;
use crate::{config::Config, coordination::RedisConnection};

/// The first version whose `BLPOP` takes fractions of a second, and whose scripts may read the clock before they write.
const OLDEST: (u32, u32) = (6, 0);

/// The settings without which Redis may forget a lock, and why.
const SETTINGS: [(&str, &str, &str); 3] = [
    ("appendonly", "yes", "a restart would forget who is out of service"),
    ("appendfsync", "always", "a crash would forget the last second, a lock among it"),
    ("maxmemory-policy", "noeviction", "a full Redis would drop locks"),
];

/// Everything that is to be said of Redis.
pub fn check(config: &Config) -> Vec<(String, Finding)> {
    let mut store = match config.redis_url().and_then(|url| RedisConnection::new(&url, &config.redis_prefix)) {
        Ok(store) => store,
        Err(error) => return vec![("redis".to_owned(), Err(error))],
    };
    let version = version(&mut store);
    let answers = version.is_ok();
    let mut findings = vec![("redis".to_owned(), version)];
    if answers {
        let settings =
            SETTINGS.map(|(key, wanted, why)| (format!("redis {key}"), setting(&mut store, key, wanted, why)));
        findings.extend(settings);
    }
    findings
}

fn version(store: &mut RedisConnection) -> Finding {
    let info: String = store.command(&["INFO", "server"])?;
    let version = info.lines().find_map(|line| line.strip_prefix("redis_version:")).map(str::trim);
    let version = version.with_context(|| format!("{} does not say its version: is it Redis?", store.address()))?;
    if parse(version)? < OLDEST {
        bail!("{} is version {version}: install {}.{} or newer", store.address(), OLDEST.0, OLDEST.1);
    }
    Ok(format!("{} answers, version {version}", store.address()))
}

fn parse(version: &str) -> Result<(u32, u32)> {
    let mut numbers = version.split('.').map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => Err(anyhow!("{version:?} is not a version of Redis")),
    }
}

fn setting(store: &mut RedisConnection, key: &str, wanted: &str, why: &str) -> Finding {
    // A hosted Redis may not let us look: then its console has to be believed.
    let answer: Result<HashMap<String, String>> = store.command(&["CONFIG", "GET", key]);
    match answer.map(|values| values.get(key).cloned()) {
        Ok(Some(value)) => judge(key, &value, wanted, why),
        Ok(None) | Err(_) => Ok(format!("cannot be seen from here; see to it that it is {wanted}, else {why}")),
    }
}

fn judge(key: &str, value: &str, wanted: &str, why: &str) -> Finding {
    if value == wanted {
        return Ok(value.to_owned());
    }
    bail!("is {value}, and {why}: write `{key} {wanted}` into redis.conf")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_forgets_is_named_with_its_remedy() {
        assert_eq!(judge("appendonly", "yes", "yes", "x").unwrap(), "yes");
        let error = judge("appendonly", "no", "yes", "a restart would forget").unwrap_err().to_string();
        assert_eq!(error, "is no, and a restart would forget: write `appendonly yes` into redis.conf");
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(parse("10.2.1").unwrap() > OLDEST && parse("5.0.14").unwrap() < OLDEST);
        assert!(parse("unknown").is_err());
    }
}
