// Whether there is a gateway at all, before anything is measured.

import exec from "k6/execution";
import http from "k6/http";

import { TOKENS, URL } from "./settings.ts";

/** The same place over HTTP. */
export const HTTP_URL = URL.replace(/^ws/, "http");

/** For `setup`: ends the run with one line when the gateway cannot be reached or refuses the token. */
export function reach(): void {
  const origin = HTTP_URL.replace(/\/live.*$/, "");
  const headers = { Authorization: `Bearer ${TOKENS[0]}` };
  let why: string;
  try {
    // What is asked for here is not what is measured.
    const tags = { name: "reach" };
    const answer = http.get(`${origin}/v1/channels?prefix=none`, { headers, tags, timeout: "5s" });
    if (answer.status === 200) return;
    why = `answers ${answer.status}: ${answer.body}`;
  } catch (error) {
    why = `cannot be reached: ${error}`;
  }
  exec.test.abort(`${URL} ${why}`);
}
