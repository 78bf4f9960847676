# Thin: what each target does stands in scripts/.
.DEFAULT_GOAL := help
.PHONY: help demo test lint machines bench model simulate build packages install-tools clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: ## nine boxes on this machine: v1, v2, a broken v3, a promoted v4, a v5 that serves errors (KEEP=1 leaves them up)
	@scripts/demo.sh

test: ## every test, on real Serf, Redis, Docker, registry, AWS CLI and moto
	@scripts/test.sh

machines: ## docs/first-fleet.md, step by step, on Debian machines with systemd, and what happens to them (root)
	@scripts/machines.sh

lint: ## rustfmt, clippy, cargo deny, shellcheck
	@scripts/lint.sh

bench: ## what the locks cost beside the plain scheme, and a roll-out beside Ansible (ONLY=locks, ONLY=rollout)
	@scripts/bench.sh

model: ## the protocol's model at full depth (minutes; `make test` runs it at a smaller one)
	@DEPLOYCTL_MODEL=full cargo test --locked --release --test all model::

simulate: ## a whole fleet in simulated time, SEEDS=100000 schedules of what can go wrong (SEED=123 replays one)
	@scripts/simulate.sh

build: ## target/release/deployctl
	@cargo build --locked --release

packages: ## target/packages: a static binary, a .deb and an .rpm, their SBOM and checksums (CHECK=1: once more, the same bytes?)
	@scripts/packages.sh $(if $(CHECK),check)

install-tools: ## what demo, test and lint need, if it is missing (NO_INSTALL=1: only says so)
	@scripts/install-tools.sh

clean: ## everything that was built or installed in target/
	@cargo clean
