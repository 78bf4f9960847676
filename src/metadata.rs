//! What EC2 tells a machine about itself, by the instance metadata service, version 2: a session token first, then the
//! question ([how](https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html)).
//!
//! Asked only where the configuration says `auto`, so that machines elsewhere never wait for it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ureq::Agent;

/// The service is on the same host: without an answer by then this is no EC2 instance.
const METADATA_TIMEOUT: Duration = Duration::from_secs(2);
const ENDPOINT: &str = "http://169.254.169.254";
/// Longer than any answer that is asked for.
const LONGEST_ANSWER: u64 = 1024;

/// The instance metadata service, and what the environment says instead of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    endpoint: String,
    region: Option<String>,
}

impl Metadata {
    /// `env` looks an environment variable up: `AWS_EC2_METADATA_SERVICE_ENDPOINT` stands for the well-known address,
    /// `AWS_REGION` and `AWS_DEFAULT_REGION` for the machine's own region.
    pub fn new(env: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name| env(name).filter(|value| !value.is_empty());
        let endpoint = set("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let region = set("AWS_REGION").or_else(|| set("AWS_DEFAULT_REGION"));
        Self { endpoint: endpoint.trim_end_matches('/').to_owned(), region }
    }

    /// The instance's id, `i-…`.
    pub fn instance_id(&self) -> Result<String> {
        self.ask("instance-id")
            .context("cannot find out this box's instance id: write it as target_id or instance_id instead of auto")
    }

    /// The instance's private address.
    pub fn local_ipv4(&self) -> Result<String> {
        self.ask("local-ipv4").context("cannot find out this box's address: write it as target_id instead of auto")
    }

    /// The region that the environment names, else the instance's own.
    pub fn region(&self) -> Result<String> {
        match &self.region {
            Some(region) => Ok(region.clone()),
            None => self.ask("placement/region").context("cannot find out this box's region: set AWS_DEFAULT_REGION"),
        }
    }

    fn ask(&self, what: &str) -> Result<String> {
        self.try_ask(what)
            .with_context(|| format!("the EC2 instance metadata service at {} does not tell {what}", self.endpoint))
    }

    fn try_ask(&self, what: &str) -> Result<String> {
        // Never by a proxy: it would answer for its own machine.
        let agent: Agent = Agent::config_builder().timeout_global(Some(METADATA_TIMEOUT)).proxy(None).build().into();
        let token = agent
            .put(format!("{}/latest/api/token", self.endpoint))
            .header("X-aws-ec2-metadata-token-ttl-seconds", "60")
            .send_empty()?
            .body_mut()
            .with_config()
            .limit(LONGEST_ANSWER)
            .read_to_string()?;
        let answer = agent
            .get(format!("{}/latest/meta-data/{what}", self.endpoint))
            .header("X-aws-ec2-metadata-token", token.trim())
            .call()?
            .body_mut()
            .with_config()
            .limit(LONGEST_ANSWER)
            .read_to_string()?;
        let answer = answer.trim();
        ensure!(!answer.is_empty(), "its answer is empty");
        Ok(answer.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, time::Instant};

    use super::*;

    #[test]
    fn the_environment_stands_for_the_service() {
        let metadata = Metadata::new(|name| match name {
            "AWS_EC2_METADATA_SERVICE_ENDPOINT" => Some("http://[::1]:1338/".to_owned()),
            "AWS_DEFAULT_REGION" => Some("eu-west-1".to_owned()),
            "AWS_REGION" => Some(String::new()),
            _ => None,
        });
        assert_eq!(metadata.endpoint, "http://[::1]:1338");
        assert_eq!(metadata.region().unwrap(), "eu-west-1");
        assert_eq!(Metadata::new(|_| None).endpoint, ENDPOINT);
    }

    #[test]
    fn silence_ends_soon_and_names_the_key_to_write() {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let metadata = Metadata::new(|name| (name == "AWS_EC2_METADATA_SERVICE_ENDPOINT").then(|| endpoint.clone()));
        let started = Instant::now();
        let error = format!("{:#}", metadata.instance_id().unwrap_err());
        assert!(started.elapsed() < METADATA_TIMEOUT * 3, "{:?}", started.elapsed());
        assert!(error.contains("target_id or instance_id instead of auto") && error.contains(&endpoint), "{error}");
    }
}
