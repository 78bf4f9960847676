//! `deployctl token new`: a random token, and the line for `service.tokens` that makes it known to the service.

use std::{
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, anyhow};
use sha2::{Digest as _, Sha256};

use crate::{
    cli::TokenNewArgs,
    config::{Scope, Token},
    exit::Exit,
    screen,
    secret::{Secret, hex},
};

/// Prints the token, or keeps it in a file of mode 0600, and the JSON line for `service.tokens`.
pub fn new(args: &TokenNewArgs) -> Result<Exit> {
    let (secret, token) = make(&args.name, &args.can)?;
    let line = serde_json::to_string(&token).context("cannot write the token's line")?;
    match &args.file {
        Some(file) => {
            write_new(file, secret.expose(), 0o600).map_err(|error| Exit::Usage.because(error))?;
            screen::print([line])?;
        }
        None => screen::print([secret.expose(), &line])?,
    }
    Ok(Exit::Done)
}

/// 256 random bits in hexadecimal, and what the service has to know of them.
pub(super) fn make(name: &str, can: &[Scope]) -> Result<(Secret, Token)> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|e| anyhow!("no randomness: {e}"))?;
    let text = hex(&bytes);
    let sha256 = hex(&Sha256::digest(text.as_bytes()));
    Ok((Secret::new(text), Token { name: name.to_owned(), sha256, can: can.to_vec() }))
}

/// Writes a file that is not there yet, with these permissions from its first byte on.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> Result<()> {
    let shown = path.display();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .with_context(|| format!("cannot make {shown}: nothing is overwritten; remove it, or name another file"))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).with_context(|| format!("cannot write {shown}"))
}

/// The file in which the token `name` is kept, beside a configuration.
pub(super) fn file_beside(config: &Path, name: &str) -> PathBuf {
    config.with_file_name(format!("token-{name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tokens_are_alike() {
        let (one, known) = make("ci", &[]).unwrap();
        let (other, _) = make("ci", &[]).unwrap();
        assert!(one != other && one.expose().len() == 64);
        assert_eq!(known.sha256, hex(&Sha256::digest(one.expose().as_bytes())));
        assert_eq!(hex(&[0, 0x0f, 0xa0]), "000fa0");
    }
}
