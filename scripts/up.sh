#!/usr/bin/env bash
# Starts deploy/compose.yaml, with the profiles named in PROFILES, and prints the page's address and a token. With `load` among
# them a load test follows, SCENARIO or else smoke, with CLIENTS, SECONDS and CHANNELS where they are set, and leaves a report under
# target/load. `make up` calls it. Needs docker with its compose plugin.
set -euo pipefail
cd "$(dirname "$0")/.."

if [[ " ${PROFILES:-} " = *" load "* && "${SCENARIO:-}" = slow ]]; then
  echo "make up: slow needs more events a second than there are here: make load SCENARIO=slow" >&2
  exit 2
fi
if ! docker compose version >/dev/null 2>&1; then
  echo "make up: docker with its compose plugin is missing, or its daemon does not run" >&2
  exit 2
fi

# One secret for this machine, made once.
if [ ! -f deploy/.env ]; then
  (umask 077 && printf 'AKIS_AUTH__SECRET=%s\n' "$(head -c 32 /dev/urandom | base64)" >deploy/.env)
fi
image=${AKIS_IMAGE:-akis:0.1.0}
# What runs shall be what is read here: without a change, building takes seconds. Who names an image has built it.
if [ -z "${AKIS_IMAGE:-}" ] || ! docker image inspect "$image" >/dev/null 2>&1; then IMAGE=$image scripts/image.sh; fi

compose=(docker compose --file deploy/compose.yaml)
load=
for profile in ${PROFILES:-}; do
  # Its one service is a command that ends, and needs a token.
  if [ "$profile" = load ]; then
    load=yes
    continue
  fi
  compose+=(--profile "$profile")
  # Faults are between the roles and Redis, too.
  if [ "$profile" = chaos ]; then export AKIS_REDIS_HOST=toxiproxy; fi
  if [ "$profile" = observe ]; then export AKIS_TELEMETRY__OTLP=http://otel-collector:4317; fi
done
"${compose[@]}" up --detach --wait
echo "page: http://127.0.0.1:${AKIS_PORT:-8080}/"
AKIS_TOKEN=$("${compose[@]}" exec -T gateway-1 /usr/bin/akis token --sub up --channels '*' --publish 'job:*')
echo "token: $AKIS_TOKEN"
if [ -n "$load" ]; then
  # `auth` asks for a channel that its token does not allow.
  AKIS_TOKEN=$("${compose[@]}" exec -T gateway-1 /usr/bin/akis token --sub load --channels 'binance:*')
  out=target/load/compose-${SCENARIO:-smoke}-$(date -u +%Y%m%dT%H%M%SZ)
  mkdir -p "$out"
  # k6 is another user there.
  chmod 777 "$out"
  export AKIS_TOKEN
  "${compose[@]}" run --rm --no-TTY --volume "$PWD/$out:/out" --env OUT=/out/report k6 || status=$?
  if [ -f "$out/report.html" ]; then echo "$out/report.html and .json"; fi
  exit "${status:-0}"
fi
