// OpenAI's library for Node: chat completions and responses.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI, { AuthenticationError, BadRequestError, NotFoundError } from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { thought, toolCalls, withServer } from "./server.js";

const PARAMETERS = {
  type: "object",
  properties: { a: { type: "integer" }, b: { type: "integer" } },
  required: ["a", "b"],
  additionalProperties: false,
};
const ADD = {
  type: "function",
  function: { name: "add", description: "Adds numbers", parameters: PARAMETERS },
};
const question = () => [{ role: "user", content: "2+3?" }];
const clientOf = (origin, apiKey = "local") =>
  new OpenAI({ baseURL: `${origin}/v1`, apiKey, maxRetries: 0, timeout: 60_000 });
const CALL = thought("Sum.", `Adding.${toolCalls(["add", { a: 2, b: 3 }])}`);

test("an answer with reasoning", () =>
  withServer([thought("Sum.", "5")], async (origin) => {
    const answer = await clientOf(origin).chat.completions.create({
      model: "default",
      messages: question(),
    });
    assert.equal(answer.choices[0].message.content, "5");
    assert.equal(answer.choices[0].message.reasoning_content, "Sum.");
    assert.equal(answer.choices[0].finish_reason, "stop");
  }));

test("a stream is accumulated, and its call answered", () =>
  withServer([CALL, thought("Known.", "5")], async (origin) => {
    const client = clientOf(origin);
    const stream = client.chat.completions.stream({
      model: "default",
      messages: question(),
      tools: [ADD],
      stream_options: { include_usage: true },
    });
    const first = await stream.finalChatCompletion();
    const { message } = first.choices[0];
    assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { a: 2, b: 3 });
    assert.equal(first.choices[0].finish_reason, "tool_calls");
    const second = await client.chat.completions.create({
      model: "default",
      tools: [ADD],
      messages: [
        ...question(),
        message,
        { role: "tool", tool_call_id: message.tool_calls[0].id, content: "5" },
      ],
    });
    assert.equal(second.choices[0].message.content, "5");
    assert.equal(
      second.usage.prompt_tokens_details.cached_tokens,
      first.usage.prompt_tokens + first.usage.completion_tokens,
    );
  }));

test("runTools runs a tool to the end", () =>
  withServer([CALL, thought("Known.", "5")], async (origin) => {
    const runner = clientOf(origin).chat.completions.runTools({
      model: "default",
      messages: question(),
      tools: [
        {
          type: "function",
          function: {
            name: "add",
            description: "Adds numbers",
            parameters: PARAMETERS,
            parse: JSON.parse,
            function: ({ a, b }) => String(a + b),
          },
        },
      ],
    });
    assert.equal(await runner.finalContent(), "5");
  }));

test("a parsed schema", () =>
  withServer([thought("x", '{"name":"Ann","age":7}')], async (origin) => {
    const Person = z.object({ name: z.string(), age: z.number() });
    const answer = await clientOf(origin).chat.completions.parse({
      model: "default",
      messages: question(),
      response_format: zodResponseFormat(Person, "person"),
    });
    assert.deepEqual(answer.choices[0].message.parsed, { name: "Ann", age: 7 });
  }));

test("responses: a stream, a call, and going on by id", () =>
  withServer([CALL, thought("Known.", "5")], async (origin) => {
    const client = clientOf(origin);
    const tools = [{ type: "function", name: "add", parameters: PARAMETERS, strict: true }];
    const stream = client.responses.stream({ model: "default", input: "2+3?", tools });
    const first = await stream.finalResponse();
    const call = first.output.at(-1);
    assert.equal(call.type, "function_call");
    assert.deepEqual(JSON.parse(call.arguments), { a: 2, b: 3 });
    const second = await client.responses.create({
      model: "default",
      tools,
      previous_response_id: first.id,
      input: [{ type: "function_call_output", call_id: call.call_id, output: "5" }],
    });
    assert.equal(second.output_text, "5");
    assert.equal(
      second.usage.input_tokens_details.cached_tokens,
      first.usage.input_tokens + first.usage.output_tokens,
    );
    assert.equal((await client.responses.retrieve(first.id)).id, first.id);
    await client.responses.delete(first.id);
    await assert.rejects(client.responses.retrieve(first.id), NotFoundError);
  }));

test("errors have the library's types", () =>
  withServer(
    ["never said"],
    async (origin) => {
      const messages = question();
      await assert.rejects(
        clientOf(origin).chat.completions.create({ model: "default", messages }),
        AuthenticationError,
      );
      const client = clientOf(origin, "secret");
      await assert.rejects(
        client.chat.completions.create({ model: "default", messages, n: 2 }),
        (error) => error instanceof BadRequestError && error.param === "n",
      );
      await assert.rejects(
        client.chat.completions.create({ model: "no-such", messages }),
        (error) => error instanceof NotFoundError && error.code === "model_not_found",
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
