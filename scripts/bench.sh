#!/usr/bin/env bash
# The benches, ours beside a rival in the same run. `make bench`; ONLY=locks or ONLY=rollout runs one.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
only=${ONLY:-}
[[ $only =~ ^(|locks|rollout)$ ]] || die "no such bench: $only (there are locks and rollout)"
if [[ $only != rollout ]]; then
    "$root/scripts/install-tools.sh" demo
    (cd "$root" && cargo bench --locked --bench locks)
fi
if [[ $only != locks ]]; then
    "$root/scripts/bench-rollout.sh"
fi
