// A trading day in minutes: everybody comes at the opening, fewer stay over noon, more come for the close, few remain.
// Sessions last from ten seconds to a minute, so that people come and go all the time.

import type { Options } from "k6/options";

import { Client, stay } from "./lib/client.ts";
import { GENERATOR_KEPT_UP, HEALTHY, PROMPT } from "./lib/metrics.ts";
import { reach } from "./lib/reach.ts";
import { COMMON, report } from "./lib/report.ts";
import { clients, seconds } from "./lib/settings.ts";

const CLIENTS = clients(50);
const SECONDS = seconds(300);

/** How much of the day, and how many of all clients are there at its end. */
const DAY = [
  [0.05, 1.0],
  [0.2, 0.9],
  [0.15, 0.6],
  [0.2, 0.6],
  [0.1, 1.0],
  [0.15, 1.0],
  [0.05, 0.2],
  [0.1, 0.1],
] as const;

export const options: Options = {
  scenarios: {
    day: {
      executor: "ramping-vus",
      startVUs: 0,
      stages: DAY.map(([share, there]) => ({
        duration: `${Math.round(SECONDS * share)}s`,
        target: Math.max(1, Math.round(CLIENTS * there)),
      })),
      gracefulRampDown: "60s",
      gracefulStop: "60s",
    },
  },
  thresholds: { ...HEALTHY, ...PROMPT, ...GENERATOR_KEPT_UP },
  ...COMMON,
};

export const setup = reach;

export default function session(): void {
  const longest = Math.min(60, SECONDS / 5);
  stay(new Client(), 1000 * (longest / 6 + (Math.random() * longest * 5) / 6));
}

export const handleSummary = report("average");
