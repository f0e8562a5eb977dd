#!/usr/bin/env python3
"""Writes the Grafana dashboards of the chart: helm/akis/files/dashboards/*.json.

A panel is a line here; the JSON around it is the same for all. `--check` says whether the files are up to date.
"""

import json
import pathlib
import sys

OUT = pathlib.Path(__file__).resolve().parent.parent / "helm/akis/files/dashboards"

# What a panel looks at: only what is chosen at the top of its dashboard.
CHOSEN = 'namespace=~"$namespace"'
GATEWAY = CHOSEN + ',instance=~"$instance"'
VENUE = CHOSEN + ',venue=~"$venue"'

# Histograms whose buckets have exemplars (docs/METRICS.md).
WITH_EXEMPLARS = ("akis_gateway_delivery_age_seconds", "akis_publisher_write_delay_seconds")


def rate(metric, by="", where=GATEWAY):
    """The sum of a counter's rates."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{where}}}[$__rate_interval]))"


def quantile(q, metric, by="", where=GATEWAY):
    """A quantile of a histogram."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({grouped}) (rate({metric}_bucket{{{where}}}[$__rate_interval])))"


def quantiles(metric, where=GATEWAY):
    """Median, 99 and 99.9 of 100 and of 1000."""
    return [(quantile(q, metric, where=where), name) for q, name in ((0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"))]


def burnt(ratio, *windows):
    """What the rules record of an objective over each window. They do it by namespace, those of a venue by lease, too."""
    def recorded(window):
        count, unit = window.split()
        return f"akis:{ratio}:ratio_{count}{unit[0]}{{{CHOSEN}}}"

    return [(recorded(window), f"{window} {{{{namespace}}}} {{{{lease}}}}") for window in windows]


def graph(title, unit, description, *queries):
    """A panel of lines. Queries are pairs of an expression and its legend."""
    return {"title": title, "unit": unit, "description": description, "queries": queries, "type": "timeseries"}


def number(title, unit, description, *queries):
    """A panel with the present value."""
    return {**graph(title, unit, description, *queries), "type": "stat"}


TOKENS = rate("akis_gateway_refusals_total", where=GATEWAY + ',reason="token"')

DASHBOARDS = {
    "overview": ("Akis: overview", [
        number("Venues with data", "short", "Venues of which each part is heard by the normalizer that publishes it, counted in each namespace.",
               (f"sum(min by (namespace, venue) (akis:namespace_lease_up:max{{{CHOSEN}}}))", "")),
        number("Clients", "short", "Open WebSockets of all gateways.",
               (f"sum(akis_gateway_connections{{{GATEWAY}}})", "")),
        number("Delivery age, p99", "s", "From the append to the log until the write to a socket; 250 ms are promised.",
               (quantile(0.99, "akis_gateway_delivery_age_seconds"), "")),
        number("Gaps told", "short", "Gaps told to subscribers in the last hour.",
               (f"sum(increase(akis_gateway_gaps_total{{{GATEWAY}}}[1h]))", "")),
        graph("Budget burnt: late deliveries", "percentunit",
              "Writes older than 250 ms. The objective is 1 % in 30 days.",
              *burnt("delivery_late", "5 minutes", "1 hour", "1 day")),
        graph("Budget burnt: gaps", "percentunit", "Gaps for each delivery. The objective is 0.01 % in 30 days.",
              *burnt("gaps", "5 minutes", "1 hour", "1 day")),
        graph("Budget burnt: connects", "percentunit", "Clients turned away for want of room. The objective is 0.1 %.",
              *burnt("connects_refused", "5 minutes", "1 hour", "1 day")),
        graph("Budget burnt: venues", "percentunit", "Time without data of a venue. The objective is 0.1 %.",
              *burnt("venue_down", "1 hour", "1 day")),
        graph("Ages at every hop, p99", "s", "Where time goes between a venue and a socket.",
              (quantile(0.99, "akis_normalizer_receive_delay_seconds", where=CHOSEN), "venue to connector"),
              (quantile(0.99, "akis_publisher_write_delay_seconds", where=CHOSEN), "connector to log"),
              (quantile(0.99, "akis_gateway_read_delay_seconds"), "log to replica"),
              (quantile(0.99, "akis_gateway_write_delay_seconds"), "replica to socket")),
        graph("Events", "ops", "Events that the log took, and envelopes handed to clients.",
              (rate("akis_publisher_events_total", where=CHOSEN + ',what="published"'), "published"),
              (rate("akis_gateway_deliveries_total"), "delivered")),
    ]),
    "fan-out": ("Akis: fan-out and back-pressure", [
        graph("Deliveries", "ops", "Envelopes handed to connections.",
              (rate("akis_gateway_deliveries_total", "instance"), "{{instance}}")),
        graph("Writes", "ops", "Writes to sockets, each with everything that waited for the client.",
              (rate("akis_gateway_writes_total", "instance"), "{{instance}}")),
        graph("Deliveries of a write", "short", "How well writes are shared: more is cheaper.",
              (f"{rate('akis_gateway_deliveries_total', 'instance')} / {rate('akis_gateway_writes_total', 'instance')}",
               "{{instance}}")),
        graph("Bytes written", "Bps", "What sockets took.",
              (rate("akis_gateway_written_bytes_total", "instance"), "{{instance}}")),
        graph("Delivery age", "s", "From the append to the log until the write, once a write, the oldest in it.",
              *quantiles("akis_gateway_delivery_age_seconds")),
        graph("Replica to socket", "s", "From reading until the write; gathering (5 ms and more) is part of it.",
              *quantiles("akis_gateway_write_delay_seconds")),
        graph("Gathering", "s",
              "How long the writes of a busy connection are gathered. Above 5 ms the shard is at its limit.",
              
              (f"akis_gateway_coalesce_seconds{{{GATEWAY}}}", "{{instance}} {{shard}}")),
        graph("Waiting for clients", "bytes", "Bytes that wait, whether or not they have been framed.",
              (f"akis_gateway_queued_bytes{{{GATEWAY}}}", "{{instance}}")),
        graph("Held by connections", "bytes", "Memory of connections, and bytes of it that sockets have not taken.",
              (f"sum by (instance, what) (akis_gateway_connection_bytes{{{GATEWAY}}})", "{{instance}} {{what}}")),
        graph("Connections by state", "short", "Blocked: the socket takes nothing at present.",
              (f"sum by (state) (akis_gateway_connection_states{{{GATEWAY}}})", "{{state}}")),
        graph("Missed by slow clients", "ops", "Events replaced or dropped; each client was told.",
              (rate("akis_gateway_drops_total", "kind, reason"), "{{kind}} {{reason}}")),
        graph("Overruns", "short", "Times that a shard was too far behind and its subscribers joined again.",
              (f"increase(akis_gateway_overruns_total{{{GATEWAY}}}[$__rate_interval])", "{{instance}}")),
        graph("Subscriptions", "short",
              "Channels subscribed to, each connection counted; and groups that share an interval.",
              
              (f"akis_gateway_subscriptions{{{GATEWAY}}}", "{{instance}} subscriptions"),
              (f"sum by (instance) (akis_gateway_interval_groups{{{GATEWAY}}})", "{{instance}} interval groups")),
    ]),
    "resume": ("Akis: resume and rolls", [
        graph("Clients", "short", "Open WebSockets, by replica: a roll moves them.",
              (f"akis_gateway_connections{{{GATEWAY}}}", "{{instance}}")),
        graph("Opened", "ops", "WebSockets opened.", (rate("akis_gateway_opened_total", "instance"), "{{instance}}")),
        graph("Closed by this side", "ops", "1001: the replica goes away. docs/protocol.md lists the codes.",
              (rate("akis_gateway_closes_total", "code"), "{{code}}")),
        graph("Turned away", "ops", "Clients refused for want of room, or while draining.",
              (rate("akis_gateway_refusals_total", "reason", GATEWAY + ',reason=~"full|handshakes|draining"'),
               "{{reason}}")),
        graph("Resumed", "ops", "Subscriptions that went on from a position or a time.",
              (rate("akis_gateway_replays_total", "instance"), "{{instance}}")),
        graph("Replayed", "ops", "Events given before live.",
              (rate("akis_gateway_replayed_events_total", "instance"), "{{instance}}")),
        graph("Gaps told", "ops", "Why events could not be had.",
              (rate("akis_gateway_gaps_total", "reason"), "{{reason}}")),
        graph("Joins", "ops", "Reads of what lies before live, and those that failed.",
              (rate("akis_gateway_joins_total"), "joins"), (rate("akis_gateway_join_failures_total"), "failed")),
        graph("Reads of history", "ops", "Joins that memory could not serve.",
              (rate("akis_gateway_log_reads_total", where=GATEWAY + ',what="history_reads"'), "history reads")),
        graph("Versions", "short", "Processes of each version.",
              (f"sum by (version) (akis_build_info{{{CHOSEN}}})", "{{version}}")),
    ]),
    "log": ("Akis: the log in Redis", [
        number("Readable", "short", "Gateways that can read the log.", (f"sum(akis_gateway_log_up{{{GATEWAY}}})", "")),
        graph("Behind the log", "s", "How far a replica is behind; half a second is normal when nothing happens.",
              (f"akis_gateway_tail_age_seconds{{{GATEWAY}}}", "{{instance}}")),
        graph("Log to replica, p99", "s", "From the append until the replica has read it, by partition.",
              (quantile(0.99, "akis_gateway_read_delay_seconds", "partition"), "{{partition}}")),
        graph("Connector to log", "s",
              "From reading a frame until the log acknowledged its events, throttling included.",
              
              *quantiles("akis_publisher_write_delay_seconds", where=CHOSEN)),
        graph("Published", "ops", "What became of events.",
              (rate("akis_publisher_events_total", "venue, what", CHOSEN), "{{venue}} {{what}}")),
        graph("Entries read", "ops", "Entries of the feeds, by replica.",
              (rate("akis_gateway_log_reads_total", "instance", GATEWAY + ',what="entries"'), "{{instance}}")),
        graph("Repairs", "ops", "What reading led to beside events: repairs, comparisons, connections made again.",
              (rate("akis_gateway_log_reads_total", "what", GATEWAY + ',what!~"entries|history_reads"'), "{{what}}")),
        graph("Failed calls", "ops", "Calls to Redis that failed, by kind.",
              (rate("akis_gateway_log_errors_total", "kind"), "gateway {{kind}}"),
              (rate("akis_publisher_log_errors_total", "kind", CHOSEN), "publisher {{kind}}")),
        graph("Leases", "short", "Who publishes what: one at a time.",
              (f"akis_publisher_active{{{CHOSEN}}}", "{{lease}} {{instance}}")),
    ]),
    "venues": ("Akis: venues", [
        graph("Data flows", "short", "1 while a normalizer hears the venue.",
              (f"akis_venue_up{{{VENUE}}}", "{{lease}} {{instance}}")),
        graph("Venue to connector, p99", "s", "From the venue's time of an event until its frame was read.",
              (quantile(0.99, "akis_normalizer_receive_delay_seconds", "venue, kind", VENUE), "{{venue}} {{kind}}")),
        graph("Venue to publisher, p99", "s",
              "The same until the event is handed to the publisher, throttling included.",
              
              (quantile(0.99, "akis_normalizer_delay_seconds", "venue, kind", VENUE), "{{venue}} {{kind}}")),
        graph("Frames", "ops", "What came in.",
              (rate("akis_normalizer_frames_total", "venue, kind", VENUE), "{{venue}} {{kind}}")),
        graph("Events", "ops", "Events offered to the log.",
              (rate("akis_normalizer_events_total", "venue, kind", VENUE), "{{venue}} {{kind}}")),
        graph("Skipped", "ops", "What was not used, and why.",
              (rate("akis_normalizer_skipped_total", "venue, reason", VENUE), "{{venue}} {{reason}}")),
        graph("Books built anew", "ops", "By cause.",
              (rate("akis_normalizer_book_resyncs_total", "venue, cause", VENUE), "{{venue}} {{cause}}")),
        graph("Holes", "ops", "Holes of the venue that subscribers are told, and trades lost in them.",
              (rate("akis_normalizer_gaps_total", "venue, kind", VENUE), "{{venue}} {{kind}}"),
              (rate("akis_normalizer_lost_trades_total", "venue", VENUE), "{{venue}} trades lost")),
        graph("Session", "ops", "Connections opened and lost, streams that fell silent, requests and refusals.",
              (rate("akis_venue_session_total", "venue, what", VENUE), "{{venue}} {{what}}")),
        graph("Connections", "short", "Open connections to the venue.",
              (f"akis_venue_connections{{{VENUE}}}", "{{venue}} {{instance}}")),
        graph("Age of connections", "s", "How long data has come over the oldest.",
              (f"akis_venue_connection_age_seconds{{{VENUE}}}", "{{venue}} {{instance}}")),
        graph("Clock offset", "ms", "How far the venue's clock is ahead.",
              (f"akis_venue_clock_offset_milliseconds{{{VENUE}}}", "{{venue}} {{instance}}")),
    ]),
    "auth": ("Akis: auth and abuse", [
        graph("Refused", "ops", "Requests refused, by reason.",
              (rate("akis_gateway_refusals_total", "reason"), "{{reason}}")),
        graph("Tokens refused", "percentunit", "Of all who tried to connect.",
              (f"{TOKENS} / ({TOKENS} + {rate('akis_gateway_opened_total')})", "refused")),
        graph("Closed for what they did", "ops", "Protocol errors, bad requests, tokens, floods.",
              (rate("akis_gateway_closes_total", "code", GATEWAY + ',code=~"1002|1007|1009|4400|4401|4429"'),
               "{{code}}")),
        graph("Key sets", "ops", "Fetches of key sets.",
              (rate("akis_gateway_key_fetches_total", "key, result"), "{{key}} {{result}}")),
        graph("Revocations", "short", "In force; and those that nobody understood.",
              (f"akis_gateway_revocations{{{GATEWAY}}}", "{{instance}} in force"),
              (f"akis_gateway_bad_revocations_total{{{GATEWAY}}}", "{{instance}} bad")),
        graph("Requests of clients", "ops", "Messages over WebSockets, and events published over HTTP.",
              (rate("akis_gateway_messages_total"), "messages"), (rate("akis_gateway_published_total"), "published")),
        graph("Room", "percentunit", "Connections of those that a replica may have.",
              (f"akis_gateway_connections{{{GATEWAY}}} / akis_gateway_connections_max{{{GATEWAY}}}", "{{instance}}")),
    ]),
    "runtime": ("Akis: runtime", [
        graph("CPU", "short", "Cores used.",
              (f"rate(process_cpu_seconds_total{{{GATEWAY}}}[$__rate_interval])", "{{instance}}")),
        graph("Memory", "bytes", "Resident memory.", (f"process_resident_memory_bytes{{{GATEWAY}}}", "{{instance}}")),
        graph("Memory of what may be used", "percentunit", "Of the container's limit, or of the machine's memory.",
              (f"process_resident_memory_bytes{{{GATEWAY}}} / on (namespace, instance) akis_memory_limit_bytes{{{GATEWAY}}}",
               "{{instance}}")),
        graph("Open files", "percentunit", "Of those that may be open.",
              (f"process_open_fds{{{GATEWAY}}} / on (namespace, instance) process_max_fds{{{GATEWAY}}}", "{{instance}}")),
        graph("Running for", "s", "Since the process started.",
              (f"time() - process_start_time_seconds{{{GATEWAY}}}", "{{instance}}")),
        graph("Telemetry pushed", "ops", "Pushes to the collector, and spans and log records sent or dropped.",
              (rate("akis_telemetry_exports_total", "signal, result"), "{{signal}} {{result}}"),
              (rate("akis_telemetry_spans_total", "what"), "spans {{what}}"),
              (rate("akis_telemetry_logs_total", "what"), "log records {{what}}")),
    ]),
    "load-test": ("Akis: load test", [
        number("Clients", "short", "Open WebSockets.", (f"sum(akis_gateway_connections{{{GATEWAY}}})", "")),
        number("Deliveries", "ops", "Envelopes handed to connections.", (rate("akis_gateway_deliveries_total"), "")),
        number("Delivery age, p99", "s", "From the append until the write.",
               (quantile(0.99, "akis_gateway_delivery_age_seconds"), "")),
        graph("CPU of a delivery", "s", "CPU time of the gateways for each envelope: the knee is where cores run out.",
              (f"{rate('process_cpu_seconds_total', 'instance')} / {rate('akis_gateway_deliveries_total', 'instance')}",
               "{{instance}}")),
        graph("Delivery age", "s", "As the load rises.", *quantiles("akis_gateway_delivery_age_seconds")),
        graph("Connects", "ops", "Opened and refused.", (rate("akis_gateway_opened_total"), "opened"),
              (rate("akis_gateway_refusals_total", "reason"), "refused {{reason}}")),
        graph("Memory of a client", "bytes",
              "Resident memory by open WebSocket; what is there without clients included.",
              
              (f"process_resident_memory_bytes{{{GATEWAY}}} / on (namespace, instance) akis_gateway_connections{{{GATEWAY}}}",
               "{{instance}}")),
        graph("CPU", "short", "Cores used.",
              (f"rate(process_cpu_seconds_total{{{GATEWAY}}}[$__rate_interval])", "{{instance}}")),
        graph("Losses that were told", "ops", "Gaps, and events that slow clients missed.",
              (rate("akis_gateway_gaps_total"), "gaps"), (rate("akis_gateway_drops_total", "reason"), "{{reason}}")),
        graph("Gathering", "s", "Above 5 ms a shard is at its limit.",
              (f"akis_gateway_coalesce_seconds{{{GATEWAY}}}", "{{instance}} {{shard}}")),
    ]),
}


def variable(name, query, **more):
    """A choice of values at the top of a dashboard. All are those that there are: others have an `instance`, too."""
    return {
        "name": name, "type": "query", "datasource": {"type": "prometheus", "uid": "${datasource}"}, "query": query,
        "includeAll": True, **more, "multi": True,
        "refresh": 2, "current": {"text": "All", "value": "$__all"},
    }


def targets(panel):
    """A panel's queries. The first of a histogram with exemplars asks for them: others would bring the same once more."""
    made = [
        {"refId": chr(ord("A") + n), "expr": expr, "legendFormat": legend}
        for n, (expr, legend) in enumerate(panel["queries"])
    ]
    if panel["type"] == "timeseries":
        for target in [one for one in made if any(metric in one["expr"] for metric in WITH_EXEMPLARS)][:1]:
            target["exemplar"] = True
    return made


def dashboard(name, title, panels):
    """One file's content."""
    placed, x, y = [], 0, 0
    for at, panel in enumerate(panels, 1):
        width, height = (6, 4) if panel["type"] == "stat" else (12, 8)
        if x + width > 24 or (placed and placed[-1]["gridPos"]["h"] != height):
            x, y = 0, y + placed[-1]["gridPos"]["h"]
        placed.append({
            "id": at, "type": panel["type"], "title": panel["title"], "description": panel["description"],
            "datasource": {"type": "prometheus", "uid": "${datasource}"},
            "gridPos": {"x": x, "y": y, "w": width, "h": height},
            "fieldConfig": {"defaults": {"unit": panel["unit"], "min": 0 if panel["unit"] != "ms" else None},
            "overrides": []},
            "targets": targets(panel),
        })
        x += width
    choice = {"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Source"}
    return {
        "uid": f"akis-{name}", "title": title, "tags": ["akis"], "schemaVersion": 39, "version": 1, "editable": False,
        "refresh": "10s", "time": {"from": "now-1h", "to": "now"}, "timezone": "browser",
        "templating": {"list": [
            choice,
            # In Compose there is none to choose from, so all are also what has none.
            variable("namespace", "label_values(akis_build_info, namespace)", allValue=".*"),
            variable("instance", f"label_values(akis_build_info{{{CHOSEN}}}, instance)"),
            variable("venue", f"label_values(akis_venue_up{{{CHOSEN}}}, venue)"),
        ]},
        "panels": placed,
    }


def main():
    """Writes or checks all files."""
    texts = {
        OUT / f"{name}.json": json.dumps(dashboard(name, title, panels), indent=1) + "\n"
        for name, (title, panels) in DASHBOARDS.items()
    }
    if "--check" not in sys.argv[1:]:
        OUT.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text)
        return 0
    stale = [path.name for path, text in texts.items() if not path.exists() or path.read_text() != text]
    stale += [path.name for path in OUT.glob("*.json") if path not in texts]
    if stale:
        print(f"not what scripts/dashboards.py writes, so run it: {', '.join(sorted(stale))}")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
