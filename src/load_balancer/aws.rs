//! A load balancer of AWS, by the real AWS CLI: what its two kinds have in common, and what to make of a call that fails.

use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, anyhow};

use super::{ServingTargets, TargetState, looks::Targets};
use crate::{
    process::{self, Failure, Program},
    retry::retrying_slowly,
};

/// One call takes half a second; the CLI itself tries a few times before it gives up.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Even at its deadline a call is given this long.
const SHORTEST_CALL: Duration = Duration::from_secs(5);
/// How often a call that failed on its way is tried again.
const RETRIES: u32 = 4;

/// A target group or a classic load balancer, and this box in it.
#[derive(Debug)]
pub(super) struct Aws {
    /// For people.
    pub(super) name: String,
    /// For [`ServingTargets`].
    pub(super) key: String,
    /// This box, as `read` names it.
    pub(super) me: String,
    /// How long to wait for open connections.
    pub(super) drain: Duration,
    /// Describes everyone.
    pub(super) list: Program,
    /// Describes this box.
    pub(super) look: Program,
    pub(super) register: Program,
    pub(super) deregister: Program,
    /// Reads the answer of `list` and `look`.
    pub(super) read: fn(&str) -> Result<Targets>,
}

impl Aws {
    /// How it sees everyone, asked of AWS now.
    pub(super) fn everyone(&self, deadline: Instant, interrupted: &dyn Fn() -> bool) -> Result<Targets> {
        self.ask(&self.list, deadline, interrupted)
    }

    pub(super) fn count(&self, seen: Targets) -> ServingTargets {
        let in_service: Vec<String> =
            seen.into_iter().filter(|(_, state)| *state == TargetState::InService).map(|(target, _)| target).collect();
        ServingTargets { key: self.key.clone(), me: self.me.clone(), in_service }
    }

    pub(super) fn state(&self, deadline: Instant, interrupted: &dyn Fn() -> bool) -> Result<TargetState> {
        Ok(self.find_me(self.ask(&self.look, deadline, interrupted)?))
    }

    pub(super) fn find_me(&self, seen: Targets) -> TargetState {
        seen.into_iter().find(|(target, _)| *target == self.me).map_or(TargetState::Out, |(_, state)| state)
    }

    fn ask(&self, program: &Program, deadline: Instant, interrupted: &dyn Fn() -> bool) -> Result<Targets> {
        let answer = self.call(program, deadline, interrupted)?;
        (self.read)(&answer).with_context(|| format!("{}: cannot read what AWS answers", self.name))
    }

    pub(super) fn call(&self, program: &Program, deadline: Instant, interrupted: &dyn Fn() -> bool) -> Result<String> {
        call(&self.name, program, deadline, interrupted)
    }
}

/// The program for one call.
pub(super) fn program(region: &str, arguments: &[&str]) -> Program {
    let argv = ["aws", "--region", region, "--output", "json"].into_iter().chain(arguments.iter().copied());
    Program::new(CALL_TIMEOUT, argv)
}

/// Calls AWS for the load balancer `name`. Calls again until `deadline` when it was throttled, and a few times when it
/// failed on its way. Anything else is an error at once, in one line that says what to check.
pub(super) fn call(name: &str, program: &Program, deadline: Instant, interrupted: &dyn Fn() -> bool) -> Result<String> {
    let left = || deadline.saturating_duration_since(Instant::now());
    let ask = || {
        process::run(&Program { timeout: left().clamp(SHORTEST_CALL, CALL_TIMEOUT), ..program.clone() }, interrupted)
    };
    let mut retries = 0;
    let is_transient = |failure: &Failure| match AwsError::of(failure) {
        AwsError::Throttled => true,
        AwsError::OnItsWay => {
            retries += 1;
            retries <= RETRIES
        }
        _ => false,
    };
    match retrying_slowly(left(), interrupted, is_transient, ask) {
        Ok(output) => Ok(output.stdout),
        Err(failure) => Err(explain(name, &failure)),
    }
}

