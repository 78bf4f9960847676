#!/usr/bin/env bash
# Installs what the tests need, sees to a Docker engine, and runs them all. `make test`.
# Arguments go to the runner: scripts/test.sh promotion, scripts/test.sh e2e::
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
# shellcheck source-path=SCRIPTDIR source=docker.sh
source "$(dirname "$0")/docker.sh"
cd "$root"
scripts/install-tools.sh demo test
export DEPLOYCTL_TOOLS=$tools

# First, so that a build that fails starts nothing.
cargo build --locked --all-targets
trap stop_docker EXIT
start_docker

# Tests start their servers by themselves, each for itself, and may not meet what this shell has set for a real fleet.
for name in $(compgen -e); do
    case $name in
        DEPLOYCTL_TOOLS | DEPLOYCTL_REQUIRE_ALL | DEPLOYCTL_MODEL) ;;
        DEPLOYCTL_* | AWS_* | DEPLOY_*) unset "$name" ;;
    esac
done
# group_times REPORT: how many tests each group has, and how long they took together.
group_times() {
    awk -F'"' '
        /<testcase / {
            for (at = 1; at < NF; at += 2) {
                if ($at ~ / name=$/) { split($(at + 1), path, "::") }
                if ($at ~ /classname=$/) { unit = ($(at + 1) == "deployctl") }
                if ($at ~ / time=$/) { time = $(at + 1) }
            }
            group = unit ? "unit" : path[1]
            tests[group] += 1
            seconds[group] += time
        }
        END { for (group in tests) printf "%-9s %4d tests %7.1f s\n", group, tests[group], seconds[group] }
    ' "$1" | sort -k4 -n -r
}

if cargo nextest --version >/dev/null 2>&1; then
    outcome=0
    cargo nextest run --locked --no-fail-fast "$@" || outcome=$?
    report=${CARGO_TARGET_DIR:-target}/nextest/default/junit.xml
    if [[ -f $report ]]; then
        step "time by group (tests run side by side)"
        group_times "$report"
    fi
    exit "$outcome"
else
    cargo test --locked --no-fail-fast "$@"
fi
