// The real server on a scripted engine, one process for each test.

import { spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";

const START_MS = 60_000;
const STOP_MS = 20_000;

const BAR = "\uff5cDSML\uff5c";

/** Reasoning and what follows it; the prompt has opened the reasoning. */
export function thought(reasoning, answer) {
  return `${reasoning}</think>${answer}`;
}

/** A block of tool calls; a call is [name, arguments]. */
export function toolCalls(...calls) {
  let text = `\n\n<${BAR}tool_calls>\n`;
  for (const [name, values] of calls) {
    text += `<${BAR}invoke name="${name}">\n`;
    for (const [key, value] of Object.entries(values)) {
      const isText = typeof value === "string";
      const shown = isText ? value : JSON.stringify(value);
      text += `<${BAR}parameter name="${key}" string="${isText}">${shown}</${BAR}parameter>\n`;
    }
    text += `</${BAR}invoke>\n`;
  }
  return `${text}</${BAR}tool_calls>`;
}

/** Runs `use(origin)` against a server whose model says `turns`. */
export async function withServer(turns, use, options = []) {
  const directory = await mkdtemp(join(tmpdir(), "ds4-conformance-"));
  const plan = join(directory, "plan.json");
  await writeFile(plan, JSON.stringify({ turns: turns.map((text) => ({ text })) }));
  const child = spawn(
    process.env.SCRIPTED_SERVER,
    ["--port", "0", "--plan", plan, ...options],
    { stdio: ["ignore", "pipe", "inherit"] },
  );
  const ended = new Promise((resolve) => child.once("close", resolve));
  try {
    const origin = await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error("the server does not start")), START_MS);
      child.once("error", reject);
      ended.then(() => reject(new Error("the server has ended")));
      createInterface({ input: child.stdout }).once("line", (line) => {
        clearTimeout(timer);
        resolve(line.trim().replace("listening on ", ""));
      });
    });
    await use(origin);
  } finally {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), STOP_MS);
    await ended;
    clearTimeout(timer);
    await rm(directory, { recursive: true });
  }
}
