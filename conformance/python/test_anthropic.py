"""`/v1/messages` and `count_tokens` by Anthropic's own library."""

import anthropic
import pydantic
import pytest

from dsml import invocations, thought, tool_calls

WEATHER = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
        "required": ["city"],
    },
}
QUESTION = [{"role": "user", "content": "How is the weather in Paris and Rome?"}]
BASE = {"model": "default", "max_tokens": 500}


def client_of(server, key="local"):
    return anthropic.Anthropic(base_url=server.origin, api_key=key, max_retries=0, timeout=60)


def whole_prompt(usage):
    return usage.input_tokens + usage.cache_read_input_tokens + usage.cache_creation_input_tokens


def test_an_answer_with_thinking(serve):
    client = client_of(serve(thought("Simple.", "It is 4.")))
    message = client.messages.create(
        **BASE,
        system=[{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}],
        messages=[{"role": "user", "content": "2+2?"}],
        thinking={"type": "adaptive"},
    )
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking == "Simple."
    assert message.content[0].signature
    assert message.content[1].text == "It is 4."
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens > 0


def test_no_thinking(serve):
    client = client_of(serve("It is 4."))
    message = client.messages.create(
        **BASE, messages=QUESTION, thinking={"type": "disabled"}
    )
    assert [block.type for block in message.content] == ["text"]


def test_the_library_accumulates_the_stream(serve):
    text = thought("Both. 😀", "Looking." + tool_calls(
        ("get_weather", {"city": "Paris", "days": 2}), ("get_weather", {"city": "Rome"})
    ))
    client = client_of(serve(text))
    with client.messages.stream(**BASE, messages=QUESTION, tools=[WEATHER]) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_message()
    assert kinds[0] == "message_start" and kinds[-1] == "message_stop"
    assert {"thinking", "signature", "text", "input_json"} <= set(kinds)
    thinking, said, one, two = final.content
    assert thinking.thinking == "Both. 😀" and thinking.signature
    assert said.text.strip() == "Looking."
    assert (one.input, two.input) == ({"city": "Paris", "days": 2}, {"city": "Rome"})
    assert one.id != two.id
    assert final.stop_reason == "tool_use"


def test_results_of_tools_continue_the_state(serve):
    first = thought("Both.", "Looking." + tool_calls(
        ("get_weather", {"city": "Paris", "days": 2}), ("get_weather", {"city": "Rome"})
    ))
    client = client_of(serve(first, thought("Sun.", "Sunny.")))
    asked = client.messages.create(**BASE, messages=QUESTION, tools=[WEATHER])
    blocks = [block.model_dump(exclude_none=True) for block in asked.content]
    calls = [block for block in blocks if block["type"] == "tool_use"]
    for call in calls:
        call["input"] = {"replace_all": False, **call["input"]}
    # Some clients leave the thinking out.
    blocks = [block for block in blocks if block["type"] != "thinking"]
    results = [
        {"type": "tool_result", "tool_use_id": call["id"], "content": "sunny", "is_error": False}
        for call in reversed(calls)
    ]
    told = client.messages.create(
        **BASE,
        tools=[WEATHER],
        messages=[
            *QUESTION,
            {"role": "assistant", "content": blocks},
            {"role": "user", "content": results},
        ],
    )
    assert told.content[-1].text == "Sunny."
    cached = told.usage.cache_read_input_tokens
    assert cached == whole_prompt(asked.usage) + asked.usage.output_tokens


