"""`/v1/chat/completions` and `/v1/models` by OpenAI's own library."""

import json

import openai
import pydantic
import pytest

from dsml import invocations, thought, tool_calls

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
        },
    },
}
QUESTION = [{"role": "user", "content": "How is the weather in Paris and Rome?"}]


def client_of(server, **options):
    return openai.OpenAI(base_url=server.v1, api_key="local", max_retries=0, timeout=60, **options)


def test_an_answer_with_reasoning(serve):
    client = client_of(serve(thought("Simple sum.", "It is 4.")))
    answer = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": "2+2?"}]
    )
    choice = answer.choices[0]
    assert choice.message.content == "It is 4."
    assert choice.message.reasoning_content == "Simple sum."
    assert choice.message.role == "assistant"
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "stop"
    usage = answer.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert 0 < usage.completion_tokens_details.reasoning_tokens < usage.completion_tokens
    assert answer.object == "chat.completion"


def test_a_stream_adds_up_to_the_answer(serve):
    client = client_of(serve(thought("Let me think. Naïve? 😀", "Four – 四. 😀")))
    reasoning, content, usage, reasons, ids = "", "", None, [], set()
    stream = client.chat.completions.create(
        model="default",
        messages=[{"role": "user", "content": "2+2?"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    for chunk in stream:
        ids.add(chunk.id)
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            if choice.finish_reason:
                reasons.append(choice.finish_reason)
    assert (reasoning, content) == ("Let me think. Naïve? 😀", "Four – 四. 😀")
    assert reasons == ["stop"]
    assert len(ids) == 1
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 0


def test_no_usage_is_streamed_unless_asked_for(serve):
    client = client_of(serve(thought("a", "b")))
    stream = client.chat.completions.create(model="default", messages=QUESTION, stream=True)
    assert all(chunk.usage is None for chunk in stream)


def test_the_librarys_accumulator_of_streams(serve):
    text = thought("Both.", "One moment." + tool_calls(
        ("get_weather", {"city": "Paris", "days": 2}), ("get_weather", {"city": "Rome"})
    ))
    client = client_of(serve(text))
    with client.chat.completions.stream(
        model="default", messages=QUESTION, tools=[WEATHER]
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    message = final.choices[0].message
    assert message.content.strip() == "One moment."
    assert [json.loads(call.function.arguments) for call in message.tool_calls] == [
        {"city": "Paris", "days": 2},
        {"city": "Rome"},
    ]
    assert final.choices[0].finish_reason == "tool_calls"


def test_parallel_calls_and_their_results_continue_the_state(serve):
    first = thought("Both.", "Looking." + tool_calls(
        ("get_weather", {"city": "Paris", "days": 2}), ("get_weather", {"city": "Rome"})
    ))
    client = client_of(serve(first, thought("Sun in both.", "Sunny.")))
    asked = client.chat.completions.create(model="default", messages=QUESTION, tools=[WEATHER])
    message = asked.choices[0].message
    assert asked.choices[0].finish_reason == "tool_calls"
    assert [call.type for call in message.tool_calls] == ["function", "function"]
    assert len({call.id for call in message.tool_calls}) == 2
    again = message.model_dump(exclude_none=True)
    for call in again["tool_calls"]:
        # As clients do: another order of keys, other blanks, a key more, no reasoning.
        arguments = json.loads(call["function"]["arguments"])
        arguments = {"added": False, **dict(reversed(arguments.items()))}
        call["function"]["arguments"] = json.dumps(arguments, indent=1)
    again.pop("reasoning_content")
    results = [
        {"role": "tool", "tool_call_id": call.id, "content": '{"sky": "sunny"}'}
        for call in message.tool_calls
    ]
    told = client.chat.completions.create(
        model="default", messages=[*QUESTION, again, *results], tools=[WEATHER]
    )
    assert told.choices[0].message.content == "Sunny."
    assert told.choices[0].message.reasoning_content == "Sun in both."
    cached = told.usage.prompt_tokens_details.cached_tokens
    assert cached == asked.usage.prompt_tokens + asked.usage.completion_tokens


def test_the_second_question_finds_the_first(serve):
    client = client_of(serve(thought("One.", "First."), thought("Two.", "Second.")))
    first = client.chat.completions.create(model="default", messages=QUESTION)
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    repeated = client.chat.completions.create(model="default", messages=QUESTION)
    # The last token of a prompt is always computed.
    cached = repeated.usage.prompt_tokens_details.cached_tokens
    assert cached == repeated.usage.prompt_tokens - 1 == first.usage.prompt_tokens - 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_text_ends_the_answer_and_is_not_in_it(serve, stream):
    client = client_of(serve(thought("Count END.", "one two END three")))
    answer = client.chat.completions.create(
        model="default", messages=QUESTION, stop=["END"], stream=stream
    )
    if stream:
        chunks = list(answer)
        content = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        reason = [c.choices[0].finish_reason for c in chunks if c.choices][-1]
    else:
        content = answer.choices[0].message.content
        reason = answer.choices[0].finish_reason
    assert (content, reason) == ("one two ", "stop")


def test_the_limit_of_tokens(serve):
    client = client_of(serve(thought("a", "one two three four five six seven eight")))
    answer = client.chat.completions.create(
        model="default", messages=QUESTION, max_completion_tokens=4
    )
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 4


class Step(pydantic.BaseModel):
    explanation: str
    output: int


class Solution(pydantic.BaseModel):
    steps: list[Step]
    final_answer: str


def test_a_parsed_schema(serve):
    value = {"steps": [{"explanation": "add", "output": 4}], "final_answer": "4"}
    client = client_of(serve(thought("Sum.", json.dumps(value))))
    answer = client.chat.completions.parse(
        model="default", messages=QUESTION, response_format=Solution
    )
    assert answer.choices[0].message.parsed == Solution(**value)


def test_parsed_tool_calls(serve):
    class GetWeather(pydantic.BaseModel):
        city: str
        days: int

    client = client_of(serve(thought("x", tool_calls(("GetWeather", {"city": "Oslo", "days": 3})))))
    answer = client.chat.completions.parse(
        model="default", messages=QUESTION, tools=[openai.pydantic_function_tool(GetWeather)]
    )
    call = answer.choices[0].message.tool_calls[0]
    assert call.function.parsed_arguments == GetWeather(city="Oslo", days=3)


def test_a_named_tool_without_thinking(serve):
    # Without thinking the prompt itself opens the block.
    client = client_of(serve(invocations(("get_weather", {"city": "Bern"}))))
    answer = client.chat.completions.create(
        model="default",
        messages=QUESTION,
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        extra_body={"thinking": {"type": "disabled"}},
    )
    (call,) = answer.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Bern"}


def test_a_forced_tool_while_thinking(serve):
    client = client_of(serve(thought("I must.", tool_calls(("get_weather", {"city": "Bern"})))))
    answer = client.chat.completions.create(
        model="default", messages=QUESTION, tools=[WEATHER], tool_choice="required"
    )
    assert answer.choices[0].message.tool_calls[0].function.name == "get_weather"


def test_unknown_fields_are_ignored(serve):
    client = client_of(serve(thought("a", "b")))
    answer = client.chat.completions.create(
        model="default",
        messages=[{"role": "developer", "content": "Be brief."}, *QUESTION],
        user="me",
        store=False,
        metadata={"a": "b"},
        extra_body={"something_new": {"deep": [1]}},
    )
    assert answer.choices[0].message.content == "b"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"n": 2}, "n"),
        ({"temperature": 9}, "temperature"),
        ({"messages": []}, "messages"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}},
         "tool_choice"),
        ({"messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]}]},
         "messages[0].content[0].type"),
    ],
)
def test_bad_requests_name_the_field(serve, wrong, param):
    client = client_of(serve("never said"))
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(**{"model": "default", "messages": QUESTION, **wrong})
    error = raised.value
    assert error.param == param
    assert error.type == "invalid_request_error"
    assert error.body["message"]


