#!/usr/bin/env bash
# Starts deploy/compose.yaml, with the profiles named in PROFILES, and prints the page's address and a token. With `load` among
# them a load test follows, SCENARIO or else smoke. `make up` calls it. Needs docker with its compose plugin.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! docker compose version >/dev/null 2>&1; then
  echo "make up: docker with its compose plugin is missing, or its daemon does not run" >&2
  exit 2
fi

# One secret for this machine, made once.
if [ ! -f deploy/.env ]; then
  (umask 077 && printf 'AKIS_AUTH__SECRET=%s\n' "$(head -c 32 /dev/urandom | base64)" >deploy/.env)
fi
image=${AKIS_IMAGE:-akis:0.1.0}
if ! docker image inspect "$image" >/dev/null 2>&1; then IMAGE=$image scripts/image.sh; fi

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
  export AKIS_TOKEN
  "${compose[@]}" run --rm --no-TTY k6
fi
