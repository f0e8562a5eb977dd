// Everybody loses the connection at one moment, as when a proxy or a network dies, and comes back at once with positions.

import type { Options } from "k6/options";
import { setTimeout } from "k6/timers";
import { Trend } from "k6/metrics";

import { Client, stay } from "./lib/client.ts";
import { GENERATOR_KEPT_UP, HEALTHY } from "./lib/metrics.ts";
import { reach } from "./lib/reach.ts";
import { COMMON, report } from "./lib/report.ts";
import { clients, seconds } from "./lib/settings.ts";

const SECONDS = seconds(30);

/** From the moment of the loss until every channel of a client is resumed. */
const back = new Trend("akis_back", true);

export const options: Options = {
  scenarios: { spike: { executor: "per-vu-iterations", vus: clients(100), iterations: 1, maxDuration: `${SECONDS + 60}s` } },
  thresholds: {
    ...HEALTHY,
    ...GENERATOR_KEPT_UP,
    // Everybody is back within five seconds, 95 of 100 within two, and nobody missed anything.
    akis_back: ["p(95)<2000", "max<5000"],
  },
  ...COMMON,
};

/** When the connections are lost, three times, in milliseconds since the epoch. */
export function setup(): number[] {
  reach();
  return [0.4, 0.6, 0.8].map((share) => Date.now() + SECONDS * 1000 * share);
}

export default function spike(moments: number[]): void {
  let isBack = false;
  const client = new Client({ onReady: (milliseconds) => isBack && back.add(milliseconds) });
  const now = Date.now();
  for (const moment of moments) {
    setTimeout(() => {
      isBack = true;
      client.drop();
    }, moment - now);
  }
  stay(client, SECONDS * 1000);
}

export const handleSummary = report("spike");