def test_errors_have_the_librarys_types(serve):
    server = serve("never said", options=["--api-key", "secret", "--ctx", "300"])
    with pytest.raises(openai.AuthenticationError):
        client_of(server).chat.completions.create(model="default", messages=QUESTION)
    client = openai.OpenAI(base_url=server.v1, api_key="secret", max_retries=0, timeout=60)
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model="no-such-model", messages=QUESTION)
    assert raised.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as raised:
        client.chat.completions.create(
            model="default", messages=[{"role": "user", "content": "word " * 1000}]
        )
    assert raised.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="default", input="x")


def test_models(serve):
    client = client_of(serve("never said"))
    names = [model.id for model in client.models.list()]
    assert "scripted" in names
    assert client.models.retrieve(names[0]).id == names[0]
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_plain_completions(serve):
    client = client_of(serve(" world and more"))
    answer = client.completions.create(model="default", prompt="Hello", max_tokens=20)
    assert answer.choices[0].text == " world and more"
    parts = client.completions.create(model="default", prompt="Hello", max_tokens=20, stream=True)
    assert "".join(part.choices[0].text for part in parts if part.choices) == " world and more"


async def streamed(client):
    stream = await client.chat.completions.create(model="default", messages=QUESTION, stream=True)
    return "".join([c.choices[0].delta.content or "" async for c in stream if c.choices])


def test_several_at_once(serve):
    import asyncio

    server = serve({"text": thought("wait", "said at once"), "token_delay_ms": 5})

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=server.v1, api_key="x", max_retries=0) as client:
            return await asyncio.gather(*[streamed(client) for _ in range(8)])

    assert asyncio.run(all_of_them()) == ["said at once"] * 8
