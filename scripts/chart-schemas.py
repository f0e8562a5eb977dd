#!/usr/bin/env python3
"""Makes the schemas in helm/schemas that scripts/chart.sh validates the chart's objects with.

Run by hand, when the chart uses a new kind or Kubernetes has a new release: scripts/chart-schemas.py
What comes out is committed, so that the checks need no network. Needs Go (to fetch modules) and PyYAML (pip).
"""

import json
import pathlib
import shutil
import subprocess
import tempfile

import yaml

OUT = pathlib.Path(__file__).resolve().parent.parent / "helm" / "schemas"

# The oldest and the newest release that the chart supports, and the one that it has been seen to run on.
KUBERNETES = {"v1.29.0": "v1.29.15", "v1.35.0": "v1.35.4", "v1.37.0": "v1.37.2"}

# What the chart and the cluster test make of Kubernetes' own kinds.
KINDS = [
    "v1/ConfigMap", "v1/Namespace", "v1/PersistentVolumeClaim", "v1/Pod", "v1/Secret", "v1/Service", "v1/ServiceAccount",
    "apps/v1/Deployment", "apps/v1/StatefulSet", "autoscaling/v2/HorizontalPodAutoscaler", "networking.k8s.io/v1/Ingress",
    "networking.k8s.io/v1/NetworkPolicy", "policy/v1/PodDisruptionBudget",
]

# Custom resources: module, files of its custom resource definitions.
CUSTOM = [
    ("sigs.k8s.io/gateway-api@v1.4.1", ["config/crd/standard/gateway.networking.k8s.io_httproutes.yaml"]),
    ("github.com/prometheus-operator/prometheus-operator@v0.87.1", [
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
    ]),
]


def module(name: str) -> pathlib.Path:
    """Fetches a Go module and says where it lies."""
    with tempfile.TemporaryDirectory() as away:
        said = subprocess.run(["go", "mod", "download", "-json", name], cwd=away, check=True, capture_output=True)
    return pathlib.Path(json.loads(said.stdout)["Dir"])


def strict(node):
    """The same schema without words, refusing unknown fields wherever the fields are known."""
    if isinstance(node, list):
        return [strict(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = {}
    for key, value in node.items():
        if key == "properties":
            kept[key] = {name: strict(schema) for name, schema in value.items()}
        elif key == "$ref":
            kept[key] = "_definitions.json#/definitions/" + value.rsplit("/", 1)[-1]
        elif key == "description" or key.startswith("x-kubernetes-"):
            continue
        else:
            kept[key] = strict(value)
    if node.get("x-kubernetes-int-or-string") or node.get("format") == "int-or-string":
        kept.pop("type", None)
        kept.pop("format", None)
        kept.pop("anyOf", None)
        kept["oneOf"] = [{"type": "string"}, {"type": "integer"}]
    if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        kept.setdefault("additionalProperties", False)
    return kept


def write(path: pathlib.Path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, separators=(",", ":"), sort_keys=True) + "\n")


def references(node):
    """The names of all definitions that a schema refers to."""
    if isinstance(node, list):
        return set().union(*map(references, node)) if node else set()
    if not isinstance(node, dict):
        return set()
    found = {node["$ref"].rsplit("/", 1)[-1]} if isinstance(node.get("$ref"), str) else set()
    return found.union(*map(references, node.values())) if node else found


def of_kind(definitions, wanted):
    """The name of the definition of apiVersion/kind."""
    for name, schema in definitions.items():
        for gvk in schema.get("x-kubernetes-group-version-kind", []):
            if "/".join(filter(None, [gvk["group"], gvk["version"], gvk["kind"]])) == wanted:
                return name
    raise SystemExit(f"{wanted} is not in the API")


def kubernetes(release: str, tag: str):
    source = module(f"k8s.io/kubernetes@{tag}") / "api" / "openapi-spec" / "swagger.json"
    definitions = json.loads(source.read_text())["definitions"]
    names = {wanted: of_kind(definitions, wanted) for wanted in KINDS}
    needed, todo = {}, list(names.values())
    while todo:
        name = todo.pop()
        if name in needed:
            continue
        needed[name] = strict(definitions[name])
        todo.extend(references(definitions[name]))
    # Said by the API in words only: any text or number, and any time.
    needed["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {"oneOf": [{"type": "string"}, {"type": "number"}]}
    write(OUT / release / "_definitions.json", {"definitions": needed})
    for wanted, name in names.items():
        *group, version, kind = wanted.split("/")
        api_version = "/".join([*group, version])
        middle = f"-{group[0].split('.')[0]}" if group else ""
        write(OUT / release / f"{kind.lower()}{middle}-{version}.json", {"allOf": [
            {"$ref": f"_definitions.json#/definitions/{name}"},
            {"properties": {"apiVersion": {"const": api_version}, "kind": {"const": kind}},
             "required": ["apiVersion", "kind"]},
        ]})


def custom(name: str, files: list[str]):
    where = module(name)
    for file in files:
        definition = yaml.safe_load((where / file).read_text())["spec"]
        for version in definition["versions"]:
            if version["name"] == "v1":
                schema = strict(version["schema"]["openAPIV3Schema"])
                schema["properties"]["metadata"] = {"type": "object"}
                group = definition["group"].split(".")[0]
                write(OUT / "custom" / f"{definition['names']['kind'].lower()}-{group}-{version['name']}.json", schema)


def main():
    for child in OUT.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
    for release, tag in KUBERNETES.items():
        kubernetes(release, tag)
    for name, files in CUSTOM:
        custom(name, files)


main()
