// Some readers are slow, behind toxiproxy, and nobody else notices: the slow ones are told what they miss.

import exec from "k6/execution";
import http from "k6/http";
import { Counter } from "k6/metrics";
import type { Options } from "k6/options";
import { setTimeout } from "k6/timers";

import { Client, stay } from "./lib/client.ts";
import { GENERATOR_KEPT_UP, WHOLE } from "./lib/metrics.ts";
import { reach } from "./lib/reach.ts";
import { COMMON, report } from "./lib/report.ts";
import { clients, seconds, TOXIPROXY, UPSTREAM } from "./lib/settings.ts";

const CLIENTS = clients(4);
const SECONDS = seconds(60);

/** Where slow readers connect, and what each of them gets through, far less than its channels bring. */
const SLOW = "127.0.0.1:28666";
const SLOW_KB_PER_SECOND = 2;

const PROXY = "akis-slow";

/** What slow readers were told to have missed, and how often they were closed and came back. */
const slowTold = new Counter("akis_slow_told");

const of = (vus: number, run: string) => ({
  executor: "per-vu-iterations" as const,
  exec: run,
  vus: Math.max(1, vus),
  iterations: 1,
  maxDuration: `${SECONDS + 60}s`,
});

export const options: Options = {
  scenarios: { healthy: of(CLIENTS / 2, "healthy"), slow: of(CLIENTS / 2, "slow") },
  thresholds: {
    ...WHOLE,
    ...GENERATOR_KEPT_UP,
    // One slow client never delays another.
    "akis_connected{scenario:healthy}": ["rate==1"],
    "akis_latency{scenario:healthy}": ["p(95)<250", "p(99)<500"],
    "akis_told_losses{scenario:healthy}": ["count==0"],
    "akis_cuts{scenario:healthy}": ["count==0"],
    // The slow ones really were too slow, and were told so.
    akis_slow_told: ["count>0"],
  },
  ...COMMON,
};

export function setup(): void {
  reach();
  const post = (path: string, body: unknown) =>
    http.post(`${TOXIPROXY}${path}`, JSON.stringify(body), { tags: { name: "toxiproxy" } });
  http.del(`${TOXIPROXY}/proxies/${PROXY}`, null, { tags: { name: "toxiproxy" } });
  const made = post("/proxies", { name: PROXY, listen: SLOW, upstream: UPSTREAM, enabled: true });
  if (made.status !== 201) exec.test.abort(`toxiproxy at ${TOXIPROXY} answers ${made.status}: ${made.body || made.error}`);
  post(`/proxies/${PROXY}/toxics`, { name: "slow", type: "bandwidth", stream: "downstream", attributes: { rate: SLOW_KB_PER_SECOND } });
}

export function teardown(): void {
  http.del(`${TOXIPROXY}/proxies/${PROXY}`, null, { tags: { name: "toxiproxy" } });
}

export function healthy(): void {
  stay(new Client(), SECONDS * 1000);
}

export function slow(): void {
  // At the end the slow ones may read on, or their goodbye would wait behind megabytes.
  setTimeout(() => http.del(`${TOXIPROXY}/proxies/${PROXY}/toxics/slow`), (SECONDS - 1) * 1000);
  const onEnvelope = ({ event }: { event: string }) => event === "backpressure_drop" && slowTold.add(1);
  const onClosed = (code: number | undefined) => code === 4413 && slowTold.add(1);
  stay(new Client({ url: `ws://${SLOW}/live`, onEnvelope, onClosed }), SECONDS * 1000);
}

export const handleSummary = report("slow");
