#!/usr/bin/env bash
# Runs many schedules of the simulation in a release build, on all cores; or the one of SEED, with TALK=1 word by word.
# `make simulate`.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
export SEEDS=${SEEDS:-100000}
name=simulation::seeds::every_rule_holds_whatever_happens
if [[ -n ${SEED:-} ]]; then
    name=simulation::seeds::one
fi
cargo test --locked --release --test all "$name" -- --exact --nocapture
