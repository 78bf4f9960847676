//! Which compose program a box uses. Both versions do, but they name containers differently, so that changing from one
//! to the other restarts everything: the choice is made once and kept.

use std::{fs, path::Path, time::Duration};

use anyhow::{Context, Result, bail};
use log::info;

use crate::{
    config::Config,
    process::{self, Program, never},
};

/// How long a program may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(20);

/// What may be installed, the first choice first.
const KNOWN: [&[&str]; 2] = [&["docker-compose"], &["docker", "compose"]];

/// The configured program, else the kept one, else the one that is installed, which is then kept in
/// `<state_dir>/compose`.
pub(super) fn program(config: &Config) -> Result<Vec<String>> {
    if let Some(program) = &config.compose {
        return Ok(program.clone());
    }
    let file = config.state_dir.join("compose");
    if let Some(program) = kept(&file)?.filter(|program| works(program)) {
        return Ok(owned(program));
    }
    let Some(program) = KNOWN.into_iter().find(|program| works(program)) else {
        bail!(
            "neither docker-compose nor docker compose works here: install one, or name one in the configuration, \
             like \"compose\": [\"docker-compose\"]"
        );
    };
    info!("using {}, as kept in {}", program.join(" "), file.display());
    keep(&file, &program.join(" ")).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(owned(program))
}

fn owned(program: &[&str]) -> Vec<String> {
    program.iter().map(|&word| word.to_owned()).collect()
}

fn kept(file: &Path) -> Result<Option<&'static [&'static str]>> {
    if !file.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(KNOWN.into_iter().find(|program| program.join(" ") == text.trim()))
}

/// Whole or not at all: another role's worker may read it meanwhile.
fn keep(file: &Path, text: &str) -> std::io::Result<()> {
    // `doctor` asks too, and creates nothing; a worker has its folder.
    if file.parent().is_none_or(|folder| !folder.is_dir()) {
        return Ok(());
    }
    let new = file.with_extension(std::process::id().to_string());
    fs::write(&new, format!("{text}\n"))?;
    fs::rename(new, file)
}

/// Whether it says its version.
pub(super) fn works(program: &[impl AsRef<str>]) -> bool {
    let words = program.iter().map(AsRef::as_ref).chain(["version"]);
    process::run(&Program::new(VERSION_TIMEOUT, words), &never).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_wins() {
        let config = Config::parse(r#"{"compose": ["docker", "compose"], "state_dir": "/nowhere"}"#).unwrap();
        assert_eq!(program(&config).unwrap(), ["docker", "compose"]);
    }

    #[test]
    fn a_choice_that_nobody_knows_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compose");
        assert_eq!(kept(&file).unwrap(), None);
        keep(&file, "podman-compose").unwrap();
        assert_eq!(kept(&file).unwrap(), None);
        keep(&file, "docker compose").unwrap();
        assert_eq!(kept(&file).unwrap(), Some(&["docker", "compose"][..]));
    }
}