/// What is wrong with a call that failed
/// ([common errors](https://docs.aws.amazon.com/elasticloadbalancing/latest/APIReference/CommonErrors.html)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AwsError {
    /// Too many calls in this account.
    Throttled,
    /// It did not get through, or AWS could not serve it.
    OnItsWay,
    /// Nobody has told the CLI who we are, or AWS does not believe it.
    Credentials,
    /// We may not.
    Permission,
    /// There is no such load balancer, or no such target.
    Name,
    /// There is no AWS CLI.
    NoProgram,
    Other,
}

impl AwsError {
    fn of(failure: &Failure) -> Self {
        match failure {
            Failure::NotFound { .. } => Self::NoProgram,
            Failure::TimedOut { .. } => Self::OnItsWay,
            Failure::Exit { output, .. } => Self::of_words(&output.stderr),
            Failure::Interrupted { .. } | Failure::Io { .. } => Self::Other,
        }
    }

    fn of_words(words: &str) -> Self {
        let says = |any: &[&str]| any.iter().any(|part| words.contains(part));
        let code = words.split_once("An error occurred (").and_then(|(_, rest)| rest.split(')').next()).unwrap_or("");
        match code {
            _ if code.starts_with("Throttl") || code.starts_with("TooManyRequests") => Self::Throttled,
            "RequestLimitExceeded" | "RequestThrottled" | "RequestThrottledException" | "SlowDown" => Self::Throttled,
            _ if says(&["Rate exceeded"]) => Self::Throttled,
            "InternalFailure"
            | "InternalError"
            | "InternalServerError"
            | "ServiceUnavailable"
            | "ServiceUnavailableException"
            | "Unavailable"
            | "RequestTimeout"
            | "RequestTimeoutException" => Self::OnItsWay,
            _ if code.starts_with('5') => Self::OnItsWay,
            _ if says(&["is not authorized to perform", "AccessDenied", "UnauthorizedOperation"]) => Self::Permission,
            "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "InvalidClientTokenId"
            | "AuthFailure"
            | "SignatureDoesNotMatch"
            | "UnrecognizedClientException"
            | "IncompleteSignature"
            | "MissingAuthenticationToken" => Self::Credentials,
            _ if code.ends_with("NotFound")
                || code.starts_with("InvalidTarget")
                || code.starts_with("InvalidInstance") =>
            {
                Self::Name
            }
            "" if says(&[
                "Could not connect",
                "onnect timeout",
                "ead timeout",
                "Connection was closed",
                "onnection reset",
            ]) =>
            {
                Self::OnItsWay
            }
            "" if says(&["Error when retrieving"]) => Self::OnItsWay,
            "" if says(&["credentials", "config profile"]) => Self::Credentials,
            _ => Self::Other,
        }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Throttled => {
                "AWS throttles this account's calls: fewer boxes at once (max_parallel), or a higher limit"
            }
            Self::OnItsWay => "check that this box reaches AWS (network, proxy, AWS_ENDPOINT_URL)",
            Self::Credentials => "give this box credentials: an instance profile, or AWS_* variables",
            Self::Permission => "allow the call in the IAM policy of this box",
            Self::Name => "check the names and ids under load_balancers in the configuration",
            Self::NoProgram => "install the AWS CLI",
            Self::Other => "check this box's credentials and permissions, and the names under load_balancers",
        }
    }
}

