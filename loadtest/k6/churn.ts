// People who click through symbols: each subscribes to a channel, hears it, and leaves it for the next, all the time.

import { Trend } from "k6/metrics";
import type { Options } from "k6/options";
import { setTimeout } from "k6/timers";

import { Client, type Envelope, stay } from "./lib/client.ts";
import { GENERATOR_KEPT_UP, HEALTHY } from "./lib/metrics.ts";
import { reach } from "./lib/reach.ts";
import { COMMON, report } from "./lib/report.ts";
import { CHANNELS, clients, seconds } from "./lib/settings.ts";

const SECONDS = seconds(60);

/** Between two clicks, in milliseconds; two messages each, where 20 a second are allowed. */
const CLICK_EVERY = 250;

/** From a request to its answer. */
const answered = new Trend("akis_answered", true);

export const options: Options = {
  scenarios: { churn: { executor: "per-vu-iterations", vus: clients(50), iterations: 1, maxDuration: `${SECONDS + 60}s` } },
  thresholds: {
    ...HEALTHY,
    ...GENERATOR_KEPT_UP,
    // A click is answered before it is felt: 95 of 100 within 200 ms.
    akis_answered: ["p(95)<200", "p(99)<1000"],
  },
  ...COMMON,
};

export const setup = reach;

export default function churn(): void {
  const until = Date.now() + (SECONDS - 2) * 1000;
  let place = Math.floor(Math.random() * CHANNELS.length);
  let askedAt = 0;
  const channel = () => CHANNELS[place % CHANNELS.length] as string;
  const hear = (envelope: Envelope) => {
    if (envelope.channel !== channel()) return;
    if (envelope.event === "subscribed" || envelope.event === "unsubscribed") answered.add(Date.now() - askedAt);
    if (envelope.event === "subscribed") setTimeout(leave, CLICK_EVERY);
    if (envelope.event === "unsubscribed" && Date.now() < until) {
      place += 1;
      askedAt = Date.now();
      client.subscribe(channel());
    }
  };
  const leave = () => {
    askedAt = Date.now();
    client.unsubscribe(channel());
  };
  const client = new Client({ channels: [channel()], onEnvelope: hear });
  askedAt = Date.now();
  stay(client, SECONDS * 1000);
}

export const handleSummary = report("churn");
