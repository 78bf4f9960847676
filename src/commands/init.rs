//! `deployctl init`: the first configuration of a box or of the service's host. What no flag says is asked on a terminal.
//!
//! The text is checked by the same code that reads it later, before anything is written; nothing is overwritten.

use std::{
    fs,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::token;
use crate::{
    cli::{Cli, Init, InitBoxArgs, InitServiceArgs},
    config::{self, Config, Scope},
    exit::Exit,
    names::{Environment, Role},
    screen, service,
};

/// Writes what the arguments, or the answers, describe.
pub fn run(cli: &Cli, what: &Init) -> Result<Exit> {
    let file = cli.config.clone().or_else(|| super::variable("DEPLOYCTL_CONFIG").map(PathBuf::from));
    let file = file.unwrap_or_else(|| PathBuf::from(config::DEFAULT_PATH));
    let done = match what {
        Init::Box(args) => init_box(&file, args),
        Init::Service(args) => init_service(&file, args),
    };
    let next = done.map_err(|error| Exit::Usage.because(error))?;
    screen::print(next)?;
    Ok(Exit::Done)
}

fn init_box(file: &Path, args: &InitBoxArgs) -> Result<Vec<String>> {
    is_new(file)?;
    let roles: Vec<Role> = given_or_asked(args.role.clone(), "--role", "Roles of this box, comma separated")?;
    let url = match &args.service_url {
        Some(url) => url.clone(),
        None => ask("--service-url", "URL of the deployment service")?,
    };
    let mut configured = Map::new();
    for role in &roles {
        let group = of_role(&args.target_group, role)?;
        let group = match group {
            Some(group) => Some(group),
            None if args.no_load_balancer => None,
            None => {
                let question = format!("ARN of {role}'s target group; empty: nothing sends requests to it");
                Some(ask("--target-group ARN, or --no-load-balancer", &question)?).filter(|answer| !answer.is_empty())
            }
        };
        let balancers = group.map(|group| json!([{"elbv2": {"target_group_arn": group}}])).unwrap_or(json!([]));
        let mut own = json!({"load_balancers": balancers});
        if let Some(health) = of_role(&args.health_url, role)? {
            own["health"] = json!({"url": health});
        }
        configured.insert(role.to_string(), own);
    }
    let text = pretty(&json!({
        "redis_url_file": args.redis_url_file, "service_url": url, "service_token_file": args.token_file,
        "roles": configured,
    }))?;
    write(file, &text)?;
    Ok(vec![
        format!("wrote {}", file.display()),
        "next:".to_owned(),
        format!("  put the URL of Redis into {}, mode 0600", beside(file, &args.redis_url_file)),
        format!("  put the box's token into {}, mode 0600", beside(file, &args.token_file)),
        "  deployctl doctor".to_owned(),
    ])
}

fn init_service(file: &Path, args: &InitServiceArgs) -> Result<Vec<String>> {
    is_new(file)?;
    let roles: Vec<Role> = given_or_asked(args.role.clone(), "--role", "Roles, comma separated")?;
    let question = "Environments in the order of promotion, comma separated";
    let environments: Vec<Environment> = given_or_asked(args.environment.clone(), "--environment", question)?;
    let (Some(first), false) = (environments.first(), roles.is_empty()) else {
        bail!("name at least one role and one environment");
    };
    let mut wanted = vec![("ci".to_owned(), vec!["publish".to_owned(), format!("start:{first}")])];
    wanted.extend(environments.iter().map(|e| (format!("{e}-boxes"), vec![format!("box:{e}")])));
    wanted.push(("ops".to_owned(), ["read", "start", "cancel", "unlock"].map(str::to_owned).into()));
    let mut files = Vec::new();
    let mut tokens = Vec::new();
    for (name, can) in wanted {
        let can: Vec<Scope> =
            can.into_iter().map(Scope::try_from).collect::<Result<_, _>>().map_err(anyhow::Error::msg)?;
        let (secret, known) = token::make(&name, &can)?;
        let path = token::file_beside(file, &name);
        is_new(&path)?;
        files.push((path, secret));
        tokens.push(known);
    }
    let policies: Map<String, Value> = roles
        .iter()
        .map(|role| (role.to_string(), json!({"environments": environments, "auto_promote": args.auto_promote})))
        .collect();
    let text = pretty(&json!({
        "redis_url_file": args.redis_url_file,
        "service": {"listen": args.listen, "tokens": tokens, "roles": policies},
    }))?;
    write(file, &text)?;
    let mut next = vec![format!("wrote {}", file.display())];
    for (path, secret) in files {
        token::write_new(&path, secret.expose(), 0o600)?;
        next.push(format!("wrote {}", path.display()));
    }
    next.extend([
        "next:".to_owned(),
        format!("  put the URL of Redis into {}, readable for the user deployctl", beside(file, &args.redis_url_file)),
        "  hand out the tokens, and remove them here".to_owned(),
        "  deployctl doctor".to_owned(),
    ]);
    Ok(next)
}

fn is_new(file: &Path) -> Result<()> {
    if file.symlink_metadata().is_ok() {
        bail!("{} is there already, and stays as it is: name another file with --config", file.display());
    }
    Ok(())
}

fn write(file: &Path, text: &str) -> Result<()> {
    let config = Config::parse(text)?;
    service::check(&config)?;
    if let Some(folder) = file.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}: run as root", folder.display()))?;
    }
    token::write_new(file, text, 0o644)
}

