//! A load balancer of files, for tests where AWS is not the point: nothing to start, and every step can be stopped.
//!
//! A box is in service while `in-service` is in its folder. Each program waits as long as `stop-at-VERB` is there, so
//! that a worker can be met, or killed, at that very step.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::scope::Scope;

const PROGRAM: &str = r#"while [ -e "$2/stop-at-$1" ]; do sleep 0.2; done
case $1 in
    register) : >"$2/in-service" ;;
    deregister) rm -f "$2/in-service" ;;
    in_service) test -e "$2/in-service" ;;
esac"#;

/// What a box's configuration says of a role behind it. `verify` is there to be stopped at.
pub fn configuration(scope: &Scope, node: &Path) -> Value {
    let program = scope.script("switchboard", PROGRAM);
    let argv = |verb: &str| json!([program, verb, node]);
    let (register, deregister, in_service) = (argv("register"), argv("deregister"), argv("in_service"));
    json!({
        "load_balancers": [{
            "command": { "register": register, "deregister": deregister, "in_service": in_service },
        }],
        "verify": argv("verify"),
    })
}

/// Whether a box gets requests.
pub fn in_service(node: &Path) -> bool {
    node.join("in-service").exists()
}

/// From now on, this step waits.
pub fn stop_at(node: &Path, verb: &str) {
    fs::write(node.join(format!("stop-at-{verb}")), "").unwrap();
}

/// It goes on.
pub fn go_on(node: &Path, verb: &str) {
    fs::remove_file(node.join(format!("stop-at-{verb}"))).unwrap();
}
