// The same clients for an hour, or as long as they are told to: whether anything grows, tires or is lost in the long run.

import type { Options } from "k6/options";

import { Client, stay } from "./lib/client.ts";
import { GENERATOR_KEPT_UP, HEALTHY, PROMPT } from "./lib/metrics.ts";
import { reach } from "./lib/reach.ts";
import { COMMON, report } from "./lib/report.ts";
import { clients, seconds } from "./lib/settings.ts";

const SECONDS = seconds(3600);

export const options: Options = {
  scenarios: { soak: { executor: "per-vu-iterations", vus: clients(50), iterations: 1, maxDuration: `${SECONDS + 60}s` } },
  thresholds: { ...HEALTHY, ...PROMPT, ...GENERATOR_KEPT_UP },
  ...COMMON,
};

export const setup = reach;

export default function soak(): void {
  stay(new Client(), SECONDS * 1000);
}

export const handleSummary = report("soak");
