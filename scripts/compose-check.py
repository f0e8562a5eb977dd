#!/usr/bin/env python3
"""Holds every service of a Compose file against the rules of this project: compose-check.py FILE MODEL (the same, loaded, as JSON)."""

import json
import re
import sys
import tomllib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "deploy"

# Services that have nothing to check their health with, and why: a collector and a trace store come without any tool,
# toxiproxy too, and k6 is a command.
UNCHECKED = {"otel-collector", "jaeger", "toxiproxy", "k6"}

# Longer than `gateway.drain`, which is 20 s.
DRAIN_SECONDS = 25


def seconds(duration: str) -> int:
    minutes, rest = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration).groups()
    return 60 * int(minutes or 0) + int(rest or 0)


def mistakes(name: str, service: dict):
    _, _, tag = service.get("image", "").rpartition(":")
    if not re.search(r"\d", tag) or tag == "latest":
        yield f"image {service.get('image')!r} has no version"
    if service.get("cap_drop") != ["ALL"]:
        yield "keeps capabilities"
    if not service.get("read_only"):
        yield "has a root that can be written to"
    if "no-new-privileges:true" not in service.get("security_opt", []):
        yield "may gain privileges"
    if service.get("privileged") or service.get("network_mode") == "host":
        yield "is not contained"
    if service.get("healthcheck", {}).get("disable"):
        yield "has its health check switched off, so `up --wait` fails"
    is_akis = service.get("image", "").startswith("akis:")
    if name not in UNCHECKED and not is_akis and "healthcheck" not in service:
        yield "has no health check"
    if service.get("command", [""])[0] == "gateway" and seconds(service.get("stop_grace_period", "10s")) < DRAIN_SECONDS:
        yield "is killed before it has drained"
    for volume in service.get("volumes", []):
        if volume["type"] == "bind" and not Path(volume["source"]).exists():
            yield f"mounts {volume['source']}, which is not there"
    for port in service.get("ports", []):
        if port.get("host_ip") != "127.0.0.1":
            yield f"publishes port {port.get('published')} to everybody"


def main() -> None:
    text, model = Path(sys.argv[1]).read_text(), json.loads(Path(sys.argv[2]).read_text())
    found = [f"{name} {what}" for name, service in model["services"].items() for what in mistakes(name, service)]
    for key, value in re.findall(r"^\s*(\w*(?:SECRET|PASSWORD|TOKEN)\w*):\s*(.*)$", text, re.MULTILINE):
        if not value.startswith("${"):
            found.append(f"{key} is in the file")
    wanted = {"redis", "haproxy", "gateway-1", "gateway-2", "normalizer-1", "normalizer-2", "binance", "btcturk", "bist", "page"}
    if missing := wanted - {name for name, service in model["services"].items() if not service.get("profiles")}:
        found.append(f"without a profile, {', '.join(sorted(missing))} would not start")
    grafana = model["services"]["grafana"]["environment"]
    if any(grafana.get(f"GF_AUTH_{name}") != value for name, value in (("DISABLE_LOGIN_FORM", "true"), ("BASIC_ENABLED", "false"))):
        found.append("grafana takes the first administrator's password")
    # One subject and one address: as many clients as a scenario has by itself.
    limits = tomllib.loads((FOLDER / "akis.toml").read_text())["gateway"]["limits"]
    scenarios = (FOLDER.parent / "loadtest/k6").glob("*.ts")
    most = max(int(count) for scenario in scenarios for count in re.findall(r"\bclients\((\d+)\)", scenario.read_text()))
    for limit in ("connections_per_subject", "connections_per_address"):
        if limits.get(limit, 0) < most:
            found.append(f"{limit} in akis.toml lets in fewer than the {most} clients of a load test")
    if missing := {"URL", "TOKEN", "CLIENTS", "SECONDS", "CHANNELS", "OUT"} - set(model["services"]["k6"]["environment"]):
        found.append(f"k6 is not told {', '.join(sorted(missing))}")
    for one in found:
        print(f"{sys.argv[1]}: {one}")
    sys.exit(bool(found))


main()
