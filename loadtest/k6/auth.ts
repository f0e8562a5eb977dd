// Those who may not: bad tokens, channels that the token does not name, and more requests than are allowed.

import http from "k6/http";
import { Rate } from "k6/metrics";
import type { Options } from "k6/options";

import { Client, stay } from "./lib/client.ts";
import { GENERATOR_KEPT_UP, WHOLE } from "./lib/metrics.ts";
import { HTTP_URL, reach } from "./lib/reach.ts";
import { COMMON, report } from "./lib/report.ts";
import { clients, seconds, TOKENS } from "./lib/settings.ts";

const SECONDS = seconds(20);

/** A channel that no token of the run allows. */
const SECRET = "secret:1";

/** Requests sent at once: more than `burst` and as many again, so that the connection is closed. */
const FLOOD = 300;

/** Whether what was refused was refused in the way that the protocol says. */
const refused = new Rate("akis_refused");

/** Whether a connection that flooded was closed. */
const closed = new Rate("akis_flood_closed");

const of = (run: string) => ({
  executor: "per-vu-iterations" as const,
  exec: run,
  vus: clients(5),
  iterations: 1,
  maxDuration: `${SECONDS + 30}s`,
});

export const options: Options = {
  scenarios: { tokens: of("tokens"), channels: of("channels"), flood: of("flood"), good: of("good") },
  thresholds: {
    ...WHOLE,
    ...GENERATOR_KEPT_UP,
    // Nobody without a good token gets in, and nobody hears a channel that the token does not name.
    akis_refused: ["rate==1"],
    // Who keeps exceeding the rate is closed.
    akis_flood_closed: ["rate==1"],
    // Whoever may is not disturbed by those who may not.
    "akis_connected{scenario:good}": ["rate==1"],
    "akis_cuts{scenario:good}": ["count==0"],
    "akis_told_losses{scenario:good}": ["count==0"],
  },
  ...COMMON,
};

export const setup = reach;

export function tokens(): void {
  const good = TOKENS[0] as string;
  const [head, claims] = good.split(".");
  const none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
  const bad = ["", "x", "a.b.c", good.slice(0, -4), `${head}.${claims}.`, `${none}.${claims}.`];
  for (const token of bad) {
    const headers: Record<string, string> = {
      Connection: "Upgrade",
      Upgrade: "websocket",
      "Sec-WebSocket-Version": "13",
      "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
      ...(token && { Authorization: `Bearer ${token}` }),
    };
    const answer = http.get(HTTP_URL, { headers, tags: { name: "bad token" }, responseCallback: http.expectedStatuses(401) });
    refused.add(answer.status === 401 && String(answer.body).includes("TOKEN_INVALID"));
  }
}

export function channels(): void {
  const onEnvelope = ({ channel, event, errorCode }: { channel: string; event: string; errorCode?: string }) => {
    if (channel === SECRET) refused.add(event === "subscribe_error" && errorCode === "CHANNEL_FORBIDDEN");
  };
  stay(new Client({ channels: [SECRET], onEnvelope }), (SECONDS / 2) * 1000);
}

export function flood(): void {
  const milliseconds = (SECONDS / 2) * 1000;
  const leavesAt = Date.now() + milliseconds;
  const client = new Client({
    channels: [],
    returns: false,
    onEnvelope: ({ event }) => {
      if (event === "welcome") for (let id = 0; id < FLOOD; id++) client.send({ type: "ping", id });
    },
    // The code is 4429; a proxy in between may lose it, because the gateway closes while requests still come.
    onClosed: () => closed.add(Date.now() < leavesAt - 100),
  });
  stay(client, milliseconds);
}

export function good(): void {
  stay(new Client(), SECONDS * 1000);
}

export const handleSummary = report("auth");
