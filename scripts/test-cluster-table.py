#!/usr/bin/env python3
"""Prints the report of `akis-bench watch` as a table, one row for each event. Exits with 1 when a client was wronged."""

import json
import sys

COLUMNS = [
    ("seconds", "seconds"), ("events received", "deliveries"), ("silent losses", "silentLosses"),
    ("duplicates", "duplicates"), ("otherwise wrong", "wrong"), ("gaps told", "gaps"), ("moved in time", "replaced"),
    ("cut off", "cuts"), ("refused", "refusals"), ("longest hole, ms", "longestHoleMs"),
]


def main() -> int:
    with open(sys.argv[1], encoding="utf-8") as file:
        report = json.load(file)
    print("| event | " + " | ".join(title for title, _ in COLUMNS) + " |")
    print("|---" * (len(COLUMNS) + 1) + "|")
    for phase in report["phases"]:
        print(f"| {phase['name']} | " + " | ".join(f"{phase[key]:,}" for _, key in COLUMNS) + " |")
    wronged = sum(phase[key] for phase in report["phases"] for key in ("silentLosses", "duplicates", "wrong"))
    for line in report.get("examples", []) + report.get("failures", []):
        print(line)
    return 1 if wronged or report.get("failures") else 0


sys.exit(main())
