#!/usr/bin/env bash
# Runs every fuzz target for FUZZ_SECONDS each, from the corpus in the tree. `make fuzz` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${FUZZ_SECONDS:-600}
version=0.13.2
PATH="$PWD/target/tools/bin:$PATH"
export PATH

# Fuzzing needs the compiler's sanitizers, which only nightly offers.
if ! rustup toolchain list | grep -q '^nightly'; then rustup toolchain install nightly --profile minimal; fi
if ! cargo fuzz --version >/dev/null 2>&1; then
  echo "installing cargo-fuzz $version"
  cargo +nightly install --quiet --locked --root target/tools "cargo-fuzz@$version"
fi

for target in $(cargo +nightly fuzz list); do
  printf '\n== %s, %s s\n' "$target" "$seconds"
  # What is found on the way stays out of the tree: the corpus in it is the one that a person chose.
  found="target/fuzz-corpus/$target"
  mkdir -p "$found"
  cargo +nightly fuzz run "$target" "$found" "fuzz/corpus/$target" -- -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10
done
