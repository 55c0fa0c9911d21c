"use strict";
// Conversations live in this browser only; the server keeps no texts of its own accord.

const $ = (id) => document.getElementById(id);
const STORE = "ds4.conversations";
const SETTINGS = "ds4.settings";
const KEY = "ds4.key";

function read(storage, name, otherwise) {
  try {
    return JSON.parse(storage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

let sessions = read(localStorage, STORE, []);
if (!Array.isArray(sessions)) sessions = [];
let settings = { thinking: "high", temperature: "", max_tokens: "", system: "", tools: "", ...read(localStorage, SETTINGS, {}) };
let current = sessions[0] ?? null;
let running = null; // {controller, session}

function save() {
  try {
    localStorage.setItem(STORE, JSON.stringify(sessions));
  } catch {
    notice("The browser's storage is full: new messages are not kept. Remove old conversations.", true);
  }
}

function notice(text, isError = false) {
  $("notice").textContent = text;
  $("notice").classList.toggle("error", isError);
}

/** An element with properties and children; text only ever becomes text nodes. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  Object.assign(element, properties);
  element.append(...children.filter((child) => child != null));
  return element;
}

// ---- Text of answers -------------------------------------------------------------------------

function inline(text) {
  const parts = text.split(/(`[^`\n]+`|\*\*[^*\n]+\*\*)/);
  return parts.map((part) => {
    if (part.length > 2 && part.startsWith("`") && part.endsWith("`")) return make("code", {}, part.slice(1, -1));
    if (part.length > 4 && part.startsWith("**") && part.endsWith("**")) return make("strong", {}, part.slice(2, -2));
    return part;
  });
}

/** Fenced code, headings and paragraphs; all else stays as it is written. */
function formatted(text) {
  const out = [];
  const parts = text.split(/^```([^\n`]*)\n?/m);
  for (let i = 0; i < parts.length; i += 2) {
    const isCode = (i / 2) % 2 === 1;
    if (isCode) {
      out.push(make("pre", {}, make("code", {}, parts[i].replace(/\n$/, ""))));
      continue;
    }
    for (const block of parts[i].split(/\n{2,}/)) {
      const trimmed = block.replace(/^\n+|\n+$/g, "");
      const heading = /^#{1,6} (.*)$/.exec(trimmed);
      if (heading) out.push(make("h3", {}, ...inline(heading[1])));
      else if (trimmed) out.push(make("p", {}, ...inline(trimmed)));
    }
  }
  return out;
}

// ---- Conversations ---------------------------------------------------------------------------

function title(session) {
  const first = session.messages.find((message) => message.role === "user");
  if (!first) return "New conversation";
  return (session.fork ? "↳ " : "") + (first.content.trim().split("\n")[0].slice(0, 60) || "…");
}

function newSession(messages = []) {
  const id = crypto.randomUUID?.() ?? String(Date.now() + Math.random());
  current = { id, messages, fork: messages.length > 0 };
  sessions.unshift(current);
  save();
  show();
}

function select(session) {
  current = session;
  closeSidebar();
  notice("");
  show();
  $("input").focus();
}

function remove(session) {
  if (session.messages.length && !confirm(`Remove “${title(session)}”?`)) return;
  if (running?.session === session) running.controller.abort();
  sessions = sessions.filter((other) => other !== session);
  if (current === session) current = sessions[0] ?? null;
  save();
  show();
}

function showSessions() {
  $("sessions").replaceChildren(
    ...sessions.map((session) => {
      const open = make("button", { onclick: () => select(session) }, title(session));
      if (session === current) open.setAttribute("aria-current", "true");
      const away = make("button", { className: "remove", onclick: () => remove(session) }, "✕");
      away.setAttribute("aria-label", `Remove ${title(session)}`);
      return make("div", { className: session === current ? "session current" : "session" }, open, away);
    }),
  );
}

const views = new WeakMap(); // message → its element's parts

function show() {
  showSessions();
  const messages = current?.messages ?? [];
  const log = $("log");
  if (messages.length === 0) {
    log.replaceChildren(make("p", { className: "welcome" }, "Ask something. It stays on this machine."));
  } else {
    log.replaceChildren(...messages.map((message, index) => element(message, index)));
    log.scrollTop = log.scrollHeight;
  }
  showRunning();
}

function showRunning() {
  const here = running?.session === current && running != null;
  $("stop").hidden = !running;
  $("send").hidden = here;
  $("send").disabled = Boolean(running);
}

function action(label, hint, run) {
  const button = make("button", { type: "button", title: hint, onclick: run }, label);
  return button;
}

function element(message, index) {
  if (message.role === "user") {
    const foot = make("div", { className: "foot" },
      action("Edit", "Write it anew in a fork", () => edit(index)));
    return make("article", { className: "user" }, make("div", { className: "body" }, message.content), foot);
  }
  if (message.role === "tool") {
    return make("details", { className: "call" },
      make("summary", {}, "Result"), make("div", {}, make("pre", {}, make("code", {}, message.content))));
  }
  const view = {
    thinking: make("details", { className: "thinking", hidden: true }, make("summary"), make("div")),
    body: make("div", { className: "body" }),
    calls: make("div"),
    foot: make("div", { className: "foot" }),
    index,
  };
  views.set(message, view);
  fill(message);
  return make("article", { className: "assistant" }, view.thinking, view.body, view.calls, view.foot);
}

function fill(message) {
  const view = views.get(message);
  if (!view) return;
  const live = running?.message === message;
  const [summary, text] = view.thinking.children;
  view.thinking.hidden = !message.reasoning;
  if (message.reasoning) {
    summary.textContent = live && !message.content && !message.calls?.length
      ? "Thinking…" : `Thought${message.thought_ms ? ` for ${(message.thought_ms / 1000).toFixed(1)} s` : ""}`;
    text.textContent = message.reasoning;
  }
  view.body.replaceChildren(...formatted(message.content));
  view.body.classList.toggle("writing", live);
  const calls = message.calls ?? [];
  if (view.calls.childElementCount !== calls.length || !live) {
    view.calls.replaceChildren(...calls.map((call) => callElement(message, call, live)));
  } else {
    calls.forEach((call, at) => { view.calls.children[at].querySelector("code").textContent = call.arguments; });
  }
  const foot = [];
  if (message.error) foot.push(make("span", { className: "error" }, message.error));
  if (message.stats) foot.push(make("span", {}, message.stats));
  if (!live) {
    const at = view.index;
    if (message.content) foot.push(action("Copy", "Copy the text", () => copy(message.content)));
    foot.push(
      action("Retry", "Generate this answer anew (Alt+R)", () => retry(at)),
      action("Fork", "Go on from here in a new conversation", () => fork(at)),
    );
  }
  view.foot.replaceChildren(...foot);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    notice("Copied.");
  } catch {
    notice("The browser does not let the page copy.", true);
  }
}

