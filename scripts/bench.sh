#!/usr/bin/env bash
# Measures with akis-bench what a release build costs on this machine: scripts/bench.sh [SCENARIO…] [--all]. `make bench` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/packages.sh
. scripts/packages.sh

need redis-server redis-server
cargo build --locked --release --package akis --package akis-loadtest
release=${CARGO_TARGET_DIR:-target}/release
ulimit -n "$(ulimit -Hn)"
exec "$release/akis-bench" --akis "$release/akis" "$@"
