// A client of /live: subscribes, checks every position, resumes, and leaves a replica that drains.

import exec from "k6/execution";
import { clearInterval, setInterval, setTimeout } from "k6/timers";
import { WebSocket } from "k6/websockets";

import * as metrics from "./metrics.ts";
import { CHANNELS, TOKENS, URL } from "./settings.ts";

/** A message of the gateway. Source: docs/protocol.md, section 1. */
export interface Envelope {
  seq: number;
  ts: number;
  event: string;
  channel: string;
  ok: boolean;
  errorCode?: string;
  data: Record<string, unknown>;
}

export interface Options {
  url?: string;
  token?: string;
  channels?: readonly string[];
  /** Hears every message, after it was checked. */
  onEnvelope?: (envelope: Envelope) => void;
  /** Told when a connection has ended, whoever ended it, with the code when there is one. */
  onClosed?: (code: number | undefined) => void;
  /** Called when every subscription of a connection has been answered, with the milliseconds since it was asked for. */
  onReady?: (milliseconds: number) => void;
  /** Whether to come back after an end. The default is true. */
  returns?: boolean;
}

interface Subscription {
  /** The position that the next event follows; none until it was answered once. */
  position: number | undefined;
  isAnswered: boolean;
  /** Events to come that are older than the subscription. */
  replayed: number;
}

/** The longest wait before coming back, in milliseconds. Doubles from 250. */
const LONGEST_WAIT = 5000;