fn explain(name: &str, failure: &Failure) -> Error {
    let advice = AwsError::of(failure).advice();
    match failure {
        Failure::Interrupted { .. } => anyhow!("interrupted"),
        Failure::Exit { output, .. } if !output.stderr.trim().is_empty() => {
            anyhow!("{name}: {}; {advice}", failure.last_words())
        }
        _ => anyhow!("{name}: {failure}; {advice}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recorded_errors_are_told_apart() {
        let error =
            |code: &str| format!("\nAn error occurred ({code}) when calling the DescribeTargetHealth operation: …\n");
        for code in ["Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"] {
            assert_eq!(AwsError::of_words(&error(code)), AwsError::Throttled, "{code}");
        }
        let retried = "An error occurred (Throttling) when calling the DescribeInstanceHealth operation (reached max retries: 4): Rate exceeded";
        assert_eq!(AwsError::of_words(retried), AwsError::Throttled);
        for code in ["500", "503", "ServiceUnavailable", "InternalFailure"] {
            assert_eq!(AwsError::of_words(&error(code)), AwsError::OnItsWay, "{code}");
        }
        for words in [
            "Could not connect to the endpoint URL: \"http://127.0.0.1:1/\"",
            "Connect timeout on endpoint URL: \"https://elasticloadbalancing.eu-west-1.amazonaws.com/\"",
            "Read timeout on endpoint URL: \"https://elasticloadbalancing.eu-west-1.amazonaws.com/\"",
            "Error when retrieving credentials from iam-role: Credential refresh failed",
        ] {
            assert_eq!(AwsError::of_words(words), AwsError::OnItsWay, "{words}");
        }
        for words in [
            "Unable to locate credentials. You can configure credentials by running \"aws configure\".",
            "The config profile (x) could not be found",
            &error("ExpiredToken"),
            &error("InvalidClientTokenId"),
        ] {
            assert_eq!(AwsError::of_words(words), AwsError::Credentials, "{words}");
        }
        let denied = "An error occurred (AccessDenied) when calling the RegisterTargets operation: User: arn:aws:sts::1:assumed-role/box/i-1 is not authorized to perform: elasticloadbalancing:RegisterTargets";
        assert_eq!(AwsError::of_words(denied), AwsError::Permission);
        for code in ["TargetGroupNotFound", "LoadBalancerNotFound", "InvalidTarget", "InvalidInstance"] {
            assert_eq!(AwsError::of_words(&error(code)), AwsError::Name, "{code}");
        }
        assert_eq!(AwsError::of_words("usage: aws [options] <command>"), AwsError::Other);
    }

    #[test]
    fn an_interrupted_call_is_not_tried_again() {
        let program = Program::new(CALL_TIMEOUT, ["sh", "-c", "sleep 100"]);
        let started = Instant::now();
        let error = call("target group app", &program, started + CALL_TIMEOUT, &|| true).unwrap_err();
        assert_eq!(error.to_string(), "interrupted");
        assert!(started.elapsed() < SHORTEST_CALL, "{:?}", started.elapsed());
    }

    /// A stand-in for the CLI, for moto does not throttle: it fails `times` times with `words`.
    fn failing(dir: &std::path::Path, times: u32, words: &str) -> Program {
        let count = dir.display();
        let script = format!(
            "echo x >>{count}/calls; [ $(wc -l <{count}/calls) -le {times} ] || {{ echo fine; exit; }}; echo '{words}' >&2; exit 254"
        );
        Program::new(CALL_TIMEOUT, ["sh", "-c", &script])
    }

    #[test]
    fn throttling_is_ridden_out_until_the_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let words = "An error occurred (Throttling) when calling the DescribeTargetHealth operation: Rate exceeded";
        let started = Instant::now();
        let answer =
            call("target group app", &failing(dir, 2, words), started + CALL_TIMEOUT, &process::never).unwrap();
        assert_eq!(answer, "fine\n");
        assert!(started.elapsed() >= Duration::from_secs(2), "about 1 s, then 2 s: {:?}", started.elapsed());
        let deadline = Instant::now() + Duration::from_millis(1200);
        let error = call("target group app", &failing(dir, 1000, words), deadline, &process::never).unwrap_err();
        assert!(error.to_string().starts_with("target group app: An error occurred (Throttling)"), "{error}");
        assert!(error.to_string().contains("max_parallel"), "{error}");
        assert!(Instant::now() < deadline + Duration::from_secs(2));
    }
}
