"""`/v1/responses` by OpenAI's own library."""

import json

import openai
import pydantic
import pytest

from dsml import thought, tool_calls

ADD = {
    "type": "function",
    "name": "add",
    "description": "Adds numbers",
    "parameters": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "strict": True,
}


def client_of(server):
    return openai.OpenAI(base_url=server.v1, api_key="local", max_retries=0, timeout=60)


def test_an_answer_with_reasoning(serve):
    client = client_of(serve(thought("Simple.", "It is 4.")))
    response = client.responses.create(model="default", input="2+2?", instructions="Be brief.")
    assert response.status == "completed"
    assert response.output_text == "It is 4."
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].content[0].text == "Simple."
    assert response.instructions == "Be brief."
    usage = response.usage
    assert usage.output_tokens_details.reasoning_tokens > 0
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens


def test_the_library_accumulates_the_stream(serve):
    text = thought("Sum.", "Adding." + tool_calls(("add", {"a": 2, "b": 3})))
    client = client_of(serve(text))
    seen = []
    with client.responses.stream(model="default", input="2+3?", tools=[ADD]) as stream:
        for event in stream:
            seen.append(event)
        final = stream.get_final_response()
    kinds = [event.type for event in seen]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    assert [event.sequence_number for event in seen] == sorted(
        {event.sequence_number for event in seen}
    )
    deltas = [event.delta for event in seen if event.type == "response.reasoning_text.delta"]
    assert "".join(deltas) == "Sum."
    assert [item.type for item in final.output] == ["reasoning", "message", "function_call"]
    assert json.loads(final.output[2].arguments) == {"a": 2, "b": 3}
    assert final.output_text.strip() == "Adding."


def test_the_whole_input_is_sent_again(serve):
    first = thought("Sum.", tool_calls(("add", {"a": 2, "b": 3})))
    client = client_of(serve(first, thought("Known.", "5")))
    history = [{"role": "user", "content": "2+3?"}]
    one = client.responses.create(model="default", input=history, tools=[ADD], store=False)
    history += [item.model_dump(exclude_none=True) for item in one.output]
    call = one.output[-1]
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "5"})
    two = client.responses.create(model="default", input=history, tools=[ADD], store=False)
    assert two.output_text == "5"
    cached = two.usage.input_tokens_details.cached_tokens
    assert cached == one.usage.input_tokens + one.usage.output_tokens


def test_a_call_is_answered_by_the_id_of_its_response(serve):
    first = thought("Sum.", tool_calls(("add", {"a": 2, "b": 3}), ("add", {"a": 1, "b": 1})))
    client = client_of(serve(first, thought("Known.", "5 and 2"), thought("Again.", "7")))
    one = client.responses.create(model="default", input="2+3? 1+1?", tools=[ADD])
    calls = [item for item in one.output if item.type == "function_call"]
    assert len(calls) == 2
    two = client.responses.create(
        model="default",
        previous_response_id=one.id,
        tools=[ADD],
        input=[
            {"type": "function_call_output", "call_id": call.call_id, "output": str(result)}
            for call, result in zip(calls, [5, 2])
        ],
    )
    assert two.output_text == "5 and 2"
    assert two.previous_response_id == one.id
    cached = two.usage.input_tokens_details.cached_tokens
    assert cached == one.usage.input_tokens + one.usage.output_tokens
    three = client.responses.create(
        model="default", previous_response_id=two.id, tools=[ADD], input="And their sum?"
    )
    assert three.output_text == "7"


def test_a_call_left_without_its_output_is_refused(serve):
    first = thought("Sum.", tool_calls(("add", {"a": 2, "b": 3})))
    client = client_of(serve(first, "never said"))
    one = client.responses.create(model="default", input="2+3?", tools=[ADD])
    with pytest.raises(openai.BadRequestError) as raised:
        client.responses.create(
            model="default", previous_response_id=one.id, tools=[ADD], input="Well?"
        )
    assert raised.value.param == "input"


