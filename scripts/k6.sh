# shellcheck shell=bash
# Finds or builds k6 and toxiproxy, which load tests need. Sourced, because it adds to PATH. Needs Go.

k6_version=1.8.1
toxiproxy_version=2.12.0
PATH="$PWD/target/tools/bin:$PATH"
export PATH

if [ "$(k6 version 2>/dev/null | cut -d' ' -f2)" != "v$k6_version" ]; then
  echo "building k6 $k6_version, which takes some minutes"
  GOBIN="$PWD/target/tools/bin" go install "go.k6.io/k6@v$k6_version"
fi
if ! command -v toxiproxy-server >/dev/null; then
  echo "building toxiproxy $toxiproxy_version"
  GOBIN="$PWD/target/tools/bin" go install "github.com/Shopify/toxiproxy/v2/cmd/server@v$toxiproxy_version"
  mv target/tools/bin/server target/tools/bin/toxiproxy-server
fi
