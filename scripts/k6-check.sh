#!/usr/bin/env bash
# Looks whether load tests say what is wrong: a setting that is missing, and clients that a gateway refuses. `make test` calls it;
# AKIS names the binary.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/k6.sh
. scripts/k6.sh

die() { echo "scripts/k6-check.sh: $*" >&2; exit 1; }
run() { k6 run --quiet "$@"; }
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

# One line that says what is wrong, and no waiting.
refuses() { # WORD ENVIRONMENT… -- SCENARIO
  local word=$1 variables=()
  shift
  while [ "$1" != -- ]; do variables+=("$1"); shift; done
  if env "${variables[@]}" scripts/load.sh "${@:2}" >"$work/said" 2>&1; then die "${*:2} is run"; fi
  if ! grep -q "$word" "$work/said" || [ "$(wc -l <"$work/said")" != 1 ]; then die "$word is not all that is said: $(cat "$work/said")"; fi
}
refuses 'there is no scenario "nonsense"' -- nonsense
refuses 'there is no scenario "lib/client"' -- lib/client
refuses 'TOKEN is not' URL=ws://127.0.0.1:9/live -- smoke
refuses 'cannot be reached' URL=ws://127.0.0.1:9/live TOKEN=x -- smoke

# A terminal is told a stack in lines of its own, other readers in the same line.
for wrong in TOKEN= CLIENTS=many SECONDS=0; do
  if run -e TOKEN=x -e "$wrong" loadtest/k6/smoke.ts >"$work/said" 2>&1; then die "$wrong is taken"; fi
  grep -q "${wrong%%=*} is" "$work/said" || die "$wrong is not named: $(cat "$work/said")"
  if grep -q 'settings.ts' "$work/said" || [ "$(wc -l <"$work/said")" != 1 ]; then die "$wrong is more than one line: $(cat "$work/said")"; fi
done

printf '[gateway.limits]\nconnections_per_subject = 2\n' >"$work/akis.toml"
"$AKIS" dev --config "$work/akis.toml" --venues sim --listen 127.0.0.1:0 --admin 127.0.0.1:0 >"$work/dev" 2>"$work/log" &
for _ in $(seq 300); do
  if grep -q '^token: ' "$work/dev"; then break; fi
  sleep 0.1
done
token=$(sed -n 's/^token: //p' "$work/dev") url=$(sed -n 's/^page: http/ws/p' "$work/dev")live
[ -n "$token" ] || die "akis dev does not start: $(tail -n 3 "$work/log")"
if run -e URL="$url" -e TOKEN="$token" -e CLIENTS=8 -e SECONDS=8 loadtest/k6/stress.ts >"$work/said" 2>&1; then
  die "stress passes where most clients are refused: $(cat "$work/said")"
fi
# Not the verdict: on a busy machine that is about the generator.
grep -q 'akis_connected .*BROKEN' "$work/said" || die "stress does not say that clients are refused: $(cat "$work/said")"
if grep -q 'knee is at\|no knee up to' "$work/said"; then die "stress names a knee for clients that were refused"; fi
