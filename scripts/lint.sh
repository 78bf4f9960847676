#!/usr/bin/env bash
# Everything that can be said about the sources without running them. `make lint`.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
source "$(dirname "$0")/lib.sh"
cd "$root"
scripts/install-tools.sh lint
PATH=$tools/bin:$PATH

step "rustfmt"
cargo fmt --check
step "clippy"
cargo clippy --locked --all-targets -- -D warnings
step "cargo deny"
# Its fourth check, advisories, wants a database from GitHub, which not every network reaches.
cargo deny --locked check bans licenses sources
step "one runtime"
if grep -rlE '\b(tokio|hyper|hyper_util)::' src | grep -v '^src/service/http/'; then
    die "tokio and hyper stay in src/service/http: the rest is synchronous"
fi
step "shellcheck"
shellcheck --external-sources scripts/*.sh scripts/*/*.sh scripts/packages/{postinst,prerm,postrm} .ci/run
