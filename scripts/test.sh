#!/usr/bin/env bash
# Installs what the tests need, sees to a Docker engine, and runs them all. `make test`.
# Arguments go to the runner: scripts/test.sh promotion
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
if cargo nextest --version >/dev/null 2>&1; then
    cargo nextest run --locked --no-fail-fast "$@"
else
    cargo test --locked --no-fail-fast "$@"
fi
