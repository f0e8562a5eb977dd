#!/usr/bin/env bash
# Checks deploy/compose.yaml: by the loader of the Compose Specification, and by what every service here has to be. And what
# stands before its gateways.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/tools.sh
. scripts/tools.sh

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd deploy
# The loader's command looks no variables up, so this is what an environment without a secret gets.
if compose-spec compose.yaml >"$work/said" 2>&1 || ! grep -q 'run make up' "$work/said"; then
  echo "deploy/compose.yaml starts without a secret:"
  cat "$work/said"
  exit 1
fi
# Looked up here, everything else has a default.
sed -E 's/\$\{AKIS_AUTH__SECRET:[^}]*\}/none/' compose.yaml >"$work/compose.yaml"
compose-spec -format json "$work/compose.yaml" >"$work/model.json" 2>"$work/said" || { cat "$work/said"; exit 1; }
../scripts/compose-check.py compose.yaml "$work/model.json"
../scripts/haproxy-check.py
