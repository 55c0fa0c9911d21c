// Anthropic's library for Node: messages.

import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { thought, toolCalls, withServer } from "./server.js";

const ADD = {
  name: "add",
  description: "Adds numbers",
  input_schema: {
    type: "object",
    properties: { a: { type: "integer" }, b: { type: "integer" } },
    required: ["a", "b"],
  },
};
const question = () => [{ role: "user", content: "2+3?" }];
const BASE = { model: "default", max_tokens: 500 };
const clientOf = (origin, apiKey = "local") =>
  new Anthropic({ baseURL: origin, apiKey, maxRetries: 0, timeout: 60_000 });
const whole = (usage) => usage.input_tokens + usage.cache_read_input_tokens;

test("an answer with thinking", () =>
  withServer([thought("Sum.", "5")], async (origin) => {
    const message = await clientOf(origin).messages.create({ ...BASE, messages: question() });
    assert.deepEqual(message.content.map((block) => block.type), ["thinking", "text"]);
    assert.equal(message.content[0].thinking, "Sum.");
    assert.equal(message.stop_reason, "end_turn");
  }));

test("a stream is accumulated, and its call answered", () =>
  withServer(
    [thought("Sum.", `Adding.${toolCalls(["add", { a: 2, b: 3 }])}`), thought("Known.", "5")],
    async (origin) => {
      const client = clientOf(origin);
      const stream = client.messages.stream({ ...BASE, messages: question(), tools: [ADD] });
      const first = await stream.finalMessage();
      assert.deepEqual(
        first.content.map((block) => block.type),
        ["thinking", "text", "tool_use"],
      );
      const call = first.content[2];
      assert.deepEqual(call.input, { a: 2, b: 3 });
      assert.equal(first.stop_reason, "tool_use");
      const second = await client.messages.create({
        ...BASE,
        tools: [ADD],
        messages: [
          ...question(),
          { role: "assistant", content: first.content },
          {
            role: "user",
            content: [{ type: "tool_result", tool_use_id: call.id, content: "5" }],
          },
        ],
      });
      assert.equal(second.content.at(-1).text, "5");
      assert.equal(
        second.usage.cache_read_input_tokens,
        whole(first.usage) + first.usage.output_tokens,
      );
    },
  ));

test("tokens are counted as the prompt has them", () =>
  withServer([thought("a", "b")], async (origin) => {
    const client = clientOf(origin);
    const asked = { model: "default", messages: question(), tools: [ADD] };
    const counted = await client.messages.countTokens(asked);
    const message = await client.messages.create({ ...asked, max_tokens: 9 });
    assert.equal(counted.input_tokens, whole(message.usage));
  }));

test("errors have the library's types", () =>
  withServer(
    ["never said"],
    async (origin) => {
      const messages = question();
      await assert.rejects(
        clientOf(origin).messages.create({ ...BASE, messages }),
        Anthropic.AuthenticationError,
      );
      const client = clientOf(origin, "secret");
      await assert.rejects(
        client.messages.create({ ...BASE, messages: [] }),
        (error) =>
          error instanceof Anthropic.BadRequestError &&
          error.error.error.type === "invalid_request_error",
      );
    },
    ["--api-key", "secret"],
  ));

test("models", () =>
  withServer(["never said"], async (origin) => {
    const names = [];
    for await (const model of clientOf(origin).models.list()) names.push(model.id);
    assert.ok(names.includes("scripted"));
  }));
