"""LangChain's chat models, over both dialects."""

import pydantic
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from dsml import thought, tool_calls


@tool
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


class Person(pydantic.BaseModel):
    """A person."""

    name: str
    age: int


def chat(server):
    return ChatOpenAI(model="default", base_url=server.v1, api_key="x", max_retries=0, timeout=60)


def responses(server):
    return ChatOpenAI(
        model="default", base_url=server.v1, api_key="x", max_retries=0, timeout=60,
        use_responses_api=True,
    )


def messages(server):
    return ChatAnthropic(
        model="default", base_url=server.origin, api_key="x", max_retries=0, timeout=60,
        max_tokens=500,
    )


EVERY = pytest.mark.parametrize("model_of", [chat, responses, messages])


@EVERY
def test_a_tool_is_called_and_its_result_used(serve, model_of):
    server = serve(
        thought("Sum.", "Adding." + tool_calls(("add", {"a": 2, "b": 3}))), thought("Known.", "5")
    )
    model = model_of(server).bind_tools([add])
    asked = [HumanMessage("2+3?")]
    first = model.invoke(asked)
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == ("add", {"a": 2, "b": 3})
    result = add.invoke(call)
    assert isinstance(result, ToolMessage) and result.content == "5"
    second = model.invoke([*asked, first, result])
    assert second.text == "5" and not second.tool_calls
    used = second.usage_metadata
    before = first.usage_metadata
    cached = used["input_token_details"]["cache_read"]
    assert cached == before["input_tokens"] + before["output_tokens"]


@EVERY
def test_a_stream(serve, model_of):
    text = thought("Sum.", "Adding." + tool_calls(("add", {"a": 2, "b": 3})))
    model = model_of(serve(text)).bind_tools([add])
    whole = None
    for chunk in model.stream("2+3?"):
        whole = chunk if whole is None else whole + chunk
    assert whole.text.strip() == "Adding."
    assert [call["args"] for call in whole.tool_calls] == [{"a": 2, "b": 3}]


@pytest.mark.parametrize("method", ["json_schema", "json_mode"])
@pytest.mark.parametrize("model_of", [chat, responses])
def test_structured_output_by_format(serve, model_of, method):
    model = model_of(serve(thought("x", '{"name": "Ann", "age": 7}')))
    structured = model.with_structured_output(Person, method=method)
    assert structured.invoke("Who? Answer in JSON.") == Person(name="Ann", age=7)


@EVERY
def test_structured_output_by_a_forced_tool(serve, model_of):
    text = thought("x", tool_calls(("Person", {"name": "Ann", "age": 7})))
    structured = model_of(serve(text)).with_structured_output(Person, method="function_calling")
    assert structured.invoke("Who?") == Person(name="Ann", age=7)
