#!/usr/bin/env bash
# Installs the chart into the cluster that KUBECONFIG names, lets clients check every position there, and does to it what
# happens to clusters: upgrades, rollbacks, scaling, dead pods and nodes. `make test-cluster` calls it.
#
# The cluster needs two nodes or more, a default storage class, and pod metrics for the autoscaler. Connections as a metric come
# from a Prometheus and an adapter of the script's own, unless the cluster has an adapter; where that one does not serve
# akis_gateway_connections, scale-by-connections is left out. Environment:
#   LOAD_IMAGE   command that takes an image archive and puts it into every node ["kind load image-archive" on kind]
#   FAIL_NODE    command that takes `stop NODE` and `start NODE` and cuts a node's power or gives it back; without it that
#                event is left out, and the table says so
#   BINARIES     folder with akis and akis-bench, already built [builds them for release]
#   CLIENTS      clients that check [500]
#   EVENTS       which events, in this order [all]
#
# Leaves target/test-cluster/report.json and table.md. Exits with 1 when a client lost or got twice a single event.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=scripts/tools.sh
. scripts/tools.sh

all="calm upgrade rollback scale-by-hand scale-by-cpu scale-by-connections kill-gateway kill-normalizer restart-redis \
drain-node cut-node"
read -ra events <<<"${EVENTS:-$all}"
clients=${CLIENTS:-500}
namespace=akis-test
manifests=helm/test-cluster
out=target/test-cluster
mkdir -p "$out"

# shellcheck source=scripts/steps.sh
. scripts/steps.sh
kube() { kubectl --namespace "$namespace" "$@"; }

# ---- the cluster

command -v kubectl >/dev/null || die "kubectl is missing"
context=$(kubectl config current-context) || die "no cluster: set KUBECONFIG"
if [ -z "${LOAD_IMAGE:-}" ]; then
  case "$context" in
    kind-*) LOAD_IMAGE="kind load image-archive --name ${context#kind-}" ;;
    *) die "set LOAD_IMAGE to a command that takes an image archive and puts it into every node of $context" ;;
  esac
fi
# The node that is drained and cut: the last one that does not carry the control plane.
victim=$(kubectl get node --selector '!node-role.kubernetes.io/control-plane' -o name | tail -n 1 | cut -d / -f 2)
[ -n "$victim" ] || die "the cluster has no node beside its control plane"
(($(kubectl get node -o name | wc -l) > 1)) || die "one node is not enough: one is drained and cut"
if kubectl get namespace "$namespace" >/dev/null 2>&1; then die "namespace $namespace is there already: delete it"; fi
say "cluster $context; $victim is the node that will be drained and cut"

# ---- images

if docker info >/dev/null 2>&1; then
  builder=docker
  archive() { docker save --output "$2" "$1"; }
else
  need buildah buildah
  builder=buildah
  archive() { buildah push --quiet "$1" "docker-archive:$2:$1"; }
fi
build() { # IMAGE ARGUMENTS…: from $out/image, where the files of the image are in rootfs
  local options=(build --quiet --tag "$1" "${@:2}")
  if [ "$builder" = buildah ]; then options+=(--isolation chroot --format docker --layers=false); fi
  "$builder" "${options[@]}" "$out/image" >/dev/null
}
load() { # IMAGE
  local file=$out/image.tar
  rm -f "$file"
  archive "$1" "$file"
  $LOAD_IMAGE "$file" >/dev/null
  say "loaded $1, $(($(stat -c %s "$file") / 1000000)) MB"
  rm -f "$file"
}
program() { # IMAGE PROGRAM
  local root=$out/image/rootfs
  rm -rf "$root"
  install -D "$2" "$root/usr/bin/$(basename "$2")"
  ldd "$2" | grep -oE '/[^ ]+' | while IFS= read -r library; do install -D -m 755 "$(realpath "$library")" "$root$library"; done
  build "$1" --file "$manifests/Dockerfile"
  load "$1"
}

if [ -z "${BINARIES:-}" ]; then
  cargo build --quiet --locked --release -p akis -p akis-loadtest
  BINARIES=${CARGO_TARGET_DIR:-target}/release