function callElement(message, call, live) {
  const details = make("details", { className: "call", open: true },
    make("summary", {}, "Calls ", make("strong", {}, call.name)));
  const inside = make("div", {}, make("pre", {}, make("code", {}, call.arguments)));
  const answered = current.messages.some((other) => other.role === "tool" && other.id === call.id);
  if (!live && !answered && current.messages.at(-1) === message) {
    const input = make("textarea", { rows: 2, placeholder: "Result of the call" });
    input.setAttribute("aria-label", `Result of ${call.name}`);
    inside.append(input, action("Send result", "Give the result to the model", () => result(message, call, input.value)));
  }
  details.append(inside);
  return details;
}

function result(message, call, content) {
  if (running) return;
  call.result = content;
  const open = message.calls.filter((other) => other.result === undefined);
  if (open.length > 0) {
    notice(`${open.length} more ${open.length === 1 ? "result is" : "results are"} needed.`);
    return;
  }
  for (const other of message.calls) current.messages.push({ role: "tool", id: other.id, content: other.result });
  answer(current);
}

function edit(index) {
  const text = current.messages[index].content;
  newSession(structuredClone(current.messages.slice(0, index)));
  $("input").value = text;
  $("input").focus();
}

function fork(index) {
  newSession(structuredClone(current.messages.slice(0, index + 1)));
  notice("A new conversation goes on from here.");
  $("input").focus();
}

function retry(index) {
  if (running) return;
  current.messages.length = index;
  answer(current);
}

// ---- Asking the server -----------------------------------------------------------------------

function headers() {
  const key = sessionStorage.getItem(KEY);
  return key ? { authorization: `Bearer ${key}` } : {};
}

function request(session) {
  const messages = [];
  if (settings.system.trim()) messages.push({ role: "system", content: settings.system });
  for (const message of session.messages) {
    if (message.role === "user") messages.push({ role: "user", content: message.content });
    else if (message.role === "tool") messages.push({ role: "tool", tool_call_id: message.id, content: message.content });
    else if (message.content || message.calls?.length) {
      const out = { role: "assistant", content: message.content };
      if (message.reasoning) out.reasoning_content = message.reasoning;
      if (message.calls?.length) {
        out.tool_calls = message.calls.map((call) => ({
          id: call.id, type: "function", function: { name: call.name, arguments: call.arguments },
        }));
      }
      messages.push(out);
    }
  }
  const body = {
    model: "default", messages, stream: true, stream_options: { include_usage: true },
    reasoning_effort: settings.thinking, prompt_cache_key: session.id, priority: "high",
  };
  if (settings.temperature !== "") body.temperature = Number(settings.temperature);
  if (settings.max_tokens !== "") body.max_tokens = Number(settings.max_tokens);
  if (settings.tools.trim()) body.tools = JSON.parse(settings.tools);
  return body;
}

