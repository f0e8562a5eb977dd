#!/usr/bin/env bash
# Runs a load test: scripts/load.sh SCENARIO [-e NAME=value…]. `make load SCENARIO=smoke` calls it.
#
# With URL and TOKEN in the environment, against that gateway; otherwise it starts Redis, a stand-in of Binance, a normalizer and
# a gateway of its own (AKIS names the binary, a release build is made when it is not set; RATE is in events a second of each
# symbol). Reports go to target/load/. With WATCH=N, so many clients of akis-bench (BENCH names the binary) are beside those of k6,
# and what the two say is compared.
set -euo pipefail
cd "$(dirname "$0")/.."

fail() { echo "make load: $*" >&2; exit 2; }
scenarios() { find loadtest/k6 -maxdepth 1 -name '*.ts' -printf '%f\n' | sed 's/\.ts$//' | sort | tr '\n' ' '; }

scenario=${1:-}
if [[ -z "$scenario" || " $(scenarios)" != *" $scenario "* ]]; then
  fail "there is no scenario \"$scenario\"; there are: $(scenarios)"
fi
shift
if [ -n "${URL:-}" ] && [ -z "${TOKEN:-}" ]; then fail "URL is set and TOKEN is not: akis token --sub load --channels 'binance:*'"; fi

# shellcheck source=scripts/packages.sh
. scripts/packages.sh
# shellcheck source=scripts/k6.sh
. scripts/k6.sh

out=$PWD/target/load/$scenario-$(date -u +%Y%m%dT%H%M%SZ)
mkdir -p "$out"
started=()
# shellcheck disable=SC2317 # The trap calls it.
stop() { for pid in "${started[@]}"; do kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; done; }
trap stop EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# Starts a program, and waits until a command succeeds: start NAME PROGRAM… -- COMMAND…
start() {
  local name=$1 program=()
  shift
  while [ "$1" != -- ]; do program+=("$1"); shift; done
  shift
  "${program[@]}" >"$out/$name.log" 2>&1 &
  local pid=$!
  started=("$pid" "${started[@]}")
  for _ in $(seq 300); do
    if "$@" >/dev/null 2>&1; then return; fi
    kill -0 "$pid" 2>/dev/null || fail "$name does not start: $(tail -n 3 "$out/$name.log")"
    sleep 0.1
  done
  fail "$name is not ready after 30 s: $(tail -n 3 "$out/$name.log")"
}

# A whole system on ports of its own. Clients are one subject at one address here, so these limits are raised; where a scenario
# is about limits they stay.
system() {
  need redis-server redis-server
  if [ -z "${AKIS:-}" ]; then
    cargo build --locked --release --package akis
    AKIS=${CARGO_TARGET_DIR:-target}/release/akis
  fi
  local redis venue gateway admin rate=20
  # What is to be too much for a slow reader has to fill the buffers of two sockets first.
  if [ "$scenario" = slow ]; then rate=1000; fi
  redis=$(free_port) venue=$(free_port) gateway=$(free_port) admin=$(free_port)
  AKIS_AUTH__SECRET=$(head -c 24 /dev/urandom | base64)
  export AKIS_AUTH__SECRET
  cat >"$out/akis.toml" <<TOML
redis.url = "redis://127.0.0.1:$redis"

[gateway.limits]
connections_per_subject = 20000
connections_per_address = 20000

[venues.binance]
symbols = ["BTCUSDT", "ETHUSDT"]
ws_url = "ws://127.0.0.1:$venue"
rest_url = "http://127.0.0.1:$venue"
TOML
  start redis redis-server --port "$redis" --bind 127.0.0.1 --save '' --dir "$out" -- redis-cli -p "$redis" ping
  start venue "$AKIS" sim binance --listen "127.0.0.1:$venue" --symbols BTCUSDT,ETHUSDT --rate "${RATE:-$rate}" -- \
    curl -sf "http://127.0.0.1:$venue/api/v3/ping"
  start gateway "$AKIS" gateway --config "$out/akis.toml" --listen "127.0.0.1:$gateway" --admin "127.0.0.1:$admin" -- \
    curl -sf "http://127.0.0.1:$admin/readyz"
  start normalizer "$AKIS" normalizer --config "$out/akis.toml" --admin 127.0.0.1:0 -- \
    grep -q 'lease taken' "$out/normalizer.log"
  URL=ws://127.0.0.1:$gateway/live UPSTREAM=127.0.0.1:$gateway
  TOKEN=$("$AKIS" token --config "$out/akis.toml" --sub load --channels 'binance:*')
}

if [ -z "${URL:-}" ]; then system; fi
if [ "$scenario" = slow ]; then
  port=$(free_port)
  TOXIPROXY=http://127.0.0.1:$port
  start toxiproxy toxiproxy-server -port "$port" -- curl -sf "$TOXIPROXY/version"
fi
curl --silent --output /dev/null --max-time 5 "http${URL#ws}" || fail "$URL cannot be reached"

machine="$(nproc) cores of $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1), Linux $(uname -r)"
machine+=", $(k6 version | cut -d' ' -f1,2), $("${AKIS:-false}" --version 2>/dev/null || echo "a gateway elsewhere")"
machine+=", commit $(git describe --always --dirty --exclude '*'), load average at the start $(cut -d' ' -f1 /proc/loadavg)"

ulimit -n "$(ulimit -Hn)"
watched=()
if [ -n "${WATCH:-}" ]; then
  if [ -z "${BENCH:-}" ]; then
    cargo build --locked --release --package akis-loadtest
    BENCH=${CARGO_TARGET_DIR:-target}/release/akis-bench
  fi
  channels=${CHANNELS:-binance:BTCUSDT:trades,binance:ETHUSDT:trades,binance:BTCUSDT:book,binance:BTCUSDT:ticker}
  watched=(-e CHANNELS="$channels")
  start watch "$BENCH" watch --url "$URL" --token "$TOKEN" --clients "$WATCH" --channels "$channels" -- \
    grep -q 'are subscribed' "$out/watch.log"
  watcher=${started[0]}
fi
status=0
k6 run --quiet --log-output=stderr -e URL="$URL" -e TOKEN="$TOKEN" -e TOXIPROXY="${TOXIPROXY:-}" -e UPSTREAM="${UPSTREAM:-}" \
  -e OUT="$out/report" -e MACHINE="$machine" "${watched[@]}" "$@" "loadtest/k6/$scenario.ts" || status=$?
if [ -n "${WATCH:-}" ] && [ -f "$out/report.json" ]; then
  kill "$watcher"
  wait "$watcher" || status=$?
  scripts/load-compare.py "$scenario" "$out/report.json" "$out/watch.log" || status=$?
fi
if [ -f "$out/report.html" ]; then echo "${out#"$PWD"/}/report.html and .json"; fi
exit "$status"