fn pretty(value: &Value) -> Result<String> {
    Ok(serde_json::to_string_pretty(value).context("cannot write the configuration")? + "\n")
}

fn beside(config: &Path, file: &Path) -> String {
    config.parent().unwrap_or(Path::new("")).join(file).display().to_string()
}

/// What `[ROLE=]VALUE` says of `role`: a value without a role is every role's.
fn of_role(values: &[String], role: &Role) -> Result<Option<String>> {
    let mut found = None;
    for value in values {
        let (named, value) = match value.split_once('=') {
            Some((named, rest)) if named.parse::<Role>().is_ok() => (Some(named), rest),
            _ => (None, value.as_str()),
        };
        if named.is_none_or(|named| named == role.as_str()) && found.replace(value.to_owned()).is_some() {
            bail!("{value:?} is the second value for the role {role}: write ROLE=VALUE");
        }
    }
    Ok(found)
}

fn given_or_asked<T: std::str::FromStr<Err: std::fmt::Display>>(
    given: Vec<T>,
    flag: &str,
    question: &str,
) -> Result<Vec<T>> {
    if !given.is_empty() {
        return Ok(given);
    }
    let answer = ask(flag, question)?;
    let words = answer.split(',').map(str::trim).filter(|word| !word.is_empty());
    let read: Result<Vec<T>, T::Err> = words.map(str::parse).collect();
    read.map_err(|error| anyhow::anyhow!("{error}"))
}

/// Asks a person. Where nobody is, says which flag is missing.
fn ask(flag: &str, question: &str) -> Result<String> {
    if !io::stdin().is_terminal() {
        bail!("{flag} is missing, and nobody can be asked: standard input is no terminal");
    }
    let mut out = io::stderr().lock();
    write!(out, "{question}: ").and_then(|()| out.flush()).context("cannot ask")?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("cannot read the answer")?;
    Ok(answer.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_every_role_s_or_one_s() {
        let [app, web]: [Role; 2] = ["app", "web"].map(|role| role.parse().unwrap());
        let one = ["app=http://x/?a=b".to_owned()];
        assert_eq!(of_role(&one, &app).unwrap().as_deref(), Some("http://x/?a=b"));
        assert_eq!(of_role(&one, &web).unwrap(), None);
        let all = ["http://x/?a=b".to_owned()];
        assert_eq!(of_role(&all, &web).unwrap().as_deref(), Some("http://x/?a=b"));
        assert!(of_role(&["a".to_owned(), "app=b".to_owned()], &app).is_err());
    }
}