fi
deploy/rootfs.sh "$BINARIES/akis" "$out/image/rootfs"
for tag in test-1 test-2; do
  build "localhost/akis:$tag" --file deploy/Dockerfile --target outside --build-arg "VERSION=$tag"
  load "localhost/akis:$tag"
done
program localhost/akis-bench:test "$BINARIES/akis-bench"
program localhost/akis-redis:test "$(command -v redis-server)"

# The autoscaler learns of connections from an adapter. A cluster has one at most.
adapter=
if [[ " ${events[*]} " = *" scale-by-connections "* ]]; then
  owner=$(kubectl get apiservice v1beta1.custom.metrics.k8s.io --ignore-not-found -o jsonpath='{.spec.service.namespace}')
  if [ "${owner:-$namespace}" = "$namespace" ]; then
    adapter=ours
    go_tools prometheus-adapter prometheus-adapter
    # Of the ways in which Prometheus finds targets, only Kubernetes': the others are most of its build.
    GOFLAGS=-tags=remove_all_sd,enable_kubernetes_sd go_tools prometheus Prometheus
    program localhost/akis-adapter:test "$tools/bin/adapter"
    program localhost/akis-prometheus:test "$tools/bin/prometheus"
  else
    say "the cluster has an adapter already, in $owner"
  fi
fi

# ---- the chart

chart() { # install|upgrade|template ARGUMENTS…
  local verb=$1
  shift
  helm "$verb" live helm/akis --namespace "$namespace" --values "$manifests/values.yaml" "$@"
}
gateways() { kube get pod --selector app.kubernetes.io/component=gateway "$@"; }
connections() { # a line for each gateway: how many clients it has, and its name
  local pod count
  for pod in $(gateways --field-selector status.phase=Running -o name); do
    count=$(kube get --raw "/api/v1/namespaces/$namespace/pods/${pod#pod/}:9090/proxy/metrics" --request-timeout 3s 2>/dev/null |
      awk '$1 == "akis_gateway_connections" { print $2 }')
    echo "${count:-0} ${pod#pod/}"
  done
}
everybody_is_there() { (($(connections | awk '{ sum += $1 } END { print sum + 0 }') == clients)); }
gateways_are() { # NUMBER, ready and none of them going
  [ "$(gateways -o jsonpath='{range .items[*]}{.metadata.deletionTimestamp}{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}' |
    sort | uniq -c | tr -s ' ')" = " $1 True" ]
}
# Nothing is being rolled, nobody is going away, and every client has a connection.
settled() { # GATEWAYS
  wait_for 240 "$1 gateways" gateways_are "$1"
  wait_for 120 "the normalizers" kube rollout status deployment/live-akis-normalizer-binance --timeout 1s
  wait_for 240 "every client's connection" everybody_is_there
}
published() { # POD
  kube get --raw "/api/v1/namespaces/$namespace/pods/$1:9090/proxy/metrics" |
    awk '/^akis_publisher_events_total.*"published"/ { sum += $2 } END { print sum + 0 }'
}
active_normalizer() {
  local pod before
  for pod in $(kube get pod --selector akis/role=normalizer -o jsonpath='{.items[*].metadata.name}'); do
    before=$(published "$pod")
    sleep 3
    if (($(published "$pod") > before)); then echo "$pod"; fi
  done
}
a_normalizer_publishes() { [ -n "$(active_normalizer)" ]; }

cleanup() {
  exec 3>&- || true
  kubectl uncordon "$victim" >/dev/null 2>&1 || true
  if [ -n "${KEEP:-}" ]; then return; fi
  if [ -n "$adapter" ]; then kubectl delete --ignore-not-found -f "$manifests/adapter-cluster.yaml" >/dev/null 2>&1 || true; fi
  helm uninstall live --namespace "$namespace" >/dev/null 2>&1 || true
  kubectl delete namespace "$namespace" --ignore-not-found --wait=false >/dev/null 2>&1 || true
}
trap cleanup EXIT

