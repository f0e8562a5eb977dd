#!/usr/bin/env bash
# Starts deploy/compose.yaml with `make up`, looks whether it keeps what it promises while events are watched through HAProxy, and
# ends it with `make down`: healthy services, the page, contained processes, a roll of both gateways, a killed normalizer, and a
# log that is still there after a second start. `make test-compose` calls it.
# Needs docker with its compose plugin, curl and Python 3, and that nothing of it runs yet.
set -euo pipefail
cd "$(dirname "$0")/.."

out=target/test-compose
page=http://127.0.0.1:${AKIS_PORT:-8080}
compose=(docker compose --file deploy/compose.yaml)
mkdir -p "$out"
rm -f "$out"/*.log

# shellcheck source=scripts/steps.sh
. scripts/steps.sh
up() {
  make --no-print-directory up >"$out/up.log" 2>&1 || die "make up: $(tail -n 5 "$out/up.log")"
  token=$(sed -n 's/^token: //p' "$out/up.log")
  [ -n "$token" ] || die "make up printed no token"
}
down() { make --no-print-directory down >>"$out/down.log" 2>&1; }
# From a container that no step touches.
tail_events() { "${compose[@]}" exec -T page /usr/bin/akis tail --url http://haproxy:8080 --token "$token" "$@"; }

if [ -n "$(docker ps --quiet --filter label=com.docker.compose.project=akis)" ]; then die "it runs already: make down"; fi
trap 'kill $(jobs -p) 2>/dev/null || true; down || true' EXIT

# ---- start

up
say "all services are healthy"
grep -q "^page: $page/$" "$out/up.log" || die "make up printed no page: $(cat "$out/up.log")"
page_answers() { curl --silent --fail --output "$out/page.html" "$page/" && grep -qi '<!doctype html>' "$out/page.html"; }
wait_for 10 "the page at $page/" page_answers
refused=$(curl --silent --output /dev/null --write-out '%{http_code}' "$page/live?token=wrong" \
  --header 'Connection: Upgrade' --header 'Upgrade: websocket' --header 'Sec-WebSocket-Version: 13' \
  --header 'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==')
[ "$refused" = 401 ] || die "a wrong token is answered with $refused"
say "the page answers, and a wrong token is refused"

# ---- contained

# `/proc` of this machine shows them where the engine runs on it.
for id in $("${compose[@]}" ps --quiet); do
  read -r name pid user root <<<"$(docker inspect --format '{{.Name}} {{.State.Pid}} {{.Config.User}} {{.HostConfig.ReadonlyRootfs}}' "$id")"
  [ "$root" = true ] || die "$name can write to its root"
  case "$user" in '' | 0 | 0:* | root*) die "$name is root" ;; esac
  if [ -r "/proc/$pid/status" ]; then
    grep -q '^CapBnd:[[:space:]]*0*$' "/proc/$pid/status" || die "$name may have capabilities"
    grep -q '^NoNewPrivs:[[:space:]]*1$' "/proc/$pid/status" || die "$name may gain privileges"
  fi
done
for service in redis haproxy; do
  if "${compose[@]}" exec -T "$service" touch /tried 2>/dev/null; then die "$service wrote to its root"; fi
done
say "nothing is root, has capabilities, or can write to its root"

# ---- events, with every position checked to the end

channels=(binance:BTCUSDT:trades binance:ETHUSDT:trades binance:BTCUSDT:book btcturk:BTCTRY:trades bist:THYAO:trades)
tail_events --count 20 "${channels[@]}" >"$out/first.log" 2>&1 || die "no events: $(tail -n 3 "$out/first.log")"
for watcher in 1 2 3 4; do tail_events "${channels[@]}" >"$out/watch-$watcher.log" 2>"$out/watch-$watcher-news.log" & done
watched() { [ "$(cat "$out"/watch-?.log | wc -l)" -gt "$1" ]; }
events() { # WHAT HAPPENED: more come to all
  local before
  before=$(cat "$out"/watch-?.log | wc -l)
  wait_for 30 "events after $1" watched $((before + 200))
  say "$1, and events go on"
}
events "four clients watch"

for gateway in gateway-1 gateway-2; do
  before=$("${compose[@]}" ps --quiet "$gateway")
  "${compose[@]}" up --detach --no-deps --force-recreate --wait "$gateway" >"$out/roll.log" 2>&1 || die "roll: $(tail -n 5 "$out/roll.log")"
  [ "$("${compose[@]}" ps --quiet "$gateway")" != "$before" ] || die "$gateway was not replaced"
  events "$gateway is replaced"
done

# The one that publishes has said so.
active=$("${compose[@]}" logs normalizer-1 normalizer-2 2>&1 | grep -c 'lease taken') || true
[ "$active" -gt 0 ] || die "no normalizer took the lease"
for normalizer in normalizer-1 normalizer-2; do
  if "${compose[@]}" logs "$normalizer" 2>&1 | grep 'lease taken' >/dev/null; then
    "${compose[@]}" kill "$normalizer" >"$out/kill.log" 2>&1
    break
  fi
done
taken() { [ "$("${compose[@]}" logs normalizer-1 normalizer-2 2>&1 | grep -c 'lease taken')" -gt "$active" ]; }
wait_for 30 "another normalizer" taken
events "$normalizer was killed, another one took over"
"${compose[@]}" up --detach --no-deps --wait "$normalizer" >>"$out/kill.log" 2>&1 || die "$normalizer does not come back"

# ---- end, under clients; and a second start, which goes on where the first ended

end() {
  local began=$SECONDS
  down || die "make down: $(tail -n 5 "$out/down.log")"
  [ -z "$(docker ps --all --quiet --filter label=com.docker.compose.project=akis)" ] || die "make down left containers"
  docker volume inspect akis_redis >/dev/null 2>&1 || die "make down took the log"
  say "make down ended everything in $((SECONDS - began)) s, and kept the log"
}
end
wait || true
python3 - "$out"/watch-?.log <<'PYTHON' || die "events were lost"
import json, sys

told = wrong = 0
for name in sys.argv[1:]:
    last = {}
    for line in open(name):
        if not line.endswith("\n"):
            continue
        event = json.loads(line)
        channel, seq, what = event["channel"], event["seq"], event["event"]
        if what == "staleness":
            continue
        before = last.get(channel)
        if what == "term":
            right = before in (None, event["data"]["previous"])
        else:
            right = what not in ("gap", "backpressure_drop") and before in (None, seq - 1)
            told += 1
        if not right:
            print(f"{name}: after {before} comes {line.strip()[:300]}")
            wrong += 1
        last[channel] = seq
print(f"{told} events, {wrong} times lost, twice or out of order")
sys.exit(bool(wrong) or not told)
PYTHON

positions() { sed -n "/\"event\":\"trade\",\"channel\":\"${channels[0]}\"/s/^[^{]*{[^{]*\"seq\":\([0-9]*\),.*/\1/p"; }
up
# The last trade that came may be the last of the log, so it is asked for by the one before it.
read -r before last <<<"$(positions <"$out/watch-1.log" | tail -n 2 | xargs)"
read -r next more <<<"$(tail_events --after "$before" --count 2 "${channels[0]}" 2>"$out/second.log" | positions | xargs)"
[ "$next" = "$last" ] || die "after $before comes $next, not $last"
[ "${more:-0}" -gt "$last" ] || die "nothing comes after $last"
say "started again, the log still has what came last, and goes on"
end
