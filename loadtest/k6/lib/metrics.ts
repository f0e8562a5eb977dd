// What is measured, and the promises that it is held against.

import { Counter, Rate, Trend } from "k6/metrics";

/** Events received. */
export const events = new Counter("akis_events");

/** From the moment at which a trade happened at its venue (`ts`) to the client; only of events that came live. */
export const latency = new Trend("akis_latency", true);

/** Steps in `seq` that nothing explained. */
export const silentLosses = new Counter("akis_silent_losses");

/** Events at or below a position that the client had. */
export const duplicates = new Counter("akis_duplicates");

/** What clients were told to be missing: `gap`, `backpressure_drop`, and resumptions that are not `recovered`. */
export const toldLosses = new Counter("akis_told_losses");

/** Whether an attempt to connect succeeded. */
export const connected = new Rate("akis_connected");

/** From asking for a connection to the answer of the last subscription. */
export const ready = new Trend("akis_ready", true);

/** Connections that the other side ended without having said that it would. */
export const cuts = new Counter("akis_cuts");

/** How late the timers of virtual users are. */
export const generatorLag = new Trend("akis_generator_lag", true);

/** Answers that are not what the protocol says. */
export const wrong = new Counter("akis_wrong");

type Thresholds = Record<string, string[]>;

/** Nothing is lost without a word, nothing comes twice, nothing is answered in another way than the protocol says. */
export const WHOLE: Thresholds = {
  akis_silent_losses: ["count==0"],
  akis_duplicates: ["count==0"],
  akis_wrong: ["count==0"],
};

/** A client that keeps up is told everything, and stays connected. */
export const HEALTHY: Thresholds = {
  ...WHOLE,
  akis_told_losses: ["count==0"],
  akis_connected: ["rate==1"],
  akis_cuts: ["count==0"],
};

/** A trade is on the screen before a person could notice: 95 of 100 within 250 ms of happening, 99 within half a second. */
export const PROMPT: Thresholds = {
  akis_latency: ["p(95)<250", "p(99)<500"],
};

/** The figures are those of the gateway: what measures it was not itself late. Otherwise the run fails, and says nothing. */
export const GENERATOR_KEPT_UP: Thresholds = {
  akis_generator_lag: ["p(95)<100"],
};
