// A few clients for a few seconds: whether everything is in its place. Runs in `make test`.

import type { Options } from "k6/options";

import { Client, stay } from "./lib/client.ts";
import { HEALTHY } from "./lib/metrics.ts";
import { reach } from "./lib/reach.ts";
import { COMMON, report } from "./lib/report.ts";
import { clients, seconds } from "./lib/settings.ts";

const SECONDS = seconds(10);

export const options: Options = {
  scenarios: { smoke: { executor: "per-vu-iterations", vus: clients(5), iterations: 1, maxDuration: `${SECONDS + 30}s` } },
  thresholds: {
    ...HEALTHY,
    // It runs beside other checks: a trade is there within two seconds, and k6 itself is not late by one.
    akis_latency: ["p(95)<2000"],
    akis_generator_lag: ["p(95)<1000"],
    // Each client was told something.
    akis_events: ["count>100"],
  },
  ...COMMON,
};

export const setup = reach;

export default function smoke(): void {
  stay(new Client(), SECONDS * 1000);
}

export const handleSummary = report("smoke");