/** Yields the data of the events of a stream. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const blocks = rest.split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      for (const line of block.split("\n")) if (line.startsWith("data: ")) yield line.slice(6);
    }
  }
}

async function answer(session) {
  const message = { role: "assistant", content: "", reasoning: "", calls: [] };
  const controller = new AbortController();
  running = { controller, session, message };
  const body = request(session);
  session.messages.push(message);
  show();
  notice("");
  const started = performance.now();
  let first = null, last = null, tokens = 0, usage = null, painting = false;
  const paint = () => {
    if (painting) return;
    painting = true;
    requestAnimationFrame(() => {
      painting = false;
      if (running?.message !== message) return;
      if (first !== null && last > first) {
        message.stats = `about ${tokens} tokens, ${(tokens / ((last - first) / 1000)).toFixed(1)}/s`;
      }
      const log = $("log");
      const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
      fill(message);
      if (follows) log.scrollTop = log.scrollHeight;
    });
  };
  try {
    const response = await fetch("/v1/chat/completions", {
      method: "POST", signal: controller.signal, body: JSON.stringify(body),
      headers: { "content-type": "application/json", ...headers() },
    });
    if (!response.ok) {
      if (response.status === 401) openSettings("The server wants an API key.");
      const error = await response.json().catch(() => null);
      throw new Error(error?.error?.message ?? `The server answered ${response.status}.`);
    }
    let finished = false;
    for await (const data of events(response.body)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      usage = chunk.usage ?? usage;
      const choice = chunk.choices?.[0];
      if (!choice) continue;
      finished ||= Boolean(choice.finish_reason);
      const delta = choice.delta ?? {};
      if (!delta.content && !delta.reasoning_content && !delta.tool_calls) continue;
      last = performance.now();
      first ??= last;
      tokens += 1;
      if (delta.reasoning_content) message.reasoning += delta.reasoning_content;
      if (delta.content || delta.tool_calls) message.thought_ms ??= last - started;
      if (delta.content) message.content += delta.content;
      for (const call of delta.tool_calls ?? []) {
        message.calls[call.index] ??= { id: call.id, name: call.function?.name ?? "", arguments: "" };
        message.calls[call.index].arguments += call.function?.arguments ?? "";
      }
      paint();
    }
    if (!finished) message.error = "The answer broke off.";
  } catch (error) {
    message.error = error.name === "AbortError" ? "Stopped." : error.message;
  }
  if (usage) {
    const cached = usage.prompt_tokens_details?.cached_tokens ?? 0;
    const seconds = first === null ? 0 : (last - first) / 1000;
    const speed = seconds > 0 ? ` at ${((usage.completion_tokens - 1) / seconds).toFixed(1)} tokens/s` : "";
    const wait = first === null ? "" : `, first after ${((first - started) / 1000).toFixed(2)} s`;
    message.stats = `${usage.completion_tokens} tokens${speed}${wait}; prompt ${usage.prompt_tokens}, ${cached} cached`;
  }
  running = null;
  save();
  if (session === current) {
    const log = $("log");
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    fill(message);
    if (follows) log.scrollTop = log.scrollHeight;
    showSessions();
  }
  showRunning();
}

function send() {
  const text = $("input").value;
  if (running || !text.trim()) return;
  const waiting = current?.messages.at(-1)?.calls?.length && !current.messages.at(-1).error;
  if (waiting) {
    notice("The model waits for the results of its calls.", true);
    return;
  }
  if (!current) newSession();
  $("input").value = "";
  current.messages.push({ role: "user", content: text });
  save();
  answer(current);
}

// ---- Settings --------------------------------------------------------------------------------

function openSettings(reason = "") {
  const form = $("settings").querySelector("form");
  for (const name of Object.keys(settings)) if (form.elements[name]) form.elements[name].value = settings[name];
  form.elements.key.value = sessionStorage.getItem(KEY) ?? "";
  $("settings-error").textContent = reason;
  if (!$("settings").open) $("settings").showModal();
  if (reason) form.elements.key.focus();
}

$("settings").querySelector("form").addEventListener("submit", (event) => {
  const form = event.target;
  try {
    const tools = form.elements.tools.value.trim();
    if (tools && !Array.isArray(JSON.parse(tools))) throw new Error("expected an array");
  } catch (error) {
    event.preventDefault();
    $("settings-error").textContent = `Tools: ${error.message}`;
    return;
  }
  for (const name of Object.keys(settings)) if (form.elements[name]) settings[name] = form.elements[name].value;
  try {
    localStorage.setItem(SETTINGS, JSON.stringify(settings));
    sessionStorage.setItem(KEY, form.elements.key.value.trim());
  } catch {
    notice("The browser does not let the page keep settings.", true);
  }
  greet();
});

// ---- The server's state ----------------------------------------------------------------------

const PLOTS = [
  ["Generating", " t/s", (s) => s.speed.decode],
  ["Prompts", " t/s", (s) => s.speed.prefill],
  ["Running", "", (s) => s.running.length],
  ["Waiting", "", (s) => s.queued],
  ["Cache used", " %", (s) => (s.pages.total ? 100 * (1 - s.pages.free / s.pages.total) : 0)],
  ["Cached", " %", (s) => {
    const found = s.cached_tokens.live + s.cached_tokens.kept + s.cached_tokens.disk;
    return s.prompt_tokens ? (100 * found) / s.prompt_tokens : 0;
  }],
].map(([name, unit, value]) => ({ name, unit, value, points: [] }));
const POINTS = 90;
let timer = null;

function showPlots() {
  $("monitor").replaceChildren(...PLOTS.map((plot) => {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${POINTS} 20`);
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    plot.path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    svg.append(plot.path);
    plot.label = make("b", {}, "–");
    return make("div", { className: "plot" }, plot.label, make("span", {}, plot.name), svg);
  }));
}

async function poll() {
  try {
    const response = await fetch("/v1/sessions", { headers: headers(), signal: AbortSignal.timeout(4000) });
    if (!response.ok) throw new Error(String(response.status));
    const state = await response.json();
    for (const plot of PLOTS) {
      const value = plot.value(state);
      plot.points.push(value);
      if (plot.points.length > POINTS) plot.points.shift();
      const top = Math.max(1e-9, ...plot.points);
      const x0 = POINTS - plot.points.length;
      plot.path.setAttribute("d", plot.points
        .map((y, x) => `${x ? "L" : "M"}${x0 + x} ${(19 - (18 * y) / top).toFixed(2)}`).join(""));
      plot.label.textContent = value.toFixed(value >= 100 || value % 1 === 0 ? 0 : 1) + plot.unit;
    }
  } catch {
    for (const plot of PLOTS) plot.label.textContent = "–";
  }
}

function toggleMonitor() {
  const shown = $("monitor").hidden;
  $("monitor").hidden = !shown;
  $("show-monitor").setAttribute("aria-expanded", String(shown));
  clearInterval(timer);
  if (shown) {
    if (!$("monitor").childElementCount) showPlots();
    poll();
    timer = setInterval(() => { if (!document.hidden) poll(); }, 2000);
  }
}

async function greet() {
  try {
    const response = await fetch("/ready", { headers: headers() });
    const state = await response.json();
    if (response.status === 401) {
      $("model").textContent = "needs an API key";
      openSettings("The server wants an API key.");
    } else if (state.status === "loading") {
      $("model").textContent = `loading, ${state.loaded} of ${state.total} tensors`;
      setTimeout(greet, 2000);
    } else {
      $("model").textContent = `${state.name || state.model}, context ${state.context}`;
    }
  } catch {
    $("model").textContent = "the server does not answer";
    setTimeout(greet, 5000);
  }
}

// ---- Keys and buttons ------------------------------------------------------------------------

function closeSidebar() {
  $("sidebar").classList.remove("open");
  $("menu").setAttribute("aria-expanded", "false");
}

function step(by) {
  const at = sessions.indexOf(current) + by;
  if (sessions[at]) select(sessions[at]);
}

$("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
$("input").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
$("stop").onclick = () => running?.controller.abort();
$("new").onclick = () => { newSession(); closeSidebar(); $("input").focus(); };
$("show-settings").onclick = () => openSettings();
$("show-monitor").onclick = toggleMonitor;
$("menu").onclick = () => {
  const open = $("sidebar").classList.toggle("open");
  $("menu").setAttribute("aria-expanded", String(open));
};
document.addEventListener("click", (event) => {
  if (!$("sidebar").contains(event.target) && event.target !== $("menu")) closeSidebar();
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !$("settings").open) {
    if (running) running.controller.abort();
    closeSidebar();
  }
  if (!event.altKey || event.ctrlKey || event.metaKey || $("settings").open) return;
  const keys = {
    KeyN: () => $("new").click(),
    KeyM: toggleMonitor,
    Comma: () => openSettings(),
    ArrowUp: () => step(-1),
    ArrowDown: () => step(1),
    KeyR: () => {
      const at = current?.messages.findLastIndex((message) => message.role === "assistant") ?? -1;
      if (at >= 0) retry(at);
    },
  };
  const run = keys[event.code];
  if (run) {
    event.preventDefault();
    run();
  }
});
addEventListener("beforeunload", () => { if (running) save(); });

show();
greet();
$("input").focus();
