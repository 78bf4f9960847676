//! The Docker engine, asked over its own socket.
//!
//! A program of its own for each question (`docker inspect`, `docker logs`, …) costs a tenth of a second, and a deploy
//! asks dozens of them. What needs the `docker` program's own knowledge stays with it: a pull needs its credential
//! helpers. The protocol is the Docker Engine API, without a version in the path, so that any engine speaks its own:
//! <https://docs.docker.com/reference/api/engine/>.

mod endpoint;
mod events;
mod transport;

use std::{sync::OnceLock, time::Duration};

use anyhow::{Context as _, Result};
use serde::{Deserialize, de::DeserializeOwned};
use thiserror::Error;
use ureq::{
    Agent, Body, RequestBuilder,
    config::Config,
    http::{Response, StatusCode},
    typestate::WithoutBody,
    unversioned::resolver::DefaultResolver,
};

use self::endpoint::Endpoint;
pub use self::events::EngineWatch;
use super::{
    ImageId,
    inspect::{self, Container},
};

/// How long the engine may take to answer from memory.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// How long it may take to remove an image: a disk works.
const REMOVAL: Duration = Duration::from_secs(120);
/// The longest answer that is read.
const LARGEST_REPLY: u64 = 32 * 1024 * 1024;
/// How many of a container's last lines are read.
const LOG_LINES: &str = "100";
/// The host in the address of a request, which goes to the socket whatever it says. No name, for ureq looks one up first.
const HOST: &str = "http://127.0.0.1";

/// A Docker engine. Making one asks nothing: where the engine is shows with the first question.
#[derive(Debug, Default)]
pub(super) struct Engine {
    reached: OnceLock<(Endpoint, Agent)>,
}

/// Why the engine did not do what it was asked.
#[derive(Debug, Error)]
pub(super) enum EngineError {
    /// It has nothing of that name (404).
    #[error("{0}")]
    Missing(String),
    /// What is named is in use (409).
    #[error("{0}")]
    InUse(String),
    /// Anything else that it said.
    #[error("the Docker engine answered {0}: {1}")]
    Refused(StatusCode, String),
    /// It gave no answer.
    #[error("{0:#}")]
    Silent(anyhow::Error),
}

/// One image of a repository.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) id: ImageId,
    /// Its names in the repository; empty for one that lost them.
    pub(super) tags: Vec<String>,
    /// Seconds since 1970.
    pub(super) created: i64,
}

