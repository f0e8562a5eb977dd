#!/usr/bin/env python3
"""Prints what the binary is made of: a CycloneDX 1.6 bill of materials of akis and the crates that it links.

Source of the format: https://cyclonedx.org/docs/1.6/json/. It depends on Cargo.lock alone, so the same commit gives the same text.
"""

import json
import subprocess
import tomllib
from pathlib import Path


def cargo(*args: str) -> str:
    return subprocess.run(["cargo", *args], check=True, capture_output=True, text=True).stdout


def linked(metadata: dict, root: str) -> set[str]:
    """Ids of the packages that `root` needs at run time: no development and no build dependencies."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    seen, waiting = set(), [root]
    while waiting:
        if (package := waiting.pop()) not in seen:
            seen.add(package)
            kinds = ((dep["pkg"], {kind["kind"] for kind in dep["dep_kinds"]}) for dep in nodes[package]["deps"])
            waiting += [package for package, kinds in kinds if None in kinds]
    return seen


def component(package: dict, checksums: dict) -> dict:
    name, version = package["name"], package["version"]
    purl = f"pkg:cargo/{name}@{version}"
    found = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    if package["license"]:
        found["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if checksum := checksums.get((name, version)):
        found["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    return found


def main() -> None:
    host = next(line.split()[1] for line in cargo("-vV").splitlines() if line.startswith("host:"))
    metadata = json.loads(cargo("metadata", "--format-version=1", "--locked", f"--filter-platform={host}"))
    lock = tomllib.loads(Path("Cargo.lock").read_text())
    checksums = {(one["name"], one["version"]): one.get("checksum") for one in lock["package"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    root = next(id for id, package in packages.items() if package["name"] == "akis")
    parts = linked(metadata, root) - {root}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(packages[root], checksums) | {"type": "application"}},
        "components": sorted((component(packages[id], checksums) for id in parts), key=lambda part: part["purl"]),
    }
    print(json.dumps(bill, indent=1))


main()
