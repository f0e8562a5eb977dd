#!/usr/bin/env python3
"""Holds what k6 measured of a gateway against what akis-bench watch did at the same time: load-compare.py SCENARIO REPORT.json WATCH.log

Exits with 1 when the two do not agree. Delays may differ by as much as k6 itself was late, and 5 ms.
"""

import json
import sys

# Scenarios in which the same clients are there all the time: only of these can events be compared.
STEADY = ["smoke", "soak"]

# By how much rates of events may differ: k6's seconds are whole ones, with its coming and going.
RATES = 0.1


def main(scenario: str, report: str, log: str) -> int:
    with open(report, encoding="utf-8") as file:
        k6 = json.load(file)
    # Its last line of JSON has everything; what else is there was said on stderr.
    with open(log, encoding="utf-8") as file:
        watch = json.loads([line for line in file if line.startswith("{")][-1])
    total = watch["total"]
    metrics = {name: metric["values"] for name, metric in k6["metrics"].items()}
    count = lambda name: metrics.get(name, {}).get("count", 0)  # noqa: E731
    lag = metrics["akis_generator_lag"]["p(95)"]

    rows = [
        ("silent losses", count("akis_silent_losses"), total["silentLosses"], 0),
        ("duplicates", count("akis_duplicates"), total["duplicates"], 0),
        ("said wrong", count("akis_wrong"), total["wrong"], 0),
    ]
    delays = total["tradeDelayMs"] or {}
    for ours, theirs in [("p50", "med"), ("p95", "p(95)")]:
        rows.append((f"trade delay {ours}, ms", metrics["akis_latency"][theirs], delays.get(ours, 0), lag + 5))
    # What is farther out is told and not judged: a pause of the machine hits one and not the other.
    for ours, theirs in [("p99", "p(99)"), ("max", "max")]:
        rows.append((f"trade delay {ours}, ms", metrics["akis_latency"][theirs], delays.get(ours, 0), None))
    if scenario in STEADY:
        seconds = sum(phase["seconds"] for phase in watch["phases"])
        native = total["deliveries"] / watch["clients"] / seconds
        scripted = count("akis_events") / metrics["vus_max"]["value"] / k6["seconds"]
        rows.append(("events per client and second", scripted, native, RATES * native))

    print(f"\n{'':30} {'k6':>10} {'akis-bench':>10}   may differ by")
    differ = 0
    for name, scripted, native, allowed in rows:
        agrees = allowed is None or abs(scripted - native) <= allowed
        differ += not agrees
        verdict = "" if allowed is None else f"{allowed:.4g}" if agrees else f"{allowed:.4g}: THEY DO NOT AGREE"
        print(f"{name:30} {scripted:>10.4g} {native:>10.4g}   {verdict}")
    return 1 if differ else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
