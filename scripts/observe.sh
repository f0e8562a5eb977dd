#!/usr/bin/env bash
# Checks alerts, their tests and pages, and dashboards. `make test` calls it; scripts/tools.sh brings promtool.
set -euo pipefail
cd "$(dirname "$0")/.."

panels=$(mktemp --suffix .yaml)
trap 'rm -f "$panels"' EXIT

python3 scripts/dashboards.py --check
python3 scripts/observe.py "$panels"
promtool check rules helm/akis/files/rules.yaml "$panels"
promtool test rules deploy/observe/rules_test.yaml
promtool check config --syntax-only deploy/observe/prometheus.yaml