/** Events have their head in this order; whatever has not is parsed as a whole. */
const HEAD = /^\{"v":1,"seq":(\d+),"ts":(\d+),"event":"([^"]*)","channel":"([^"]*)","ok":true/;

/** The gateway's own events on a channel. */
const OWN = ["subscribed", "unsubscribed", "subscribe_error", "term", "gap", "backpressure_drop", "staleness", "error"];

export class Client {
  private readonly channels = new Map<string, Subscription>();
  private readonly options: Options;
  private socket: WebSocket | undefined;
  private isStopped = false;
  private attempts = 0;
  private askedAt = 0;
  /** Whether every subscription of this connection's first request has been answered. */
  private isReady = false;

  constructor(options: Options = {}) {
    this.options = options;
    for (const channel of options.channels ?? CHANNELS) this.want(channel);
  }

  /** Connects, and stays connected until it is stopped. */
  start(): void {
    this.open();
  }

  /** Leaves for good. */
  stop(): void {
    this.isStopped = true;
    this.socket?.close();
  }

  /** Loses the connection, as by a cut. It comes back at once. */
  drop(): void {
    const lost = this.socket;
    this.socket = undefined;
    lost?.close();
    this.open();
  }

  /** Subscribes to one more channel. */
  subscribe(channel: string): void {
    this.want(channel);
    this.request("subscribe", [channel]);
  }

  /** Ends the subscription of a channel. */
  unsubscribe(channel: string): void {
    this.send({ type: "unsubscribe", channels: [channel] });
  }

  /** Sends a request as it is. */
  send(request: unknown): void {
    this.socket?.send(typeof request === "string" ? request : JSON.stringify(request));
  }

  private want(channel: string): void {
    this.channels.set(channel, { position: undefined, isAnswered: false, replayed: 0 });
  }

  private open(): void {
    this.askedAt = Date.now();
    const token = this.options.token ?? (TOKENS[exec.vu.idInTest % TOKENS.length] as string);
    const headers = { Authorization: `Bearer ${token}` };
    const socket = new WebSocket(this.options.url ?? URL, null, { headers });
    let isOpen = false;
    socket.onopen = () => {
      isOpen = true;
      metrics.connected.add(true);
      this.replace(socket);
    };
    socket.onmessage = (message) => {
      if (socket === this.socket && message) this.take(String(message.data));
    };
    socket.onerror = () => {
      // After the connection was open, its end is told by onclose.
      if (isOpen || this.isStopped) return;
      metrics.connected.add(false);
      this.comeBack();
    };
    socket.onclose = (event?: { code?: number }) => {
      if (!isOpen) return;
      this.options.onClosed?.(event?.code);
      if (socket !== this.socket || this.isStopped) return;
      this.socket = undefined;
      if (this.options.returns === false) return;
      metrics.cuts.add(1);
      this.comeBack();
    };
  }

  /** From here on this connection is the one that counts; one before it is left. */
  private replace(socket: WebSocket): void {
    const before = this.socket;
    this.socket = socket;
    this.attempts = 0;
    this.isReady = false;
    before?.close();
    if (this.isStopped) return socket.close();
    for (const channel of this.channels.values()) channel.isAnswered = false;
    this.request("subscribe", [...this.channels.keys()]);
  }

  private comeBack(): void {
    const longest = Math.min(250 * 2 ** this.attempts++, LONGEST_WAIT);
    setTimeout(() => {
      if (!this.isStopped) this.open();
    }, Math.random() * longest);
  }

  private request(type: "subscribe", names: readonly string[]): void {
    if (names.length === 0) return;
    const entry = (channel: string) => {
      const after = this.channels.get(channel)?.position;
      return after === undefined ? { channel, snapshot: false } : { channel, after };
    };
    this.send({ type, channels: names.map(entry) });
  }

  private take(text: string): void {
    const head = HEAD.exec(text);
    const event = head?.[3] ?? "";
    if (head && head[4] !== "system" && !OWN.includes(event)) {
      this.onEvent(head[4] as string, event, Number(head[1]), Number(head[2]));
      this.options.onEnvelope?.({
        seq: Number(head[1]),
        ts: Number(head[2]),
        event,
        channel: head[4] as string,
        ok: true,
        data: {},
      });
      return;
    }
    const envelope = JSON.parse(text) as Envelope;
    if (envelope.channel === "system") this.onSystem(envelope);
    else this.onOwn(envelope);
    this.options.onEnvelope?.(envelope);
  }

  private onEvent(channel: string, event: string, seq: number, ts: number): void {
    metrics.events.add(1);
    const subscription = this.channels.get(channel);
    if (!subscription?.isAnswered || subscription.position === undefined) return metrics.wrong.add(1);
    const position = subscription.position;
    // A channel without events is at 0, and its first event has any position.
    if (position > 0 && seq <= position) return metrics.duplicates.add(1);
    if (position > 0 && seq > position + 1) metrics.silentLosses.add(1);
    subscription.position = seq;
    if (subscription.replayed > 0) subscription.replayed -= 1;
    else if (event === "trade") metrics.latency.add(Date.now() - ts);
  }

  private onOwn(envelope: Envelope): void {
    const subscription = this.channels.get(envelope.channel);
    if (!subscription) return;
    switch (envelope.event) {
      case "subscribed":
        if (subscription.position && envelope.data["recovered"] !== true) metrics.toldLosses.add(1);
        if (envelope.data["recovered"] === true && envelope.seq < (subscription.position ?? 0)) metrics.wrong.add(1);
        subscription.position = envelope.seq;
        subscription.replayed = Number(envelope.data["replayed"] ?? 0);
        this.onAnswer(subscription);
        break;
      case "unsubscribed":
        this.channels.delete(envelope.channel);
        break;
      case "subscribe_error":
        // Asked again as long as it may help: the log is away.
        if (envelope.errorCode === "REPLAY_UNAVAILABLE") {
          setTimeout(() => this.request("subscribe", [envelope.channel]), 1000);
        } else {
          this.channels.delete(envelope.channel);
        }
        break;
      case "term":
        subscription.position = envelope.seq;
        break;
      case "gap":
      case "backpressure_drop":
        metrics.toldLosses.add(1);
        subscription.position = envelope.seq;
        break;
      default:
        // staleness, error, and an event that reports a failure, which has a position like any other.
        if (!OWN.includes(envelope.event)) this.onEvent(envelope.channel, envelope.event, envelope.seq, envelope.ts);
    }
  }

  private onAnswer(subscription: Subscription): void {
    subscription.isAnswered = true;
    if (!this.isReady && [...this.channels.values()].every((one) => one.isAnswered)) {
      this.isReady = true;
      const milliseconds = Date.now() - this.askedAt;
      metrics.ready.add(milliseconds);
      this.options.onReady?.(milliseconds);
    }
  }

  private onSystem(envelope: Envelope): void {
    if (envelope.event !== "draining") return;
    setTimeout(() => {
      if (!this.isStopped) this.open();
    }, Number(envelope.data["reconnectAfterMs"] ?? 0));
  }
}

/** Milliseconds between two looks at how late this virtual user's timers are. */
const LOOK_EVERY = 100;

/** Keeps a client for so long, and measures meanwhile whether the generator keeps up. The iteration ends with it. */
export function stay(client: Client, milliseconds: number): void {
  let expected = Date.now() + LOOK_EVERY;
  const look = setInterval(() => {
    const now = Date.now();
    metrics.generatorLag.add(Math.max(0, now - expected));
    expected = now + LOOK_EVERY;
  }, LOOK_EVERY);
  client.start();
  setTimeout(() => {
    clearInterval(look);
    client.stop();
  }, milliseconds);
}
