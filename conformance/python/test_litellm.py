"""litellm's providers for the three dialects."""

import json

import litellm
import pytest

from dsml import thought, tool_calls

ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Adds numbers",
        "parameters": {
            "type": "object",
            "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
            "required": ["a", "b"],
        },
    },
}
QUESTION = [{"role": "user", "content": "2+3?"}]
FIRST = thought("Sum.", tool_calls(("add", {"a": 2, "b": 3})))
PROVIDERS = pytest.mark.parametrize(
    ("model", "origin"),
    [
        ("openai/default", "/v1"),
        ("openai/responses/default", "/v1"),
        ("anthropic/claude-sonnet-4-5", ""),
    ],
)


def ask(server, model, origin, **arguments):
    return litellm.completion(
        model=model, api_base=server.origin + origin, api_key="x", num_retries=0, timeout=60,
        **arguments,
    )


@PROVIDERS
def test_a_call_and_its_result(serve, model, origin):
    server = serve(FIRST, thought("Known.", "5"))
    first = ask(server, model, origin, messages=QUESTION, tools=[ADD])
    message = first.choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments) == {"a": 2, "b": 3}
    assert first.choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "5"}
    second = ask(
        server, model, origin, messages=[*QUESTION, message.model_dump(), result], tools=[ADD]
    )
    assert second.choices[0].message.content == "5"
    cached = second.usage.prompt_tokens_details.cached_tokens
    assert cached == first.usage.prompt_tokens + first.usage.completion_tokens


@PROVIDERS
def test_a_stream(serve, model, origin):
    stream = ask(
        serve(thought("Sum.", "It is 5.")), model, origin, messages=QUESTION, stream=True
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert said == "It is 5."


@PROVIDERS
def test_errors_have_its_types(serve, model, origin):
    server = serve("never said", options=["--api-key", "secret"])
    with pytest.raises(litellm.AuthenticationError):
        ask(server, model, origin, messages=QUESTION)


def test_responses(serve):
    server = serve(thought("Sum.", "It is 5."))
    response = litellm.responses(
        model="openai/default", api_base=server.v1, api_key="x", input="2+3?", timeout=60
    )
    texts = [part.text for item in response.output if item.type == "message" for part in item.content]
    assert texts == ["It is 5."]
