// What a run leaves: a few lines on the terminal, and the whole of it in JSON and HTML.

import type { Options } from "k6/options";

import { MACHINE, OUT } from "./settings.ts";

interface Metric {
  type: string;
  contains: string;
  values: Record<string, number>;
  thresholds?: Record<string, { ok: boolean }>;
}

interface Data {
  state: { testRunDurationMs: number };
  metrics: Record<string, Metric>;
}

/** What is told of every trend. */
const summaryTrendStats = ["min", "med", "p(90)", "p(95)", "p(99)", "max"];

/** Part of every scenario's `options`. A request over HTTP that fails is caught where it is made. */
export const COMMON: Options = { summaryTrendStats, throw: true };

/** Metrics of k6 itself that say something about a gateway. */
const OF_K6 = ["ws_connecting", "vus_max"];

/** A `handleSummary` for this scenario. `more`: what else is to be read in the figures. */
export function report(scenario: string, more: (metrics: Record<string, Metric>) => string[] = () => []) {
  return (data: Data): Record<string, string> => {
    // A run that was ended by `reach` has said why.
    const tried = data.metrics["akis_connected"]?.values;
    if (!tried?.["passes"] && !tried?.["fails"]) return {};
    const names = Object.keys(data.metrics).filter((name) => name.startsWith("akis_") || OF_K6.includes(name));
    const metrics = Object.fromEntries(names.sort().map((name) => [name, data.metrics[name] as Metric]));
    const broken = Object.entries(metrics).flatMap(([name, metric]) =>
      Object.entries(metric.thresholds ?? {})
        .filter(([, threshold]) => !threshold.ok)
        .map(([expression]) => `${name}: ${expression}`),
    );
    const isSlow = broken.some((promise) => promise.startsWith("akis_generator_lag"));
    const verdict = isSlow
      ? "the generator was too slow: the figures say nothing about the gateway"
      : broken.length === 0
        ? "every promise was kept"
        : `broken: ${broken.join("; ")}`;
    const took = Math.round(data.state.testRunDurationMs / 1000);
    const head = [`${scenario}: ${verdict}`, `${took} s; ${MACHINE}`, ...more(metrics)];
    const rows = Object.entries(metrics).map(([name, metric]) => [name, figures(metric), promises(metric)] as const);
    const lines = rows.map(([name, values, thresholds]) => `  ${name.padEnd(24)} ${values}${thresholds && `  (${thresholds})`}`);
    const files: Record<string, string> = { stdout: `\n${[...head, ...lines].join("\n")}\n` };
    if (OUT) {
      const whole = { scenario, verdict, machine: MACHINE, seconds: took, notes: more(metrics), metrics };
      files[`${OUT}.json`] = `${JSON.stringify(whole, null, 1)}\n`;
      files[`${OUT}.html`] = html(scenario, head, rows);
    }
    return files;
  };
}

function figures(metric: Metric): string {
  const unit = metric.contains === "time" ? " ms" : "";
  const round = (value: number) => `${Math.round(value * 100) / 100}${unit}`;
  const names = metric.type === "trend" ? summaryTrendStats : metric.type === "rate" ? ["rate"] : metric.type === "counter" ? ["count"] : ["value"];
  return names.map((name) => `${name} ${round(metric.values[name] ?? 0)}`).join(", ");
}

function promises(metric: Metric): string {
  const thresholds = Object.entries(metric.thresholds ?? {});
  return thresholds.map(([expression, { ok }]) => `${expression}: ${ok ? "kept" : "BROKEN"}`).join(", ");
}

function html(scenario: string, head: string[], rows: (readonly [string, string, string])[]): string {
  const escape = (text: string) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cells = (row: readonly string[]) => row.map((cell) => `<td>${escape(cell)}</td>`).join("");
  const body = rows.map((row) => `<tr class="${row[2].includes("BROKEN") ? "bad" : ""}">${cells(row)}</tr>`).join("\n");
  return `<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Akis under load: ${escape(scenario)}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem }
table { border-collapse: collapse; width: 100% } td, th { border-bottom: 1px solid #ccc; padding: .3rem .6rem; text-align: left }
.bad { background: #fdd }
</style>
<h1>${escape(head[0] ?? "")}</h1>
${head.slice(1).map((line) => `<p>${escape(line)}</p>`).join("\n")}
<table><tr><th>metric</th><th>figures</th><th>promise</th></tr>
${body}
</table></html>
`;
}
