# shellcheck shell=bash
# For scripts that try something whole, step by step: says what was seen, waits, and gives up. Sourced.

say() { printf '[%4d s] %s\n' "$SECONDS" "$*"; }
die() {
  say "FAILED: $*"
  exit 1
}
wait_for() { # SECONDS WHAT COMMAND…
  local until=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    if ((SECONDS > until)); then die "waited in vain for $what"; fi
    sleep 0.5
  done
}
