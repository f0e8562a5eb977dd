#!/usr/bin/env bash
# Writes helm/akis/README.md from README.md.gotmpl and the comments in values.yaml.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/tools.sh
. scripts/tools.sh
helm-docs --log-level warning --chart-search-root helm/akis
