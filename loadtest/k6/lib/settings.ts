// What a run is told with `-e NAME=value`. `make load` fills them in for a system that it starts itself.

/** Where clients connect. */
export const URL = text("URL", "ws://127.0.0.1:8080/live");

/**
 * What clients show: one token, or several with commas between them, which clients take in turn. A subject may have only
 * so many connections (`gateway.limits.connections_per_subject`).
 */
export const TOKENS = required("TOKEN").split(",");

/** What each client subscribes to, with commas between. */
export const CHANNELS = text(
  "CHANNELS",
  "binance:BTCUSDT:trades,binance:ETHUSDT:trades,binance:BTCUSDT:book,binance:BTCUSDT:ticker",
).split(",");

/** How many clients there are at most; each is a virtual user. The default is the scenario's. */
export const clients = (fallback: number): number => whole("CLIENTS", fallback);

/** How long it takes, in seconds. The default is the scenario's. */
export const seconds = (fallback: number): number => whole("SECONDS", fallback);

/** Of `slow` only: toxiproxy's API, and the address (HOST:PORT) of the gateway as toxiproxy sees it. */
export const TOXIPROXY = text("TOXIPROXY", "http://127.0.0.1:8474");
export const UPSTREAM = text("UPSTREAM", "127.0.0.1:8080");

/** Where reports go: without the ending, `.json` and `.html` are written. Nothing is written when it is empty. */
export const OUT = text("OUT", "");

/** The machine and the versions that the figures belong to, in one line. */
export const MACHINE = text("MACHINE", "machine unknown");

function text(name: string, fallback: string): string {
  return __ENV[name] || fallback;
}

// Mistakes are thrown as text: of an Error k6 would print the stack as well.

function required(name: string): string {
  const value = __ENV[name];
  if (!value) throw `${name} is missing: k6 run -e ${name}=…`;
  return value;
}

function whole(name: string, fallback: number): number {
  const value = Number(__ENV[name] || fallback);
  if (!Number.isInteger(value) || value < 1) throw `${name} is no whole number above 0: ${__ENV[name]}`;
  return value;
}