def test_what_coding_agents_send(serve):
    client = client_of(serve(thought("a", "b")))
    message = client.beta.messages.create(
        model="claude-sonnet-4-5",
        max_tokens=32000,
        betas=["context-management-2025-06-27", "effort-2025-11-24"],
        messages=[
            {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
            {"role": "assistant", "content": "Hi."},
            {"role": "user", "content": "Go on."},
            {"role": "system", "content": "The user has opened a file."},
        ],
        tools=[{**WEATHER, "defer_loading": True, "cache_control": {"type": "ephemeral"}}],
        thinking={"type": "adaptive", "display": "summarized"},
        metadata={"user_id": "someone"},
        extra_body={
            "output_config": {"effort": "high"},
            "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        },
    )
    assert message.content[-1].text == "b"


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_sequence_is_reported(serve, stream):
    client = client_of(serve(thought("x", "one two END three")))
    arguments = {**BASE, "messages": QUESTION, "stop_sequences": ["END"]}
    if stream:
        with client.messages.stream(**arguments) as events:
            message = events.get_final_message()
    else:
        message = client.messages.create(**arguments)
    assert message.content[-1].text == "one two "
    assert (message.stop_reason, message.stop_sequence) == ("stop_sequence", "END")


def test_the_limit_of_tokens(serve):
    client = client_of(serve(thought("a", "one two three four five six seven eight")))
    message = client.messages.create(model="default", max_tokens=4, messages=QUESTION)
    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 4


def test_a_forced_tool(serve):
    server = serve(
        thought("I must.", tool_calls(("get_weather", {"city": "Bern"}))),
        invocations(("get_weather", {"city": "Oslo"})),
    )
    client = client_of(server)
    for thinking, city in [("adaptive", "Bern"), ("disabled", "Oslo")]:
        message = client.messages.create(
            **BASE,
            messages=QUESTION,
            tools=[WEATHER],
            tool_choice={"type": "tool", "name": "get_weather"},
            thinking={"type": thinking},
        )
        assert message.content[-1].input == {"city": city}
        assert message.stop_reason == "tool_use"


def test_a_parsed_format(serve):
    class Person(pydantic.BaseModel):
        name: str
        age: int

    client = client_of(serve(thought("x", '{"name": "Ann", "age": 7}')))
    message = client.messages.parse(**BASE, messages=QUESTION, output_format=Person)
    assert message.parsed_output == Person(name="Ann", age=7)


def test_counted_tokens_are_those_of_the_prompt(serve):
    client = client_of(serve(thought("a", "b")))
    asked = {"messages": QUESTION, "tools": [WEATHER], "system": "Be brief."}
    counted = client.messages.count_tokens(model="default", **asked)
    message = client.messages.create(**BASE, **asked)
    assert counted.input_tokens == whole_prompt(message.usage)


def test_errors_have_the_librarys_types(serve):
    server = serve("never said", options=["--api-key", "secret", "--ctx", "300"])
    with pytest.raises(anthropic.AuthenticationError):
        client_of(server).messages.create(**BASE, messages=QUESTION)
    client = client_of(server, "secret")
    with pytest.raises(anthropic.NotFoundError) as raised:
        client.messages.create(model="no-such", max_tokens=5, messages=QUESTION)
    assert raised.value.body["error"]["type"] == "not_found_error"
    for wrong in [
        {"messages": []},
        {"max_tokens": 0},
        {"thinking": {"type": "maybe"}},
        {"messages": [{"role": "user", "content": "word " * 1000}]},
        {"messages": [{"role": "user", "content": [
            {"type": "tool_result", "tool_use_id": "x", "content": "y"}]}]},
    ]:
        with pytest.raises(anthropic.BadRequestError) as raised:
            client.messages.create(**{**BASE, "messages": QUESTION, **wrong})
        assert raised.value.body["type"] == "error"
        assert raised.value.body["error"]["type"] == "invalid_request_error"
        assert raised.value.body["error"]["message"]


def test_models(serve):
    client = client_of(serve("never said"))
    names = [model.id for model in client.models.list()]
    assert "scripted" in names
    assert client.models.retrieve("scripted").display_name


def test_a_slow_prompt_keeps_the_stream_alive(serve):
    client = client_of(serve({"text": thought("a", "b"), "prefill_ms": 6000}))
    with client.messages.stream(**BASE, messages=QUESTION) as stream:
        assert stream.get_final_message().content[-1].text == "b"
