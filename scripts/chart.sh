#!/usr/bin/env bash
# Checks the chart: lints, renders it for the oldest, the tried and the newest Kubernetes, validates what comes out against the API's own
# schemas, runs the unit tests, lets akis read the configurations, and looks whether the README is up to date. No network.
#
# Usage: scripts/chart.sh [AKIS]    (the binary; default: the one that `cargo build` makes)
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/tools.sh
. scripts/tools.sh

chart=helm/akis
akis=${1:-${CARGO_TARGET_DIR:-target}/debug/akis}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The values with which the chart is tried: those of ci/, ha on top of values-ha.yaml.
values_of() {
  if [ "$1" = ha ]; then printf -- '--values %s/values-ha.yaml ' "$chart"; fi
  printf -- '--values %s/ci/%s-values.yaml\n' "$chart" "$1"
}

# Writes the akis.toml of every ConfigMap in a rendered chart to files of its own, with what they name beside them.
configurations() { # RENDERED FOLDER
  awk -v folder="$2" '
    /^---/ { file = "" }
    /^  [A-Za-z0-9._-]+: [|]$/ { name = $1; sub(/:$/, "", name); file = name ~ /(toml|pem)$/ ? folder "/" n++ "-" name : ""; next }
    file != "" && /^    / { print substr($0, 5) > file; next }
    file != "" && !/^ *$/ { file = "" }
  ' "$1"
  local toml pem
  for pem in "$2"/*.pem; do
    if [ -e "$pem" ]; then mv "$pem" "$2/${pem##*/[0-9]*-}"; fi
  done
  for toml in "$2"/*.toml; do sed -i "s#\"/etc/akis/#\"$2/#" "$toml"; done
}

for kubernetes in 1.29.0 1.35.0 1.37.0; do
  for name in defaults ha external-redis everything; do
    read -ra values < <(values_of "$name")
    helm lint --quiet --strict --kube-version "$kubernetes" "$chart" "${values[@]}"
    helm template live "$chart" --namespace trading --kube-version "$kubernetes" "${values[@]}" >"$work/$name-$kubernetes.yaml"
  done
  kubeconform -strict -summary -kubernetes-version "$kubernetes" \
    -schema-location 'helm/schemas/{{ .NormalizedKubernetesVersion }}/{{ .ResourceKind }}{{ .KindSuffix }}.json' \
    -schema-location 'helm/schemas/custom/{{ .ResourceKind }}{{ .KindSuffix }}.json' "$work"/*-"$kubernetes.yaml"
done

for name in defaults ha external-redis everything; do
  mkdir "$work/$name"
  configurations "$work/$name-1.37.0.yaml" "$work/$name"
  for toml in "$work/$name"/*.toml; do
    if ! "$akis" check-config --config "$toml" >"$work/said" 2>&1; then
      echo "$name: akis refuses the configuration that the chart makes:"
      cat "$work/said" "$toml"
      exit 1
    fi
  done
done

# A change of the configuration rolls what reads it.
checksum() {
  helm template live "$chart" --kube-version 1.37.0 --values "$chart/ci/defaults-values.yaml" --show-only templates/gateway/deployment.yaml "$@" |
    grep 'checksum/config:'
}
if [ "$(checksum)" = "$(checksum --set gateway.coalesce=7ms)" ]; then
  echo "a changed configuration leaves its checksum as it was"
  exit 1
fi

helm-unittest "$chart"

helm-docs --log-level warning --chart-search-root "$chart" --dry-run >"$work/README.md"
if grep -E '^\| .* \|  \|$' "$work/README.md"; then
  echo "these values have no comment in $chart/values.yaml"
  exit 1
fi
if ! diff -u "$chart/README.md" "$work/README.md"; then
  echo "$chart/README.md is not what helm-docs makes of values.yaml: run scripts/chart-readme.sh"
  exit 1
fi