def test_responses_are_kept_and_forgotten(serve):
    client = client_of(serve(thought("a", "Kept.")))
    made = client.responses.create(model="default", input="Hello")
    found = client.responses.retrieve(made.id)
    assert found.id == made.id and found.output_text == "Kept."
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="default", input="Go on", previous_response_id=made.id)
    unkept = client.responses.create(model="default", input="Hello", store=False)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(unkept.id)


def test_a_parsed_format(serve):
    class Event(pydantic.BaseModel):
        name: str
        people: list[str]

    value = {"name": "fair", "people": ["Ann", "Bob"]}
    client = client_of(serve(thought("x", json.dumps(value))))
    response = client.responses.parse(model="default", input="Which?", text_format=Event)
    assert response.output_parsed == Event(**value)


@pytest.mark.parametrize("stream", [False, True])
def test_a_custom_tool_gets_free_text(serve, stream):
    patch = "*** Begin Patch\n*** Update File: a.py\n-x = \"1\"\n+x = \"2\"\n*** End Patch"
    text = thought("Patch.", tool_calls(("apply_patch", {"input": patch})))
    client = client_of(serve(text, thought("Done.", "Done.")))
    arguments = {
        "model": "default",
        "input": [{"role": "user", "content": "Fix it."}],
        "tools": [{"type": "custom", "name": "apply_patch", "description": "Edits files"}],
    }
    if stream:
        with client.responses.stream(**arguments) as events:
            kinds = [event.type for event in events]
            one = events.get_final_response()
        assert "response.custom_tool_call_input.done" in kinds
    else:
        one = client.responses.create(**arguments)
    call = one.output[-1]
    assert (call.type, call.name, call.input) == ("custom_tool_call", "apply_patch", patch)
    history = arguments["input"] + [item.model_dump(exclude_none=True) for item in one.output]
    history.append({"type": "custom_tool_call_output", "call_id": call.call_id, "output": "ok"})
    two = client.responses.create(model="default", input=history, tools=arguments["tools"])
    assert two.output_text == "Done."
    cached = two.usage.input_tokens_details.cached_tokens
    assert cached == one.usage.input_tokens + one.usage.output_tokens


def test_a_tool_of_a_namespace_comes_back_under_its_own_name(serve):
    space = {"type": "namespace", "name": "maths", "description": "Sums", "tools": [ADD]}
    text = thought("x", tool_calls(("maths__add", {"a": 1, "b": 2})))
    client = client_of(serve(text, thought("y", "3")))
    question = [{"role": "user", "content": "1+2?"}]
    one = client.responses.create(model="default", input=question, tools=[space])
    call = one.output[-1]
    assert (call.name, call.namespace) == ("add", "maths")
    history = question + [item.model_dump(exclude_none=True) for item in one.output]
    history.append({"type": "function_call_output", "call_id": call.call_id, "output": "3"})
    two = client.responses.create(model="default", input=history, tools=[space])
    assert two.output_text == "3"
    cached = two.usage.input_tokens_details.cached_tokens
    assert cached == one.usage.input_tokens + one.usage.output_tokens


def test_an_answer_that_was_cut_off(serve):
    client = client_of(serve(thought("a", "one two three four five six seven eight nine ten")))
    response = client.responses.create(model="default", input="Count", max_output_tokens=5)
    assert response.status == "incomplete"
    assert response.incomplete_details.reason == "max_output_tokens"
    assert response.usage.output_tokens == 5


def test_bad_requests_name_the_field(serve):
    client = client_of(serve("never said"))
    for wrong, param in [
        ({"temperature": 9}, "temperature"),
        ({"background": True}, "background"),
        ({"reasoning": {"effort": "bogus"}}, "reasoning.effort"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]},
         "input[0].call_id"),
    ]:
        with pytest.raises(openai.BadRequestError) as raised:
            client.responses.create(**{"model": "default", "input": "x", **wrong})
        assert raised.value.param == param
