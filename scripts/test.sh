#!/usr/bin/env bash
# Every check, in the order in which it fails fastest. `make test` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "tools"
# shellcheck source=scripts/tools.sh
. scripts/tools.sh

step "scripts"
shellcheck --external-sources scripts/*.sh deploy/*.sh .ci/run

step "image and Compose"
hadolint deploy/Dockerfile
scripts/compose.sh

step "links in documents"
scripts/links.sh

step "alerts and dashboards"
scripts/observe.sh

step "format"
cargo fmt --all --check

step "no floating point on the way of a price"
scripts/decimals.sh

step "licences and sources"
cargo deny --log-level error check licenses bans sources

step "lints (the first build compiles all dependencies, which takes minutes)"
cargo clippy --locked --workspace --all-targets -- -D warnings

step "tests"
# Tests of whole systems mostly wait, for leases to run out and servers to come back, so more of them than there are
# cores run side by side.
RUST_TEST_THREADS="${RUST_TEST_THREADS:-6}" cargo test --locked --workspace

step "chart"
scripts/chart.sh

step "load test (the first time k6 is built, which takes minutes)"
(cd loadtest/k6 && npm ci --silent --no-audit --no-fund && npm run --silent check)
export AKIS="${CARGO_TARGET_DIR:-target}/debug/akis"
scripts/load.sh smoke
scripts/k6-check.sh

step "everything passed"