impl Engine {
    /// The project's containers, the newest for each service and number.
    pub(super) fn containers(&self, project: &str) -> Result<Vec<Container>> {
        #[derive(Deserialize)]
        struct Listed {
            #[serde(rename = "Id")]
            id: String,
        }
        let filters = filters("label", &label(project));
        let listed: Vec<Listed> = self.ask("/containers/json", &[("all", "true"), ("filters", &filters)])?;
        let mut containers = Vec::new();
        for Listed { id } in listed {
            match self.ask(&format!("/containers/{id}/json"), &[]) {
                Ok(container) => containers.push(container),
                // It has gone since.
                Err(EngineError::Missing(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(inspect::newest(containers))
    }

    /// A container's last lines, of both streams in order. Empty where its logging driver keeps none to read.
    pub(super) fn logs(&self, container: &str) -> Result<String> {
        let query = [("stdout", "true"), ("stderr", "true"), ("tail", LOG_LINES)];
        match self.get(&format!("/containers/{container}/logs"), &query) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&without_frames(&bytes)).into_owned()),
            Err(EngineError::Refused(_, reason)) if reason.contains("logging driver") => Ok(String::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// What `name` stands for on this box; none when it is not here.
    pub(super) fn image(&self, name: &str) -> Result<Option<ImageId>> {
        #[derive(Deserialize)]
        struct Inspected {
            #[serde(rename = "Id")]
            id: ImageId,
        }
        match self.ask::<Inspected>(&format!("/images/{name}/json"), &[]) {
            Ok(image) => Ok(Some(image.id)),
            Err(EngineError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The platforms of an image in its registry, as far as it can be asked without a login: a list.
    pub(super) fn platforms(&self, name: &str) -> Result<serde_json::Value, EngineError> {
        let mut answer: serde_json::Value = self.ask(&format!("/distribution/{name}/json"), &[])?;
        Ok(answer["Platforms"].take())
    }

    /// The images of a repository, newest first.
    pub(super) fn images(&self, repository: &str) -> Result<Vec<Image>> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Listed {
            id: ImageId,
            repo_tags: Option<Vec<String>>,
            created: i64,
        }
        let filters = filters("reference", repository);
        let listed: Vec<Listed> = self.ask("/images/json", &[("filters", &filters)])?;
        let mut images: Vec<Image> = listed
            .into_iter()
            .map(|image| {
                let mut tags = image.repo_tags.unwrap_or_default();
                tags.retain(|tag| tag.strip_prefix(repository).is_some_and(|rest| rest.starts_with(':')));
                Image { id: image.id, tags, created: image.created }
            })
            .collect();
        images.sort_by_key(|image| std::cmp::Reverse(image.created));
        Ok(images)
    }

    /// Removes a tag, or an image by its id; with its last tag an image goes.
    pub(super) fn remove_image(&self, name: &str) -> Result<(), EngineError> {
        let agent = &self.reach().map_err(EngineError::Silent)?.1;
        send(agent.delete(format!("{HOST}/images/{name}")).config().timeout_global(Some(REMOVAL)).build()).map(drop)
    }

    /// Makes `repository:tag` stand for the image `id` on this box.
    pub(super) fn tag_image(&self, id: &ImageId, repository: &str, tag: &str) -> Result<(), EngineError> {
        let agent = &self.reach().map_err(EngineError::Silent)?.1;
        let request = agent.post(format!("{HOST}/images/{}/tag", id.0)).query("repo", repository).query("tag", tag);
        read(request.send_empty()).map(drop)
    }

    /// Begins to watch the engine, and the containers of a project.
    pub(super) fn watch(&self, project: &str) -> Result<EngineWatch> {
        EngineWatch::start(self.reach()?.0.clone(), &label(project))
    }

    fn ask<T: DeserializeOwned>(&self, path: &str, query: &[(&str, &str)]) -> Result<T, EngineError> {
        let bytes = self.get(path, query)?;
        let unreadable = || format!("cannot read the answer of the Docker engine to {path}");
        serde_json::from_slice(&bytes).with_context(unreadable).map_err(EngineError::Silent)
    }

    fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Vec<u8>, EngineError> {
        let agent = &self.reach().map_err(EngineError::Silent)?.1;
        send(agent.get(format!("{HOST}{path}")).query_pairs(query.iter().copied()))
    }

    fn reach(&self) -> Result<&(Endpoint, Agent)> {
        if let Some(reached) = self.reached.get() {
            return Ok(reached);
        }
        let endpoint = Endpoint::find(|name| std::env::var(name).ok())?;
        let config =
            Config::builder().timeout_global(Some(ANSWER_TIMEOUT)).http_status_as_error(false).proxy(None).build();
        let agent = Agent::with_parts(config, transport::EngineConnector(endpoint.clone()), DefaultResolver::default());
        Ok(self.reached.get_or_init(|| (endpoint, agent)))
    }
}

fn send(request: RequestBuilder<WithoutBody>) -> Result<Vec<u8>, EngineError> {
    read(request.call())
}

fn read(answer: Result<Response<Body>, ureq::Error>) -> Result<Vec<u8>, EngineError> {
    let silent = |e: ureq::Error| {
        EngineError::Silent(anyhow::Error::new(e).context("the Docker engine does not answer: see that it runs"))
    };
    let mut answer = answer.map_err(silent)?;
    let body = answer.body_mut().with_config().limit(LARGEST_REPLY).read_to_vec().map_err(silent)?;
    let status = answer.status();
    if status.is_success() {
        return Ok(body);
    }
    let reason = reason(&body);
    Err(match status {
        StatusCode::NOT_FOUND => EngineError::Missing(reason),
        StatusCode::CONFLICT => EngineError::InUse(reason),
        _ => EngineError::Refused(status, reason),
    })
}

/// What the engine says of a refusal: `{"message": "…"}`.
fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct EngineMessage {
        message: String,
    }
    serde_json::from_slice(body)
        .map_or_else(|_| String::from_utf8_lossy(body).trim().to_owned(), |refusal: EngineMessage| refusal.message)
}

/// What compose labels a project's containers with.
fn label(project: &str) -> String {
    format!("com.docker.compose.project={project}")
}

/// The engine's form of one filter: `{"NAME":["VALUE"]}`.
fn filters(name: &str, value: &str) -> String {
    serde_json::json!({ name: [value] }).to_string()
}

/// The text of a container's output. That of a terminal is plain; else it comes in frames: a byte that names the stream,
/// three zeros, the length in big-endian order, the text. A frame that was cut off is read as far as it goes.
fn without_frames(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    let mut left = bytes;
    while let Some((&[0..=2, 0, 0, 0, a, b, c, d], rest)) = left.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX).min(rest.len());
        let (words, next) = rest.split_at(length);
        text.extend_from_slice(words);
        left = next;
    }
    text.extend_from_slice(left);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_taken_off() {
        let stream = b"\x01\0\0\0\0\0\0\x04one\n\x02\0\0\0\0\0\0\x04two\n\x01\0\0\0\0\0\0\x09thr";
        assert_eq!(without_frames(stream), b"one\ntwo\nthr");
        assert_eq!(without_frames(b""), b"");
        assert_eq!(without_frames(b"of a terminal\r\n"), b"of a terminal\r\n");
    }

    #[test]
    fn a_refusal_says_why() {
        assert_eq!(reason(br#"{"message":"No such image: app:v1"}"#), "No such image: app:v1");
        assert_eq!(reason(b"page not found\n"), "page not found");
    }
}
