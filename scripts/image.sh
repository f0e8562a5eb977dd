#!/usr/bin/env bash
# Builds the container image IMAGE, from a binary that is built here or named by BINARY, prints its name and size, and tries it.
# `make image` calls it.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/packages.sh
. scripts/packages.sh

version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
image=${IMAGE:-akis:$version}
context=target/image

if [ -z "${BINARY:-}" ]; then
  cargo build --locked --release --package akis
  BINARY=${CARGO_TARGET_DIR:-target}/release/akis
fi
deploy/rootfs.sh "$BINARY" "$context/rootfs"

build=(--file deploy/Dockerfile --target outside --tag "$image"
  --build-arg "VERSION=$version" --build-arg "REVISION=$(git describe --always --dirty --exclude '*')")
if docker info >/dev/null 2>&1; then
  docker build --quiet "${build[@]}" "$context" >/dev/null
  bytes=$(docker image inspect --format '{{.Size}}' "$image")
else
  need buildah buildah podman runc containernetworking-plugins iptables
  # OCI's own format has no health check.
  buildah build --quiet --isolation chroot --format docker --layers=false "${build[@]}" "$context" >/dev/null
  bytes=$(podman image inspect --format '{{.Size}}' "$image")
fi
if ((bytes >= 40000000)); then echo "$image: $bytes bytes are too many, 40 MB are the limit" >&2; exit 1; fi
echo "$image: $((bytes / 1000000)).$((bytes / 100000 % 10)) MB"
need redis-server redis-server
scripts/image-try.sh "$image"
