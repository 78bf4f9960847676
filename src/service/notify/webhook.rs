//! A receiver of [Standard Webhooks](https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md):
//! it can tell that a message is ours, when it was sent, and whether it has had it before.

use anyhow::{Context as _, Result, bail};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use sha2::Sha256;

use super::post::{Call, Refused};
use crate::{
    api::{Turn, TurnKind},
    config::{Webhook, secret_file},
    secret::Secret,
};

/// How short a secret may be, in bytes.
const LEAST: usize = 24;

/// What is sent.
#[derive(Serialize)]
struct Message<'a> {
    r#type: TurnKind,
    timestamp: &'a str,
    data: &'a Turn,
}

/// The secret as it is written, and the key that it means.
pub fn key(webhook: &Webhook) -> Result<(Secret, Vec<u8>)> {
    let (name, file) = ("secret_file", &webhook.secret_file);
    let secret = secret_file(name, file)?;
    let bytes = secret.expose().strip_prefix("whsec_").and_then(|text| BASE64_STANDARD.decode(text).ok());
    match bytes {
        Some(bytes) if bytes.len() >= LEAST => Ok((secret, bytes)),
        _ => bail!(
            "{name}: {} holds no secret: write whsec_ and {LEAST} random bytes or more in base64, for example \
             `echo whsec_$(openssl rand -base64 32)`",
            file.display()
        ),
    }
}

/// Tells the receiver. `number` names the message, however often it is sent; `now`: seconds since 1970.
pub fn send(webhook: &Webhook, number: u64, turn: &Turn, now: i64) -> Result<(), Refused> {
    let (secret, key) = key(webhook)?;
    let message = Message { r#type: turn.turn, timestamp: &turn.at, data: turn };
    let body = serde_json::to_string(&message).context("cannot write a turn")?;
    let (id, now) = (format!("msg_{number}"), now.to_string());
    let signature = sign(&key, &id, &now, &body)?;
    let headers = [("webhook-id", &*id), ("webhook-timestamp", &now), ("webhook-signature", &signature)];
    Call { method: "POST", url: &webhook.url, headers: &headers, body: Some(&body), secret: &secret }.make().map(drop)
}

fn sign(key: &[u8], id: &str, timestamp: &str, body: &str) -> Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).context("the secret is no key")?;
    mac.update(format!("{id}.{timestamp}.{body}").as_bytes());
    Ok(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the reference libraries.
    #[test]
    fn a_signature_is_the_one_that_others_make() {
        let key = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let body = "{\"test\": 2432232314}";
        let signature = sign(&key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", body).unwrap();
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
