#!/usr/bin/env bash
# Prices and quantities come out as they went in, so no code between a venue and the log may use floating point. Stand-ins, which
# make prices up, and metrics may.
set -euo pipefail

if found=$(grep -rnwE 'f32|f64' crates/model/src normalizer/src connectors/src --include='*.rs' |
  grep -vE '^connectors/src/[^:]*sim|^normalizer/src/metrics\.rs:'); then
  printf '%s\n' "$found"
  echo "Floating point cannot hold every price: use akis_model::Decimal."
  exit 1
fi