kubectl create namespace "$namespace" >/dev/null
kubectl label namespace "$namespace" pod-security.kubernetes.io/{enforce,warn}=restricted >/dev/null

judge() { chart template --no-hooks --kube-version 1.35.0 "$@" | kube apply --dry-run=server -f - 2>&1; }
judge --set image.tag=test-1 >"$out/judged" || die "the API server refuses the chart: $(cat "$out/judged")"
if grep -q 'would violate PodSecurity' "$out/judged"; then die "not restricted: $(cat "$out/judged")"; fi
say "the API server takes the chart, and finds it restricted"
if judge --set gateway.resources.requests.memory=2Gi >"$out/judged"; then die "the API server took a request above its limit"; fi
grep -q 'Invalid value' "$out/judged" || die "it was not the API server that refused: $(cat "$out/judged")"
say "the API server refuses wrong values: $(grep -o 'Invalid value.*' "$out/judged" | head -n 1)"

# The first pods come up beside the victim, so that Redis and its volume are not on it.
kubectl cordon "$victim" >/dev/null
sed "s/VICTIM/$victim/" "$manifests/venue.yaml" | kube apply -f - >/dev/null
kube rollout status deployment/venue --timeout 60s >/dev/null
chart install --set image.tag=test-1 --wait --timeout 180s >"$out/notes"
kubectl uncordon "$victim" >/dev/null
kube rollout restart deployment --selector app.kubernetes.io/instance=live >/dev/null
wait_for 180 "gateways on both nodes" gateways_are 2
say "installed: $(gateways -o jsonpath='{range .items[*]}{.metadata.name}@{.spec.nodeName} {end}')"
helm test live --namespace "$namespace" --timeout 120s >"$out/helm-test" || die "helm test: $(cat "$out/helm-test")"
say "helm test passed"

# ---- connections as a metric

connections_are_served() {
  kube get --raw "/apis/custom.metrics.k8s.io/v1beta1/namespaces/$namespace/pods/*/akis_gateway_connections" | grep '"value"'
}
if [ -n "$adapter" ]; then
  # The rule is the one that the chart's README gives.
  kube create configmap adapter --from-file config.yaml=<(
    echo rules:
    sed -n '/^- seriesQuery/,/metricsQuery/ p' helm/akis/README.md
  ) >/dev/null
  for part in prometheus adapter; do sed "s/VICTIM/$victim/" "$manifests/$part.yaml" | kube apply -f - >/dev/null; done
  kubectl apply -f "$manifests/adapter-cluster.yaml" >/dev/null
  wait_for 120 "the adapter to serve connections" connections_are_served
  say "Prometheus and its adapter serve akis_gateway_connections"
fi

# ---- the clients

token=$(kube exec deploy/live-akis-gateway -- akis token --config /etc/akis/akis.toml --sub watch --channels '*' --ttl 12h)
kube create secret generic watch --from-literal "token=$token" >/dev/null
sed -e "s/VICTIM/$victim/" -e "s/CLIENTS/$clients/" "$manifests/watch.yaml" | kube apply -f - >/dev/null
kube wait pod/watch --for=condition=Ready --timeout 60s >/dev/null
rm -f "$out/stdin"
mkfifo "$out/stdin"
kube attach --stdin pod/watch <"$out/stdin" >/dev/null 2>&1 &
exec 3>"$out/stdin"
settled 2
say "$clients clients are subscribed"

# ---- the events

