#!/usr/bin/env bash
# Runs the image as it is meant to be run (nothing writable, no capabilities, no root), beside a Redis of its own, and looks
# whether it refuses to start without configuration, becomes healthy, and drains: scripts/image-try.sh IMAGE
# Needs docker or podman, and redis-server. Ports 127.0.0.1:28379, 28080 and 28090 are used.
set -euo pipefail
cd "$(dirname "$0")/.."
image=$1

if docker info >/dev/null 2>&1; then
  container=docker
  run=(docker run)
else
  container=podman
  # What podman itself would raise is often not allowed where root is not all-mighty.
  run=(podman --runtime runc run --ulimit nofile=1024:20000 --ulimit nproc=1000:1000)
fi
run+=(--no-healthcheck --read-only --cap-drop ALL --security-opt no-new-privileges --network host)

fail() { echo "$image: $*" >&2; exit 1; }
now_ms() { date +%s%3N; }

name=akis-try-$$
work=$(mktemp -d)
redis-server --port 28379 --bind 127.0.0.1 --save '' --dir "$work" >"$work/redis.log" &
redis=$!
trap 'kill $redis; $container rm --force "$name" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT

for role in gateway normalizer; do
  status=0
  "${run[@]}" --rm "$image" "$role" 2>"$work/said" || status=$?
  if [ "$status" != 2 ]; then fail "$role without configuration ends with $status: $(cat "$work/said")"; fi
  grep -q '^error: .*\(auth.secret.*auth.keys\|venues\)' "$work/said" || fail "$role names no setting: $(cat "$work/said")"
done
if "${run[@]}" --rm --entrypoint /bin/sh "$image" -c true 2>/dev/null; then fail "there is a shell"; fi

until redis-cli -p 28379 ping >/dev/null 2>&1; do kill -0 $redis || fail "no Redis: $(cat "$work/redis.log")"; done
began=$(now_ms)
"${run[@]}" --detach --name "$name" --env AKIS_AUTH__SECRET="$(head -c 24 /dev/urandom | base64)" \
  --env AKIS_REDIS__URL=redis://127.0.0.1:28379 --env AKIS_GATEWAY__LISTEN=127.0.0.1:28080 \
  --env AKIS_ADMIN__LISTEN=127.0.0.1:28090 "$image" gateway >/dev/null
started=$(now_ms)
until curl --silent --fail --output /dev/null http://127.0.0.1:28090/readyz; do
  if [ $(($(now_ms) - began)) -gt 20000 ]; then fail "not ready in time: $($container logs "$name" 2>&1)"; fi
done
ready=$(now_ms)
$container exec "$name" /usr/bin/akis healthcheck || fail "its health check says no"
pid=$($container inspect --format '{{.State.Pid}}' "$name")
grep -q '^Uid:[[:space:]]*65532[[:space:]]' "/proc/$pid/status" || fail "it is not user 65532"
grep -q '^CapEff:[[:space:]]*0*$' "/proc/$pid/status" || fail "it has capabilities"
# Who may run containers may not always look into the memory of another user's process.
memory=$(awk '/^Pss:/ { print int($2 / 1024) }' "/proc/$pid/smaps_rollup" 2>/dev/null) || memory='?'

asked=$(now_ms)
$container kill --signal TERM "$name" >/dev/null
status=$($container wait "$name")
if [ "$status" != 0 ]; then fail "SIGTERM ends it with $status: $($container logs "$name" 2>&1)"; fi
echo "$image: container made in $((started - began)) ms, ready by $((ready - began)) ms, $memory MiB at idle," \
  "ended $(($(now_ms) - asked)) ms after SIGTERM"
