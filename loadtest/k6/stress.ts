// More and more clients, step by step, until a trade is no longer on time: where the knee is.

import exec from "k6/execution";
import { Trend } from "k6/metrics";
import type { Options } from "k6/options";

import { Client, stay } from "./lib/client.ts";
import { GENERATOR_KEPT_UP, WHOLE } from "./lib/metrics.ts";
import { reach } from "./lib/reach.ts";
import { COMMON, report } from "./lib/report.ts";
import { clients, seconds } from "./lib/settings.ts";

const CLIENTS = clients(400);
const SECONDS = seconds(240);
const STEPS = 8;

/** A trade that comes later than this is late, in milliseconds. */
const LATE = 500;

/** From a trade's time to its receipt, by the step in which it came. */
const byStep = new Trend("akis_latency_by_step", true);

const step = (number: number) => Math.round((CLIENTS * (number + 1)) / STEPS);

export const options: Options = {
  scenarios: {
    ramp: {
      executor: "ramping-vus",
      startVUs: 0,
      stages: Array.from({ length: STEPS }, (_, number) => [
        { duration: `${Math.round(SECONDS / STEPS / 3)}s`, target: step(number) },
        { duration: `${Math.round((SECONDS / STEPS / 3) * 2)}s`, target: step(number) },
      ]).flat(),
      gracefulStop: "10s",
      gracefulRampDown: "10s",
    },
  },
  thresholds: {
    // However late, nothing is lost without a word. Being late is what is looked for, and breaks no promise here.
    ...WHOLE,
    ...GENERATOR_KEPT_UP,
    // A client that was refused is not there: a step has as many as it is named for.
    akis_connected: ["rate==1"],
    ...Object.fromEntries(
      Array.from({ length: STEPS }, (_, number) => [`akis_latency_by_step{clients:${step(number)}}`, ["max>=0"]]),
    ),
  },
  ...COMMON,
};

export const setup = reach;

export default function ramp(): void {
  const ends = SECONDS * 1000 - exec.instance.currentTestRunDuration;
  const client = new Client({
    onEnvelope: (envelope) => {
      if (envelope.event !== "trade") return;
      const number = Math.floor((exec.instance.currentTestRunDuration / 1000 / SECONDS) * STEPS);
      byStep.add(Date.now() - envelope.ts, { clients: String(step(Math.min(number, STEPS - 1))) });
    },
  });
  stay(client, Math.max(1000, ends));
}

export const handleSummary = report("stress", (metrics) => {
  const refused = metrics["akis_connected"]?.values["fails"] ?? 0;
  if (refused > 0) return [`${refused} connections were refused: steps had fewer clients than they say, and no knee is named`];
  const late = (name: string) => (metrics[name]?.values["p(99)"] ?? 0) > LATE;
  const steps = Array.from({ length: STEPS }, (_, number) => step(number));
  const knee = steps.find((count) => late(`akis_latency_by_step{clients:${count}}`));
  return [knee ? `the knee is at ${knee} clients: p99 above ${LATE} ms` : `no knee up to ${CLIENTS} clients`];
});
