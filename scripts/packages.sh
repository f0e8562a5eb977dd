# shellcheck shell=bash
# Installs Debian packages. Sourced by scripts that need some.

as_root() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo "$@"; fi; }

# Installs Debian packages. A service that comes with one is not started: the tests start servers of their own.
install_packages() {
  local policy=/usr/sbin/policy-rc.d ours=
  echo "installing $*"
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    ours=yes
  fi
  local status=0
  { as_root apt-get update -qq &&
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null; } || status=$?
  if [ -n "$ours" ]; then as_root rm -f "$policy"; fi
  return "$status"
}

# Installs packages when a command is missing: need COMMAND PACKAGE…
need() { if ! command -v "$1" >/dev/null; then install_packages "${@:2}"; fi; }