gateways_now=2
calm() { sleep 20; }
upgrade() { chart upgrade --set image.tag=test-2 --wait --timeout 300s >/dev/null; }
rollback() { helm rollback live 1 --namespace "$namespace" --wait --timeout 300s >/dev/null; }
scale-by-hand() {
  kube scale deployment/live-akis-gateway --replicas 4 >/dev/null
  settled 4
  kube scale deployment/live-akis-gateway --replicas 2 >/dev/null
}
autoscale() { # VALUES…: lets an autoscaler choose from 2 to 4 gateways
  chart upgrade --set image.tag=test-1 --set gateway.autoscaling.enabled=true --set gateway.autoscaling.maxReplicas=4 \
    --set gateway.autoscaling.scaleDownAfter=0 "$@" >/dev/null
}
scale_by() { # METRIC OTHER FEW MANY: aims at so little on a gateway that 4 are wanted, then at so much that one would do
  autoscale --set "gateway.autoscaling.$2=null" --set "gateway.autoscaling.$1=$3"
  settled 4
  autoscale --set "gateway.autoscaling.$2=null" --set "gateway.autoscaling.$1=$4"
  settled 2
  chart upgrade --set image.tag=test-1 --wait --timeout 300s >/dev/null
}
scale-by-cpu() { scale_by cpu connections 1 1000; }
scale-by-connections() { scale_by connections cpu $((clients * 26 / 100)) $((clients * 2)); }
kill-gateway() { # the one with the most clients
  kube delete pod "$(connections | sort -n | tail -n 1 | cut -d ' ' -f 2)" --grace-period 0 --force >/dev/null 2>&1
}
kill-normalizer() {
  local active
  active=$(active_normalizer)
  [ -n "$active" ] || die "no normalizer publishes"
  kube delete pod "$active" --grace-period 0 --force >/dev/null 2>&1
}
restart-redis() {
  kubectl cordon "$victim" >/dev/null
  kube delete pod live-akis-redis-0 --wait >/dev/null
  kube rollout status statefulset/live-akis-redis --timeout 120s >/dev/null
  # Or the next event would be charged with the hole.
  wait_for 60 "a normalizer to publish again" a_normalizer_publishes
  kubectl uncordon "$victim" >/dev/null
}
drain-node() {
  kubectl drain "$victim" --ignore-daemonsets --delete-emptydir-data --timeout 300s >"$out/drain" 2>&1 ||
    die "drain: $(cat "$out/drain")"
  settled 2
  kubectl uncordon "$victim" >/dev/null
  # Back onto both nodes, for what comes next.
  kube rollout restart deployment --selector app.kubernetes.io/instance=live >/dev/null
  kube rollout status deployment/live-akis-gateway --timeout 240s >/dev/null
}
node_is() { [ "$(kubectl get node "$victim" -o jsonpath='{.status.conditions[?(@.type=="Ready")].status}')" = "$1" ]; }
cut-node() {
  $FAIL_NODE stop "$victim" >/dev/null
  wait_for 120 "$victim to be missed" node_is Unknown
  wait_for 240 "every client's connection" everybody_is_there
  $FAIL_NODE start "$victim" >/dev/null
  wait_for 180 "$victim" node_is True
}

for event in "${events[@]}"; do
  if [ "$event" = cut-node ] && [ -z "${FAIL_NODE:-}" ]; then
    say "$event is left out: FAIL_NODE says no command"
    continue
  fi
  if [ "$event" = scale-by-connections ] && [ -z "$adapter" ] && ! connections_are_served >/dev/null 2>&1; then
    say "$event is left out: the cluster's adapter does not serve akis_gateway_connections"
    continue
  fi
  say "$event"
  echo "phase $event" >&3
  "$event"
  settled "$gateways_now"
  [ "$(kube get pod watch -o jsonpath='{.status.phase}')" = Running ] || die "the clients have ended: $(kube logs watch | tail -n 5)"
done
echo stop >&3
watch_ended() { [[ "$(kube get pod watch -o jsonpath='{.status.phase}')" =~ Succeeded|Failed ]]; }
wait_for 60 "the last report" watch_ended
kube logs watch >"$out/watch.log"
grep '^{' "$out/watch.log" | tail -n 1 >"$out/report.json"

# ---- leaving

helm uninstall live --namespace "$namespace" --wait --timeout 120s >/dev/null
left() {
  kube get "$(kubectl api-resources --namespaced --verbs list -o name | grep -v '^events' | paste -sd , -)" \
    --selector app.kubernetes.io/instance=live --ignore-not-found -o name 2>/dev/null
}
nothing_is_left() { [ -z "$(left)" ]; }
wait_for 90 "uninstall to leave nothing, but there is $(left)" nothing_is_left
say "uninstall left nothing"

scripts/test-cluster-table.py "$out/report.json" | tee "$out/table.md"
