#!/usr/bin/env python3
"""Checks what promtool does not: that every alert has a page and tests, and that panels say what they show.

Writes the expressions of all panels to the file named by the argument, as rules that promtool can parse. A test of the
binary, tests/it/telemetry.rs, compares the metrics that are named with those that running processes have.
"""

import json
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RULES = ROOT / "helm/akis/files/rules.yaml"
TESTS = ROOT / "deploy/observe/rules_test.yaml"
RUNBOOKS = ROOT / "deploy/runbooks"
DASHBOARDS = ROOT / "helm/akis/files/dashboards"
METRICS = ROOT / "docs/METRICS.md"


def alerts(wrong):
    """Every alert has a severity, a summary, a page, and tests in which it fires and in which it does not."""
    rules, tests = RULES.read_text(), TESTS.read_text()
    found = re.split(r"^ +- alert: ", rules, flags=re.M)[1:]
    names = {block.split("\n", 1)[0].strip() for block in found}
    for block in found:
        name = block.split("\n", 1)[0].strip()
        if not re.search(r"severity: (page|ticket)\b", block) or "summary: " not in block:
            wrong.append(f"{RULES.name}: {name} needs a severity, page or ticket, and a summary")
        if f"runbook_url: deploy/runbooks/{name}.md\n" not in block + "\n" or not (RUNBOOKS / f"{name}.md").exists():
            wrong.append(f"{RULES.name}: {name} needs the page deploy/runbooks/{name}.md as its runbook_url")
        for severity in set(re.findall(r"severity: (\w+)", block)):
            fires = rf'alertname: {name}\n +eval_time: \S+\n +exp_alerts:\n(?: +.*\n)*? +- exp_labels: {{ severity: "{severity}"'
            if not re.search(fires, tests):
                wrong.append(f"{TESTS.name}: {name} ({severity}) never fires")
        if f"alertname: {name}, eval_time: " not in tests or not re.search(rf"alertname: {name}, .*exp_alerts: \[\]", tests):
            wrong.append(f"{TESTS.name}: {name} is never silent")
    pages = {page.stem for page in RUNBOOKS.glob("*.md")} - {"README"}
    wrong.extend(f"deploy/runbooks/{page}.md: no such alert" for page in sorted(pages - names))
    for page in sorted(names & pages):
        text = (RUNBOOKS / f"{page}.md").read_text()
        if not text.startswith(f"# {page}\n") or "## What to look at" not in text or "## What to do" not in text:
            wrong.append(f"deploy/runbooks/{page}.md: say what it means, what to look at and what to do")
    listed = set(re.findall(r"^\| (\w+) \|", (RUNBOOKS / "README.md").read_text(), flags=re.M)) - {"alert"}
    wrong.extend(f"deploy/runbooks/README.md: {name} is listed wrongly or not at all" for name in sorted(listed ^ names))


def panels(wrong):
    """Every panel has a title, a description, a unit and expressions, and exemplars are shown. Gives the expressions."""
    recorded = set(re.findall(r"^ +- record: (\S+)", RULES.read_text(), flags=re.M))
    expressions, exemplars = [], []
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            where = f"{path.name}: {panel.get('title') or 'a panel without a title'}"
            if not panel.get("title") or not panel.get("description"):
                wrong.append(f"{where} needs a title and a description")
            if not panel.get("fieldConfig", {}).get("defaults", {}).get("unit"):
                wrong.append(f"{where} needs a unit")
            if not panel.get("targets"):
                wrong.append(f"{where} shows nothing")
            for target in panel.get("targets", []):
                for metric in re.finditer(r"\b(?:akis|process)[_:][\w:]+", target["expr"]):
                    if not target["expr"][metric.end():].startswith('{namespace=~"$namespace"'):
                        wrong.append(f"{where}: {metric[0]} is of all namespaces, not of those that are chosen")
                    if metric[0].startswith("akis:") and metric[0] not in recorded:
                        wrong.append(f"{where}: nothing records {metric[0]}")
                expression = target["expr"].replace("$__rate_interval", "5m").replace("$__interval", "5m")
                expressions.append(re.sub(r"\$\w+", ".*", expression))
                if target.get("exemplar"):
                    exemplars.append(expression)
    for metric in re.findall(r"^\| `(\w+)` .*has exemplars", METRICS.read_text(), flags=re.M):
        if not any(metric in expression for expression in exemplars):
            wrong.append(f"no panel shows the exemplars of {metric}")
    return expressions


def main():
    """Prints everything that is wrong."""
    wrong = []
    alerts(wrong)
    rules = [{"record": f"panel:{n}", "expr": expression} for n, expression in enumerate(panels(wrong))]
    pathlib.Path(sys.argv[1]).write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    print("\n".join(wrong) if wrong else f"{len(rules)} expressions of panels")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
